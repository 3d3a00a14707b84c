"""One MCP message, read once and strictly: what is decided here is what every later reader of the bytes will see.

Two parsers that disagree about one body are two requests, of which only one was authorised. So whatever JSON leaves open
(duplicate members, variants of reserved names that some parsers fold, numbers no double holds, depth) is refused before
anything is decided. The original bytes are what goes upstream: nothing here re-serialises them.

    read(body) -> Message          or raises Refused, which carries as much of the message as could be known
    peek(body) -> Known            never raises: what an event of an unauthenticated request may name
    glance(body) -> Known          the same from the head of the body alone: what the answer to one of a flood may echo
"""

from __future__ import annotations

import math
import re
from typing import Any, Final, Literal, NamedTuple

import orjson

from audit.reasons import PARSE_ERROR, answering
from proxy.mcp.strict_json import SURROGATE, Unreadable, parse_compact
from proxy.mcp.targets import (
    ABSENT,
    CLIENT_CAPABILITIES,
    CLIENT_INFO,
    ENVELOPE,
    META,
    OPEN_NOTIFICATIONS,
    PARAMS,
    PROTOCOL_VERSION,
    REQUESTS,
    TargetKind,
    TargetName,
    named,
    refuse_variants,
)

__all__ = [
    "ABSENT",
    "CLIENT_CAPABILITIES",
    "CLIENT_INFO",
    "PROTOCOL_VERSION",
    "Message",
    "Readable",
    "Refused",
    "TargetKind",
    "TargetName",
    "glance",
    "peek",
    "read",
]

Kind = Literal["request", "notification", "response"]
MAX_ID: Final = 1024  # characters of a string id
_GLANCE: Final = 2048


class Readable(NamedTuple):
    """As much of a message as could be read, for the event and the answer of one that was refused."""

    kind: Kind | Literal[""] = ""
    id_json: bytes | None = None
    method: str = ""
    targets: tuple[TargetName, ...] = ()


class Message(NamedTuple):
    """A message that every conforming reader reads alike."""

    kind: Kind
    id: str | int | None
    id_json: bytes | None  # the id as it stands in the body
    method: str  # "" for a response
    params: dict[str, Any] | None
    value: dict[str, Any]
    targets: tuple[TargetName, ...]
    open: bool  # protocol traffic that names no target
    compact: bytes = b""  # the body without its white space, where that says the same to the letter

    @property
    def meta(self) -> dict[str, Any]:
        """`params._meta`, or an empty object."""
        found = self.params.get("_meta") if self.params is not None else None
        return found if isinstance(found, dict) else {}

    @property
    def client_info(self) -> dict[str, Any] | None:
        """How the client calls itself (never an identity): from the envelope, or from `initialize`."""
        found = self.meta.get(CLIENT_INFO)
        if found is None and self.method == "initialize" and self.params is not None:
            found = self.params.get("clientInfo")
        return found if isinstance(found, dict) else None

    @property
    def known(self) -> Readable:
        """The part of the message that a refusal carries on."""
        return Readable(self.kind, self.id_json, self.method, self.targets)


class Refused(Exception):
    """A message or request that ends here: how to answer it, by its reason's row, and what is known of it.

    `message` and `code` (of JSON-RPC) go before the row's.
    """

    def __init__(
        self,
        reason: str,
        message: str = "",
        *,
        known: Readable = Readable(),  # noqa: B008 - an immutable value
        data: dict[str, Any] | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        retry_after: float | None = None,
        code: int = 0,
    ) -> None:
        row = answering(reason)
        super().__init__(message or row.message)
        self.status = row.status
        self.code = code or row.rpc
        self.reason = reason
        self.message = message or row.message
        self.known = known
        self.data = data
        self.headers = headers
        #: when to try again, in whole seconds
        self.retry_after = None if retry_after is None else max(1, math.ceil(retry_after))

    @property
    def rpc_id(self) -> bytes | None:
        """The id to echo, by its source bytes; None when there is none or it cannot be known."""
        return self.known.id_json


# --- a value to a message ---------------------------------------------------------------------------------------------

_ID_MEMBER = re.compile(rb'"(?:i|\\u0069)(?:d|\\u0064)"[ \t\n\r]*:[ \t\n\r]*("[^"\\]*(?:\\.[^"\\]*)*"|-?[0-9]+)')


def _id_json(body: bytes, rpc_id: str | int) -> bytes:
    """The id's own bytes in the body: `"\\u0031"` is echoed as it was sent, not as "1"."""
    canonical = orjson.dumps(rpc_id)
    if canonical != b"0" and b"\\" not in body:
        return canonical  # nothing is escaped anywhere, so a string or integer has one spelling (but for -0)
    for match in _ID_MEMBER.finditer(body):
        found = orjson.loads(match[1])
        if found == rpc_id and type(found) is type(rpc_id):
            return match[1]
    return canonical


def _identify(value: dict[str, Any], body: bytes) -> tuple[str | int | None, bytes | None]:
    rpc_id = value.get("id", ABSENT)
    if rpc_id is ABSENT:
        return None, None
    kind = type(rpc_id)
    if kind is int:
        if not -(2**63) <= rpc_id < 2**64:
            raise Unreadable("invalid_request", "id is an integer beyond 64 bits.")
    elif kind is str:
        if len(rpc_id) > MAX_ID:
            raise Unreadable("invalid_request", f"id is longer than {MAX_ID} characters.")
        if not rpc_id.isascii() and SURROGATE.search(rpc_id) is not None:
            raise Unreadable("lone_surrogate", "id has half a surrogate pair.")
    else:
        raise Unreadable("invalid_request", "id must be a string or an integer.")
    return rpc_id, _id_json(body, rpc_id)


def _read(value: Any, body: bytes, compact: bytes) -> Message:
    if type(value) is not dict:
        if type(value) is list:
            raise Unreadable("batch", "Batches are not accepted: send one message per request.")
        raise Unreadable("invalid_request", "The message must be a JSON object.")
    refuse_variants(value, ENVELOPE)
    if value.get("jsonrpc") != "2.0":
        raise Unreadable("invalid_request", 'jsonrpc must be "2.0".')
    rpc_id, id_json = _identify(value, body)
    if "method" not in value:
        return _response(value, rpc_id, id_json)
    if "result" in value or "error" in value:
        raise Unreadable("invalid_request", "The message is both a request and a response.")
    method = value["method"]
    if type(method) is not str or not method:
        raise Unreadable("invalid_request", "method must be a string that is not empty.")
    if not method.isascii() and SURROGATE.search(method) is not None:
        raise Unreadable("lone_surrogate", "method has half a surrogate pair.")
    params = value.get("params", ABSENT)
    if type(params) is dict:
        refuse_variants(params, PARAMS)
        meta = params.get("_meta", ABSENT)
        if type(meta) is dict:
            refuse_variants(meta, META)
        elif meta is not ABSENT:
            raise Unreadable("invalid_params", "_meta must be an object when present.")
    elif params is not ABSENT:
        raise Unreadable("invalid_params", "params must be an object when present.")
    if id_json is None and method in REQUESTS:
        raise Unreadable("invalid_request", f"{method} needs an id.")
    if id_json is not None and method in OPEN_NOTIFICATIONS:
        # What it speaks of by an id (a cancelled call) is told apart from other callers' only where it comes as a notification.
        raise Unreadable("invalid_request", f"{method} takes no id.")
    found: dict[str, Any] | None = params if type(params) is dict else None
    targets = named(method, found or {})
    kind: Kind = "notification" if id_json is None else "request"
    return Message(kind, rpc_id, id_json, method, found, value, targets, not targets, compact)


def _response(value: dict[str, Any], rpc_id: str | int | None, id_json: bytes | None) -> Message:
    if ("result" in value) == ("error" in value):
        raise Unreadable("invalid_request", "The message is neither a request nor a response.")
    if id_json is None:
        raise Unreadable("invalid_request", "A response needs the id of its request.")
    if not isinstance(value.get("error", {}), dict):
        raise Unreadable("invalid_request", "error must be an object.")
    return Message("response", rpc_id, id_json, "", None, value, (), True)


def read(body: bytes) -> Message:
    """Read one message strictly; raises Refused. Pure: a large body may be read in a thread."""
    try:
        value, compact = parse_compact(body)
        return _read(value, body, compact)
    except Unreadable as bad:
        raise Refused(bad.reason, bad.message, known=_known(body, bad)) from None


def peek(body: bytes) -> Readable:
    """What a message says of itself, however wrong the rest of it is; never raises."""
    try:
        return read(body).known
    except Refused as refused:
        return refused.known


def glance(body: bytes) -> Readable:
    """What the first bytes of a message say of it; never raises, and costs next to nothing."""
    return _known(body[:_GLANCE], Unreadable("invalid_request", ""))


# --- what can be known of a message that is refused -------------------------------------------------------------------

_HEAD = re.compile(
    rb'[ \t\n\r]*[{,][ \t\n\r]*"(jsonrpc|id|method)"[ \t\n\r]*:[ \t\n\r]*'
    rb'("(?:[^"\\\x00-\x1f]|\\["\\/bfnrtu])*"|-?(?:0|[1-9][0-9]{0,18}))(?=[ \t\n\r]*[,}])'
)


def _head(body: bytes) -> dict[str, Any]:
    """The simple members an envelope begins with, from a body that cannot be parsed."""
    found: dict[str, Any] = {}
    place = 0
    while (match := _HEAD.match(body, place)) is not None and match.end() <= 4096:
        name = match[1].decode()
        if name in found:
            return {}
        try:
            found[name] = orjson.loads(match[2])
        except ValueError:
            return found
        place = match.end()
    return found


def _known(body: bytes, bad: Unreadable) -> Readable:
    value: Any
    try:
        value = orjson.loads(body)
    except ValueError:
        value = _head(body)
    if type(value) is not dict:
        return Readable()
    method = value.get("method")
    method = method if isinstance(method, str) and SURROGATE.search(method) is None else ""
    id_json = None
    # After a parse error JSON-RPC wants no id; and which one is meant cannot be known when a member came twice.
    if answering(bad.reason).rpc != PARSE_ERROR and not (
        bad.reason == "duplicate_member" and len(_ID_MEMBER.findall(body)) > 1
    ):
        try:
            id_json = _identify(value, body)[1]
        except Unreadable:
            id_json = None
    targets: tuple[TargetName, ...] = ()
    params = value.get("params")
    if method and isinstance(params, dict):
        try:
            targets = named(method, {**params, "arguments": {}} if "arguments" in params else params)
        except Unreadable:
            targets = ()
    kind: Kind | Literal[""] = "" if not method else "request" if "id" in value else "notification"
    return Readable(kind, id_json, method, targets)
