"""`manage.py verifyjob`: verifies a large log, as was asked for in the admin (internal)."""

from __future__ import annotations

import os
import signal
import sys
from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand

from audit.services import verification
from core import processes


class Command(BaseCommand):
    """Works on one verification, out of the gateway's way."""

    help = "Verifies a large log, as was asked for in the admin (internal)."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare what it is told."""
        parser.add_argument("job", type=UUID)
        parser.add_argument("--parent", type=int, default=0, help="end with this process")

    def handle(self, *args: Any, **options: Any) -> None:
        """Work."""
        processes.title("verifyjob")
        # Told to stop, it still says so.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        if options["parent"]:
            processes.end_with_parent(options["parent"])
        os.nice(10)
        verification.run(options["job"])
