"""What keeps the log in order, for the commands: verification, partitions, quarantine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any
from uuid import UUID

import orjson
import psycopg
from django.conf import settings
from django.db import connections, transaction

from audit.drain import partitions
from audit.drain.partitions import Partition
from audit.drain.plan import PlannedRow, Spoiled
from audit.drain.rollups import store_rollups
from audit.drain.store import store_rows
from audit.drain.verify import VerificationReport, verify
from audit.services.acts import record_act
from core.access.actors import Actor
from core.db import connect, connection_parameters

__all__ = [
    "NoSuchEvent",
    "erase_payloads",
    "listed_partitions",
    "mind_partitions",
    "quarantined",
    "retry_quarantined",
    "verified",
]


@contextmanager
def database(using: str = "default") -> Iterator[psycopg.Connection[Any]]:
    """Open a connection of one's own; statements may take their time."""
    with connect(connection_parameters(using), "mcp-sentinel maintenance", seconds=None) as connection:
        yield connection


def verified() -> VerificationReport:
    """Verify the whole log, and what waits in this machine's journal."""
    with database() as connection:
        return verify(connection, settings.SENTINEL.var / "journal", settings.SENTINEL.instance)


def listed_partitions() -> list[Partition]:
    with database() as connection:
        return partitions.listed(connection)


def mind_partitions() -> dict[str, list[str]]:
    """Make the partitions ahead and drop those past their age, as the owner."""
    with database("owner" if "owner" in settings.DATABASES else "default") as connection:
        made: list[date] = partitions.ahead(connection)
        dropped = partitions.drop_old(connection, settings.SENTINEL.audit_retention_days)
    return {"made": [day.isoformat() for day in made], "dropped": dropped}


def quarantined(everything: bool = False) -> list[dict[str, Any]]:
    """List the frames in quarantine, oldest first, without their bytes."""
    with database() as connection:
        rows = connection.execute(
            "SELECT id, writer, boot, frame, seq, place, octet_length(data), error, created_at, resolved_at"  # noqa: S608
            f" FROM audit_quarantinedframe {'' if everything else 'WHERE resolved_at IS NULL'} ORDER BY id"
        ).fetchall()
    names = ("id", "writer", "boot", "frame", "seq", "place", "bytes", "error", "created_at", "resolved_at")
    return [dict(zip(names, row, strict=True)) for row in rows]


def retry_quarantined(ids: list[int]) -> tuple[list[int], dict[int, str]]:
    """Try to store frames again: the ids that went in, and why the others did not."""
    done: list[int] = []
    failed: dict[int, str] = {}
    with database() as connection:
        rows = connection.execute(
            "SELECT id FROM audit_quarantinedframe WHERE resolved_at IS NULL AND (%s OR id = ANY(%s)) ORDER BY id",
            (not ids, ids),
        ).fetchall()
        known = [number for (number,) in rows]
        failed |= {number: "is not in quarantine" for number in ids if number not in known}
        for number in known:
            error = retry(connection, number)
            if error:
                failed[number] = error
            else:
                done.append(number)
    return done, failed


def retry(connection: psycopg.Connection[Any], number: int) -> str:
    """Try to store one frame; gives why not, or nothing."""
    with connection.transaction():
        row = connection.execute(
            "SELECT frame, seq, data FROM audit_quarantinedframe WHERE id = %s AND resolved_at IS NULL FOR UPDATE",
            (number,),
        ).fetchone()
        if row is None:
            return "is not in quarantine"
        frame, seq, data = row
        try:
            record = orjson.loads(bytes(data))
        except ValueError:
            return "its bytes are damaged and cannot become an event"
        if not isinstance(record, dict):
            return "its bytes are no event"
        spoiled: list[Spoiled] = []
        stored = store_rows(connection, [PlannedRow(record, frame, seq or 0)], spoiled)
        if spoiled:
            return spoiled[0].error
        store_rollups(connection, stored)
        connection.execute("UPDATE audit_quarantinedframe SET resolved_at = now() WHERE id = %s", (number,))
    return ""


class NoSuchEvent(LookupError):
    """There is no event under this id."""


def erase_payloads(event_id: UUID, *, reason: str, actor: Actor) -> None:
    """Empty the arguments and results of one event, for the law; its digests and all else stay, and the act is an event."""
    using = "owner" if "owner" in settings.DATABASES else "default"
    with transaction.atomic(using=using), connections[using].cursor() as cursor:
        cursor.execute("SET LOCAL sentinel.maintenance = 'on'")
        cursor.execute(
            "UPDATE audit_auditevent SET request_json = NULL, response_json = NULL WHERE id = %s", [event_id]
        )
        if cursor.rowcount == 0:
            raise NoSuchEvent
        cursor.execute("SET LOCAL sentinel.maintenance = 'off'")
        details = {"event": str(event_id), "reason": reason}
        record_act(method="admin.audit.payload_erased", actor=actor, target=str(event_id), details=details, using=using)
