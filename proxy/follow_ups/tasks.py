"""Tasks: what a call leaves behind to be asked for later (`tasks/get`, `tasks/result`, `tasks/cancel`, `tasks/update`).

A task is ruled by the call that made it: whoever made it may ask for it as long as its role has the tool, without a rule for
these methods; another key's task, one of another upstream and one that never was are the same 404. So it is written down
which key made which task by which tool, before the answer that names the task goes out. What the upstream calls a task
passes as it is.

    the call that makes it     `expect` (where it asked for a task), `note` (when the answer names one)
    who asks for it            `claim` looks it up, `ruling` gives the tools that decide
    tasks/list                 `TaskBook.mine`: the rest is cut out

The book is a small file for each task below SENTINEL_VAR, so that every worker finds it, also after a restart. Its name is
a digest, it holds the names of tools and is small, and the time of its last change is when it may be forgotten.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

import orjson

from policies.engine.types import Target
from policies.vocabulary import TASK_METHODS
from proxy.http.refusals import refuse
from proxy.mcp.targets import TargetName

if TYPE_CHECKING:
    from proxy.call import Call
    from proxy.gateway import Gateway

log = logging.getLogger("sentinel.proxy")

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
        """Find the call that made what has this name."""
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


def owner(call: Call) -> str:
    """Name whose tasks a call may speak of: its key's at this very upstream, whoever has its name later."""
    spec = call.spec
    return blake2b(f"{call.key_id} {call.slug} {spec.id if spec else 0}".encode(), digest_size=20).hexdigest()


# -- the call that makes a task


def asks(call: Call) -> bool:
    """Whether a call wants to be a task (legacy; in the modern era the server decides that)."""
    message = call.message
    return (
        message is not None and message.method == "tools/call" and isinstance((message.params or {}).get("task"), dict)
    )


async def expect(gateway: Gateway, call: Call) -> None:
    """Write down a call that wants to be a task: its answer may come on another stream, which knows the call's name alone."""
    if call.target is not None and call.message is not None:
        seconds = gateway.config.resume_wait + SHORTEST
        await _keep(gateway, call, of_call(call.id), _maker(call, call.target), seconds)


async def note(gateway: Gateway, call: Call, result: dict[str, Any] | None, *, known_by: str = "") -> None:
    """Write down the task that an answer names, before it goes out; `known_by` names the call that it answers, where that is
    another one than the stream's.
    """
    if result is None or not (found := _task(result)):
        return
    made: Made | None = None
    if known_by:
        made = await asyncio.to_thread(gateway.tasks.made, owner(call), known_by)
    elif call.target is not None and (asks(call) or (call.era is not None and call.era.modern and _calls(call))):
        made = _maker(call, call.target)
    if made is not None:
        await _keep(gateway, call, of_task(found[0]), made, found[1])


def of_task(task: str) -> str:
    """Name a task in the book."""
    return f"task {task}"


def of_call(call: UUID) -> str:
    """Name a call whose answer may name one."""
    return f"call {call}"


def _calls(call: Call) -> bool:
    return call.message is not None and call.message.method == "tools/call"


def _task(result: dict[str, Any]) -> tuple[str, float] | None:
    """Find the id of the task that a result names, and how long it lives."""
    task = result.get("task")
    if not isinstance(task, dict):
        if result.get("resultType") != "task":
            return None
        task = result
    name, life = task.get("taskId"), task.get("ttl", task.get("ttlMs"))
    if not isinstance(name, str) or not name:
        return None
    if not isinstance(life, int | float) or isinstance(life, bool):
        return name, LONGEST
    return name, min(max(life, SHORTEST * 1000), LONGEST * 1000) / 1000


def _maker(call: Call, target: Target) -> Made:
    return Made(target.name, tuple(dict.fromkeys(inner[0].name for inner in call.within)))


async def _keep(gateway: Gateway, call: Call, name: str, made: Made, seconds: float) -> None:
    try:
        await asyncio.to_thread(gateway.tasks.keep, owner(call), name, made, seconds)
    except OSError as error:  # then nobody may ask for it, which is what its maker is told
        log.warning("a task could not be written down: %s", error, extra={"audit_id": str(call.id)})


# -- who asks for one


async def claim(gateway: Gateway, call: Call) -> None:
    """Look up the tasks that a message names."""
    message = call.message
    if message is None or not any(name.kind == "method" and name.name in TASK_METHODS for name in message.targets):
        return
    params = message.params or {}
    names = [params["taskId"]] if message.method in TASK_METHODS else params["notifications"]["taskIds"]
    mine = owner(call)

    def find() -> list[Made | None]:
        return [gateway.tasks.made(mine, of_task(name)) for name in names]

    call.tasks = await asyncio.to_thread(find)


def ruling(call: Call) -> Iterator[TargetName]:
    """Give what decides about a message: what it names, and in place of a task the tools of the call that made it."""
    for name in call.message.targets if call.message is not None else ():
        if name.kind != "method" or name.name not in TASK_METHODS:
            yield name
            continue
        if not call.tasks or None in call.tasks:
            raise refuse("unknown_task", call=call)
        for made in dict.fromkeys(filter(None, call.tasks)):
            call.within += tuple((Target("tool", call.slug, inner),) for inner in made.within)
            yield from made.targets
