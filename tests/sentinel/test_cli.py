"""The command line as shells use it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from sentinel.conf import PROJECT


def test_a_reader_that_has_had_enough_is_no_error(tmp_path: Path) -> None:
    environment = {**os.environ, "SENTINEL_VAR": str(tmp_path / "var"), "PYTHONUNBUFFERED": ""}
    command = [sys.executable, "manage.py", "openapi"]
    with subprocess.Popen(
        command, cwd=PROJECT, env=environment, bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 128 + signal.SIGPIPE
