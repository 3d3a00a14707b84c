"""The command line as shells use it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.conf.settings import PROJECT


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


MISUSE = [
    ["upstreams"], ["upstreams", "add"], ["upstreams", "change", "x", "--idle-timeout", "soon"], ["keys", "create", "x"], ["keys", "create", "x", "--role"],
    ["policy", "explain"], ["audit", "tail", "-n", "x"], ["audit", "redaction", "add", "nope", "x"], ["backup"], ["nosuch"], ["upstreams", "list", "--nope"],
]  # fmt: skip


@pytest.mark.parametrize("line", MISUSE, ids=" ".join)
def test_what_cannot_be_understood_is_told_in_json_too(
    line: list[str], tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    from django.core.management.base import CommandParser

    from sentinel import cli
    from sentinel.postgres import migrating

    monkeypatch.setattr(CommandParser, "error", CommandParser.error)  # put back at the end
    monkeypatch.setattr(cli.processes, "close", lambda: None)  # of this process there is more to use
    monkeypatch.setattr(migrating, "refuse_pending", lambda: None)
    umask = os.umask(0o077)
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main(["manage.py", *line, "--json"])
    finally:
        os.umask(umask)
    told = capsys.readouterr()
    assert ended.value.code == (1 if line == ["nosuch"] else 2)
    assert list(json.loads(told.out)) == ["error"] and "Traceback" not in told.err


def test_who_asked_for_json_is_refused_in_json(tmp_path: Path) -> None:
    document = tmp_path / "policy.yaml"
    document.write_text("roles: {agent: {alow: ['*']}}\n")
    environment = {**os.environ, "SENTINEL_VAR": str(tmp_path / "var")}
    del environment["DATABASE_URL"]

    def manage(*arguments: str) -> tuple[int, Any]:
        command = [sys.executable, "manage.py", *arguments, "--json"]
        done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120)
        assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == (0 if "retry" in arguments else 1)
        return done.returncode, json.loads(done.stdout)

    status, told = manage("policy", "check", str(document))
    assert status == 1 and told["valid"] is False and "alow" in told["problems"][0]
    status, told = manage("policy", "check", str(tmp_path / "none.yaml"))
    assert status == 1 and "none.yaml" in told["error"]
    status, told = manage("policy", "explain", "--role", "admin", "--tool", "x", "--args", "{broken")
    assert status == 1 and "--args" in told["error"]
    status, told = manage("audit", "quarantine", "retry", "999")
    assert status == 1 and list(told["failed"]) == ["999"]
    status, told = manage("secondfactor", "reset", "nobody")
    assert status == 1 and "nobody" in told["error"]
    environment["DATABASE_URL"] = "mysql://x/y"
    status, told = manage("policy", "diff", str(document))
    assert status == 1 and "DATABASE_URL" in told["error"]
