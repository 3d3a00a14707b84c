"""Which headers cross the gateway, and how (pure).

Upstream, every header is written here: the gateway's own, the protocol's (proxy.mcp.mirrors), and the few of the client's that
an upstream needs, each parsed and written anew. Two readers that take one header for two things are then two readers of
what we wrote, and never of what a client sent.

Never forwarded, because not named here: the caller's Authorization, Cookie and X-API-Key, Host and Origin, everything
hop-by-hop, everything that looks like another proxy's inside (X-Forwarded-*, X-User, ...). The session and the event that a
stream goes on from are the pipeline's: they are bound to a key and replaced both ways. Back to the client a list says what goes
through.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from core.types import Headers
from proxy.http import trace_context
from proxy.mcp.mirrors import decode_header

USER_AGENT = b"mcp-sentinel"
SESSION = b"mcp-session-id"
ACCEPT, LAST_EVENT_ID = b"accept", b"last-event-id"
JSON, STREAM = b"application/json", b"text/event-stream"
BOTH = JSON + b", " + STREAM

_READ = frozenset((ACCEPT, trace_context.TRACEPARENT, trace_context.TRACESTATE, trace_context.BAGGAGE))
_OURS = (b"user-agent", USER_AGENT)
_CONTENT = (b"content-type", JSON)
_PARAM = b"mcp-param-"
_RESPONSE = frozenset(
    b"cache-control retry-after x-accel-buffering allow mcp-protocol-version mcp-method mcp-name".split()
)
_CONTENT_TYPE = re.compile(rb'application/json(?:[ \t]*;[ \t]*charset=(?:utf-8|"utf-8"))?', re.IGNORECASE)
_QUALITY = re.compile(rb"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
_MAX_VALUE = 8192
_MAX_ACCEPT = 1024


def is_json(values: Sequence[bytes]) -> bool:
    """Whether a body is said to be JSON in UTF-8: in one line, by one media type, with at most that one parameter.

    Servers take the charset at its word, even UTF-7 and UTF-16, and so would run another body than the one that was read here.
    """
    return len(values) == 1 and _CONTENT_TYPE.fullmatch(values[0].strip(b" \t")) is not None


def is_plain(values: Sequence[bytes]) -> bool:
    """Whether a body is said to be as it is, without a coding."""
    return not values or (len(values) == 1 and values[0].strip(b" \t").lower() in (b"", b"identity"))


@lru_cache(maxsize=256)
def acceptable(value: bytes) -> bytes:
    """Write anew which of the protocol's two forms of an answer a client takes; who takes neither is sent what there is."""
    best = {JSON: (0, False), STREAM: (0, False)}  # how exactly it is named, and whether it is wanted
    for part in value.lower().split(b","):
        media, *parameters = (item.strip(b" \t") for item in part.split(b";"))
        weights = [item[2:] for item in parameters if item.startswith(b"q=")]
        if len(weights) > 1 or not all(map(_QUALITY.fullmatch, weights)):
            continue
        wanted = not weights or weights[0].strip(b"0.") != b""
        for form, (exactness, _) in best.items():
            named = {form: 3, form.partition(b"/")[0] + b"/*": 2, b"*/*": 1}.get(media, 0)
            if named > exactness:
                best[form] = (named, wanted)
    return b", ".join(form for form, (_, wanted) in best.items() if wanted) or BOTH


def request_headers(
    verb: str,
    headers: Iterable[tuple[bytes, bytes]] = (),
    protocol: Iterable[tuple[bytes, bytes]] = (),
    *,
    session: bytes = b"",
    last_event: bytes = b"",
    secret: str = "",
) -> Headers:
    """Write the headers of a request to an upstream; names lower-case, as ASGI gives them.

    `protocol` are the protocol's own headers, written already; `session` and `last_event` are the upstream's own. `secret` is what the caller presented: a header that it
    stands in stays behind, whatever the header is for.
    """
    accepted = b""
    trace: Headers = []
    for name, value in headers:
        if name in _READ:
            if name == ACCEPT:
                accepted = accepted + b"," + value if accepted else value
            else:
                trace.append((name, value))
    theirs: Headers = [*protocol, *trace_context.written(trace)] if trace else [*protocol]
    if verb == "GET":
        chosen = [_OURS, (ACCEPT, STREAM)]
    else:
        chosen = [_OURS, (ACCEPT, acceptable(accepted) if 0 < len(accepted) <= _MAX_ACCEPT else BOTH)]
        if verb == "POST":
            chosen.append(_CONTENT)
    if secret:
        kept_back = secret.encode("latin-1", "replace")
        for line in theirs:
            if kept_back not in line[1] and (line[1][:2] != b"=?" or secret not in (decode_header(line[1]) or "")):
                chosen.append(line)
    else:
        chosen += theirs
    if session:
        chosen.append((SESSION, session))
    if last_event:
        chosen.append((LAST_EVENT_ID, last_event))
    return chosen


def response_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Choose what goes to the client of an upstream's headers; type, length and session are the pipeline's to set."""
    return [
        (name, value)
        for name, value in headers
        if (name in _RESPONSE or name.startswith(_PARAM)) and len(value) <= _MAX_VALUE
    ]
