"""`manage.py exportjob`: writes a large export that was asked for in the admin (internal)."""

from __future__ import annotations

from audit.export import jobs
from core.jobs import JobCommand


class Command(JobCommand):
    """Works on one export."""

    help = "Writes a large export that was asked for in the admin (internal)."
    work = staticmethod(jobs.run)
