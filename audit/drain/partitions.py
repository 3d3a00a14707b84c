"""The log's partitions, a day each: made ahead of time, dropped by age, and an alarm when something fell between."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import psycopg

from audit.events.event import Event

__all__ = ["Partition", "ahead", "default_rows", "drop_old", "ensure", "id_ranges", "listed", "within"]

DAYS_AHEAD = 7
NAME = re.compile(r"^audit_auditevent_p(\d{8})$")

# Runs of numbers without a hole, per writer and boot: few rows, however many events.
ISLANDS = """
SELECT writer, boot, min(seq), max(seq), count(*) FROM (
    SELECT writer, boot, seq, seq - row_number() OVER (PARTITION BY writer, boot ORDER BY seq) AS island FROM {table}
) AS numbered GROUP BY writer, boot, island ORDER BY 1, 2, 3
"""


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition: its day (None for the default one), about how many events, and its size on disk in bytes.

    The number is the database's own estimate; None while it has made none.
    """

    name: str
    day: date | None
    rows: int | None
    size: int


def listed(connection: psycopg.Connection[Any]) -> list[Partition]:
    """List the partitions, oldest first, the default one last."""
    rows = connection.execute(
        "SELECT c.relname, nullif(c.reltuples, -1)::bigint, pg_total_relation_size(c.oid) FROM pg_inherits i"
        " JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'audit_auditevent'::regclass"
    ).fetchall()
    found = []
    for name, tuples, size in rows:
        match = NAME.match(name)
        day = datetime.strptime(match.group(1), "%Y%m%d").replace(tzinfo=UTC).date() if match else None
        found.append(Partition(name, day, tuples, size))
    return sorted(found, key=lambda part: (part.day is None, part.day or date.max))


def ensure(connection: psycopg.Connection[Any], day: date) -> bool:
    """Make the partition of one day, moving its events out of the default one; False when it is there already."""
    row = connection.execute("SELECT audit_create_partition(%s)", (day,)).fetchone()
    return bool(row and row[0])


def ahead(connection: psycopg.Connection[Any], days: int = DAYS_AHEAD) -> list[date]:
    """Make the partitions of yesterday to `days` ahead; gives those that were new."""
    today = datetime.now(UTC).date()
    return [day for n in range(-1, days + 1) if ensure(connection, day := today + timedelta(days=n))]


def id_ranges(parts: list[Partition]) -> list[tuple[str, UUID | None, UUID | None]]:
    """Cut all ids into ranges that each lie in one partition: (partition, first id, first id beyond; None: no bound).

    Asking for a range reads that partition alone, also for a role that may not name it.
    """
    ranges: list[tuple[str, UUID | None, UUID | None]] = []
    default = next((part.name for part in parts if part.day is None), "")
    begin: UUID | None = None
    for part in parts:
        if part.day is None:
            continue
        low, high = floor(part.day), floor(part.day + timedelta(days=1))
        if begin is None or begin < low:
            ranges.append((default, begin, low))
        ranges.append((part.name, low, high))
        begin = high
    ranges.append((default, begin, None))
    return ranges


def floor(day: date) -> UUID:
    """Give the first id of a day, as the partitions are bounded."""
    return UUID(int=int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000 << 80)


def within(low: UUID | None, high: UUID | None) -> str:
    """Word a range of ids as a condition."""
    parts = ([f"id >= '{low}'"] if low else []) + ([f"id < '{high}'"] if high else [])
    return " AND ".join(parts) or "true"


def default_rows(connection: psycopg.Connection[Any], limit: int = 10_000) -> int:
    """Count the events that found no partition of their day, up to a limit."""
    parts = listed(connection)
    found = 0
    for name, low, high in id_ranges(parts):
        if name.endswith("_default"):
            row = connection.execute(
                f"SELECT count(*) FROM (SELECT 1 FROM audit_auditevent WHERE {within(low, high)} LIMIT %s) AS found",  # noqa: S608
                (limit,),
            ).fetchone()
            found += row[0] if row else 0
    return found


def drop_old(connection: psycopg.Connection[Any], retention_days: int) -> list[str]:
    """Drop the partitions whose last event is older than the retention; each leaves its numbers and an event behind."""
    oldest = datetime.now(UTC).date() - timedelta(days=retention_days)
    dropped = []
    for part in listed(connection):
        if part.day is not None and part.day < oldest:
            drop(connection, part)
            dropped.append(part.name)
    return dropped


def drop(connection: psycopg.Connection[Any], part: Partition) -> None:
    """Detach and drop one partition; a plain detach with a lock time-out, since a concurrent one is refused beside a default.

    The numbers that go are kept as tombstones, so that the holes they leave can be told from lost events.
    """
    table = part.name
    with connection.transaction():
        connection.execute("SET LOCAL lock_timeout = '2s'")
        connection.execute("SET LOCAL statement_timeout = 0")
        # Nothing may be added between the counting and the drop; events so late go to the default partition and raise its alarm.
        connection.execute(f"ALTER TABLE audit_auditevent DETACH PARTITION {table}")
        islands = connection.execute(ISLANDS.format(table=table)).fetchall()
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO audit_tombstone (writer, boot, first_seq, last_seq, partition, dropped_at)"
                " VALUES (%s, %s, %s, %s, %s, now())",
                [(writer, boot, first, last, table) for writer, boot, first, last, _ in islands],
            )
        events = sum(count for *_, count in islands)
        connection.execute(f"DROP TABLE {table}")
        event = Event(
            method="system.audit.partition_dropped",
            tool_name=table,
            outcome="changed",
            status_code=200,
            details={"actor": {"kind": "system", "name": "retention"}, "partition": table, "events": events},
            decision={},
        )
        connection.execute(
            "INSERT INTO audit_outboxevent (event_id, created_at, record) VALUES (%s, now(), %s)",
            (event.id, orjson.dumps(event.as_record()).decode()),
        )
