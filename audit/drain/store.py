"""One batch, one transaction: rows, open calls, counts and the position that says how far it came.

The position is locked first and read again: whoever else may have stored the batch (a backend that was stopped, given up
and woke up late) has either committed, and the position says so, or never will.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import orjson
import psycopg
from psycopg import errors

from audit.drain.plan import DrainPlan, Open, PlannedRow, Spoiled, finish, parse, plan, wanted
from audit.drain.rollups import store_rollups
from audit.events.event import COLUMNS, Event
from audit.events.row import row_of
from audit.journal.frames import Frame
from audit.journal.reader import Hole

__all__ = ["Moved", "Position", "drain_outbox", "lock_position", "store_batch", "store_gaps", "store_rows"]

COPY = f"COPY audit_auditevent ({', '.join(COLUMNS)}) FROM STDIN"
OPEN_COLUMNS = "id, kind, writer, boot, seq, ts, answered, api_key_id, key_prefix, key_name, role, upstream, method, tool_name, record, wait, until"
KNOWN = "id::text, record::text, kind, answered, wait, until"
OUTBOX_BATCH = 1000


class Moved(Exception):
    """Somebody else stored this batch, or the database went back in time: begin again from its own position."""


class Position:
    """What the database knows of one boot, locked until the transaction ends."""

    __slots__ = ("closed", "frame", "id", "seq")

    def __init__(self, row: Sequence[Any]) -> None:
        self.id, self.frame, self.seq, self.closed = row


def lock_position(connection: psycopg.Connection[Any], writer: str, boot: int) -> Position:
    """Lock and read the position of one boot; made when it is the first time."""
    select = "SELECT id, frame, seq, closed_at IS NOT NULL FROM audit_writerposition WHERE writer = %s AND boot = %s FOR UPDATE"
    row = connection.execute(select, (writer, boot)).fetchone()
    if row is None:
        connection.execute(
            "INSERT INTO audit_writerposition (writer, boot, frame, seq, reported_frame, reported_seq, previous_boot,"
            " previous_seq, clean, details) VALUES (%s, %s, 0, 0, 0, 0, 0, 0, false, '{}') ON CONFLICT DO NOTHING",
            (writer, boot),
        )
        row = connection.execute(select, (writer, boot)).fetchone()
    assert row is not None  # noqa: S101 - it was made a line above
    return Position(row)


def store_batch(
    connection: psycopg.Connection[Any],
    writer: str,
    boot: int,
    start: int,
    items: list[Frame | Hole],
    at_end: bool,
    own: str,
) -> tuple[DrainPlan, Position]:
    """Store frames that follow frame `start`; `at_end` says that this boot is over and these are its last.

    `own` is the drainer's own writer name, under which gaps are told. Raises Moved when `start` is not where the database is.
    """
    with connection.transaction():
        position = lock_position(connection, writer, boot)
        if position.frame != start:
            raise Moved
        if position.closed:
            return DrainPlan(position.frame, position.seq), position
        parsed = parse(items)
        made = plan(parsed, position.frame, position.seq, load_open(connection, wanted(parsed)))
        if at_end:
            finish(made, load_open_of(connection, writer, boot, made), time.time_ns() // 1000)
        stored = store_rows(connection, made.rows, made.spoiled)
        save_open(connection, made)
        save_resumed(connection, made.resumed)
        save_spoiled(connection, writer, boot, made.spoiled)
        store_rollups(connection, stored)
        if made.gaps:
            store_gaps(connection, own, [{**gap, "writer": writer, "boot": boot} for gap in made.gaps])
        save_position(connection, position.id, made, at_end)
        position.frame, position.seq, position.closed = made.frame, made.seq, at_end
        return made, position


def save_position(connection: psycopg.Connection[Any], position: int, made: DrainPlan, at_end: bool) -> None:
    """Write down how far a boot is stored, and what is known of its beginning and end."""
    sets = ["frame = %s", "seq = %s", "drained_at = now()"]
    values: list[Any] = [made.frame, made.seq]
    if made.boot is not None:
        sets += ["previous_boot = %s", "previous_seq = %s", "started_at = to_timestamp(%s)", "details = %s"]
        about = {name: made.boot.get(name) for name in ("host", "pid", "fsync")}
        values += [
            made.boot["prev_boot"],
            made.boot["prev_seq"],
            made.boot["ts"] / 1e6,
            orjson.dumps(about).decode(),
        ]
    if made.clean:
        sets.append("clean = true")
    if at_end:
        sets.append("closed_at = now()")
    values.append(position)
    connection.execute(f"UPDATE audit_writerposition SET {', '.join(sets)} WHERE id = %s", values)  # noqa: S608


# -- rows -----------------------------------------------------------------------------------------------------------------


def store_rows(
    connection: psycopg.Connection[Any], rows: list[PlannedRow], spoiled: list[Spoiled]
) -> list[dict[str, Any]]:
    """Insert events and give those that went in; what cannot become a row joins `spoiled` and never stops the others."""
    ready: list[tuple[PlannedRow, tuple[Any, ...]]] = []
    for row in rows:
        try:
            ready.append((row, row_of(row.record)))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            spoiled.append(spoil(row, error))
    stored: list[dict[str, Any]] = []
    work = [ready] if ready else []
    while work:
        part = work.pop()
        try:
            with connection.transaction():
                copy_rows(connection, part)
        except (errors.DataError, errors.IntegrityError, errors.ProgramLimitExceeded) as error:
            if isinstance(error, errors.UniqueViolation):
                fresh = not_stored(connection, part, spoiled)
                if len(fresh) < len(part):
                    if fresh:
                        work.append(fresh)
                    continue
            if len(part) == 1:
                spoiled.append(spoil(part[0][0], error))
                continue
            middle = len(part) // 2
            work += [part[middle:], part[:middle]]
        else:
            stored += [row.record for row, _ in part]
    return stored


def copy_rows(connection: psycopg.Connection[Any], part: list[tuple[PlannedRow, tuple[Any, ...]]]) -> None:
    with connection.cursor() as cursor, cursor.copy(COPY) as copy:
        for _, values in part:
            copy.write_row(values)


def not_stored(
    connection: psycopg.Connection[Any], part: list[tuple[PlannedRow, tuple[Any, ...]]], spoiled: list[Spoiled]
) -> list[tuple[PlannedRow, tuple[Any, ...]]]:
    """Leave out the events that are in the log already; an id that another event has is kept aside."""
    found = {
        str(key): identity
        for key, *identity in connection.execute(
            "SELECT id, writer, boot, seq FROM audit_auditevent WHERE id = ANY(%s::uuid[])",
            ([str(row.record["id"]) for row, _ in part],),
        )
    }
    fresh = []
    seen: set[str] = set()
    for row, values in part:
        key = str(row.record["id"])
        record = row.record
        if key in seen:
            spoiled.append(spoil(row, ValueError("a second event with the same id")))
        elif key not in found:
            seen.add(key)
            fresh.append((row, values))
        elif found[key] != [record.get("writer"), record.get("boot"), record.get("seq")]:
            spoiled.append(spoil(row, ValueError("another event has this id")))
    return fresh


def spoil(row: PlannedRow, error: Exception) -> Spoiled:
    """Keep a record that cannot be stored."""
    return Spoiled(row.frame, row.seq, "", orjson.dumps(row.record), f"{type(error).__name__}: {error}"[:1000])


def save_spoiled(connection: psycopg.Connection[Any], writer: str, boot: int, spoiled: list[Spoiled]) -> None:
    """Put bytes that could not become rows where somebody will look at them."""
    if spoiled:
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO audit_quarantinedframe (writer, boot, frame, seq, place, data, error, created_at)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, now())",
                [
                    (writer, boot, item.frame, item.seq, item.place, item.data, item.error.replace("\0", " "))
                    for item in spoiled
                ],
            )


# -- calls under way --------------------------------------------------------------------------------------------------------


def load_open(connection: psycopg.Connection[Any], keys: list[str]) -> dict[str, Open]:
    """Read open calls by id."""
    if not keys:
        return {}
    rows = connection.execute(
        f"SELECT {KNOWN} FROM audit_opencall WHERE id = ANY(%s::uuid[])",  # noqa: S608
        (keys,),
    )
    return {key: known(*rest) for key, *rest in rows}


def known(record: str, kind: str, answered: bool, wait: int, until: int) -> Open:
    """Take an open call back from its row."""
    return Open(orjson.loads(record), kind, answered, wait, until, stored=True)


def load_open_of(connection: psycopg.Connection[Any], writer: str, boot: int, made: DrainPlan) -> dict[str, Open]:
    """Read what a boot has left open, but for what this batch closes or knows better."""
    rows = connection.execute(
        f"SELECT {KNOWN} FROM audit_opencall WHERE writer = %s AND boot = %s",  # noqa: S608
        (writer, boot),
    )
    gone = {*made.closed, *made.open}
    return {key: known(*rest) for key, *rest in rows if key not in gone}


def save_open(connection: psycopg.Connection[Any], made: DrainPlan) -> None:
    """Write down which calls are under way now."""
    if made.closed:
        connection.execute("DELETE FROM audit_opencall WHERE id = ANY(%s::uuid[])", (made.closed,))
    changed = [open_values(key, item) for key, item in made.open.items() if item.changed]
    if not changed:
        return
    with connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO audit_opencall ({OPEN_COLUMNS}) VALUES"  # noqa: S608
            " (%s, %s, %s, %s, %s, to_timestamp(%s), %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (id) DO UPDATE SET answered = excluded.answered, record = excluded.record,"
            " wait = excluded.wait, until = excluded.until",
            changed,
        )


def open_values(key: str, item: Open) -> tuple[Any, ...]:
    """Give an open call's values in the order of OPEN_COLUMNS."""
    record = item.record
    names = (record.get(name) or "" for name in ("key_prefix", "key_name", "role", "upstream", "method"))
    place = record["writer"], record["boot"], record["seq"], record["ts"] / 1e6
    whose = record.get("api_key_id"), *names, record.get("tool_name")
    return key, item.kind, *place, item.answered, *whose, orjson.dumps(record).decode(), item.wait, item.until


def save_resumed(connection: psycopg.Connection[Any], resumed: list[dict[str, Any]]) -> None:
    """Write down which streams took up which calls, for audit.drain.resumption to join: the first answer of a stream stands."""
    if not resumed:
        return
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO audit_resumption (id, call, until, answer) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (id) DO UPDATE SET until = greatest(audit_resumption.until, excluded.until),"
            " answer = coalesce(audit_resumption.answer, excluded.answer)",
            [
                (one["id"], one["call"], one["until"], one["answer"] and orjson.dumps(one["answer"]).decode())
                for one in resumed
            ],
        )


# -- what the drainer itself has to tell --------------------------------------------------------------------------------------


def own_boot(connection: psycopg.Connection[Any], own: str) -> tuple[int, Position]:
    """Lock the drainer's own sequence, which lives in the database alone; made when it is the first time."""
    while True:
        row = connection.execute(
            "SELECT boot FROM audit_writerposition WHERE writer = %s AND closed_at IS NULL ORDER BY boot DESC LIMIT 1",
            (own,),
        ).fetchone()
        boot = row[0] if row else time.time_ns() // 1000
        position = lock_position(connection, own, boot)
        if not position.closed:
            return boot, position


def store_own(connection: psycopg.Connection[Any], own: str, records: list[dict[str, Any]]) -> list[Spoiled]:
    """Number records in the drainer's own sequence and store them, inside the caller's transaction."""
    boot, position = own_boot(connection, own)
    for record in records:
        position.seq += 1
        record["writer"], record["boot"], record["seq"] = own, boot, position.seq
    spoiled: list[Spoiled] = []
    rows = [PlannedRow(record, record["seq"], record["seq"]) for record in records]
    store_rollups(connection, store_rows(connection, rows, spoiled))
    save_spoiled(connection, own, boot, spoiled)
    connection.execute(
        "UPDATE audit_writerposition SET frame = %s, seq = %s, reported_frame = %s, reported_seq = %s, reported_at = now(),"
        " drained_at = now(), started_at = coalesce(started_at, now()) WHERE id = %s",
        (position.seq, position.seq, position.seq, position.seq, position.id),
    )
    return spoiled


def store_gaps(connection: psycopg.Connection[Any], own: str, gaps: list[dict[str, Any]]) -> None:
    """Tell what is missing as events of outcome `unrecorded`."""
    now = time.time_ns() // 1000
    records = []
    for gap in gaps:
        about = {**gap["gap"], "writer": gap["writer"], "boot": gap["boot"]}
        event = Event(
            ts=now, outcome="unrecorded", reason=gap["reason"], count=gap["count"], details={"gap": about}, decision={}
        )
        records.append(event.as_record())
    store_own(connection, own, records)


def drain_outbox(connection: psycopg.Connection[Any], own: str) -> int:
    """Number and store the events of administrators' acts that have committed; gives how many there were."""
    with connection.transaction():
        rows = connection.execute(
            "SELECT number, record::text FROM audit_outboxevent ORDER BY number LIMIT %s FOR UPDATE SKIP LOCKED",
            (OUTBOX_BATCH,),
        ).fetchall()
        if not rows:
            return 0
        store_own(connection, own, [orjson.loads(record) for _, record in rows])
        connection.execute("DELETE FROM audit_outboxevent WHERE number = ANY(%s)", ([number for number, _ in rows],))
        return len(rows)
