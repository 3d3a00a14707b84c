"""`manage.py drain`: the process that brings journals into the database; started by `serve`, ends with it."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import threading
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from audit.drain.drainer import Drainer
from audit.redaction import loading

PR_SET_PDEATHSIG = 1
PARENT_SECONDS = 0.5


class Command(BaseCommand):
    """Drain the journals into the database until told to stop."""

    help = "Bring the journals into the database (run by `serve`; ends with its parent)."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--parent", type=int, default=0, metavar="PID", help="End when this process has ended.")
        parser.add_argument("--once", action="store_true", help="Store what is there, and end.")

    def handle(self, *args: Any, **options: Any) -> None:
        drainer = Drainer.from_settings()
        if options["once"]:
            loading.ensure()
            drainer.take_lock()
            try:
                if not drainer.finish(60.0):
                    raise CommandError(f"the database does not take events: {drainer.status.error}")
            finally:
                drainer.close()
            self.stdout.write(f"{drainer.status.rows} events stored")
            return
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        if parent := options["parent"]:
            end_with(parent, stop)
        # A batch is thousands of objects that no collection would free any sooner than their last use does.
        gc.freeze()
        gc.set_threshold(100_000)
        # A journal that waited may be older than the rules.
        loading.follow(settings.SENTINEL.dsn, stop)
        drainer.run(stop)


def end_with(parent: int, stop: threading.Event) -> None:
    """Stop when the parent is gone, at once where the kernel tells, within half a second otherwise."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    except (AttributeError, OSError):  # not Linux: the look below is enough
        pass

    def watch() -> None:
        while not stop.wait(PARENT_SECONDS):
            if os.getppid() != parent:
                stop.set()

    if os.getppid() != parent:
        stop.set()
    threading.Thread(target=watch, name="parent", daemon=True).start()
