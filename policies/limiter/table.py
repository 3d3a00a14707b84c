"""Sliding windows in a fixed piece of memory (pure: a buffer and a time come in, a verdict goes out).

A window of W seconds is counted in 64 cells of W/64; a request counts until the cell it fell into has left the window as a
whole. So there are never more than N in any W seconds, and a place comes free at most W/64 seconds late.

The table is a hash table of slots, each one bucket: its cell length, the number of its newest cell, and a ring of 65
counters. A bucket may stand in either of two groups of eight; a slot whose newest cell has left the window is free to be
taken. Writes are ordered so that a process killed between any two of them leaves a bucket that counts too much by
one at most, never too little:

- a counter is one aligned store, and the sum is never stored;
- cells are cleared before the newest cell's number moves on (what is cleared has expired by then);
- a slot loses its tag before it is filled anew, and gets it last.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

__all__ = ["CELLS", "HEADER_WORDS", "Table", "Window", "WindowVerdict", "table_bytes"]

CELLS: Final = 64
_RING: Final = CELLS + 1
_SLOT_WORDS: Final = 35  # eight bytes each: cell length, newest cell, 65 counters of four bytes, padding
_WAYS: Final = 8
HEADER_WORDS: Final = 64
_ZEROS = memoryview(array("I", [0] * _RING))
_HINTS: Final = 65536
_ABSENT: Final = -1
_SKIPPED: Final = -2


class Window(NamedTuple):
    """What is asked of one bucket: `places`, where there are at most `requests` in any `window` nanoseconds."""

    bucket: bytes
    requests: int
    window: int
    places: int = 1
    #: counts only what makes a bucket: that of the window so many places before this one, when it has none yet
    makes: int = 0


class WindowVerdict(NamedTuple):
    """All admitted, or the first window that is full; -1 as `which` says that the table itself is full."""

    allowed: bool
    which: int
    remaining: int
    free_at: int  # when every window has a place again; 0 when allowed


def table_bytes(slots: int) -> int:
    """The memory a table of that many slots takes."""
    return 8 * (HEADER_WORDS + slots + slots * _SLOT_WORDS)


class Table:
    """Buckets in a buffer; the caller sees to it that one decides at a time."""

    def __init__(self, buffer: memoryview, slots: int, key: bytes) -> None:
        if slots % _WAYS or len(buffer) < table_bytes(slots):
            raise ValueError("the buffer does not fit the number of slots")
        self.words = buffer.cast("Q")
        self._cells = buffer.cast("I")
        self._groups = slots // _WAYS
        self._slots_at = HEADER_WORDS + slots
        self._key = key
        self._tags: dict[tuple[bytes, int], int] = {}
        self._hints: dict[int, int] = {}

    def release(self) -> None:
        self.words.release()
        self._cells.release()

    def decide(self, windows: Sequence[Window], now: int) -> WindowVerdict:
        """Check every window, then take a place in all of them or in none. `now` in nanoseconds never goes back."""
        places: list[int] = []
        remaining = 2**62
        tightest = 0
        full = -1
        free_at = 0
        for number, (bucket, requests, window, asked, makes) in enumerate(windows):
            if makes and places[number - makes] >= 0:
                places.append(_SKIPPED)
                continue
            tag = self._tag(bucket, window)
            slot = self._find(tag)
            used = 0
            if slot >= 0:
                used = self._advance(slot, now)
            if used + asked > requests:
                full = number if full < 0 else full
                # What asks for more than there ever are is told to wait until the window is empty; it will not do.
                needed = min(used, used + asked - requests)
                free_at = max(free_at, self._free_at(slot, needed) if needed else now + window)
            left = requests - used - asked
            if left < remaining and not makes:
                remaining, tightest = left, number
            places.append(slot)
        if full >= 0:
            return WindowVerdict(False, full, 0, free_at)
        for number, slot in enumerate(places):
            if slot == _ABSENT:
                bucket, _, window, *_ = windows[number]
                taken = self._take(self._tag(bucket, window), -(-window // CELLS), now)
                if taken < 0:
                    return WindowVerdict(False, -1, 0, now + 1_000_000_000)
                places[number] = taken
        for slot, taken_of in zip(places, windows, strict=True):
            if slot < 0:
                continue
            word = self._slots_at + slot * _SLOT_WORDS
            self._cells[2 * word + 4 + self.words[word + 1] % _RING] += taken_of.places
        return WindowVerdict(True, tightest, remaining, 0)

    def used(self, window: Window, now: int) -> int:
        """How many places of a window are taken."""
        slot = self._find(self._tag(window.bucket, window.window))
        return self._advance(slot, now) if slot >= 0 else 0

    def _tag(self, bucket: bytes, window: int) -> int:
        tag = self._tags.get((bucket, window))
        if tag is None:
            # Keyed, so that nobody can choose names that crowd one group.
            digest = blake2b(b"%b%d" % (bucket, window), digest_size=8, key=self._key).digest()
            tag = int.from_bytes(digest, "little") or 1
            if len(self._tags) >= _HINTS:
                self._tags.clear()
            self._tags[(bucket, window)] = tag
        return tag

    def _group(self, tag: int, second: bool) -> int:
        return ((tag >> 32 if second else tag & 0xFFFFFFFF) % self._groups) * _WAYS

    def _find(self, tag: int) -> int:
        hint = self._hints.get(tag)
        if hint is not None and self.words[HEADER_WORDS + hint] == tag:
            return hint
        for second in (False, True):
            group = self._group(tag, second)
            at = HEADER_WORDS + group
            ways = self.words[at : at + _WAYS].tolist()
            if tag in ways:
                slot = group + ways.index(tag)
                if len(self._hints) >= _HINTS:
                    self._hints.clear()
                self._hints[tag] = slot
                return slot
        return -1

    def _take(self, tag: int, cell: int, now: int) -> int:
        """Find room for a new bucket: in the emptier of its groups, else where a window has passed."""
        best, found = 0, -1
        groups = (self._group(tag, False), self._group(tag, True))
        for group in groups:
            at = HEADER_WORDS + group
            ways = self.words[at : at + _WAYS].tolist()
            if (empty := ways.count(0)) > best:
                best, found = empty, group + ways.index(0)
        if found < 0:
            found = next(
                (slot for group in groups for slot in range(group, group + _WAYS) if self._passed(slot, now)), -1
            )
        if found < 0:
            return -1
        words, word = self.words, self._slots_at + found * _SLOT_WORDS
        words[HEADER_WORDS + found] = 0
        self._cells[2 * word + 4 : 2 * word + 4 + _RING] = _ZEROS
        words[word] = cell
        words[word + 1] = now // cell
        words[HEADER_WORDS + found] = tag
        self._hints[tag] = found
        return found

    def _passed(self, slot: int, now: int) -> bool:
        """Whether nothing in a slot counts any more."""
        word = self._slots_at + slot * _SLOT_WORDS
        return now >= (self.words[word + 1] + _RING) * self.words[word]

    def _advance(self, slot: int, now: int) -> int:
        """Clear the cells that time has moved into; give what is left in the window."""
        word = self._slots_at + slot * _SLOT_WORDS
        first = 2 * word + 4
        cells = self._cells
        newest = self.words[word + 1]
        current = now // self.words[word]
        if current > newest:
            if current - newest >= _RING:
                cells[first : first + _RING] = _ZEROS
            else:
                for number in range(newest + 1, current + 1):
                    cells[first + number % _RING] = 0
            self.words[word + 1] = current
        return sum(cells[first : first + _RING].tolist())

    def _free_at(self, slot: int, places: int) -> int:
        """When that many of the oldest requests have left the window."""
        word = self._slots_at + slot * _SLOT_WORDS
        first = 2 * word + 4
        cell, newest = self.words[word], self.words[word + 1]
        for number in range(newest - CELLS, newest + 1):
            places -= self._cells[first + number % _RING]
            if places <= 0:
                return (number + _RING) * cell
        return (newest + _RING) * cell
