"""Large exports: written into a file by a process of its own, a slice of time after the other, and fetched from there.

The file lies below SENTINEL_VAR for a day, readable by nobody else. Memory stays flat whatever its size; so does what the
database holds back for it, because each slice is a transaction of its own.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from audit.export import formats
from audit.export.stream import matching
from audit.filters import Filters
from audit.models import AuditEvent, ExportJob
from audit.services.acts import record_act
from core import jobs
from core.access.actors import Actor
from core.ids import ts_of

__all__ = [
    "LARGE",
    "LIFE",
    "MOST",
    "TooManyExports",
    "ask",
    "cancel",
    "estimate",
    "forget_old",
    "path_of",
    "run",
    "sweep",
]

log = logging.getLogger("sentinel.audit")

LARGE = 50_000  # events; what is smaller is streamed at once
MOST = 2  # at once
LIFE = timedelta(hours=24)
STALE = timedelta(hours=1)  # a part that nobody has written to for so long
SAY_SECONDS = 1.0
LOOK_BYTES = 16 << 20  # how often the room on the disk is looked at
LOCK = 0x6578706F7274  # "export": so that two that come at once are counted one after the other
LEAST_FREE = 2 << 30  # bytes: the journal lies on the same disk, and comes first


class TooManyExports(Exception):
    """As many exports as may run are running."""


class NoRoom(Exception):
    """The disk has no room left for this."""


def estimate(filters: Filters) -> int:
    """Return about how many events a view has, as the planner sees it; nothing is read."""
    plan = json.loads(matching(filters).values("id").explain(format="json"))
    return int(plan[0]["Plan"]["Plan Rows"])


def path_of(job_id: UUID) -> Path:
    """Return where an export's file lies when it is complete."""
    var: Path = settings.SENTINEL.var
    return var / "exports" / str(job_id)


def ask(filters: Filters, fmt: str, who: Actor, about: int) -> ExportJob:
    """Have an export made; raises Busy."""
    now = timezone.now()
    low = filters.bounds(now)[0]
    if low is None:
        low = AuditEvent.objects.order_by("id").values_list("id", flat=True).first()
    since = datetime.fromtimestamp(ts_of(low) / 1e6, UTC) if low else now
    until = min(filters.end, now) if filters.end else now
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        if jobs.alive(ExportJob) >= MOST:
            raise TooManyExports
        job = ExportJob.objects.create(
            created_by=who.name[:150], user_id=who.user_id or 0, actor=who.kept(), format=fmt, filter=filters.describe(),
            since=since, until=until, about=about,
        )  # fmt: skip
        details = {"filter": job.filter, "format": fmt, "file": str(job.pk)}
        record_act(method="admin.events.exported", actor=who, target=fmt, details=details)
        transaction.on_commit(lambda: jobs.start("exportjob", job))
    return job


def cancel(job: ExportJob) -> None:
    """Stop an export, or delete its file."""
    ExportJob.objects.filter(pk=job.pk).delete()
    path_of(job.pk).unlink(missing_ok=True)


def run(job_id: UUID) -> None:
    """Work on an export until it is over; an event says how it ended and how much is in the file."""
    job = jobs.claim(ExportJob, job_id)
    if job is None:
        return
    path = path_of(job_id)
    part = path.with_suffix(".part")
    work = _Work(job, part)
    complete, error = False, "The process that worked on it ended; start it again."
    try:
        with jobs.beating(ExportJob, job_id, work.progress, SAY_SECONDS) as gone:
            work.write(gone)
        os.replace(part, path)
        complete, error = True, ""
    except jobs.JobCancelled:
        error = "Cancelled."
    except NoRoom:
        error = "The disk has not enough room for this file. Narrow the view, or take it as a stream."
    except Exception:
        # Whatever it was, whoever waits for the file must hear that there will be none.
        log.exception("an export failed")
        error = "Something went wrong; the log of the gateway says what."
    finally:
        part.unlink(missing_ok=True)
        told = jobs.end(
            ExportJob, job_id, "done" if complete else "failed", error=error, events=work.events, bytes=work.bytes
        )
        if not told:  # cancelled at the last moment
            complete = False
            path.unlink(missing_ok=True)
        about = {"filter": job.filter, "format": job.format, "file": str(job_id)}
        done = {**about, "bytes": work.bytes, "count": work.events, "complete": complete}
        record_act(method="admin.events.export.ended", actor=Actor(**job.actor), target=job.format, details=done)


def forget_old() -> None:
    """Forget exports whose file is gone by age."""
    sweep(settings.SENTINEL.var)
    ExportJob.objects.filter(beat_at__lt=timezone.now() - 2 * LIFE).delete()


def sweep(var: Path, now: float | None = None) -> int:
    """Delete files past their life and parts that nobody writes any more; gives how many."""
    now = time.time() if now is None else now
    deleted = 0
    for path in (var / "exports").glob("*"):
        life = STALE if path.suffix == ".part" else LIFE
        with suppress(OSError):
            if now - path.stat().st_mtime > life.total_seconds():
                path.unlink()
                deleted += 1
    return deleted


def _filters(job: ExportJob) -> Filters:
    """Return an export's conditions beside its time."""
    values = {name: value for name, value in job.filter.items() if name not in ("q", "range", "from", "to")}
    return Filters.of(values, text=job.filter.get("q", ""))


def _slices(since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Cut a time into two hundred slices, of at most a day and at least ten minutes."""
    step = min(max((until - since) / 200, timedelta(minutes=10)), timedelta(days=1))
    while since < until:
        yield since, min(since + step, until)
        since += step


class _Work:
    """One export being written."""

    def __init__(self, job: ExportJob, part: Path) -> None:
        self.job, self.part = job, part
        self.events = self.bytes = 0
        self.reached: datetime = job.since

    def write(self, gone: threading.Event) -> None:
        """Write the whole file; stop where nobody wants it any more or the disk runs full."""
        self.part.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(self.part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        looked = 0
        with os.fdopen(descriptor, "wb") as file:
            for piece in formats.gathered(formats.FORMATS[self.job.format](self._rows(gone))):
                file.write(piece)
                self.bytes += len(piece)
                if self.bytes - looked >= LOOK_BYTES:
                    looked = self.bytes
                    _demand_room(self.part.parent)
                if gone.is_set():
                    raise jobs.JobCancelled
            file.flush()
            os.fsync(descriptor)

    def progress(self) -> dict[str, Any]:
        """Say how far it is, by time: how many events are still to come nobody knows."""
        whole = (self.job.until - self.job.since).total_seconds() or 1.0
        passed = (self.reached - self.job.since).total_seconds()
        share = round(1000 * min(max(passed / whole, 0.0), 1.0))
        return {"done": share, "of": 1000, "events": self.events, "bytes": self.bytes, "reached": self.reached}

    def _rows(self, gone: threading.Event) -> Iterator[formats.Row]:
        filters = _filters(self.job)
        for start, end in _slices(self.job.since, self.job.until):
            for row in formats.rows(matching(replace(filters, start=start, end=end))):
                self.events += 1
                self.reached = row["ts"]
                yield row
            # Where nothing matches nothing is written: cancelling must not have to wait for the next event.
            if gone.is_set():
                raise jobs.JobCancelled
            self.reached = end


def _demand_room(folder: Path) -> None:
    usage = shutil.disk_usage(folder)
    if usage.free < min(LEAST_FREE, usage.total // 10):
        raise NoRoom
