"""From the journals to the database: every batch exactly once, whatever dies in between.

One process per installation. It reads each writer's journal as far as that writer has synced, adopts the journals of
writers that died, stores batches by COPY, numbers the events of administrators' acts, and never gives up: while the
database is away or hangs, the journals wait, and the gateway serves on.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import psycopg

from audit.drain import partitions, resumption, rollups
from audit.drain.store import Moved, drain_outbox, store_batch
from audit.journal import retention
from audit.journal.frames import Mark
from audit.journal.reader import BootReader, live_boot, read_mark, segments_of, writers_in
from core.db import connect, connection_parameters

__all__ = ["Drainer", "drain_at_hand", "drainer_runs", "read_status"]

log = logging.getLogger("audit.drainer")

# Where a database is; a callable is asked at each connection, since an embedded server may have moved.
Dsn = str | dict[str, Any] | Callable[[], dict[str, Any]]

# Between rounds that leave nothing behind: a batch has a price of its own (locks, statements, a commit), and nobody sees the
# difference between an event that is a tenth and one that is a quarter of a second old. docs/adr/0006 has figures.
POLL_SECONDS = 0.2
STATEMENT_SECONDS = 15  # longer than this nothing takes that is in order
REPORT_SECONDS = 1.0
SWEEP_SECONDS = 60.0
KEEP_SECONDS = 86_400.0  # of drained segments
SETTLE_SECONDS = 1.0
PARTITION_SECONDS = 3600.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
BATCH_BYTES = 4 * 1024 * 1024
STOP_SECONDS = 10.0
# What may go wrong with partitions without stopping the draining.
PARTITION_ERRORS = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.QueryCanceled,
    psycopg.ProgrammingError,
)


@dataclass(slots=True)
class Boot:
    """One boot of one writer, and how far it is stored."""

    writer: str
    boot: int
    reader: BootReader
    frame: int = -1
    seq: int = 0
    closed: bool = False
    live: bool = True
    mark: Mark | None = None
    seen: int = 0  # where the writer was at the last report
    waiting_since: int = 0  # when the oldest frame that is not stored yet was first seen (µs), 0 when none waits


@dataclass(slots=True)
class DrainStatus:
    """What the drainer tells of itself; written to `drainer.json` for health and metrics."""

    state: str = "starting"
    error: str = ""
    rows: int = 0
    batches: int = 0
    quarantined: int = 0
    backlog_frames: int = 0
    oldest_ts: int = 0
    default_rows: int = 0
    alarms: list[str] = field(default_factory=list)


class Drainer:
    """Drains the journals below `root` into the database that `dsn` names; `own` numbers what the drainer itself tells."""

    def __init__(
        self,
        dsn: Dsn,
        root: Path,
        instance: str,
        *,
        owner_dsn: Dsn | None = None,
        retention_days: int = 0,
        budget: int = 0,
        transaction_seconds: float = 20.0,
        housekeeping: bool = True,
    ) -> None:
        self.dsn, self.owner_dsn = dsn, owner_dsn
        self.root = root
        self.own = f"{instance}-d"
        self.retention_days, self.budget = retention_days, budget
        self.status = DrainStatus()
        self._boots: dict[tuple[str, int], Boot] = {}
        self._connection: psycopg.Connection[Any] | None = None
        self._patience = transaction_seconds
        self._next_report = self._next_sweep = self._next_partitions = self._next_settle = 0.0
        if not housekeeping:
            self._next_sweep = self._next_partitions = math.inf
        self._lock_fd = -1
        self._behind = False  # the last round left frames unread
        self._resumed = False  # a call waits, or was taken up

    @classmethod
    def from_settings(cls, housekeeping: bool = True) -> Drainer:
        """Make the drainer of this installation; without housekeeping it leaves partitions and old segments alone."""
        from django.conf import settings

        config = settings.SENTINEL
        return cls(
            connection_parameters,
            config.var / "journal",
            config.instance,
            owner_dsn=partial(connection_parameters, "owner") if "owner" in settings.DATABASES else None,
            retention_days=config.audit_retention_days,
            budget=config.audit_disk_budget,
            housekeeping=housekeeping,
        )

    # -- running ------------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Drain until told to stop, then what is left as far as it goes."""
        self.take_lock()
        pause = FIRST_PAUSE
        try:
            while not stop.is_set():
                try:
                    worked = self.round()
                except (psycopg.Error, OSError) as error:
                    self._give_up(error)
                    stop.wait(pause)
                    pause = min(pause * 2, LONGEST_PAUSE)
                    continue
                pause = FIRST_PAUSE
                if not (worked and self._behind):
                    stop.wait(POLL_SECONDS)
            self.finish(STOP_SECONDS)
        finally:
            self.close()

    def finish(self, seconds: float) -> bool:
        """Drain until nothing is left; False when the database or the time did not allow it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if not self.round():
                    return True
            except (psycopg.Error, OSError) as error:
                self._give_up(error)
                time.sleep(FIRST_PAUSE)
        return False

    def close(self) -> None:
        """Let go of the database and the lock."""
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
            self._connection = None
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def take_lock(self, seconds: float = 5.0) -> bool:
        """Say that a drainer runs. Correctness does not need it: the positions in the database are what is exact."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self.root / "drainer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() >= deadline:
                    os.close(fd)
                    return False
                time.sleep(0.05)
            else:
                self._lock_fd = fd
                return True

    def round(self) -> bool:
        """Do one batch of everything there is; False when there was nothing to do."""
        boots = self._look()
        connection = self._connected()
        now = time.monotonic()
        worked = self._behind = False
        if now >= self._next_report:
            self._next_report = now + REPORT_SECONDS
            self._read_positions(connection, boots)
            self._report(connection, boots)
        for boot in boots:
            if self._has_work(boot):
                if boot.frame < 0:
                    self._read_positions(connection, boots)
                worked |= self._drain(connection, boot)
        stored = drain_outbox(connection, self.own)
        if now >= self._next_settle or self._resumed:
            self._next_settle, self._resumed = now + SETTLE_SECONDS, False
            behind = any(self._has_work(boot) for boot in boots)
            stored += resumption.settle(connection, self.own, caught_up=not behind)
        self.status.rows += stored
        worked |= stored > 0
        if now >= self._next_partitions:
            self._next_partitions = now + PARTITION_SECONDS
            self._mind_partitions(connection)
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_SECONDS
            retention.sweep(self.root, self._boots.values(), KEEP_SECONDS, self.budget)
        self.status.state, self.status.error = "ok", ""
        return worked

    # -- journals -----------------------------------------------------------------------------------------------------

    def _look(self) -> list[Boot]:
        """See which journals there are, who writes them, and how far they are safe."""
        seen: list[Boot] = []
        for directory in writers_in(self.root):
            live = live_boot(directory)
            for number in sorted(segments_of(directory)):
                key = (directory.name, number)
                boot = self._boots.get(key)
                if boot is None:
                    boot = self._boots[key] = Boot(directory.name, number, BootReader(directory, number))
                boot.live = number == live
                if not boot.closed:
                    boot.mark = read_mark(directory, number)
                seen.append(boot)
        return seen

    def _has_work(self, boot: Boot) -> bool:
        if boot.closed:
            return False
        if boot.live:
            return boot.mark is not None and boot.mark.frame > boot.frame
        return True

    def _drain(self, connection: psycopg.Connection[Any], boot: Boot) -> bool:
        items = boot.reader.read(boot.frame, boot.seq, boot.mark, boot.live, BATCH_BYTES)
        at_end = boot.reader.at_end and not boot.live
        self._behind |= boot.reader.more or not boot.live
        if not items and not at_end:
            return False
        try:
            made, position = store_batch(connection, boot.writer, boot.boot, boot.frame, items, at_end, self.own)
        except Moved:
            boot.frame = -1
            return True
        boot.frame, boot.seq, boot.closed = position.frame, position.seq, position.closed
        self._resumed |= bool(made.resumed) or any(item.until for item in made.open.values())
        self.status.rows += len(made.rows)
        self.status.batches += 1
        if made.torn:
            log.warning("journal of %s.%s: %s", boot.writer, boot.boot, made.torn)
        if made.spoiled:
            self.status.quarantined += len(made.spoiled)
            log.error("%d frames of %s.%s are in quarantine", len(made.spoiled), boot.writer, boot.boot)
        for gap in made.gaps:
            log.error("journal of %s.%s has a gap: %s", boot.writer, boot.boot, gap["gap"])
        return True

    # -- the database -------------------------------------------------------------------------------------------------

    def _connect(self, where: Dsn) -> psycopg.Connection[Any]:
        found = where() if callable(where) else where
        return connect(found, "sentinel-drainer", seconds=STATEMENT_SECONDS, patience=self._patience)

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect(self.dsn)
            for boot in self._boots.values():
                boot.frame, boot.closed = -1, False  # another database may answer now, or the same one, restored
        return self._connection

    def _give_up(self, error: Exception) -> None:
        text = str(error).strip().splitlines()
        message = f"{type(error).__name__}: {text[0] if text else ''}"
        if self.status.error != message:
            log.warning("the database does not take events: %s", message)
        self.status.state, self.status.error = "waiting", message
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
            self._connection = None
        self._write_status([*self._boots.values()])

    def _read_positions(self, connection: psycopg.Connection[Any], boots: list[Boot]) -> None:
        """Learn what is stored: after a reconnection, and now and then in case the database went back in time."""
        rows = connection.execute(
            "SELECT writer, boot, frame, seq, closed_at IS NOT NULL FROM audit_writerposition"
            " WHERE writer = ANY(%s) AND boot = ANY(%s)",
            ([boot.writer for boot in boots], [boot.boot for boot in boots]),
        ).fetchall()
        stored = {(writer, number): rest for writer, number, *rest in rows}
        for boot in boots:
            boot.frame, boot.seq, boot.closed = stored.get((boot.writer, boot.boot), (0, 0, False))

    def _report(self, connection: psycopg.Connection[Any], boots: list[Boot]) -> None:
        """Tell the database how far the writers have come, so that a lost disk shows."""
        news = [
            (boot.mark.frame, boot.mark.seq, boot.writer, boot.boot)
            for boot in boots
            if boot.live and boot.mark is not None and boot.frame > 0
        ]
        if news:
            with connection.transaction(), connection.cursor() as cursor:
                cursor.executemany(
                    "UPDATE audit_writerposition SET reported_frame = greatest(reported_frame, %s),"
                    " reported_seq = greatest(reported_seq, %s), reported_at = now() WHERE writer = %s AND boot = %s",
                    news,
                )
        self._write_status(boots)

    def _mind_partitions(self, connection: psycopg.Connection[Any]) -> None:
        """Make the partitions of the days ahead, drop those past their age, and see whether anything fell between."""
        self.status.alarms = []
        try:
            partitions.ahead(connection)
            rollups.forget(connection)
            self.status.default_rows = partitions.default_rows(connection)
            if self.status.default_rows:
                self.status.alarms.append(f"{self.status.default_rows} events are in the default partition")
            if self.retention_days:
                self._drop_old(connection)
        except PARTITION_ERRORS as error:
            self.status.alarms.append(f"partitions: {str(error).splitlines()[0]}")
            log.error("partitions: %s", error)

    def _drop_old(self, connection: psycopg.Connection[Any]) -> None:
        owner = connection
        if self.owner_dsn:
            owner = self._connect(self.owner_dsn)
        try:
            dropped = partitions.drop_old(owner, self.retention_days)
        except psycopg.errors.InsufficientPrivilege:
            self.status.alarms.append("old partitions are kept: this role does not own the log")
            return
        finally:
            if owner is not connection:
                owner.close()
        for name in dropped:
            log.info("partition %s was dropped by age", name)

    def _write_status(self, boots: list[Boot]) -> None:
        """Publish the state beside the journals."""
        behind = [boot for boot in boots if boot.mark is not None and not boot.closed and boot.mark.frame > boot.frame]
        self.status.backlog_frames = sum(boot.mark.frame - max(boot.frame, 0) for boot in behind if boot.mark)
        now = time.time_ns() // 1000
        for boot in behind:
            if not boot.waiting_since or boot.frame >= boot.seen:
                boot.waiting_since = now  # all that was there at the last report is stored
            boot.seen = boot.mark.frame if boot.mark else 0
        self.status.oldest_ts = min((boot.waiting_since for boot in behind), default=0)
        status = self.status
        document = {
            "ts": now,
            "pid": os.getpid(),
            **{name: getattr(status, name) for name in DrainStatus.__slots__},
        }
        temporary = self.root / "drainer.json.new"
        with suppress(OSError):
            temporary.write_bytes(orjson.dumps(document))
            temporary.replace(self.root / "drainer.json")


def read_status(root: Path) -> dict[str, Any]:
    """Read what the drainer last told of itself; empty when none ever ran."""
    try:
        status: dict[str, Any] = orjson.loads((root / "drainer.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return status


def drainer_runs(root: Path) -> bool:
    try:
        fd = os.open(root / "drainer.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def drain_at_hand(seconds: float = 10.0) -> bool:
    """Store what is at hand, for a command that reads the log while no drainer runs."""
    drainer = Drainer.from_settings(housekeeping=False)
    if drainer_runs(drainer.root):
        time.sleep(POLL_SECONDS * 3)
        return True
    if not drainer.take_lock(0.2):
        return True
    try:
        return drainer.finish(seconds)
    finally:
        drainer.close()
