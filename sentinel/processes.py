"""Processes of the gateway: they end with their parent, bear a title, and keep their secrets to themselves."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_taken: dict[str, str] = {}


def close() -> None:
    """Keep other processes of the same user out of this one's memory, environment and open files (ptrace, /proc).

    Only root can look then: a debugger or profiler needs `sudo`. There are no core dumps either, which hold secrets.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def take_secrets(names: Iterable[str]) -> None:
    """Take variables that were read out of this process's environment, for it and all it starts; `environment` has them.

    The block that the kernel shows (/proc/PID/environ) is overwritten too: it stays where it was when variables change.
    """
    for name in names:
        if name in os.environ:
            _taken[name] = os.environ.pop(name)
    if sys.platform != "linux":
        return
    try:
        with open("/proc/self/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return
    start, end = int(fields[47]), int(fields[48])  # env_start, env_end
    block = ctypes.string_at(start, end - start) if 0 < start < end else b""
    at = 0
    for entry in block.split(b"\0"):
        if os.fsdecode(entry.partition(b"=")[0]) in _taken:
            ctypes.memset(start + at, 0, len(entry))
        at += len(entry) + 1


def environment() -> dict[str, str]:
    """Give the environment with what was taken out of it, for processes of the gateway's own."""
    return {**os.environ, **_taken}


def end_with_parent(parent: int, number: int = signal.SIGTERM) -> None:
    """Have this process signalled when its parent ends, however it ends; end at once when that has happened already.

    The kernel's own notice works on Linux; the look at the parent's id, twice a second, works everywhere and closes
    the moment between the start of this process and the call.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)
    threading.Thread(target=_watch, args=(parent, number), name="parent-watch", daemon=True).start()


def _watch(parent: int, number: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), number)


def title(text: str) -> None:
    """Name this process in `ps`; the name keeps `manage.py`, so that every process of ours can be found by it."""
    try:
        from setproctitle import setproctitle
    except ImportError:
        return
    setproctitle(f"manage.py {text}")
