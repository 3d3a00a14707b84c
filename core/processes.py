"""Processes of the gateway: they end with their parent, bear a title, and cannot be looked into by others."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4


def close() -> None:
    """Keep other processes of the same user out of this one's memory, environment and open files (ptrace, /proc).

    Only root can look then: a debugger or profiler needs `sudo`. There are no core dumps either, which hold secrets.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


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
