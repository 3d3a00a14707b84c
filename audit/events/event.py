"""The value that one request leaves behind.

Whatever way an event comes to be, each of its fields passes its own function in `_FIELDS` once: when it is constructed, when
an outcome completes it, when anybody assigns to it. So no call site can forget to redact, and nothing can be stored that
the table would refuse.

One rule ties fields together: an event is `allowed` only with a known key. One that says so without (its key id is missing
or no UUID) becomes `unauthenticated`, its reason `invalid_credential`, and `details.claimed` tells what it said.
"""

from __future__ import annotations

import ipaddress
import math
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

import orjson

from audit.events import tool_errors
from audit.redaction import json_digits
from audit.redaction.sanitizer import EMPTY, MISSING, Payload, Sanitizer, current
from audit.redaction.truncation import cut_bytes
from core import ids

__all__ = ("COLUMNS", "OUTCOMES", "Event", "export_form", "row_values")

OUTCOMES = (
    "allowed",
    "unauthenticated",
    "denied",
    "limited",
    "invalid",
    "upstream_error",
    "cancelled",
    "interrupted",
    "unrecorded",
    "changed",
)
AUTH_METHODS = ("bearer", "header", "query", "none")
TARGET_KINDS = ("", "tool", "prompt", "resource", "method")
_BIGGEST = (1 << 63) - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NAME_BYTES = 512

# Table columns in the order of `as_row`.
COLUMNS = (
    "id", "ts", "writer", "boot", "seq", "api_key_id", "key_prefix", "key_name", "role", "auth_method", "client_ip",
    "user_agent", "upstream", "protocol_version", "session", "rpc_id", "method", "tool_name", "target_kind", "outcome",
    "reason", "decision", "status_code", "latency_ms", "upstream_ms", "request_json", "response_json", "request_bytes",
    "response_bytes", "request_digest", "response_digest", "truncated", "redactions", "count", "first_ts", "last_ts",
    "trace_id", "details", "tool_error", "search",
)  # fmt: skip


def _id(value: Any, _: Sanitizer) -> uuid.UUID | None:
    if type(value) is uuid.UUID:
        return value
    if isinstance(value, str) and len(value) in (32, 36):
        try:
            return uuid.UUID(value)
        except ValueError:
            return None
    return None


def _text(limit: int) -> Callable[[Any, Sanitizer], str]:
    def clean(value: Any, sanitizer: Sanitizer) -> str:
        return value if value == "" and type(value) is str else sanitizer.text(value, limit)

    return clean


def _name(value: Any, sanitizer: Sanitizer) -> str | None:
    return None if value is None else sanitizer.text(value, NAME_BYTES)


def _one_of(values: tuple[str, ...], otherwise: str) -> Callable[[Any, Sanitizer], str]:
    known = {value: value for value in values}

    def clean(value: Any, _: Sanitizer) -> str:
        return known.get(value, otherwise) if isinstance(value, str) else otherwise

    return clean


def _address(value: Any, _: Sanitizer) -> str | None:
    if not isinstance(value, (str, ipaddress.IPv4Address, ipaddress.IPv6Address)):
        return None
    cached = _addresses.get(value) if isinstance(value, str) else None
    if cached is not None:
        return cached
    try:
        text = str(ipaddress.ip_address(str(value).strip()[:64].partition("%")[0]))
    except ValueError:
        return None
    if isinstance(value, str):
        if len(_addresses) > 4096:
            _addresses.clear()
        _addresses[value] = text
    return text


_addresses: dict[str, str] = {}


def _whole(least: int, most: int, otherwise: int = 0) -> Callable[[Any, Sanitizer], int]:
    def clean(value: Any, _: Sanitizer) -> int:
        if type(value) is not int:
            try:
                value = int(value)
            except (TypeError, ValueError, OverflowError):
                return otherwise
        return least if value < least else most if value > most else value

    return clean


def _duration(value: Any, _: Sanitizer) -> float:
    try:
        value = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return round(value, 3) if 0.0 <= value < 1e15 else 0.0


def _maybe_duration(value: Any, sanitizer: Sanitizer) -> float | None:
    return None if value is None else _duration(value, sanitizer)


def _moment(value: Any, _: Sanitizer) -> int | None:
    """Microseconds since 1970."""
    if value is None:
        return None
    if isinstance(value, datetime):
        value = value if value.tzinfo else value.replace(tzinfo=UTC)
        delta: timedelta = value - _EPOCH
        return max((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds, 0)
    if isinstance(value, str):
        try:
            return _moment(datetime.fromisoformat(value), _)
        except ValueError:
            return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    try:
        return min(max(int(value), 0), 253_402_300_799_999_999)
    except (TypeError, ValueError, OverflowError):
        return None


def _document(value: Any, sanitizer: Sanitizer) -> str:
    """Small JSON of our own making, with names and texts of others in it: kept as text."""
    if value is None:
        return "{}"
    return sanitizer.document(value)


def _decision(value: Any, sanitizer: Sanitizer) -> str:
    """A decision: what its stages took differs each time, while the rest is the same for every call under a rule."""
    stages = value.get("stages") if type(value) is dict else None
    if type(stages) is list and stages:
        try:
            alike = [
                (one["stage"], one["result"])
                for one in stages
                # No number that could be more than a duration.
                if len(one) == 3 and type(one["us"]) is int and 0 <= one["us"] < 10_000_000_000
            ]
        except (TypeError, KeyError):
            alike = []
        if len(alike) == len(stages):
            return sanitizer.document(value, {**value, "stages": alike})
    return _document(value, sanitizer)


_COUNT = _whole(0, _BIGGEST)
_FIELDS: dict[str, Callable[[Any, Sanitizer], Any]] = {
    "writer": _text(64),
    "boot": _COUNT,
    "seq": _COUNT,
    "key_prefix": _text(64),
    "key_name": _text(256),
    "role": _text(256),
    "auth_method": _one_of(AUTH_METHODS, "none"),
    "client_ip": _address,
    "user_agent": _text(256),
    "upstream": _text(128),
    "protocol_version": _text(64),
    "session": _text(64),
    "rpc_id": _text(256),
    "method": _text(256),
    "tool_name": _name,
    "target_kind": _one_of(TARGET_KINDS, ""),
    "outcome": _one_of(OUTCOMES, "invalid"),
    "reason": _text(128),
    "decision": _decision,
    "status_code": _whole(0, 32_767),
    "latency_ms": _duration,
    "upstream_ms": _maybe_duration,
    "request_bytes": _COUNT,
    "response_bytes": _COUNT,
    "request_digest": _text(128),
    "response_digest": _text(128),
    "truncated": lambda value, _: bool(value),
    "redactions": _whole(0, 2_147_483_647),
    "count": _whole(1, 2_147_483_647, 1),
    "first_ts": _moment,
    "last_ts": _moment,
    "trace_id": _text(64),
    "details": _document,
    "tool_error": lambda value, _: None if value is None else bool(value),
}
_EMPTY: dict[str, Any] = {
    "id": None, "ts": 0, "writer": "", "boot": 0, "seq": 0, "api_key_id": None, "key_prefix": "", "key_name": "", "role": "",
    "auth_method": "none", "client_ip": None, "user_agent": "", "upstream": "", "protocol_version": "", "session": "",
    "rpc_id": "", "method": "", "tool_name": None, "target_kind": "", "outcome": "invalid", "reason": "", "decision": "{}",
    "status_code": 0, "latency_ms": 0.0, "upstream_ms": None, "request_json": None, "response_json": None,
    "request_bytes": 0, "response_bytes": 0, "request_digest": "", "response_digest": "", "truncated": False,
    "redactions": 0, "count": 1, "first_ts": None, "last_ts": None, "trace_id": "", "details": "{}",
    "tool_error": None,
}  # fmt: skip
_JSON = ("request_json", "response_json", "decision", "details")
_PAYLOADS = {
    "request_json": ("request", "request_bytes", "request_digest"),
    "response_json": ("response", "response_bytes", "response_digest"),
}


_TEXTS = frozenset(
    name
    for name in _FIELDS
    if _EMPTY[name] in ("", None)
    and name not in (*_JSON, "client_ip", "target_kind", "upstream_ms", "first_ts", "last_ts", "tool_error")
)


class Event:
    """What one request leaves behind; every field sanitised from the moment it is there. What was never said reads as nothing (`_EMPTY`)."""

    __slots__ = ("_fields", "_sanitizer")

    def __init__(self, *, sanitizer: Sanitizer | None = None, again: bool = False, **fields: Any) -> None:
        """Make an event; `again`: of values that were an event's before, whose escapes are not escaped once more."""
        put = object.__setattr__
        put(self, "_sanitizer", sanitizer or current())
        put(self, "_fields", {})
        made = _id(fields.pop("id", None), self._sanitizer)
        moment = _moment(fields.pop("ts", None), self._sanitizer)
        if made is None:
            made = ids.uuid7(moment)
        if moment is None:
            moment = ids.ts_of(made if ids.is_uuid7(made) else ids.uuid7())
        self._fields["id"], self._fields["ts"] = made, moment
        if again:
            self._take_back(fields)
        else:
            self.complete(**fields)

    def complete(self, **fields: Any) -> Event:
        """Add what became known later; sanitised like everything else. Unknown names are an error of the caller's."""
        mine, sanitizer = self._fields, self._sanitizer
        known = sanitizer.clean
        payloads, key = None, MISSING
        for name, value in fields.items():
            if type(value) is str and value in known and name in _TEXTS:
                mine[name] = value  # seen before, and nothing was found in it
                continue
            clean = _FIELDS.get(name)
            if clean is not None:
                mine[name] = clean(value, sanitizer)
            elif name in _PAYLOADS:
                payloads = [*(payloads or ()), (name, value)]
            elif name == "api_key_id":
                key = value
            elif name == "id":
                mine["id"] = _id(value, sanitizer) or mine["id"]
            elif name == "ts":
                mine["ts"] = _moment(value, sanitizer) or mine["ts"]
            elif name != "search":
                raise TypeError(f"an event has no field {name!r}")
        if key is not MISSING:
            self._key(key)  # after the details, to which it may add
        if payloads:
            for name, value in payloads:
                self._payload(name, value, fields)
        if mine.get("outcome") == "allowed" and mine.get("api_key_id") is None:
            self._not_allowed()
        return self

    def numbered(self, writer: str, boot: int, seq: int) -> None:
        """Take its place in the log; what `complete` does with these three, for each event once."""
        mine = self._fields
        mine["writer"], mine["boot"], mine["seq"] = self._sanitizer.text(writer, 64), boot, seq

    def _payload(self, name: str, value: Any, given: Mapping[str, Any]) -> None:
        mine = self._fields
        side, size, digest = _PAYLOADS[name]
        if isinstance(value, Payload):
            payload = value
        elif value is None:
            payload = EMPTY
        elif isinstance(value, (bytes, bytearray, memoryview)):
            payload = self._sanitizer.payload(raw=bytes(value), side=side)
        else:
            payload = self._sanitizer.payload(value, side=side)
        mine[name] = payload.json
        # What the caller counted or digested (a stream, say) is nearer to the wire than what was kept of it.
        if size not in given:
            mine[size] = payload.size
        if digest not in given:
            mine[digest] = payload.digest
        if payload.truncated:
            mine["truncated"] = True
        if payload.redactions:
            mine["redactions"] = min(mine.get("redactions", 0) + payload.redactions, 2_147_483_647)

    def _key(self, value: Any) -> None:
        known = _id(value, self._sanitizer)
        self._fields["api_key_id"] = known
        if known is None and value is not None and not (isinstance(value, str) and not value):
            self._note(key_fingerprint=self._sanitizer.fingerprint(value))

    def _not_allowed(self) -> None:
        mine = self._fields
        self._note(claimed={"outcome": "allowed", "reason": mine.get("reason", "")})
        mine["outcome"], mine["reason"] = "unauthenticated", "invalid_credential"

    def _note(self, **details: Any) -> None:
        held = orjson.loads(self._fields.get("details", "{}"))
        held = held if isinstance(held, dict) else {"value": held}
        noted = {**held, **orjson.loads(_document(details, self._sanitizer))}
        self._fields["details"] = self._sanitizer.restore(self._sanitizer.as_json(noted)).json

    def __getattr__(self, name: str) -> Any:
        if name not in _EMPTY:
            raise AttributeError(f"an event has no field {name!r}")
        value = self._fields.get(name, _EMPTY[name])
        return json_digits.loads(value) if name in _JSON and value is not None else value

    def __setattr__(self, name: str, value: Any) -> None:
        # Assigning is completing: there is no way around the table above.
        self.complete(**{name: value})

    def __repr__(self) -> str:
        return f"Event({self.id}, {self.outcome}, {self.method} {self.tool_name or ''})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Event) and self._whole() == other._whole()

    __hash__ = None  # type: ignore[assignment]

    @property
    def search(self) -> str:
        """Short text that a search looks through: names, reason and ids."""
        return search_text(self._whole())

    def as_record(self) -> dict[str, Any]:
        """Its journal form: what was said of it, JSON columns as their text."""
        return dict(self._fields)

    def _whole(self) -> dict[str, Any]:
        return {**_EMPTY, **self._fields}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], *, sanitizer: Sanitizer | None = None) -> Event:
        """Take an event back from its journal form. Never raises; what is damaged is left out."""
        known = {name: value for name, value in record.items() if name in _EMPTY}
        return cls(sanitizer=sanitizer, again=True, **known)

    def _take_back(self, record: Mapping[str, Any]) -> None:
        mine, sanitizer = self._fields, self._sanitizer
        for name, value in record.items():
            if name in _JSON:
                mine[name] = sanitizer.restore(value if isinstance(value, str) else sanitizer.as_json(value)).json
            elif name == "api_key_id":
                mine[name] = _id(value, sanitizer)
            elif name in _TEXTS:
                mine[name] = None if value is None else sanitizer.text(value, NAME_BYTES, again=True)
            elif name in _FIELDS:
                mine[name] = _FIELDS[name](value, sanitizer)
        for name in ("decision", "details"):
            if name in mine:
                mine[name] = mine[name] or "{}"
        if mine.get("outcome") == "allowed" and mine.get("api_key_id") is None:
            self._not_allowed()

    def as_row(self) -> tuple[Any, ...]:
        """Its values in the order of `COLUMNS`: times as datetimes, JSON as text."""
        return row_values(self._whole(), _datetime)

    def as_export(self) -> dict[str, Any]:
        """Its form for whoever reads the log elsewhere; names and shapes are stable once released."""
        return export_form(self._whole())


_VALUES = itemgetter(*COLUMNS[:-1])
_TIMES = tuple(COLUMNS.index(name) for name in ("ts", "first_ts", "last_ts"))
_SEARCHED = itemgetter("key_name", "key_prefix", "role", "upstream", "method", "reason", "rpc_id")


def row_values(fields: Mapping[str, Any], moment: Callable[[int], Any]) -> tuple[Any, ...]:
    """Give an event's fields in the order of `COLUMNS`; `moment` makes what a time (microseconds since 1970) becomes."""
    row = [*_VALUES(fields), search_text(fields)]
    for place in _TIMES:
        if row[place] is not None:
            row[place] = moment(row[place])
    return tuple(row)


def search_text(fields: Mapping[str, Any]) -> str:
    """Short text that a search looks through: names, reason and ids."""
    # What callers choose freely comes last: it must not push the rest out.
    parts = (*_SEARCHED(fields), str(fields["id"]), fields["trace_id"], fields["tool_name"])
    return cut_bytes(" ".join(filter(None, parts)), 1_024)


def _datetime(ts: int) -> datetime:
    return _EPOCH + timedelta(microseconds=ts)


def _written(moment: Any) -> str | None:
    if moment is None:
        return None
    moment = _datetime(moment) if isinstance(moment, int) else moment.astimezone(UTC)
    return str(moment.strftime("%Y-%m-%dT%H:%M:%S.%f")) + "Z"


def _parsed(text: Any) -> Any:
    return json_digits.loads(text) if isinstance(text, (str, bytes)) else text


def export_form(fields: Mapping[str, Any], *, parse: bool = True) -> dict[str, Any]:
    """Export form of an event's columns, from an `Event` or a row; without `parse` JSON columns pass as `orjson.Fragment`."""
    read = _parsed if parse else _fragment
    return {
        "id": str(fields["id"]),
        "ts": _written(fields["ts"]),
        "writer": f"{fields['writer']}.{fields['boot']}",
        "boot": fields["boot"],
        "seq": fields["seq"],
        "api_key_id": None if fields["api_key_id"] is None else str(fields["api_key_id"]),
        "key_prefix": fields["key_prefix"],
        "key_name": fields["key_name"],
        "role": fields["role"],
        "auth_method": fields["auth_method"],
        "client_ip": None if fields["client_ip"] is None else str(fields["client_ip"]).partition("/")[0],
        "user_agent": fields["user_agent"],
        "upstream": fields["upstream"],
        "protocol_version": fields["protocol_version"],
        "session": fields["session"],
        "rpc_id": fields["rpc_id"],
        "method": fields["method"],
        "tool_name": fields["tool_name"],
        "target_kind": fields["target_kind"],
        "outcome": fields["outcome"],
        "reason": fields["reason"],
        "decision": read(fields["decision"]),
        "status_code": fields["status_code"],
        "latency_ms": fields["latency_ms"],
        "upstream_ms": fields["upstream_ms"],
        "request_json": read(fields["request_json"]),
        "response_json": read(fields["response_json"]),
        "request_bytes": fields["request_bytes"],
        "response_bytes": fields["response_bytes"],
        "request_digest": fields["request_digest"],
        "response_digest": fields["response_digest"],
        "truncated": fields["truncated"],
        "redactions": fields["redactions"],
        "count": fields["count"],
        "first_ts": _written(fields["first_ts"]),
        "last_ts": _written(fields["last_ts"]),
        "trace_id": fields["trace_id"],
        "details": read(fields["details"]),
        "tool_error": _failed(fields),
    }


def _failed(fields: Mapping[str, Any]) -> bool:
    if fields["tool_error"] is not None:
        return bool(fields["tool_error"])
    details = _parsed(fields["details"])
    return isinstance(details, Mapping) and tool_errors.said(details)


def _fragment(text: Any) -> Any:
    return orjson.Fragment(text) if isinstance(text, (str, bytes)) else text
