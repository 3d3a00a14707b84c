"""The value that one request leaves behind.

A field is one row of the class below: what cleans it and how it reads where nothing was said; its name is the column's, the
export's and the API's, its place that of the column. (The Django model says it once more, for migrations; a test holds the two
together.) Whatever way an event comes to be, each of its fields passes its `clean` once: when it is constructed, when an
outcome completes it, when anybody assigns to it. So no call site can forget to redact, and nothing can be stored that the
table would refuse.

One rule ties fields together: an event is `allowed` only with a known key. One that says so without (its key id is missing
or no UUID) becomes `unauthenticated`, its reason `invalid_credential`, and `details.claimed` tells what it said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any, get_args
from uuid import UUID

import orjson

from audit.events import fields as kinds
from audit.events.fields import EPOCH, MOST, NAME_BYTES, DocumentField, Field, Holder, TextField
from audit.reasons import Outcome
from audit.redaction.sanitizer import EMPTY as NO_PAYLOAD
from audit.redaction.sanitizer import MISSING, Payload, Sanitizer, current
from audit.redaction.truncation import cut_bytes
from core import ids

__all__ = ("COLUMNS", "EMPTY", "FIELDS", "JSON", "OUTCOMES", "TIMES", "Event", "row_values")

OUTCOMES = get_args(Outcome)
AUTH_METHODS = ("bearer", "header", "query", "none")
TARGET_KINDS = ("", "tool", "prompt", "resource", "method")
_PAYLOADS = {
    "request_json": ("request", "request_bytes", "request_digest"),
    "response_json": ("response", "response_bytes", "response_digest"),
}
_KEPT = "Sanitised, at most 8,192 bytes."


class Event(Holder):
    """What one request leaves behind; every field sanitised from the moment it is there."""

    __slots__ = ()

    id = Field[UUID](kinds.identity, UUID(int=0), "uuid", "UUIDv7: its time is when the request started.")
    ts = Field[int](kinds.microseconds, 0, "time", "When the request started; microseconds, UTC.")
    writer = kinds.text(64, "Which writer of which start numbered it.")
    boot = kinds.whole(0, MOST)
    seq = kinds.whole(0, MOST, "Its number; the numbers of one writer have no holes.")
    api_key_id = Field[UUID | None](kinds.identity, None, "uuid")
    key_prefix = kinds.text(64)
    key_name = kinds.text(256)
    role = kinds.text(256)
    auth_method = kinds.one_of(AUTH_METHODS, "none", "bearer, header, query or none.")
    client_ip = Field[str | None](kinds.address, None, "text")
    user_agent = kinds.text(256)
    upstream = kinds.text(128)
    protocol_version = kinds.text(64)
    session = kinds.text(64)
    rpc_id = kinds.text(256, "The JSON-RPC id, as JSON text.")
    method = kinds.text(256, "Of an administrator's act: like admin.key.revoked.")
    tool_name = kinds.name("The tool's, prompt's or resource's name as sent.")
    target_kind = kinds.one_of(TARGET_KINDS, "")
    outcome = kinds.one_of(OUTCOMES, "invalid")
    reason = kinds.text(128)
    decision = DocumentField(kinds.decision, "{}", "json", "Each stage's result, the rule, the policy version.")
    status_code = kinds.whole(0, 32_767)
    latency_ms = Field[float](kinds.milliseconds, 0.0, "number")
    upstream_ms = Field[float | None](kinds.maybe_milliseconds, None, "number")
    request_json = DocumentField(kinds.document, None, "json", _KEPT)
    response_json = DocumentField(kinds.document, None, "json", _KEPT)
    request_bytes = kinds.whole(0, MOST)
    response_bytes = kinds.whole(0, MOST)
    request_digest = kinds.text(128)
    response_digest = kinds.text(128)
    truncated = Field[bool](kinds.flag, False, "flag")
    redactions = kinds.whole(0, 2_147_483_647)
    count = kinds.whole(1, 2_147_483_647, "How many refusals of a flood this event stands for; else 1.")
    first_ts = kinds.moment()
    last_ts = kinds.moment()
    trace_id = kinds.text(64)
    details = DocumentField(kinds.document, "{}", "json")
    #: None in what is older than this column; see audit.events.tool_errors
    tool_error = Field[bool | None](
        kinds.verdict, None, "flag", "Whether the tool or the upstream itself said that it failed."
    )

    def __init__(self, *, sanitizer: Sanitizer | None = None, again: bool = False, **fields: Any) -> None:
        """Make an event; `again`: of values that were an event's before, whose escapes are not escaped once more."""
        self._sanitizer = sanitizer = sanitizer or current()
        made = kinds.identity(fields.pop("id", None), sanitizer)
        moment = kinds.microseconds(fields.pop("ts", None), sanitizer)
        if made is None:
            made = ids.uuid7(moment)
        if moment is None:
            moment = ids.ts_of(made if ids.is_uuid7(made) else ids.uuid7())
        self._fields = {"id": made, "ts": moment}
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
            clean = _CLEAN.get(name)
            if clean is not None:
                mine[name] = clean(value, sanitizer)
            elif name in _PAYLOADS:
                payloads = [*(payloads or ()), (name, value)]
            elif name == "api_key_id":
                key = value
            elif name == "id":
                mine["id"] = kinds.identity(value, sanitizer) or mine["id"]
            elif name == "ts":
                mine["ts"] = kinds.microseconds(value, sanitizer) or mine["ts"]
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
            payload = NO_PAYLOAD
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
        known = kinds.identity(value, self._sanitizer)
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
        noted = {**held, **orjson.loads(kinds.document(details, self._sanitizer))}
        self._fields["details"] = self._sanitizer.restored(self._sanitizer.as_json(noted))

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
        return {**EMPTY, **self._fields}

    def _take_back(self, record: Mapping[str, Any]) -> None:
        mine, sanitizer = self._fields, self._sanitizer
        for name, value in record.items():
            if name in JSON:
                mine[name] = sanitizer.restored(value if isinstance(value, str) else sanitizer.as_json(value))
            elif name == "api_key_id":
                mine[name] = kinds.identity(value, sanitizer)
            elif name in _TEXTS:
                mine[name] = None if value is None else sanitizer.text(value, NAME_BYTES, again=True)
            elif name in _CLEAN:
                mine[name] = _CLEAN[name](value, sanitizer)
        for name in ("decision", "details"):
            if name in mine:
                mine[name] = mine[name] or "{}"
        if mine.get("outcome") == "allowed" and mine.get("api_key_id") is None:
            self._not_allowed()

    def as_row(self) -> tuple[Any, ...]:
        """Its values in the order of `COLUMNS`: times as datetimes, JSON as text."""
        return row_values(self._whole(), _datetime)


FIELDS: tuple[Field[Any], ...] = tuple(field for field in vars(Event).values() if isinstance(field, Field))
#: of the table, in the order of `as_row`
COLUMNS = (*(field.name for field in FIELDS), "search")
EMPTY: dict[str, Any] = {field.name: field.empty for field in FIELDS}
JSON = frozenset(field.name for field in FIELDS if isinstance(field, DocumentField))
TIMES = frozenset(field.name for field in FIELDS if field.shape == "time")
_TEXTS = frozenset(field.name for field in FIELDS if isinstance(field, TextField))
# What is cleaned by itself; `complete` has something more to do for the others.
_CLEAN = {field.name: field.clean for field in FIELDS if field.name not in ("id", "ts", "api_key_id", *_PAYLOADS)}
_VALUES = itemgetter(*EMPTY)
_TIME_PLACES = tuple(COLUMNS.index(name) for name in EMPTY if name in TIMES)
_SEARCHED = itemgetter("key_name", "key_prefix", "role", "upstream", "method", "reason", "rpc_id")


def row_values(fields: Mapping[str, Any], moment: Callable[[int], Any]) -> tuple[Any, ...]:
    """Give an event's fields in the order of `COLUMNS`; `moment` makes what a time (microseconds since 1970) becomes."""
    row = [*_VALUES(fields), search_text(fields)]
    for place in _TIME_PLACES:
        if row[place] is not None:
            row[place] = moment(row[place])
    return tuple(row)


def search_text(fields: Mapping[str, Any]) -> str:
    """Short text that a search looks through: names, reason and ids."""
    # What callers choose freely comes last: it must not push the rest out.
    parts = (*_SEARCHED(fields), str(fields["id"]), fields["trace_id"], fields["tool_name"])
    return cut_bytes(" ".join(filter(None, parts)), 1_024)


def _datetime(ts: int) -> datetime:
    return EPOCH + timedelta(microseconds=ts)
