"""Processes of `manage.py` that begin quickly: forked from one that has read the libraries already.

Most of what a short command costs is Python reading libraries, the same ones each time. A command begun here is a process of
its own all the same, with an environment, settings, connections and an exit status of its own: what it is forked from has
imported nothing of the project and has read no setting.
"""

from __future__ import annotations

import atexit
import io
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path

Stream = Path | socket.socket
ROOT = Path(__file__).resolve().parents[2]
_context = get_context("forkserver")
_context.set_forkserver_preload(["tests.support.libraries"])


def start(
    arguments: list[str], environment: dict[str, str], stdin: Stream, stdout: Stream, stderr: Stream
) -> ForkServerProcess:
    """Begin `manage.py` with these arguments, this whole environment and these standard streams."""
    process = _context.Process(target=_become, args=(arguments, environment, stdin, stdout, stderr))
    process.start()
    return process


def run(
    arguments: list[str], environment: dict[str, str], *, text: str | None, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as `subprocess.run` would."""
    if environment.get("PYTHONPATH") != os.environ.get("PYTHONPATH"):  # it may change how Python itself begins
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT, env=environment, input=text, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="sentinel-command-") as folder:
        given, out, err = (Path(folder) / name for name in ("in", "out", "err"))
        given.write_text(text or "")
        process = start(arguments, environment, given, out, err)
        process.join(timeout)
        status = process.exitcode
        if status is None:
            process.kill()
            process.join()
        process.close()
        if status is None:
            raise subprocess.TimeoutExpired(arguments, timeout, out.read_bytes(), err.read_bytes())
        return subprocess.CompletedProcess(arguments, status, out.read_text(), err.read_text())


def _become(arguments: list[str], environment: dict[str, str], stdin: Stream, stdout: Stream, stderr: Stream) -> None:
    """Be that command, in the process just forked."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    writing = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for number, stream in enumerate((stdin, stdout, stderr)):
        if isinstance(stream, Path):
            opened = os.open(stream, writing if number else os.O_RDONLY, 0o600)
            os.dup2(opened, number)
            os.close(opened)
        else:
            os.dup2(stream.fileno(), number)
    for stream in (stdin, stdout, stderr):
        if not isinstance(stream, Path):
            stream.close()
    sys.stdin = io.TextIOWrapper(open(0, "rb", closefd=False), encoding="utf-8")
    sys.stdout = io.TextIOWrapper(open(1, "wb", closefd=False), encoding="utf-8", line_buffering=True)
    sys.stderr = io.TextIOWrapper(
        open(2, "wb", closefd=False), encoding="utf-8", errors="backslashreplace", line_buffering=True
    )
    sys.argv = ["manage.py", *arguments]
    sys.path.insert(0, str(ROOT))
    try:
        runpy.run_path("manage.py", run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # a process that was forked so ends without them
