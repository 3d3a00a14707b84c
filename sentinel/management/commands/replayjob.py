"""`manage.py replayjob`: works on a replay that was asked for through the API (internal)."""

from __future__ import annotations

from core.jobs import JobCommand
from policies.simulate import jobs


class Command(JobCommand):
    """Works on one replay."""

    help = "Works on a replay that was asked for through the API (internal)."
    work = staticmethod(jobs.run)
