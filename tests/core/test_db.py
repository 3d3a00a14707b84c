"""One way to a connection of one's own, and all of its bounds."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import time
from pathlib import Path

import psycopg
import pytest
from django.conf import settings

from core.db import connect

ROOT = Path(__file__).parents[2]


def test_nobody_else_connects() -> None:
    """Whatever reaches libpq without its bounds may wait for ever: on a lock, on a server that was stopped."""
    files = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    found = []
    for name in files:
        if name.split("/")[0] not in ("core", "audit", "policies", "proxy", "sentinel") or name == "core/db.py":
            continue
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "connect":
                if ast.unparse(node.value).split(".")[-1] in (
                    "psycopg",
                    "Connection",
                    "AsyncConnection",
                    "BoundedConnection",
                ):
                    found.append(f"{name}:{node.lineno}")
            if (
                isinstance(node, ast.ImportFrom)
                and node.module == "psycopg"
                and "connect" in [one.name for one in node.names]
            ):
                found.append(f"{name}:{node.lineno}")
    assert not found


@pytest.mark.django_db
def test_the_server_is_told_the_bounds_and_whose_connection_it_is() -> None:
    with connect(settings.SENTINEL.dsn, "a test", seconds=3) as connection:
        shown = connection.execute(
            "SELECT current_setting('statement_timeout'), current_setting('lock_timeout'), current_setting('timezone'),"
            " current_setting('idle_in_transaction_session_timeout'), current_setting('application_name')"
        ).fetchone()
        assert shown == ("3s", "5s", "UTC", "20s", "a test")
        assert connection.info.get_parameters()["connect_timeout"] == "3" and connection.autocommit
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SET statement_timeout = 50; SELECT pg_sleep(3)")
        assert connection.execute("SELECT 1").fetchone() == (1,), "what the server cancels ends the statement alone"


@pytest.mark.django_db
@pytest.mark.parametrize("act", ["SELECT 1", "COPY (SELECT 1) TO STDOUT", "BEGIN"])
def test_a_server_that_is_stopped_is_left_however_it_is_asked(act: str) -> None:
    connection = connect(settings.SENTINEL.dsn, "a test", seconds=15, patience=0.5)
    backend = connection.info.backend_pid
    os.kill(backend, signal.SIGSTOP)
    try:
        since = time.monotonic()
        with pytest.raises(psycopg.OperationalError):
            if act.startswith("COPY"):
                with connection.cursor().copy(act) as copied:
                    list(copied)
            else:
                connection.execute(act)
        assert time.monotonic() - since < 5 and connection.closed
    finally:
        os.kill(backend, signal.SIGCONT)


@pytest.mark.django_db
def test_a_command_that_somebody_watches_may_take_its_time() -> None:
    with connect(settings.SENTINEL.dsn, "a test", seconds=None) as connection:
        assert connection.execute("SELECT current_setting('statement_timeout')").fetchone() == ("0",)
        assert connection.patience is None
