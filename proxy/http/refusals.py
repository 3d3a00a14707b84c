"""Refusals: made for a reason (`refuse`), and turned into the bytes of an answer (`answer`).

What a reason is answered with stands in audit.reasons: HTTP status, JSON-RPC code, a sentence, when to try again.

An answer goes out in one of three styles, since clients differ in what they survive and pass on:

    http           the HTTP status, with a JSON-RPC error
    in-band        the same error and headers with HTTP 200, for clients that end the whole session on any 4xx or 5xx
    tool-result    with HTTP 200 the result of a tool that failed, for clients whose model reads results, but no errors

Most clients show the text alone, so in every style it holds all that can be done about the refusal: why, when to try again,
and the id under which the log has it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, Protocol

import orjson

from audit.reasons import answering
from proxy.mcp.message import Readable, Refused

__all__ = ["REFUSAL_META", "Answer", "Style", "about_one_call", "answer", "not_found", "passed_on", "refuse"]

Header = tuple[bytes, bytes]
Style = Literal["http", "in-band", "tool-result"]


class Answer(NamedTuple):
    """A whole answer made by the gateway itself."""

    status: int
    headers: list[Header]
    body: bytes


class Identified(Protocol):
    """What is refused, as far as its answer names it."""

    rpc_id: bytes  # as it was sent, b"" where there is none


_NO_STORE: Final[Header] = (b"cache-control", b"no-store")
_JSON: Final[Header] = (b"content-type", b"application/json")
#: headers that HTTP wants with a status, unless the refusal has its own
_WITH_STATUS: Final[Mapping[int, Header]] = {
    401: (b"www-authenticate", b'Bearer realm="mcp-sentinel"'),
    405: (b"allow", b"POST"),
}

# What may go out with HTTP 200: refusals and failures of one call; not of the caller (401), the session (404), or bytes (400).
IN_BAND: Final = frozenset({403, 429, 500, 502, 503, 504})

# The member of `_meta` in which the result of a tool that was refused has what an error has as its data.
REFUSAL_META: Final = "mcp-sentinel/refusal"


def refuse(
    reason: str,
    *,
    call: Identified | None = None,
    message: str = "",
    headers: tuple[Header, ...] = (),
    retry_after: float | None = None,
    data: dict[str, Any] | None = None,
) -> Refused:
    """Make the refusal for a reason; what is not given comes from its row, so `message` replaces the row's words with a rule's own."""
    known = Readable(id_json=call.rpc_id or None) if call is not None else Readable()
    if retry_after is None:
        retry_after = answering(reason).retry
    return Refused(reason, message, known=known, headers=headers, data=data, retry_after=retry_after)


def about_one_call(refusal: Refused) -> bool:
    """Say whether a refusal is of one call, and may go out with HTTP 200."""
    return refusal.status in IN_BAND or answering(refusal.reason).in_band


def answer(refusal: Refused, *, audit_id: str = "", style: Style = "http", modern: bool = False) -> Answer:
    """Answer a refusal. `modern` says that a result is one of that era, which has to name its type."""
    data: dict[str, Any] = {"reason": answering(refusal.reason).told_as or refusal.reason, "audit_id": audit_id}
    sent: list[Header] = [_JSON, _NO_STORE]
    own = _WITH_STATUS.get(refusal.status)
    if own is not None and all(name != own[0] for name, _ in refusal.headers):
        sent.append(own)
    sent.extend(refusal.headers)
    if refusal.retry_after is not None:
        data["retry_after"] = refusal.retry_after
        sent.append((b"retry-after", b"%d" % refusal.retry_after))
    if refusal.data:
        data.update(refusal.data)
    text = _text(refusal.message, refusal.retry_after, audit_id)
    if style == "tool-result":
        member, value = b"result", _result(text, {"code": refusal.code, **data}, modern)
    else:
        member, value = b"error", {"code": refusal.code, "message": text, "data": data}
    id_json = refusal.rpc_id if refusal.rpc_id is not None else b"null"
    body = b'{"jsonrpc":"2.0","id":%b,"%b":%b}' % (id_json, member, _dump(value))
    sent.append((b"content-length", b"%d" % len(body)))
    return Answer(refusal.status if style == "http" else 200, sent, body)


def _text(message: str, retry_after: int | None, audit_id: str) -> str:
    """All that a person or a model needs to know in one text."""
    if message[-1:].isalnum():  # a rule's own words may lack their full stop
        message += "."
    if retry_after is not None:
        message += f" Try again in {retry_after} second{'' if retry_after == 1 else 's'}."
    return f"{message} (audit id {audit_id})" if audit_id else message


def _result(text: str, data: dict[str, Any], modern: bool) -> dict[str, Any]:
    """Give the result of a tool that was not run. It has no structured content, which none is asked for with an error."""
    value: dict[str, Any] = {
        "content": [{"type": "text", "text": text}],
        "isError": True,
        "_meta": {REFUSAL_META: data},
    }
    return {"resultType": "complete", **value} if modern else value


def _dump(value: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # half a surrogate pair in something the caller sent: sent back escaped
        return json.dumps(value, separators=(",", ":")).encode()


def passed_on(status: int, id_json: bytes | None, audit_id: str, message: str, data: dict[str, Any]) -> bytes:
    """The body of a status that an upstream gave in words that cannot be passed on."""
    known = Readable(id_json=id_json)
    return answer(Refused("upstream_error", message, known=known, data=data, code=status), audit_id=audit_id).body


def not_found() -> Answer:
    """The JSON 404 of every `/.well-known/*` address: without it clients take a page for OAuth metadata."""
    body = b'{"error":"not_found","error_description":"There is no such document here."}'
    return Answer(404, [_JSON, _NO_STORE, (b"content-length", b"%d" % len(body))], body)
