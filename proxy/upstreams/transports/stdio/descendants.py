"""Everything that a command of an upstream started, found and ended with it, wherever in the process tree it went.

A process group is left with one call, and whose parent ends is given to another. So this process asks to be that other
one (a subreaper), and each command bears a mark that all its descendants inherit: its hard limit of real-time processor
time, far above anything that is ever used. Nobody without privileges can raise it; who lowers it bears nobody's mark, and
ends with the next command.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_ROUNDS = 100
_LINUX = sys.platform == "linux"
_HARD = resource.getrlimit(resource.RLIMIT_RTTIME)[1] if _LINUX else 0
#: marks lie below this; microseconds: tens of thousands of years
_TOP = 1 << 60 if _HARD == resource.RLIM_INFINITY else _HARD

_numbers = itertools.count(1)
_starting = 0
#: the commands that run: process -> mark
_running: dict[int, int] = {}


def adopt() -> None:
    """Have this process be given the orphans among its descendants."""
    if _LINUX:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def new_mark() -> int:
    """Give a mark that no other command of this process bears; 0 where there are none."""
    return _TOP - next(_numbers) if _LINUX else 0


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Reap nothing while a command is started: whose process it is, is not known yet."""
    global _starting
    _starting += 1
    try:
        yield
    finally:
        _starting -= 1


def started(pid: int, mark: int) -> None:
    """Note a command, and leave its process to whoever waits for it."""
    _running[pid] = mark


def end(pid: int = 0) -> None:
    """Kill what a command that has ended left behind, what is forked meanwhile too; without one, whatever is nobody's."""
    mark = _running.pop(pid, 0)
    if not _LINUX:  # there the process group is all that can be ended
        return
    for _ in range(_ROUNDS):
        found = _left_behind(mark)
        for other in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(other, signal.SIGKILL)
        reap()
        if not found:
            return


def reap() -> None:
    """Let go of orphans that have ended."""
    if _starting or not _LINUX:
        return
    try:  # orphans are given to the first thread
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    except OSError:
        return
    for pid in map(int, children):
        if pid not in _running and 0 < _mark_of(pid) < _TOP:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _left_behind(mark: int) -> list[int]:
    """Give the descendants that bear this mark, or one of no command that runs, and do not descend from one that does."""
    live = set(_running.values())
    parents = _parents()
    found = []
    for pid in parents:
        at, steps = pid, 0
        while at in parents and at not in _running and steps < 1000:
            at, steps = parents[at], steps + 1
            if at == os.getpid():
                borne = _mark_of(pid)
                if 0 < borne < _TOP and (borne == mark or (borne not in live and not _starting)):
                    found.append(pid)
                break
    return found


def _parents() -> dict[int, int]:
    """Give each process that has not ended, and its parent."""
    found = {}
    for place in Path("/proc").glob("[1-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # the name, in parentheses, may hold anything
            state, parent = (place / "stat").read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX":
                found[int(place.name)] = int(parent)
    return found


def _mark_of(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        return resource.prlimit(pid, resource.RLIMIT_RTTIME)[1]
    return 0
