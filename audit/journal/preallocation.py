"""Space on the disk that is set aside before it is needed: what has been promised room has it already."""

from __future__ import annotations

import errno
import itertools
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["SEGMENT_BYTES", "Segment", "Space", "used_bytes"]

SEGMENT_BYTES = 16 * 1024 * 1024
SMALLEST_SEGMENT = 128 * 1024


class Segment:
    """One open file of the journal."""

    __slots__ = ("capacity", "fd", "index", "name", "offset")

    def __init__(self, fd: int, name: str, index: int, capacity: int) -> None:
        self.fd, self.name, self.index, self.capacity, self.offset = fd, name, index, capacity, 0


class Space:
    """The spare files of one writer's folder; `budget` bounds the whole journal folder of the installation (0: no bound)."""

    def __init__(self, directory: Path, dir_fd: int, segment_bytes: int, budget: int, fsync: bool) -> None:
        self._root, self._dir_fd = directory.parent, dir_fd
        self._segment_bytes, self._budget, self._fsync = segment_bytes, budget, fsync
        self._spares: list[Segment] = []
        self._names = itertools.count(1)
        for leftover in directory.glob("spare-*"):
            leftover.unlink(missing_ok=True)

    @property
    def capacity(self) -> int:
        """Bytes that are set aside."""
        return sum(spare.capacity for spare in self._spares)

    def add(self) -> None:
        """Set one more file aside, a smaller one when there is no room for a whole one. Raises OSError."""
        self._spares.append(self._make(0))

    def take(self, needed: int) -> Segment:
        """Give a file to write to, large enough for its first frame. Raises OSError."""
        return self._spares.pop(0) if self._spares else self._make(needed)

    def close(self) -> None:
        for spare in self._spares:
            os.close(spare.fd)
            with suppress(OSError):
                os.unlink(spare.name, dir_fd=self._dir_fd)
        self._spares.clear()

    def _make(self, needed: int) -> Segment:
        size = max(self._segment_bytes, needed)
        while True:
            if self._budget and used_bytes(self._root) + size > self._budget:
                error = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
            else:
                try:
                    return self.allocate(size)
                except OSError as failure:
                    error = failure
            if size // 2 < max(SMALLEST_SEGMENT, needed):
                raise error
            size //= 2

    def allocate(self, size: int) -> Segment:
        """Make a file whose every byte has its place on the disk. Raises OSError."""
        name = f"spare-{next(self._names)}"
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._dir_fd)
        try:
            try:
                os.posix_fallocate(fd, 0, size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    raise
                os.ftruncate(fd, size)  # a file system that cannot set space aside
            if self._fsync:
                os.fsync(fd)
        except OSError:
            os.close(fd)
            with suppress(OSError):
                os.unlink(name, dir_fd=self._dir_fd)
            raise
        return Segment(fd, name, 0, size)


def used_bytes(root: Path) -> int:
    """Count what the journals of all writers take on the disk."""
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            with suppress(OSError):
                total += os.stat(os.path.join(folder, name)).st_blocks * 512
    return total
