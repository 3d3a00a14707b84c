"""This process's environment without its secrets, and with them for the processes of our own that it starts."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable

_taken: dict[str, str] = {}


def take(names: Iterable[str]) -> None:
    """Take variables that were read out of the environment of this process, and so of whatever else it starts.

    The block that the kernel shows (/proc/PID/environ) is overwritten too: it stays as it was when variables change.
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


def whole() -> dict[str, str]:
    """Give the environment with all that was taken, for a process that reads the same settings."""
    return {**os.environ, **_taken}
