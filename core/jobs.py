"""Work that takes longer than a request: a row that says how far it is, and a process of its own that does it.

Any worker may start a job and any may be asked about it, because all there is to know stands in the row. Deleting the row
cancels the job: whoever works on it sees at the next step that it is gone. A process that fell silent has ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser
from django.db import DatabaseError, InterfaceError, connection, models
from django.utils import timezone

from core import processes
from core.conf import environ

__all__ = [
    "GONE",
    "STATES",
    "Job",
    "JobCancelled",
    "JobCommand",
    "alive",
    "beating",
    "claim",
    "end",
    "settle",
    "start",
    "step",
]

STATES = ("waiting", "running", "done", "failed")
GONE = timedelta(seconds=60)  # silence after which whoever worked on it has ended
BEAT = 5.0
_children: list[subprocess.Popen[bytes]] = []


class JobCancelled(Exception):
    """Somebody wants no more of it."""


class Job(models.Model):
    """What every kind of job has: who wants it, how far it is, and how it ended."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    created_at = models.DateTimeField(default=timezone.now)
    created_by = models.CharField(max_length=150)
    state = models.CharField(max_length=9, choices=[(state, state) for state in STATES], default="waiting")
    done = models.PositiveIntegerField(default=0)
    of = models.PositiveIntegerField(default=0)
    beat_at = models.DateTimeField(default=timezone.now, help_text="When whoever works on it was last heard of.")
    finished_at = models.DateTimeField(null=True, blank=True)
    error = models.TextField(blank=True, default="")

    class Meta:
        abstract = True
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.id} {self.state}"

    @property
    def under_way(self) -> bool:
        return self.state in ("waiting", "running")


J = TypeVar("J", bound=Job)


def start(command: str, job: Job) -> None:
    """Have a job worked on by `manage.py COMMAND ID`, a process that ends with this one."""
    _children[:] = [child for child in _children if child.poll() is None]
    manage = str(Path(settings.BASE_DIR) / "manage.py")
    line = [sys.executable, manage, command, str(job.pk), "--parent", str(os.getpid())]
    _children.append(subprocess.Popen(line, stdin=subprocess.DEVNULL, cwd=settings.BASE_DIR, env=environ.whole()))  # noqa: S603 - our own command


def alive(kind: type[Job]) -> int:
    """Count the jobs of a kind that are under way."""
    rows: Any = kind._default_manager
    found: int = rows.filter(state__in=("waiting", "running"), beat_at__gt=timezone.now() - GONE).count()
    return found


def settle(job: J) -> J:
    """Say of a job whose process has ended that it failed."""
    if job.under_way and job.beat_at < timezone.now() - GONE:
        end(type(job), job.pk, "failed", error="The process that worked on it ended; start it again.")
        rows: Any = type(job)._default_manager
        found: J | None = rows.filter(pk=job.pk).first()
        return found or job  # which somebody may have cancelled meanwhile
    return job


def claim(kind: type[J], job_id: UUID) -> J | None:
    """Take a waiting job; None when it is gone or somebody else has it."""
    rows: Any = kind._default_manager
    if not rows.filter(pk=job_id, state="waiting").update(state="running", beat_at=timezone.now()):
        return None
    found: J | None = rows.filter(pk=job_id).first()
    return found


def step(kind: type[Job], job_id: UUID, **fields: Any) -> None:
    """Write down how far a job is; raises JobCancelled when nobody wants it any more."""
    rows: Any = kind._default_manager
    if not rows.filter(pk=job_id, state="running").update(beat_at=timezone.now(), **fields):
        raise JobCancelled


def end(kind: type[Job], job_id: UUID, state: str, **fields: Any) -> bool:
    """Write down how a job ended; False when it is gone or was over."""
    rows: Any = kind._default_manager
    now = timezone.now()
    open_rows = rows.filter(pk=job_id, state__in=("waiting", "running"))
    return bool(open_rows.update(state=state, finished_at=now, beat_at=now, **fields))


class JobCommand(BaseCommand):
    """A command that works on one job, out of the gateway's way; what it does is one function of the job's id."""

    requires_system_checks = []
    work: Callable[[UUID], object]

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("job", type=UUID)
        parser.add_argument("--parent", type=int, default=0, help="end with this process")

    def handle(self, *args: Any, **options: Any) -> None:
        processes.title(type(self).__module__.rpartition(".")[2])
        # Told to stop, it still says how far it came, and takes an unfinished file away.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        if options["parent"]:
            processes.end_with_parent(options["parent"])
        os.nice(10)
        self.work(options["job"])


@contextmanager
def beating(
    kind: type[Job], job_id: UUID, fields: Callable[[], dict[str, Any]] = dict, every: float = BEAT
) -> Iterator[threading.Event]:
    """Let others hear of this process while it works, and of `fields` with it; what it yields is set when the job is gone.

    A thread with a connection of its own: what it writes down must not wait for a transaction of the work itself.
    """
    over, gone = threading.Event(), threading.Event()
    rows: Any = kind._default_manager

    def beat() -> None:
        try:
            while not over.wait(every) and not gone.is_set():
                try:
                    if not rows.filter(pk=job_id, state="running").update(beat_at=timezone.now(), **fields()):
                        gone.set()
                except (DatabaseError, InterfaceError):
                    connection.close()  # a later beat finds the database again, or the work itself fails
        finally:
            connection.close()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield gone
    finally:
        over.set()
        thread.join()
