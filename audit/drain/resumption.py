"""Calls whose answer comes on another stream than their own: joined to one event, whoever brought the answer.

A legacy server may end a call's stream and answer on one that the client opens later (`Last-Event-ID`), as may a client
whose connection broke: with another worker, or after a restart. So two journals tell of one call. Its own writer says that
it waits (`OpenCall.until`); the other says that a stream took it up, and what that brought (`Resumption`). In whatever
order these are stored, `settle` looks for calls and answers that have met, and for waits that have ended.

A call is stored once, in the transaction that forgets that it was open. An answer that comes after the end of its wait can
no longer be in its call's event, which nobody may change; it becomes an event of its own that names the call. So does every
answer that says something else than the one its call's event has: a client may fetch answers as often as it likes.
"""

from __future__ import annotations

import time
from typing import Any

import orjson
import psycopg

from audit.drain.plan import PlannedRow, Spoiled
from audit.drain.rollups import store_rollups
from audit.drain.store import save_spoiled, store_own, store_rows
from audit.events import tool_errors
from audit.events.event import COLUMNS, Event

__all__ = ["AGAIN", "LATE", "MOST_WAITING", "joined", "settle"]

#: the reason of an answer that came when its call's event was already stored
LATE = "answered_late"
#: and of one that says something else than its call's event
AGAIN = "answered_again"
#: how many calls of one key wait at once; the oldest end first
MOST_WAITING = 1000
#: what is added to a wait, for what other machines have not stored yet
SLACK_US = 5_000_000
#: how long an answer waits for a call that the database does not know
ORPHAN_US = 24 * 3600 * 1_000_000
BATCH = 500
#: how many of the streams that took it up an event names
NAMED = 20

Record = dict[str, Any]

_WAITING = """
WITH waiting AS (
    SELECT id, until, row_number() OVER (PARTITION BY api_key_id ORDER BY id DESC) AS place FROM audit_opencall WHERE until > 0
)
SELECT o.id::text, o.record::text FROM audit_opencall o JOIN waiting w USING (id)
WHERE EXISTS (SELECT 1 FROM audit_resumption r WHERE r.call = o.id AND r.answer IS NOT NULL)
    OR %(caught_up)s AND w.place > %(most)s
    OR %(caught_up)s AND w.until < %(now)s
        AND NOT EXISTS (SELECT 1 FROM audit_resumption r WHERE r.call = o.id AND r.until >= %(now)s)
LIMIT %(batch)s FOR UPDATE OF o SKIP LOCKED
"""
_STORED = """
DELETE FROM audit_resumption WHERE id IN (
    SELECT r.id FROM audit_resumption r WHERE EXISTS (SELECT 1 FROM audit_auditevent e WHERE e.id = r.call)
    LIMIT %(batch)s FOR UPDATE SKIP LOCKED
) RETURNING id::text, call::text, answer::text
"""
_ORPHANS = """
DELETE FROM audit_resumption r WHERE r.until < %(orphaned)s AND NOT EXISTS (SELECT 1 FROM audit_opencall o WHERE o.id = r.call)
RETURNING id::text, call::text, answer::text
"""


def settle(connection: psycopg.Connection[Any], own: str, *, caught_up: bool) -> int:
    """Store the calls that have their answer, or whose wait is over; gives how many events there were.

    Waits end only when the journals at hand are stored (`caught_up`), so that no answer in them comes too late.
    """
    with connection.transaction():
        known: tuple[bool, bool] = connection.execute(  # on nearly every installation, nearly always: nothing
            "SELECT EXISTS (SELECT 1 FROM audit_opencall WHERE until > 0), EXISTS (SELECT 1 FROM audit_resumption)"
        ).fetchone() or (False, False)
        stored = store_waiting(connection, caught_up) if known[0] else 0
        if known[1]:
            stored += store_late(connection, own)
        return stored


def store_waiting(connection: psycopg.Connection[Any], caught_up: bool) -> int:
    """Turn calls that need wait no longer into events."""
    now = time.time_ns() // 1000 - SLACK_US
    found = connection.execute(
        _WAITING, {"caught_up": caught_up, "most": MOST_WAITING, "now": now, "batch": BATCH}
    ).fetchall()
    if not found:
        return 0
    calls = {key: orjson.loads(record) for key, record in found}
    streams: dict[str, list[tuple[str, Record | None]]] = {}
    for key, call, answer in connection.execute(
        "SELECT id::text, call::text, answer::text FROM audit_resumption WHERE call = ANY(%s::uuid[]) ORDER BY id",
        (list(calls),),
    ):
        streams.setdefault(call, []).append((key, answer and orjson.loads(answer)))
    others: list[str] = []
    for key, record in calls.items():
        others += joined(record, streams.get(key, []))
        spoiled: list[Spoiled] = []
        rows = [PlannedRow(record, 0, record["seq"])]
        store_rollups(connection, store_rows(connection, rows, spoiled))
        save_spoiled(connection, record["writer"], record["boot"], spoiled)
    connection.execute("DELETE FROM audit_opencall WHERE id = ANY(%s::uuid[])", (list(calls),))
    connection.execute(
        "DELETE FROM audit_resumption WHERE call = ANY(%s::uuid[]) AND id <> ALL(%s::uuid[])", (list(calls), others)
    )
    return len(calls)


def joined(record: Record, streams: list[tuple[str, Record | None]]) -> list[str]:
    """Complete a call's record with the streams that took it up (ids of their events, and what they brought).

    Gives those whose answer is another one than the record's.
    """
    details = orjson.loads(record.get("details") or "{}")
    stream = details["stream"] = dict(details.get("stream") or {})
    if streams:
        stream["resumed"] = [key for key, _ in streams[:NAMED]]
        stream["resumptions"] = len(streams)
    answer = next((answer for _, answer in streams if answer is not None), None)
    if answer is not None:
        stream["paused"] = stream.get("ended") or record.get("reason") or ""
        stream["ended"] = "resumed"
        details |= answer["details"]
        decision = orjson.loads(record.get("decision") or "{}")
        record["outcome"], record["reason"], record["status_code"] = "allowed", decision.get("reason") or "", 200
        record["latency_ms"] = round(max(answer["ts"] - record["ts"], 0) / 1000, 3)
        brought(record, answer)
    record["details"], record["tool_error"] = orjson.dumps(details).decode(), tool_errors.said(details)
    return [key for key, other in streams if other is not None and answer is not None and not _same(other, answer)]


def _same(one: Record, other: Record) -> bool:
    return all(one[name] == other[name] for name in ("response_bytes", "response_digest"))


def brought(record: Record, answer: Record) -> None:
    """Put an answer into a record."""
    for name in ("response_json", "response_bytes", "response_digest"):
        record[name] = answer[name]
    record["truncated"] = bool(record.get("truncated")) or answer["truncated"]
    record["redactions"] = record.get("redactions", 0) + answer["redactions"]


def store_late(connection: psycopg.Connection[Any], own: str) -> int:
    """Forget streams whose call is stored: with this answer, most often; else that becomes an event of its own."""
    late = []
    for key, call, answer in connection.execute(_STORED, {"batch": BATCH}).fetchall():
        if answer is None:
            continue
        brings = orjson.loads(answer)
        row = connection.execute(
            f"SELECT {', '.join(COLUMNS)} FROM audit_auditevent"  # noqa: S608
            " WHERE id = %s AND (response_bytes, response_digest) <> (%s, %s)",
            (call, brings["response_bytes"], brings["response_digest"]),
        ).fetchone()
        if row is not None:
            late.append(event_of(dict(zip(COLUMNS, row, strict=True)), key, brings))
    if late:
        store_own(connection, own, late)
    orphans = connection.execute(_ORPHANS, {"orphaned": time.time_ns() // 1000 - ORPHAN_US}).fetchall()
    kept = [
        Spoiled(0, None, key, answer.encode(), f"the answer to call {call}, of which nothing else is known")
        for key, call, answer in orphans
        if answer is not None
    ]
    save_spoiled(connection, own, 0, kept)
    return len(late)


SAME = (
    "api_key_id", "key_prefix", "key_name", "role", "auth_method", "client_ip", "user_agent", "upstream", "protocol_version",
    "session", "rpc_id", "method", "tool_name", "target_kind", "trace_id", "decision",
)  # fmt: skip


def event_of(call: Record, stream: str, answer: Record) -> Record:
    """Make the event of an answer that its call's event, which is stored, does not have."""
    details = {"call": str(call["id"]), "stream": {"resumed": [stream]}, **answer["details"]}
    record = Event(
        ts=answer["ts"],
        outcome="allowed",
        reason=AGAIN if call["response_bytes"] else LATE,
        status_code=200,
        latency_ms=max(answer["ts"] - call["ts"].timestamp() * 1e6, 0) / 1000,
        details=details,
        tool_error=tool_errors.said(details),
        **{name: call[name] for name in SAME},
    ).as_record()
    brought(record, answer)
    return record
