"""Run in place of a stdio upstream's command for a moment: sets limits, gives rights away, then becomes the command.

Started as `python -I -S launch.py PARENT MEMORY_BYTES MARK STATE WAYS TREES PROGRAM ARGUMENTS...`: the folder that is to
be closed, the ways to close it (confine.py; "" where nothing is), and the folders of the gateway's program. Doing this here
and not between fork and exec keeps a worker's threads out of it.
"""

from __future__ import annotations

import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Limit, tie to the parent's life, and execute."""
    parent, memory, mark, state, ways, trees, *command = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1024 if hard == resource.RLIM_INFINITY else min(1024, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, wanted) if soft > 0 else wanted, wanted))
    if int(mark):  # inherited by all that descends (descendants.py)
        resource.setrlimit(resource.RLIMIT_RTTIME, (int(mark), int(mark)))
    if state and sys.platform == "linux":
        sys.path.append(os.path.dirname(os.path.abspath(__file__)))
        import confine  # type: ignore[import-not-found,unused-ignore]  # beside this file, which is no part of a package here

        try:
            confine.confine(state, [tree for tree in trees.split(os.pathsep) if tree], ways.split(","))
        except OSError as error:
            os.write(2, f"the gateway cannot take its rights from the command: {error.strerror}\n".encode())
            os._exit(126)
    if int(memory):
        resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):  # it died before the line above
            os._exit(1)
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execv(command[0], command)  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        os._exit(127)


if __name__ == "__main__":
    main()
