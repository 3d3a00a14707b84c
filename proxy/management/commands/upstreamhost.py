"""Internal: the process of `serve` that holds what all workers share of upstreams."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from typing import Any

import uvloop
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from proxy.upstreams import host
from proxy.upstreams.registry import host_folder


class Command(BaseCommand):
    """Run stdio upstreams and old HTTP+SSE sessions for every worker; started by `serve` alone."""

    help = "Internal: runs stdio upstreams and old HTTP+SSE sessions for every worker; started by `serve` alone."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--parent", type=int, default=0, help="the process to end with")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do the work until told to stop, or until the parent is gone."""
        parent = options["parent"]
        try:
            uvloop.run(
                host.run(host_folder(settings.SENTINEL), stopped=lambda: bool(parent) and os.getppid() != parent)
            )
        except BlockingIOError:
            raise CommandError("another process already holds the upstreams of this SENTINEL_VAR.") from None
