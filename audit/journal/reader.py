"""Reading a journal: by the drainer while it is written, by recovery after its writer died.

What is read is whole and in order; everything else is named: damaged bytes, frames that are missing, a torn end.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from audit.journal.frames import HEADER, MAGIC, MARK_SIZE, Damage, Frame, Kind, Mark, scan

__all__ = [
    "BootReader",
    "Hole",
    "SegmentFile",
    "last_of",
    "live_boot",
    "read_mark",
    "segments_of",
    "writers_in",
]

CHUNK = 4 * 1024 * 1024
NAME = re.compile(r"^(\d{16,})-(\d{8,})-(\d{12,})\.seg$")


@dataclass(frozen=True, slots=True, order=True)
class SegmentFile:
    """One file of a boot, by name."""

    index: int
    first: int
    path: Path = field(compare=False)


@dataclass(frozen=True, slots=True)
class Hole:
    """Frames that should be there and cannot be read: [first, last], and the event numbers they may have given out.

    `torn` says that nothing shows they were ever safe: bytes cut off at the end of a writer that died.
    """

    first: int
    last: int
    first_seq: int
    last_seq: int
    place: str
    data: bytes
    torn: bool


def writers_in(root: Path) -> list[Path]:
    """List the folders of a journal's writers."""
    try:
        with os.scandir(root) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir())
    except FileNotFoundError:
        return []


def segments_of(directory: Path) -> dict[int, list[SegmentFile]]:
    """List a writer's segments by boot, in the order they were written."""
    found: dict[int, list[SegmentFile]] = {}
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return found
    for name in names:
        if match := NAME.match(name):
            boot, index, first = map(int, match.groups())
            found.setdefault(boot, []).append(SegmentFile(index, first, directory / name))
    for files in found.values():
        files.sort()
    return found


def read_mark(directory: Path, boot: int) -> Mark | None:
    """Read how far a boot has synced; None when it never did, or when the mark did not survive."""
    for _ in range(20):
        try:
            data = (directory / f"{boot:016d}.mark").read_bytes()
        except OSError:
            return None
        if len(data) != MARK_SIZE or not any(data):
            return None
        mark = Mark.decode(data)
        if mark is not None and mark.boot == boot:
            return mark
    return None


def live_boot(directory: Path) -> int | None:
    """Name the boot of the process that holds a writer's lock, or None when nobody does."""
    try:
        fd = os.open(directory / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(fd, 20, 0)
            return int(text) if text.strip().isdigit() else 0
        return None
    finally:
        os.close(fd)


def head_of(path: Path) -> dict[str, object] | None:
    try:
        with open(path, "rb") as file:
            data = file.read(4096)
    except OSError:
        return None
    for found in scan(data, final=False):
        if isinstance(found, Frame) and found.kind == Kind.SEGMENT and found.offset == 0:
            head: dict[str, object] = orjson.loads(found.payload)
            return head
        break
    return None


def last_of(directory: Path) -> tuple[int, int, int]:
    """Find where the newest boot in a folder ended: (boot, last whole frame, last event number), zeros where there is none."""
    found = segments_of(directory)
    if not found:
        return 0, 0, 0
    boot = max(found)
    mark = read_mark(directory, boot)
    frame, seq = (mark.frame, mark.seq) if mark else (0, 0)
    for file in reversed(found[boot]):
        best = None
        for item in scan(file.path.read_bytes()):
            if isinstance(item, Frame) and item.kind != Kind.SEGMENT:
                best = item
        if best is not None:
            return boot, max(frame, best.number), max(seq, best.seq)
    return boot, frame, seq


class BootReader:
    """Reads one boot of one writer from wherever it is asked to begin; keeps its place between calls."""

    def __init__(self, directory: Path, boot: int) -> None:
        self.directory = directory
        self.boot = boot
        self.at_end = False  # everything that this boot will ever have has been read (only for a dead one)
        self.more = False  # the last reading ended at its size, not at the end of what is there
        self._frame = -1
        self._seq = 0
        self._index = 0
        self._offset = 0

    def read(self, after: int, after_seq: int, mark: Mark | None, live: bool, size: int = CHUNK) -> list[Frame | Hole]:
        """Read about `size` bytes of frames whose numbers follow `after`.

        A live boot is read as far as its mark; a dead one to its end, and what the mark says beyond that is a hole.
        """
        if after != self._frame:
            self._seek(after)
        self._frame, self._seq = after, after_seq
        result: list[Frame | Hole] = []
        taken = 0
        self.at_end = self.more = False
        if live and (mark is None or mark.frame <= after):
            return result
        while taken < size:
            files = self._files()
            current = next((file for file in files if file.index >= self._index), None)
            if current is None:
                if not live:
                    result += self._end(mark, b"", "end of the journal")
                return result
            if current.index != self._index:
                self._index, self._offset = current.index, 0
            limit, following = self._limit(files, current, mark if live else None)
            data = self._pread(current.path, limit, size)
            whole = limit is not None and self._offset + len(data) >= limit
            last_of_file = whole or self._offset + len(data) >= self._size(current.path)
            progressed = False
            pending: Damage | None = None
            for found in scan(data, self._offset, final=last_of_file):
                if isinstance(found, Damage):
                    pending = found
                    if found.tail:
                        break
                    continue
                progressed = True
                self._offset = found.end
                if found.kind == Kind.SEGMENT or found.number <= self._frame:
                    pending = None  # passed over, and not counted: an empty answer means that there is nothing more
                    continue
                taken += found.end - found.offset
                if found.number > self._frame + 1:
                    result.append(self._hole(found, current, pending))
                pending = None
                self._frame, self._seq = found.number, found.seq
                result.append(found)
            if not last_of_file:
                if not progressed:
                    size *= 2  # one frame, or one stretch of damage, is longer than the part that was read
                continue
            if live and following is None:
                return result
            if following is None:
                tail = pending.data if pending else b""
                place = f"{current.path.name}:{pending.offset if pending else self._offset}"
                result += self._end(mark, tail, place)
                return result
            self._index, self._offset = following.index, 0
        self.more = True
        return result

    def _files(self) -> list[SegmentFile]:
        return segments_of(self.directory).get(self.boot, [])

    def _seek(self, after: int) -> None:
        """Go to the last segment that begins at or before the frame after `after`."""
        self._index, self._offset = 0, 0
        for file in self._files():
            if file.first <= after + 1:
                self._index = file.index

    def _limit(
        self, files: list[SegmentFile], current: SegmentFile, mark: Mark | None
    ) -> tuple[int | None, SegmentFile | None]:
        """Say how far a segment is sound, and which one follows: the next one's head knows."""
        later = [file for file in files if file.index > current.index]
        if mark is not None:
            later = [file for file in later if file.index <= mark.index]
            if current.index == mark.index:
                return mark.offset, None
        for file in later:
            head = head_of(file.path)
            if head is None:
                continue  # its head never reached the disk: nothing in it was ever safe
            previous = head.get("prev")
            if not isinstance(previous, dict):
                return 0 if head.get("index") == file.index else None, file
            if previous["index"] == current.index:
                return int(previous["offset"]), file
            if previous["index"] < current.index:
                return 0, file  # this file was given up before anything in it was safe
            return None, file  # a file between the two is missing
        # A head that cannot be read does not hide frames that can: go on with the next file there is.
        return None, later[0] if later else None

    def _pread(self, path: Path, limit: int | None, size: int) -> bytes:
        if limit is not None:
            size = min(size, max(limit - self._offset, 0))
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            return os.pread(fd, size, self._offset)
        finally:
            os.close(fd)

    def _size(self, path: Path) -> int:
        try:
            return path.stat().st_size
        except OSError:
            return 0

    def _hole(self, following: Frame, file: SegmentFile, damage: Damage | None) -> Hole:
        place = f"{file.path.name}:{damage.offset if damage else following.offset}"
        last_seq = following.seq - 1 if following.opens else following.seq
        return Hole(
            self._frame + 1,
            following.number - 1,
            self._seq + 1,
            last_seq,
            place,
            damage.data if damage else b"",
            False,
        )

    def _end(self, mark: Mark | None, tail: bytes, place: str) -> Iterator[Hole]:
        """Judge the end of a dead boot: what was safe and is gone is a hole, what was never safe is a torn end."""
        self.at_end = True
        if mark is not None and mark.frame > self._frame:
            yield Hole(self._frame + 1, mark.frame, self._seq + 1, mark.seq, place, tail, False)
            self._frame, self._seq = mark.frame, mark.seq
        elif tail:
            # Without a mark (a machine that lost power) a whole frame with a wrong sum may have been safe once.
            lost = mark is None and looks_whole(tail)
            last = self._frame + 1 if lost else self._frame
            yield Hole(self._frame + 1, last, self._seq + 1, self._seq + lost, place, tail, not lost)


def looks_whole(data: bytes) -> bool:
    """Say whether damaged bytes are as long as the header at their beginning says."""
    if len(data) < HEADER.size or not data.startswith(MAGIC):
        return False
    return len(data) >= HEADER.size + int.from_bytes(data[4:8], "little")
