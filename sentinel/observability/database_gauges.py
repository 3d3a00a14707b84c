"""What the metrics tell of the database: whether it answers, how new the log in it is, what waits there for a person."""

from __future__ import annotations

import time

import psycopg

from core.db import connect
from sentinel.observability.gauges import Fact

NEWEST = "newest_event_age_seconds"
QUERIES = (
    (
        "quarantined_frames",
        "Records that could not be stored and wait for a person.",
        "SELECT count(*) FROM audit_quarantinedframe WHERE resolved_at IS NULL",
    ),
    ("open_calls", "Calls that were begun and have not ended, as stored.", "SELECT count(*) FROM audit_opencall"),
    ("outbox_events", "Administrators' acts that wait for the drainer.", "SELECT count(*) FROM audit_outboxevent"),
    (
        NEWEST,
        "Time since the newest stored event.",
        "SELECT greatest(extract(epoch FROM now() - ts), 0) FROM audit_auditevent ORDER BY id DESC LIMIT 1",
    ),
    (
        "held_definitions",
        "Definitions of tools that have changed or are in quarantine, and wait for approval.",
        "SELECT count(*) FROM proxy_catalogueitem WHERE present AND status IN ('changed', 'quarantined')",
    ),
    (
        "upstream_check_ok",
        "Whether an upstream that is switched on does well: its last check went well, and calls do not see it fail.",
        "SELECT (coalesce(s.ok, true) AND coalesce(s.calls_ok, true))::int, u.slug FROM proxy_upstream u"
        " JOIN proxy_upstreamstatus s ON s.upstream_id = u.id"
        " WHERE u.enabled AND (s.ok IS NOT NULL OR s.calls_ok IS NOT NULL) ORDER BY u.slug",
    ),
)


def gather(dsn: str, patience: float = 2.0) -> list[Fact]:
    """Ask the database, in bounds; a hung one counts as down."""
    facts: list[Fact] = []
    begun = time.monotonic()
    try:
        with connect(dsn, "mcp-sentinel metrics", seconds=patience) as connection:
            for name, text, query in QUERIES:
                if time.monotonic() - begun > patience:
                    break
                try:
                    rows = connection.execute(query).fetchall()
                except psycopg.errors.ProgrammingError:
                    continue
                facts += [Fact(name, text, float(value), _labels(slug)) for value, *slug in rows]
    except psycopg.Error:
        return [_up(False)]
    return [_up(True), *facts]


def _up(value: bool) -> Fact:
    return Fact("database_up", "Whether the database answers.", value)


def _labels(slug: list[str]) -> tuple[tuple[str, str], ...]:
    return (("upstream", slug[0]),) if slug else ()
