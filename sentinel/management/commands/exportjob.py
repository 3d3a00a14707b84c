"""`manage.py exportjob`: writes a large export that was asked for in the admin (internal)."""

from __future__ import annotations

import os
import signal
import sys
from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand

from audit.export import jobs
from core import processes


class Command(BaseCommand):
    """Works on one export, out of the gateway's way."""

    help = "Writes a large export that was asked for in the admin (internal)."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare what it is told."""
        parser.add_argument("job", type=UUID)
        parser.add_argument("--parent", type=int, default=0, help="end with this process")

    def handle(self, *args: Any, **options: Any) -> None:
        """Work."""
        processes.title("exportjob")
        # Told to stop, it still says how far it came and takes the unfinished file away.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        if options["parent"]:
            processes.end_with_parent(options["parent"])
        os.nice(10)
        jobs.run(options["job"])
