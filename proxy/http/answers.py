"""Every refusal as the bytes of an answer: HTTP status, headers, and a JSON-RPC message that says why.

One table (REFUSALS) gives each reason its HTTP status, JSON-RPC code and plain words. Two rules shape it:
- what a caller is told of a bad key never tells which way it was bad (`told`), while the event keeps the exact reason;
- codes follow the MCP revision where it has one (-32700 ... -32022), else stand outside the reserved range -32768..-32000.

`refusal(...)` builds an answer in one of three styles, since clients differ in what they survive and pass on:

    http           the HTTP status, with a JSON-RPC error
    in-band        the same error and headers with HTTP 200, for clients that end the whole session on any 4xx or 5xx
    tool-result    with HTTP 200 the result of a tool that failed, for clients whose model reads results, but no errors

Most clients show the text alone, so in every style it holds all that can be done about the refusal: why, when to try again,
and the id under which the log has it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import orjson

from proxy.mcp.message import Refused

__all__ = [
    "CREDENTIAL_REASONS",
    "IN_BAND",
    "IN_BAND_REASONS",
    "REFUSALS",
    "REFUSAL_META",
    "Answer",
    "Refusal",
    "Style",
    "accepted",
    "not_found",
    "refusal",
    "refused",
    "told",
]

Header = tuple[bytes, bytes]
Style = Literal["http", "in-band", "tool-result"]


class Answer(NamedTuple):
    """A whole answer made by the gateway itself. `event_status` is what the event records, also when sent in-band."""

    status: int
    headers: list[Header]
    body: bytes
    event_status: int


class Refusal(NamedTuple):
    """How one reason is answered."""

    status: int
    code: int
    message: str
    headers: tuple[Header, ...] = ()


PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
HEADER_MISMATCH: Final = -32020
UNSUPPORTED_VERSION: Final = -32022

CHALLENGE: Final[Header] = (b"www-authenticate", b'Bearer realm="mcp-sentinel"')
_NO_STORE: Final[Header] = (b"cache-control", b"no-store")
_JSON: Final[Header] = (b"content-type", b"application/json")

_MISSING = "No API key was presented. Send one in the Authorization header as a Bearer token."
_INVALID = "The API key is not valid here."

REFUSALS: Final[Mapping[str, Refusal]] = {
    # authenticate
    "missing_credential": Refusal(401, 401, _MISSING, (CHALLENGE,)),
    "invalid_credential": Refusal(401, 401, _INVALID, (CHALLENGE,)),
    "credential_misplaced": Refusal(
        400,
        INVALID_REQUEST,
        "The address holds what looks like a credential; send the key as Authorization: Bearer KEY, or as api_key.",
    ),
    "credential_ambiguous": Refusal(400, INVALID_REQUEST, "More than one credential was presented; send exactly one."),
    # parse
    "not_json": Refusal(400, PARSE_ERROR, "The body is not JSON."),
    "not_utf8": Refusal(400, PARSE_ERROR, "The body is not UTF-8."),
    "byte_order_mark": Refusal(400, PARSE_ERROR, "The body begins with a byte order mark."),
    "batch": Refusal(400, INVALID_REQUEST, "Batches are not accepted: send one message per request."),
    "duplicate_member": Refusal(400, INVALID_REQUEST, "An object in the message has the same member twice."),
    "reserved_member": Refusal(400, INVALID_REQUEST, "A member of the message is a variant of a reserved one."),
    "too_deep": Refusal(400, INVALID_REQUEST, "The message nests too deep."),
    "invalid_request": Refusal(400, INVALID_REQUEST, "The message is not a valid request."),
    "invalid_params": Refusal(400, INVALID_PARAMS, "The message's params are not valid."),
    "lone_surrogate": Refusal(400, INVALID_REQUEST, "A name in the message has half a surrogate pair."),
    "header_mismatch": Refusal(400, HEADER_MISMATCH, "A header and the body disagree."),
    "unsupported_version": Refusal(400, UNSUPPORTED_VERSION, "The protocol version is not supported."),
    "method_not_found": Refusal(404, METHOD_NOT_FOUND, "There is no such method in this protocol version."),
    "unsupported_media_type": Refusal(415, INVALID_REQUEST, "The body must be sent as application/json."),
    "unsupported_encoding": Refusal(415, INVALID_REQUEST, "The body must be sent without a content encoding."),
    "body_too_large": Refusal(413, INVALID_REQUEST, "The body is too large."),
    "body_timeout": Refusal(408, INVALID_REQUEST, "The body did not arrive in time."),
    "bad_host": Refusal(400, INVALID_REQUEST, "The Host header does not name this gateway."),
    "bad_origin": Refusal(
        403,
        403,
        "Pages of this origin may not call the gateway; whoever runs it can allow the origin by name (SENTINEL_ALLOWED_ORIGINS).",
    ),
    "method_not_allowed": Refusal(405, 405, "This verb is not allowed here.", ((b"allow", b"POST"),)),
    "unknown_upstream": Refusal(404, 404, "There is no such upstream."),
    "unknown_session": Refusal(404, 404, "There is no such session; initialize a new one."),
    "id_in_use": Refusal(
        400, INVALID_REQUEST, "A request with this id still waits for its answer in this session; use another id."
    ),
    "unknown_task": Refusal(404, INVALID_PARAMS, "There is no such task."),
    "unknown_event": Refusal(
        400, INVALID_REQUEST, "There is no such event to go on from; open the stream without Last-Event-ID."
    ),
    # authorize
    "no_rule": Refusal(403, 403, "The policy does not allow this."),
    "denied_by_rule": Refusal(403, 403, "The policy denies this."),
    "policy_error": Refusal(403, 403, "The policy does not allow this: a rule could not be evaluated."),
    "ambiguous_target": Refusal(
        403, 403, "The URI is not in its normal form, so that servers could take it for another; send it in that form."
    ),
    "nested_call": Refusal(403, 403, "A tool that calls others cannot be called through another."),
    "policy_stale": Refusal(503, 503, "The policy could not be confirmed lately."),
    "tool_definition_changed": Refusal(403, 403, "The tool's definition has changed and waits for approval."),
    # rate limit
    "rate_limited": Refusal(429, 429, "The rate limit is used up."),
    "too_much_traffic": Refusal(429, 429, "Too many lists and other messages beside calls."),
    "too_many_streams": Refusal(429, 429, "Too many open streams."),
    "too_much_waiting": Refusal(429, 429, "Too much of this key's data waits in the gateway: read what is open first."),
    "limiter_unavailable": Refusal(503, 503, "The rate limit could not be checked."),
    # forward
    "upstream_unreachable": Refusal(502, 502, "The upstream cannot be reached."),
    "upstream_timeout": Refusal(504, 504, "The upstream did not answer in time."),
    "upstream_broken": Refusal(502, 502, "The upstream's answer is broken."),
    "upstream_redirect": Refusal(
        502, 502, "The upstream answered with a redirect; its configured address needs fixing."
    ),
    "upstream_too_large": Refusal(502, 502, "The upstream's answer is too large."),
    "upstream_busy": Refusal(503, 503, "The upstream is busy or resting after failures."),
    "server_stopping": Refusal(503, 503, "The gateway is being stopped."),
    "upstream_error": Refusal(502, 502, "The upstream failed."),
    "egress_refused": Refusal(502, 502, "The upstream's address is not one the gateway may connect to."),
    "revoked_during_stream": Refusal(401, 401, _INVALID, (CHALLENGE,)),
    "denied_during_stream": Refusal(403, 403, "The policy does not allow this any longer."),
    "upstream_changed": Refusal(503, 503, "The upstream was changed or removed."),
    "era_mismatch": Refusal(400, UNSUPPORTED_VERSION, "The upstream does not speak this protocol version."),
    # audit
    "audit_unavailable": Refusal(503, 503, "The audit log cannot record this now, so it was not done."),
    # anything that should not happen: an answer all the same
    "internal_error": Refusal(500, 500, "The gateway failed."),
}

# Reasons that only the event may tell apart: each is `invalid_credential` to the caller.
CREDENTIAL_REASONS: Final = frozenset(
    {
        "invalid_credential",
        "expired_key",
        "revoked_key",
        "wrong_network",
        "query_forbidden",
        "administrative_key",
        "revoked_during_stream",
    }
)

# What may go out with HTTP 200: refusals and failures of one call; not of the caller (401), the session (404), or bytes (400).
IN_BAND: Final = frozenset({403, 429, 500, 502, 503, 504})
IN_BAND_REASONS: Final = frozenset({"unknown_task"})

# The member of `_meta` in which the result of a tool that was refused has what an error has as its data.
REFUSAL_META: Final = "mcp-sentinel/refusal"


def told(reason: str) -> str:
    """The reason a caller is told, given the reason the event keeps."""
    return "invalid_credential" if reason in CREDENTIAL_REASONS else reason


def refusal(
    reason: str,
    *,
    id_json: bytes | None = None,
    audit_id: str = "",
    message: str = "",
    status: int | None = None,
    code: int | None = None,
    data: Mapping[str, Any] | None = None,
    headers: Sequence[Header] = (),
    retry_after: int | None = None,
    style: Style = "http",
    modern: bool = False,
    cut: bool = False,
) -> Answer:
    """Answer a refusal; what is not given comes from the table. `cut` also closes the connection.

    `id_json` is the id's own bytes, or None where there is none (a notification) or it could not be known. `modern` says
    that a result is one of that era, which has to name its type.
    """
    reason = told(reason)
    row = REFUSALS.get(reason) or REFUSALS["internal_error"]
    status = row.status if status is None else status
    told_data: dict[str, Any] = {"reason": reason, "audit_id": audit_id}
    sent: list[Header] = [_JSON, _NO_STORE]
    sent.extend(header for header in row.headers if header[0] not in {name for name, _ in headers})
    sent.extend(headers)
    if retry_after is not None:
        told_data["retry_after"] = retry_after
        sent.append((b"retry-after", b"%d" % retry_after))
    if data:
        told_data.update(data)
    if cut:
        sent.append((b"connection", b"close"))
    text = _text(message or row.message, retry_after, audit_id)
    code = row.code if code is None else code
    if style == "tool-result":
        member, value = b"result", _result(text, {"code": code, **told_data}, modern)
    else:
        member, value = b"error", {"code": code, "message": text, "data": told_data}
    body = b'{"jsonrpc":"2.0","id":%b,"%b":%b}' % (id_json if id_json is not None else b"null", member, _dump(value))
    sent.append((b"content-length", b"%d" % len(body)))
    return Answer(status if style == "http" else 200, sent, body, status)


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


def refused(error: Refused, *, audit_id: str = "", style: Style = "http", modern: bool = False) -> Answer:
    """Answer a refusal that was raised."""
    return refusal(
        error.reason,
        id_json=error.rpc_id,
        audit_id=audit_id,
        message=error.message,
        status=error.status,
        code=error.code,
        data=error.data,
        headers=error.headers,
        retry_after=error.retry_after,
        style=style,
        modern=modern,
    )


def status(
    status: int, id_json: bytes | None, audit_id: str, message: str, data: Mapping[str, Any] | None = None
) -> bytes:
    """The body of a status that an upstream gave in words that cannot be passed on."""
    return refusal("upstream_error", id_json=id_json, audit_id=audit_id, message=message, code=status, data=data).body


def accepted() -> Answer:
    """202: a notification was taken and there is nothing to say."""
    return Answer(202, [(b"content-length", b"0"), _NO_STORE], b"", 202)


def not_found() -> Answer:
    """The JSON 404 of every `/.well-known/*` address: without it clients take a page for OAuth metadata."""
    body = b'{"error":"not_found","error_description":"There is no such document here."}'
    return Answer(404, [_JSON, _NO_STORE, (b"content-length", b"%d" % len(body))], body, 404)
