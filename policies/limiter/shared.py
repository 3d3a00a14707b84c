"""Limits shared by the workers of one machine: a file mapped into each of them, and a lock that dies with its holder.

`flock` costs 1.3 us and the kernel frees it when its holder is killed. A holder that is stopped keeps it: then others
give up after WAIT (and at once, until it goes on), and their requests are refused as "cannot be checked". Time is the machine's boot clock, which no one can
set back; the file carries it over a reboot, so that a long window goes on.
"""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from policies.limiter.table import Table, Window, WindowVerdict, table_bytes

__all__ = ["LocalTable", "Locked", "SharedTable"]

SLOTS: Final = 65536
WAIT: Final = 1.0  # seconds; a decision takes some 10 us, but its process may wait long for a core on a busy machine
_MAGIC: Final = 0x31_57_4D_49_4C_53_43_4D  # "MCSLIMW1"
_SPINS: Final = 20

# Words of the header.
_H_MAGIC, _H_SLOTS, _H_KEY, _H_OFFSET, _H_LOGICAL, _H_WALL, _H_BOOT = 0, 1, 2, 4, 5, 6, 7

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Locked(Exception):
    """Another process keeps the lock, and does not go on."""


def _boot_clock() -> int:
    return time.clock_gettime_ns(_CLOCK)


def _boot_id() -> int:
    """Which boot of the machine this is: only within one can boot clocks be compared."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        return round((time.time_ns() - _boot_clock()) / 10e9)  # when it was, to ten seconds
    return int(text.replace("-", "").strip()[:15], 16)


class LocalTable:
    """Limits within one process."""

    name = "process"

    def __init__(self, slots: int = SLOTS, clock: Callable[[], int] = _boot_clock) -> None:
        self._table = Table(memoryview(bytearray(table_bytes(slots))), slots, secrets.token_bytes(16))
        self._clock = clock
        self._mutex = threading.Lock()

    def now(self) -> int:
        """Nanoseconds, on the clock the verdicts speak of."""
        return self._clock()

    async def decide(self, windows: Sequence[Window]) -> tuple[WindowVerdict, int]:
        """Decide; the verdict and the time it was made at."""
        return self.decide_now(windows)

    def decide_now(self, windows: Sequence[Window]) -> tuple[WindowVerdict, int]:
        """Decide without a loop."""
        with self._mutex:
            now = self._clock()
            return self._table.decide(windows, now), now

    async def close(self) -> None:
        """Nothing is held."""


class SharedTable:
    """Limits across the processes of one machine that open the same folder."""

    name = "machine"

    def __init__(
        self,
        folder: Path,
        slots: int = SLOTS,
        *,
        boot_clock: Callable[[], int] = _boot_clock,
        wall_clock: Callable[[], int] = time.time_ns,
        boot_id: Callable[[], int] = _boot_id,
    ) -> None:
        self.path = folder / "windows.v1"
        self._slots = slots
        self._boot_clock = boot_clock
        self._wall_clock = wall_clock
        self._boot_id = boot_id
        self._stuck = False  # the lock was waited for in vain, and has not been had since
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._open()

    def _open(self) -> None:
        self._pid = os.getpid()
        self._mutex = threading.Lock()  # flock tells processes apart, not threads
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            self._map = self._mapped()
            words = memoryview(self._map).cast("Q")
            key = words[_H_KEY : _H_KEY + 2].tobytes()
            self._table = Table(memoryview(self._map), self._slots, key)
            self._words = words
            if words[_H_BOOT] != self._boot_id():
                # The boot clock began anew: go on where the last boot stopped, plus the time that has passed since.
                passed = max(0, self._wall_clock() - words[_H_WALL])
                words[_H_OFFSET] = max(0, words[_H_LOGICAL] + passed - self._boot_clock())
                words[_H_BOOT] = self._boot_id()
            self._offset = words[_H_OFFSET]
            self._noted = 0
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _mapped(self) -> mmap.mmap:
        """The file as memory; made when it is not there yet, or was not finished."""
        size = os.fstat(self._file).st_size
        if size >= table_bytes(8):
            header = os.pread(self._file, 16, 0)
            magic, slots = int.from_bytes(header[:8], "little"), int.from_bytes(header[8:], "little")
            if magic == _MAGIC and size == table_bytes(slots):
                self._slots = slots
                return mmap.mmap(self._file, size)
        os.ftruncate(self._file, 0)
        # Room is taken now: a full disk is an error at the start, not a signal that ends a worker later.
        os.posix_fallocate(self._file, 0, table_bytes(self._slots))
        found = mmap.mmap(self._file, table_bytes(self._slots))
        words = memoryview(found).cast("Q")
        words[_H_SLOTS] = self._slots
        words[_H_KEY], words[_H_KEY + 1] = secrets.randbits(64), secrets.randbits(64)
        words[_H_LOGICAL], words[_H_WALL], words[_H_BOOT] = self._boot_clock(), self._wall_clock(), self._boot_id()
        words[_H_MAGIC] = _MAGIC
        words.release()
        return found

    def now(self) -> int:
        """Nanoseconds, on the clock the verdicts speak of: it never goes back, not even over a reboot."""
        return self._boot_clock() + self._offset

    def _try_lock(self) -> bool:
        if os.getpid() != self._pid:
            self._open()  # a forked child would share its parent's lock
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _decide(self, windows: Sequence[Window]) -> tuple[WindowVerdict, int]:
        """Decide with the lock held, and let go of it."""
        self._stuck = False
        try:
            now = self.now()
            verdict = self._table.decide(windows, now)
            if now - self._noted > 1_000_000_000:
                self._noted = now
                self._words[_H_LOGICAL] = now
                self._words[_H_WALL] = self._wall_clock()
            return verdict, now
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    async def decide(self, windows: Sequence[Window]) -> tuple[WindowVerdict, int]:
        """Decide; the verdict and the time it was made at. Raises Locked."""
        for _ in range(_SPINS):
            with self._mutex:
                if self._try_lock():
                    return self._decide(windows)
        until = time.monotonic() + WAIT
        pause = 0.0002
        while not self._stuck and time.monotonic() < until:
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.005)
            with self._mutex:
                if self._try_lock():
                    return self._decide(windows)
        self._stuck = True
        raise Locked("another worker keeps the lock of the limits")

    def decide_now(self, windows: Sequence[Window]) -> tuple[WindowVerdict, int]:
        """Decide without a loop (for threads and commands). Raises Locked."""
        until = time.monotonic() + WAIT
        with self._mutex:
            while not self._try_lock():
                if time.monotonic() > until:
                    raise Locked("another worker keeps the lock of the limits")
                time.sleep(0.0001)
            return self._decide(windows)

    async def close(self) -> None:
        """Unmap and close; what was counted stays in the file."""
        self._table.release()
        self._words.release()
        os.close(self._file)

    def __enter__(self) -> SharedTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._table.release()
        self._words.release()
        os.close(self._file)
