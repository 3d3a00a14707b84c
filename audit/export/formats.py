"""Events out of the database as a stream: newline-delimited JSON, CSV that a spreadsheet cannot run, or OCSF.

Whatever the number of events, memory stays flat: a server-side cursor, and one event at a time. Payloads and decisions go
out as the text that was stored, so that numbers stay as they were written.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Generator, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
from django.db import connections, transaction
from django.db.models import BooleanField, F, QuerySet, TextField
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast

from audit.events import tool_errors
from audit.events.event import EMPTY, JSON, TIMES

__all__ = ["FIELDS", "FORMATS", "column", "export", "rows"]

# Names, order and meaning are a contract; new names may be added at the end.
FIELDS = tuple(EMPTY)
CHUNK = 500
FLUSH_BYTES = 64 * 1024
# What a spreadsheet takes for the beginning of a formula, also behind a separator it may split at, and full-width forms.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001

Row = dict[str, Any]


def column(name: str) -> Any:
    """Give what reads one field: JSON columns as the text that is stored, `tool_error` also of events older than its column."""
    if name == "tool_error":
        return RawSQL(tool_errors.SQL, (), BooleanField())  # noqa: S611 - a constant
    return Cast(name, TextField()) if name in JSON else F(name)


def rows(queryset: QuerySet[Any]) -> Generator[Row, None, None]:
    """Stream the rows of a query over AuditEvent, in its order, as plain values; JSON columns as the text that is stored."""
    found = queryset.values_list(*map(column, FIELDS))
    # Inside a transaction the server's cursor reads on as we do; outside it would first copy the whole result.
    with transaction.atomic(using=queryset.db):
        with connections[queryset.db].cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout = 0")
        for values in found.iterator(chunk_size=CHUNK):
            yield dict(zip(FIELDS, values, strict=True))


def moment(when: datetime | None) -> str | None:
    """Word a time: RFC 3339, microseconds, UTC."""
    if when is None:
        return None
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def milliseconds(when: datetime) -> int:
    """Give a time as milliseconds since 1970."""
    return round(when.timestamp() * 1000)


def exported(row: Row) -> Row:
    """Give an event's exported form; JSON columns are fragments that keep their text."""
    event = {**row, "id": str(row["id"])}
    if row["api_key_id"] is not None:
        event["api_key_id"] = str(row["api_key_id"])
    event["writer"] = f"{row['writer']}.{row['boot']}"
    for name in TIMES:
        event[name] = moment(row[name])
    for name in JSON:
        text = row[name]
        event[name] = None if text is None else orjson.Fragment(text)
    return event


def ndjson(found: Iterable[Row]) -> Iterator[bytes]:
    """Write one JSON object a line."""
    for row in found:
        yield orjson.dumps(exported(row)) + b"\n"


def harmless(value: Any) -> str:
    """Word one value for a table: text that a spreadsheet could take for a formula gets an apostrophe in front."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    text = str(value)
    stripped = text.lstrip(" \"'")
    return f"'{text}" if stripped.startswith(FORMULA) or text.startswith(FORMULA) else text


def table(found: Iterable[Row]) -> Iterator[bytes]:
    """Write CSV (RFC 4180) with a line of names."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\r\n")

    def take() -> bytes:
        data = buffer.getvalue().encode("utf-8", "backslashreplace")
        buffer.seek(0)
        buffer.truncate()
        return data

    writer.writerow(FIELDS)
    yield take()
    for row in found:
        event = {**row, "writer": f"{row['writer']}.{row['boot']}", **{name: moment(row[name]) for name in TIMES}}
        writer.writerow([harmless(event[name]) for name in FIELDS])
        yield take()


# OCSF 1.x, class "API Activity" (6003): https://schema.ocsf.io/classes/api_activity
ACTIVITY = {"tools/list": 2, "resources/list": 2, "prompts/list": 2, "resources/read": 2, "prompts/get": 2}
FAILED = frozenset(("unauthenticated", "denied", "limited", "invalid", "upstream_error", "interrupted", "unrecorded"))
SEVERITY = {"denied": 3, "unauthenticated": 2, "limited": 2, "unrecorded": 4, "interrupted": 3, "upstream_error": 2}


def ocsf(found: Iterable[Row]) -> Iterator[bytes]:
    """Write one OCSF event a line; what OCSF has no name for stands under `unmapped`, unchanged."""
    for row in found:
        yield orjson.dumps(ocsf_event(row)) + b"\n"


def ocsf_event(row: Row) -> Row:
    outcome, key = row["outcome"], row["api_key_id"]
    activity = ACTIVITY.get(row["method"], 99)
    failed = outcome == "allowed" and row["tool_error"]
    status = 2 if outcome in FAILED or failed else 1
    began = milliseconds(row["ts"])
    event: Row = {
        "metadata": {
            "version": "1.3.0",
            "product": {"name": "MCP Sentinel", "vendor_name": "MCP Sentinel"},
            "uid": str(row["id"]),
            "sequence": row["seq"],
            "logged_time": began,
        },
        "class_uid": 6003,
        "class_name": "API Activity",
        "category_uid": 6,
        "category_name": "Application Activity",
        "activity_id": activity,
        "type_uid": 600300 + activity,
        "time": began,
        "severity_id": 2 if failed else SEVERITY.get(outcome, 1),
        "status_id": status,
        "status": "Failure" if status == 2 else "Success",
        "status_code": str(row["status_code"]),
        "status_detail": "tool_error" if failed else row["reason"],
        "duration": row["latency_ms"],
        "count": row["count"],
        "api": {
            "operation": row["method"],
            "version": row["protocol_version"],
            "service": {"name": row["upstream"]},
            "request": {"uid": row["rpc_id"]},
            "response": {"code": row["status_code"], "message": row["reason"]},
        },
        "actor": {"user": {"uid": key and str(key), "name": row["key_name"], "groups": [{"name": row["role"]}]}},
        "src_endpoint": {"ip": row["client_ip"]},
        "http_request": {"user_agent": row["user_agent"]},
        "resources": [{"name": row["tool_name"], "type": row["target_kind"]}] if row["tool_name"] else [],
        "unmapped": exported(row),
    }
    if row["first_ts"] is not None:
        event["start_time"] = milliseconds(row["first_ts"])
        event["end_time"] = milliseconds(row["last_ts"] or row["first_ts"])
    return event


FORMATS: dict[str, Callable[[Iterable[Row]], Iterator[bytes]]] = {"ndjson": ndjson, "csv": table, "ocsf": ocsf}


def export(queryset: QuerySet[Any], fmt: str = "ndjson") -> Iterator[bytes]:
    """Stream a query over AuditEvent in one of FORMATS, in pieces of about 64 KiB."""
    try:
        write = FORMATS[fmt]
    except KeyError:
        raise ValueError(f"unknown format {fmt!r}: use one of {', '.join(FORMATS)}") from None
    return gathered(write(rows(queryset)))


def gathered(pieces: Iterable[bytes]) -> Iterator[bytes]:
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= FLUSH_BYTES:
            yield b"".join(waiting)
            waiting.clear()
            size = 0
    if waiting:
        yield b"".join(waiting)
