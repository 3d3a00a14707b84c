"""Internal: one worker process of `serve`."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from sentinel.observability import logs
from sentinel.server import worker


class Command(BaseCommand):
    """Serve on a socket that was handed down; started by `serve` alone."""

    help = "Internal: one worker process of `serve`."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--fd", type=int, required=True, help="the listening socket")
        parser.add_argument("--slot", type=int, required=True, help="which worker this is, from 1")
        parser.add_argument("--ready-fd", type=int, default=-1, help="where to say that it is ready")
        parser.add_argument("--parent", type=int, required=True, help="the process to end with")

    def handle(self, *args: Any, **options: Any) -> None:
        logs.configure(settings.SENTINEL.log_level)
        worker.run(
            settings.SENTINEL,
            descriptor=options["fd"],
            slot=options["slot"],
            ready=options["ready_fd"],
            parent=options["parent"],
        )
