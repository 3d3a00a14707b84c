"""What the metrics tell of the database: whether it answers, and how far the log in it is behind the journal."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg

Fact = tuple[str, str, Callable[[], float | None]]
UP = ("database_up", "Whether the database answers.")
QUERIES = (
    (
        "quarantined_frames",
        "Records that could not be stored and wait for a person.",
        "SELECT count(*) FROM audit_quarantinedframe",
    ),
    ("open_calls", "Calls that were begun and have not ended, as stored.", "SELECT count(*) FROM audit_opencall"),
    ("outbox_events", "Administrators' acts that wait for the drainer.", "SELECT count(*) FROM audit_outboxevent"),
    (
        "newest_event_age_seconds",
        "Time since the newest stored event.",
        "SELECT extract(epoch FROM now() - ts) FROM audit_auditevent ORDER BY id DESC LIMIT 1",
    ),
)


def gather(dsn: str, patience: float = 2.0) -> list[Fact]:
    """Ask the database, in bounds; a hung one counts as down."""
    facts: list[Fact] = []
    begun = time.monotonic()
    try:
        with psycopg.connect(
            dsn, autocommit=True, connect_timeout=2, options=f"-c statement_timeout={int(patience * 1000)}"
        ) as connection:
            for name, text, query in QUERIES:
                if time.monotonic() - begun > patience:
                    break
                try:
                    row = connection.execute(query).fetchone()
                except psycopg.errors.ProgrammingError:
                    continue
                facts.append(_fact(name, text, float(row[0])) if row and row[0] is not None else _fact(name, text, 0.0))
    except psycopg.Error:
        return [_fact(*UP, 0.0)]
    return [_fact(*UP, 1.0), *facts]


def _fact(name: str, text: str, value: float) -> Fact:
    return name, text, lambda: value
