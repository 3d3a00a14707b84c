"""`manage.py replayjob`: works on a replay that was asked for through the API (internal)."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand

from core import processes
from policies.simulate import jobs


class Command(BaseCommand):
    """Works on one replay, out of the gateway's way."""

    help = "Works on a replay that was asked for through the API (internal)."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare what it is told."""
        parser.add_argument("job", type=UUID)
        parser.add_argument("--parent", type=int, default=0, help="end with this process")

    def handle(self, *args: Any, **options: Any) -> None:
        """Work."""
        processes.title("replayjob")
        if options["parent"]:
            processes.end_with_parent(options["parent"])
        os.nice(10)
        jobs.run(options["job"])
