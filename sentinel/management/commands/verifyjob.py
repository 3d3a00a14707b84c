"""`manage.py verifyjob`: verifies a large log, as was asked for in the admin (internal)."""

from __future__ import annotations

from audit.services import verification
from core.jobs import JobCommand


class Command(JobCommand):
    """Works on one verification."""

    help = "Verifies a large log, as was asked for in the admin (internal)."
    work = staticmethod(verification.run)
