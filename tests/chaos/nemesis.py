"""What goes wrong on purpose: processes of the gateway under test found by their parent, and ended, stopped or starved."""

from __future__ import annotations

import os
import resource
import signal
import time
from contextlib import suppress
from pathlib import Path

from tests.support.gateway import Gateway


def children(pid: int) -> list[int]:
    """List the processes a process has started."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def command(pid: int) -> str:
    """Give a process's command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def workers(gateway: Gateway) -> list[int]:
    """List the workers."""
    return [pid for pid in children(supervisor(gateway)) if " worker " in command(pid)]


def drainers(gateway: Gateway) -> list[int]:
    """List the drainer (none while it is replaced)."""
    return [pid for pid in children(supervisor(gateway)) if " drain " in command(pid)]


def supervisor(gateway: Gateway) -> int:
    """Give the supervisor."""
    assert gateway.process is not None
    return gateway.process.pid


def database(gateway: Gateway) -> list[int]:
    """List the embedded server's processes, the postmaster first."""
    try:
        pid_file = next(gateway.var.rglob("postmaster.pid"))
        postmaster = int(pid_file.read_text().split()[0])
    except (StopIteration, OSError, IndexError, ValueError):
        return []  # it is down, or just about to come up
    return [postmaster, *children(postmaster)]


def end(pids: list[int], number: int = signal.SIGKILL) -> None:
    """Send a signal to each; those gone already do not matter."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def gone(pids: list[int], seconds: float = 30.0) -> bool:
    """Wait until processes have ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def alive(pid: int) -> bool:
    """Say whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def starve(pids: list[int], size: int = 4096) -> None:
    """Have the kernel refuse these processes any byte of a file beyond a size: a full disk."""
    for pid in pids:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def feed(pids: list[int]) -> None:
    """Lift that limit."""
    for pid in pids:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
