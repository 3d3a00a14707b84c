"""What the tests of the log share: a real database, journals in temporary folders, events to write."""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from django.conf import settings
from django.db import connections
from django.db.migrations.executor import MigrationExecutor
from psycopg.conninfo import conninfo_to_dict

from audit.drain.drainer import Drainer
from audit.events.event import Event
from audit.journal.logger import AuditLogger
from audit.journal.writer import Journal
from core.db import connect

KEY = uuid.UUID("0199b6a0-0000-7000-8000-000000000001")
_numbers = itertools.count(1)


def make_event(**values: Any) -> Event:
    """Make the event of an ordinary call."""
    known = {
        "api_key_id": KEY,
        "key_name": "agent",
        "role": "user",
        "auth_method": "bearer",
        "client_ip": "127.0.0.1",
        "upstream": "crm",
        "method": "tools/call",
        "tool_name": "echo",
        "target_kind": "tool",
        "request_json": {"method": "tools/call", "params": {"name": "echo"}},
    }
    return Event(**{**known, **values})


ANSWER = {"outcome": "allowed", "status_code": 200, "latency_ms": 1.5, "response_json": {"result": {"ok": True}}}


@pytest.fixture(scope="session")
def log_url(django_db_blocker: Any) -> Iterator[str]:
    """A database of the log's own: what the drainer commits must be seen by others, and the log cannot be emptied."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    name = f"log_tests_{os.getpid()}{worker}"
    known = settings.DATABASES["default"]
    at = {
        "dbname": "postgres",
        "user": known["USER"],
        "password": known["PASSWORD"],
        "host": known["HOST"],
        "port": known["PORT"],
    }
    at = {key: value for key, value in at.items() if value}
    with psycopg.connect(**at, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
    connections.databases["log"] = {**connections.databases["default"], "NAME": name}
    with django_db_blocker.unblock():
        executor = MigrationExecutor(connections["log"])  # without the signals that fill other apps' tables
        executor.migrate(executor.loader.graph.leaf_nodes("audit"))
        connections["log"].close()
    del connections["log"], connections.databases["log"]
    password = f":{quote(known['PASSWORD'])}" if known["PASSWORD"] else ""
    port = f"&port={known['PORT']}" if known["PORT"] else ""
    yield f"postgresql://{quote(known['USER'])}{password}@/{name}?host={quote(known['HOST'], safe='')}{port}"
    with psycopg.connect(**at, autocommit=True) as server:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def log_dsn(log_url: str) -> dict[str, Any]:
    """Where that database is, as libpq's parameters."""
    return conninfo_to_dict(log_url)


@pytest.fixture
def database(log_dsn: dict[str, Any]) -> Iterator[psycopg.Connection[Any]]:
    """A connection of its own to the tests' database, where nothing that another test left waits for this one's drainer."""
    with connect(log_dsn, "test", seconds=15) as connection:
        connection.execute("DELETE FROM audit_outboxevent")
        connection.execute("DELETE FROM audit_resumption")
        yield connection


@pytest.fixture
def instance() -> str:
    """A name no other test uses, since the log cannot be emptied."""
    return f"t{uuid.uuid4().hex[:7]}"


@pytest.fixture
def open_journal(tmp_path: Path, instance: str) -> Iterator[Callable[..., Journal]]:
    """Opens journals that are closed at the end."""
    opened: list[Journal] = []

    def make(writer: str = "", **options: Any) -> Journal:
        options.setdefault("segment_bytes", 256 * 1024)
        journal = Journal(tmp_path / "journal", writer or f"{instance}-w0", **options)
        opened.append(journal)
        return journal

    yield make
    for journal in opened:
        journal.close(2.0)


@pytest.fixture
def drainer(log_dsn: dict[str, Any], tmp_path: Path, instance: str) -> Iterator[Drainer]:
    """A drainer that leaves partitions and old segments alone."""
    (tmp_path / "journal").mkdir(exist_ok=True)
    made = Drainer(log_dsn, tmp_path / "journal", instance, housekeeping=False)
    yield made
    made.close()


@pytest.fixture
def stored(database: psycopg.Connection[Any], instance: str) -> Callable[..., list[dict[str, Any]]]:
    """Reads the events of this test's writers, by number."""

    def read(writer: str = "") -> list[dict[str, Any]]:
        with database.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            return cursor.execute(
                "SELECT * FROM audit_auditevent WHERE writer LIKE %s ORDER BY writer, boot, seq",
                (f"{writer or instance + '-w'}%",),
            ).fetchall()

    return read


def call(logger: AuditLogger, **values: Any) -> Event:
    """Make one whole call, and wait until it is safe."""
    event = make_event(**values)
    logger.intent(event).wait()
    event.complete(**ANSWER)
    logger.outcome(event).wait()
    return event
