"""Which key made which task by which tool: a small file for each task below SENTINEL_VAR, so that every worker finds it, also
after a restart. Its name is a digest, it holds the names of tools and is small, and the time of its last change is when it
may be forgotten.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

import orjson

from proxy.mcp.targets import TargetName

#: tasks of one key at one upstream that are kept; then the one that would be forgotten first gives way
MOST: Final = 1_000
#: how much is written down of one, in bytes: the names of its tools, which a caller chooses
MOST_BYTES: Final = 16 * 1024
#: how long a task is kept, in seconds: as long as it lives by its own account, within these
SHORTEST: Final = 86_400.0
LONGEST: Final = 30 * SHORTEST


class Made(NamedTuple):
    """The call that made a task: its tool, and the tools which that calls by name."""

    name: str
    within: tuple[str, ...] = ()

    @property
    def targets(self) -> tuple[TargetName, ...]:
        """Everything that a role must have to ask for the task."""
        return tuple(TargetName("tool", name) for name in (self.name, *self.within))


class TaskBook:
    """Which key made which task, by which call. Every worker reads and writes the same folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, owner: str, name: str, made: Made, seconds: float) -> None:
        """Write down who made what has this name (`of_task` and the like); raises OSError for more than belongs here."""
        folder = self._folder / owner
        place = folder / _digest(name)
        text = orjson.dumps([made.name, made.within])
        if len(text) > MOST_BYTES:
            place.unlink(missing_ok=True)  # what an earlier call left under this name does not speak for this one
            raise OSError(errno.EFBIG, f"its tools' names are {len(text)} bytes long")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._make_room(folder)
        draft = folder / f"{place.name}.{os.getpid()}"
        with open(draft, "wb", opener=_private) as file:
            file.write(text)
        until = time.time() + seconds
        os.utime(draft, (until, until))
        draft.rename(place)

    @staticmethod
    def _make_room(folder: Path) -> None:
        names = os.listdir(folder)
        if len(names) < MOST:
            return
        ends: list[tuple[float, str]] = []
        for name in names:
            with suppress(FileNotFoundError):
                ends.append(((folder / name).stat().st_mtime, name))
        now = time.time()
        for at, (end, name) in enumerate(sorted(ends)):
            if end < now or at <= len(ends) - MOST:
                (folder / name).unlink(missing_ok=True)

    def made(self, owner: str, name: str) -> Made | None:
        return self._read(self._folder / owner / _digest(name))

    def mine(self, owner: str) -> Mine:
        """Give what a list of tasks may show."""
        try:
            return Mine(self, owner, frozenset(os.listdir(self._folder / owner)))
        except FileNotFoundError:
            return Mine(self, owner, frozenset())

    @staticmethod
    def _read(place: Path) -> Made | None:
        try:
            with place.open("rb") as file:
                if os.fstat(file.fileno()).st_mtime < time.time():
                    return None
                name, within = orjson.loads(file.read())
        except (OSError, ValueError):
            return None
        return Made(name, tuple(within))

    def sweep(self) -> None:
        """Forget what is over, for every key that ever made a task."""
        now = time.time()
        for folder in _within(self._folder):
            for place in _within(folder):
                with suppress(OSError):  # gone meanwhile, or not ours
                    if place.stat().st_mtime < now:
                        place.unlink()
            with suppress(OSError):  # somebody has just written there
                folder.rmdir()


class Mine(NamedTuple):
    """The tasks of one key at one upstream."""

    book: TaskBook
    owner: str
    names: frozenset[str]

    def made(self, task: str) -> Made | None:
        """Find the call that made a task, if it is one of these."""
        name = of_task(task)
        return self.book.made(self.owner, name) if _digest(name) in self.names else None


def _within(folder: Path) -> list[Path]:
    """List a folder; what is none, or may not be read, holds nothing of ours, and is no reason not to start."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _digest(name: str) -> str:
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


def of_task(task: str) -> str:
    return f"task {task}"


def of_call(call: UUID) -> str:
    """Name a call whose answer may name one."""
    return f"call {call}"
