"""The local write-ahead log of one process: what it says is on disk, is on disk.

    <var>/journal/<writer>/lock                                  held (flock) while the writer lives; names its boot
    <var>/journal/<writer>/<boot>.mark                           how far that boot has synced
    <var>/journal/<writer>/<boot>-<index>-<first frame>.seg      segments, preallocated, truncated when full
    <var>/journal/<writer>/spare-N                               space reserved for the outcomes of calls under way

One thread writes: it takes whatever has come in, writes it with one call, syncs, and wakes all who wait with one call into
the event loop. Whatever comes in meanwhile rides the next round (natural batching). After a write or a sync has failed, its
file is never touched again: what was not synced goes, under the same numbers, into a new file whose head names the old
one's last good place.

What callers get is a ticket (tickets.py); the files set aside for what is still to come are in preallocation.py.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import mmap
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from audit.journal import frames
from audit.journal.frames import MARK_SIZE, Kind, Mark
from audit.journal.preallocation import SEGMENT_BYTES, Segment, Space
from audit.journal.reader import last_of
from audit.journal.tickets import JournalFull, JournalUnavailable, Ticket

__all__ = ["Journal", "segment_name"]

HEADER_KIND = 24  # where a frame's header says its kind
RETRY_SECONDS = 0.25
HANG_SECONDS = 5.0
HANGS = "the journal's device does not answer"
LOOK_SECONDS = 0.5
CALL_ROOM = (
    24 * 1024
)  # what the outcome of a call takes at most: its answer (8 KiB, escaped), the decision, the details
LOCK_SECONDS = 5.0
GATHER_TURNS = 8  # turns of a busy event loop that one batch is gathered over, at most


def segment_name(boot: int, index: int, first: int) -> str:
    """Name a segment so that names sort as they were written."""
    return f"{boot:016d}-{index:08d}-{first:012d}.seg"


class Journal:
    """The journal of one writer; one per process. `append` is cheap and safe from any thread.

    `write` and `sync` are os.pwrite and os.fdatasync unless a test says otherwise; `budget` bounds the whole journal
    folder of the installation (0: no bound).
    """

    def __init__(
        self,
        directory: Path | str,
        writer: str,
        *,
        boot: int | None = None,
        fsync: bool = True,
        segment_bytes: int = SEGMENT_BYTES,
        budget: int = 0,
        write: Callable[[int, bytes, int], int] = os.pwrite,
        sync: Callable[[int], None] = os.fdatasync,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self.root = Path(directory)
        self.directory = self.root / writer
        self.writer = writer
        self.fsync = fsync
        self.segment_bytes = segment_bytes
        self.budget = budget
        self._write, self._sync, self._now = write, sync, now
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._dir_fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._lock_fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalUnavailable(f"the journal {self.directory} cannot be opened: {error.strerror}") from error
        self._take_lock()

        before = last_of(self.directory)
        self.boot = max(boot if boot is not None else now() // 1000, before[0] + 1)
        os.pwrite(self._lock_fd, f"{self.boot:020d} {os.getpid():010d}\n".encode(), 0)

        self.synced = 0  # the number of the last frame that is safe
        self.synced_seq = 0
        self.batches = 0
        self._lock = threading.Lock()
        self._number = 0
        self._seq = 0
        self._pending: list[tuple[int, int, bytes, bytes]] = []
        self._pending_bytes = 0
        self._unsynced: list[tuple[int, int, bytes, bytes]] = []
        self._amendments: dict[int, bytes] = {}
        self.reserved = 0  # bytes that outcomes of calls under way may take
        self._error: OSError | None = None
        self._failed_to = 0
        self._full: OSError | None = None
        self._closing = False
        self._closed = False
        self._sleeping = False
        self._gathering = False
        self._bell = threading.Lock()
        self._bell.acquire()
        self._waiting: dict[asyncio.AbstractEventLoop, list[tuple[int, asyncio.Future[None], bool]]] = {}
        self._busy_since = 0.0  # when the writer's thread went to the device, by the clock that only goes forward
        self._synced_changed = threading.Condition()
        self._blocked = 0

        self._segment: Segment | None = None
        self._previous: dict[str, Any] | None = None
        self._next_index = 1
        self._space = Space(self.directory, self._dir_fd, segment_bytes, budget, fsync)
        self._mark_fd = os.open(self.directory / f"{self.boot:016d}.mark", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._mark_fd, MARK_SIZE)
        self._mark = mmap.mmap(self._mark_fd, MARK_SIZE)

        first = orjson.dumps(
            {
                "writer": writer,
                "boot": self.boot,
                "pid": os.getpid(),
                "host": os.uname().nodename,
                "ts": now() // 1000,
                "fsync": fsync,
                "prev_boot": before[0],
                "prev_frame": before[1],
                "prev_seq": before[2],
            }
        )
        ticket = self.append(Kind.BOOT, first)
        self._thread = threading.Thread(target=self._run, name=f"journal {writer}", daemon=True)
        self._thread.start()
        try:
            ticket.wait(10.0)
        except JournalUnavailable:
            self.close(0.5)
            raise

    # -- what callers do ------------------------------------------------------------------------------------------------

    def append(self, kind: int, payload: bytes, opens: bool = False, release: int = 0) -> Ticket:
        """Queue one frame and give its ticket; `opens` gives out the next event number, `release` gives room back."""
        with self._lock:
            return self._append(kind, payload, opens, release)

    def _append(self, kind: int, payload: bytes, opens: bool, release: int = 0) -> Ticket:
        if self._closed:
            raise JournalUnavailable("the journal is closed")
        self._number = number = self._number + 1
        if opens:
            self._seq += 1
        self._pending.append((number, self._seq, frames.encode(kind, number, self._seq, payload, opens), payload))
        self._pending_bytes += len(payload) + frames.HEADER.size
        self.reserved -= release
        if self._sleeping:
            loop = asyncio._get_running_loop()
            if loop is None:
                self._ring()
            elif not self._gathering:
                self._gathering = True
                loop.call_soon(self._gather, loop, number, GATHER_TURNS)
        return Ticket(self, number)

    def _ring(self) -> None:
        """Wake the writer's thread (the lock is held)."""
        if self._sleeping:
            self._sleeping = False
            self._bell.release()

    def _gather(self, loop: asyncio.AbstractEventLoop, seen: int, turns: int) -> None:
        """Wake the writer once the event loop has no more for it, so that what it is busy with shares one sync."""
        with self._lock:
            if turns and self._number > seen and not self._closing:
                loop.call_soon(self._gather, loop, self._number, turns - 1)
                return
            self._gathering = False
            self._ring()

    def amend(self, kind: int, mentions: bytes, payload: bytes) -> bool:
        """Replace the payload of a frame that waits in memory because the device failed; False when there is none.

        Nobody was told that such a frame is safe, so it may still say something else. Only looked for after a failure.
        """
        with self._lock:
            for number, _, header, waiting in [*self._unsynced, *self._pending]:
                if header[HEADER_KIND] == kind and mentions in waiting:
                    self._amendments[number] = payload
                    return True
        return False

    def open_event(
        self, kind: int, make: Callable[[int], bytes], reserve: int = 0, must: bool = False
    ) -> tuple[int, Ticket]:
        """Give out the next event number and queue its frame, made by `make(seq)`; with room reserved for its outcome.

        Raises JournalFull, and gives out nothing, when there is no room; `must` is for what uses the room kept for it.
        """
        with self._lock:
            if not must:
                self._check_room(reserve)
            seq = self._seq + 1
            payload = make(seq)
            self.reserved += reserve
            return seq, self._append(kind, payload, True)

    def _check_room(self, more: int) -> None:
        if self.hangs:
            raise JournalUnavailable(HANGS)
        if self._error is not None:
            raise JournalUnavailable(f"the journal cannot be written: {os.strerror(self._error.errno or errno.EIO)}")
        if self._full is not None and self.room - self.reserved - more < self.margin:
            raise JournalFull(f"the journal has no room: {os.strerror(self._full.errno or errno.ENOSPC)}")

    @property
    def seq(self) -> int:
        """The last event number given out."""
        return self._seq

    @property
    def failing(self) -> bool:
        """Whether the device refuses what is written now, or does not answer."""
        return self._error is not None or self.hangs

    @property
    def hangs(self) -> bool:
        """Whether the device has been silent for longer than anybody should wait before a call."""
        since = self._busy_since
        return since > 0 and time.monotonic() - since > HANG_SECONDS

    def give_up(self) -> None:
        """End the waiting of this loop's calls that nothing was done for, when the device hangs; to be called now and then.

        What has happened already waits on: an outcome that may yet become durable cannot be told as anything else.
        """
        waiting = self._waiting.get(asyncio.get_running_loop())
        if waiting and self.hangs:
            for _, future, patient in waiting:
                if not patient and not future.done():
                    future.set_exception(JournalUnavailable(HANGS))

    @property
    def usable(self) -> bool:
        """Whether a call could be taken now."""
        with self._lock:
            try:
                self._check_room(CALL_ROOM)
            except JournalUnavailable:
                return False
            return not self._closed

    @property
    def margin(self) -> int:
        """Room that calls never get: it is for refusals to be counted in."""
        return min(self.segment_bytes // 4, 1024 * 1024)

    @property
    def room(self) -> int:
        """Bytes that are on the disk already, waiting to be written."""
        segment = self._segment
        free = 0 if segment is None else segment.capacity - segment.offset
        return free + self._space.capacity - self._pending_bytes

    def failure(self, number: int) -> JournalUnavailable | None:
        """Say why a frame is not safe, when that is known."""
        if self._error is not None and number <= self._failed_to:
            return JournalUnavailable(f"the journal cannot be written: {os.strerror(self._error.errno or errno.EIO)}")
        if self._closed and number > self.synced:
            return JournalUnavailable("the journal is closed")
        return None

    def enlist(self, loop: asyncio.AbstractEventLoop, number: int, future: asyncio.Future[None], patient: bool) -> None:
        """Have a future of this loop settled once a frame is safe, or known not to be."""
        waiting = self._waiting.get(loop)
        if waiting is None:
            waiting = self._waiting[loop] = []
        waiting.append((number, future, patient))

    def block(self, settled: Callable[[], bool], timeout: float | None) -> bool:
        """Keep a thread until something is settled; False when it took too long."""
        with self._synced_changed:
            self._blocked += 1
            try:
                return self._synced_changed.wait_for(settled, timeout)
            finally:
                self._blocked -= 1

    def close(self, timeout: float = 10.0) -> None:
        """Write what is queued, say goodbye, and let go of the files."""
        with self._lock:
            if self._closing:
                return
            if self._error is None:
                self._append(Kind.CLOSE, orjson.dumps({"seq": self._seq, "ts": self._now() // 1000}), False)
            self._closing = True
            self._ring()
        self._thread.join(timeout)
        self._closed = True
        self._wake()
        if self._thread.is_alive():
            return  # the device hangs; the files stay with the thread
        segment = self._segment
        if segment is not None:
            with suppress(OSError):
                os.ftruncate(segment.fd, segment.offset)
            os.close(segment.fd)
        self._space.close()
        self._mark.close()
        for fd in (self._mark_fd, self._lock_fd, self._dir_fd):
            os.close(fd)

    # -- the writer's thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            batch = self._take()
            if batch is None:
                return
            self._busy_since = time.monotonic()
            if batch or self._unsynced:
                self._unsynced += batch
                self._commit()
            self._make_room()
            self._busy_since = 0.0

    def _take(self) -> list[tuple[int, int, bytes, bytes]] | None:
        """Wait for frames; an empty list says that it is time to try again, None that all is done."""
        timeout = LOOK_SECONDS  # in case the event loop that was to ring has ended
        with self._lock:
            if self._pending:
                batch, self._pending = self._pending, []
                return batch
            if self._closing:
                return None
            if self._error is not None or self._full is not None:
                timeout = RETRY_SECONDS
            self._sleeping = True
        rung = self._bell.acquire(timeout=timeout)
        with self._lock:
            if not rung and not self._sleeping:
                self._bell.acquire()  # it rang between the time-out and this line
            self._sleeping = False
            if not rung:
                self._gathering = False
            batch, self._pending = self._pending, []
            return batch

    def _commit(self) -> None:
        """Make all that is not safe yet safe, in a new file if the old one fails; wake those who wait."""
        was_broken = self._error is not None
        if self._amendments:
            self._apply_amendments()
        for attempt in (1, 2):
            try:
                self._write_unsynced()
            except OSError as error:
                self._abandon_segment()
                if attempt == 2 or was_broken:
                    self._failed_to = self._unsynced[-1][0]
                    self._error = error
                    self._wake()
                    if was_broken or self._closing:
                        return
            else:
                self._error = None
                self._wake()
                return

    def _apply_amendments(self) -> None:
        with self._lock:
            for place, (number, seq, header, before) in enumerate(self._unsynced):
                payload = self._amendments.pop(number, None)
                if payload is not None:
                    self._unsynced[place] = (
                        number,
                        seq,
                        frames.encode(header[HEADER_KIND], number, seq, payload),
                        payload,
                    )
                    self._pending_bytes += len(payload) - len(before)
            self._amendments = {number: payload for number, payload in self._amendments.items() if number > self.synced}

    def _write_unsynced(self) -> None:
        queue = self._unsynced
        while queue:
            segment = self._segment or self._open_segment(queue[0][0])
            room = segment.capacity - segment.offset
            size = taken = 0
            parts: list[bytes] = []
            for _, _, header, payload in queue:
                length = len(header) + len(payload)
                if size + length > room:
                    break
                parts += (header, payload)
                size += length
                taken += 1
            if not taken:
                self._finish_segment(segment)
                continue
            self._write_all(segment.fd, b"".join(parts), segment.offset)
            if self.fsync:
                self._sync(segment.fd)
            segment.offset += size
            self.batches += 1
            number, seq = queue[taken - 1][:2]
            del queue[:taken]
            with self._lock:
                self._pending_bytes -= size
            self._publish(segment, number, seq)

    def _write_all(self, fd: int, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            written = self._write(fd, view, offset)  # type: ignore[arg-type]
            if written <= 0:
                raise OSError(errno.EIO, "nothing was written")
            view = view[written:]
            offset += written

    def _publish(self, segment: Segment, number: int, seq: int) -> None:
        """Say how far it is safe to read: in shared memory, so that a killed process has said it too."""
        self._mark[:] = Mark(self.boot, segment.index, segment.offset, number, seq, self._now() // 1000).encode()
        self.synced_seq = seq
        self.synced = number

    def _open_segment(self, first: int) -> Segment:
        needed = len(self._unsynced[0][2]) + len(self._unsynced[0][3]) + 4096
        spare = self._space.take(needed)
        index = self._next_index
        self._next_index += 1
        name = segment_name(self.boot, index, first)
        try:
            os.rename(spare.name, name, src_dir_fd=self._dir_fd, dst_dir_fd=self._dir_fd)
            head = {"writer": self.writer, "boot": self.boot, "index": index, "first": first, "prev": self._previous}
            payload = orjson.dumps(head)
            data = frames.encode(Kind.SEGMENT, first, 0, payload) + payload
            self._write_all(spare.fd, data, 0)
            if self.fsync:
                self._sync(spare.fd)
                os.fsync(self._dir_fd)
        except OSError:
            os.close(spare.fd)
            raise
        segment = Segment(spare.fd, name, index, spare.capacity)
        segment.offset = len(data)
        self._segment = segment
        self._previous = None
        return segment

    def _finish_segment(self, segment: Segment) -> None:
        """Leave a full segment: the space it did not use goes back to the disk."""
        self._previous = {"index": segment.index, "offset": segment.offset, "whole": True}
        self._segment = None
        with suppress(OSError):
            os.ftruncate(segment.fd, segment.offset)
        os.close(segment.fd)

    def _abandon_segment(self) -> None:
        """Leave a segment whose write or sync failed, for good; the next one's head says how far it was sound."""
        segment = self._segment
        if segment is None:
            return
        self._previous = {"index": segment.index, "offset": segment.offset, "whole": False}
        self._segment = None
        with suppress(OSError):
            os.close(segment.fd)

    def _make_room(self) -> None:
        """Keep enough space on the disk for the outcomes of all calls under way, and a segment to go on with."""
        if self._closing:
            return
        try:
            while self.room - self.reserved < self.margin + self.segment_bytes // 2:
                self._space.add()
        except OSError as error:
            self._full = error
        else:
            self._full = None

    # -- waking ----------------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if self._blocked:
            with self._synced_changed:
                self._synced_changed.notify_all()
        for loop, waiting in list(self._waiting.items()):
            if waiting:
                try:
                    loop.call_soon_threadsafe(self._settle, loop)
                except RuntimeError:  # that loop is closed: nobody waits any more
                    self._waiting.pop(loop, None)

    def _settle(self, loop: asyncio.AbstractEventLoop) -> None:
        """Settle the futures of one loop, in that loop."""
        waiting = self._waiting.get(loop)
        if not waiting:
            return
        synced = self.synced
        later = []
        for number, future, patient in waiting:
            if number <= synced:
                if not future.done():
                    future.set_result(None)
            elif (error := self.failure(number)) is not None:
                if not future.done():
                    future.set_exception(error)
            elif not future.done():
                later.append((number, future, patient))
        waiting[:] = later

    def _take_lock(self) -> None:
        """Hold the writer's lock; a dead predecessor's is free at once, a live one's never."""
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if time.monotonic() > deadline:
                    os.close(self._lock_fd)
                    os.close(self._dir_fd)
                    raise JournalUnavailable(f"the journal {self.directory} belongs to another live process") from error
                time.sleep(0.02)
            else:
                return
