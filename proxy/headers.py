"""Which headers cross the gateway (pure): allow-lists both ways, so that what nobody thought of stays behind.

Never forwarded, because not named here: the caller's Authorization, Cookie and X-API-Key, Host and Origin, everything
hop-by-hop, everything that looks like another proxy's inside (X-Forwarded-*, X-User, ...). The session and the event that a
stream goes on from are the pipeline's: they are bound to a key and replaced both ways.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from proxy.transports.base import Headers

USER_AGENT = b"mcp-sentinel"
SESSION = b"mcp-session-id"

_REQUEST = frozenset(
    b"accept content-type mcp-protocol-version mcp-method mcp-name traceparent tracestate baggage".split()
)
_PARAM = b"mcp-param-"
_RESPONSE = frozenset(
    b"content-type cache-control retry-after x-accel-buffering allow mcp-protocol-version mcp-method mcp-name".split()
)
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[\x21-\x7e]{0,64})?\Z")
_MAX = {b"tracestate": 512, b"baggage": 2048, b"accept": 1024, b"content-type": 256}
_MAX_VALUE = 8192
_MAX_PARAMS = 64


def request_headers(
    headers: Iterable[tuple[bytes, bytes]], session: bytes = b"", secret: str = "", last_event: bytes = b""
) -> Headers:
    """Choose what goes upstream of a client's headers (names lower-case, as ASGI gives them).

    `secret` is what the caller presented: a header that it stands in stays behind, whatever the header is for.
    """
    kept_back = secret.encode("latin-1", "replace")
    chosen: Headers = [(b"user-agent", USER_AGENT)]
    params = 0
    for name, value in headers:
        if name in _REQUEST:
            if len(value) > _MAX.get(name, _MAX_VALUE):
                continue
            if name == b"traceparent" and not _TRACEPARENT.match(value):
                continue
        elif name.startswith(_PARAM):
            params += 1
            if params > _MAX_PARAMS or len(value) > _MAX_VALUE:
                continue
        else:
            continue
        if kept_back and kept_back in value:
            continue
        chosen.append((name, value))
    if session:
        chosen.append((SESSION, session))
    if last_event:
        chosen.append((b"last-event-id", last_event))
    return chosen


def response_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Choose what goes to the client of an upstream's headers; length and session are the pipeline's to set."""
    return [
        (name, value)
        for name, value in headers
        if (name in _RESPONSE or name.startswith(_PARAM)) and len(value) <= _MAX_VALUE
    ]
