"""What browsers ask and are told before a page of another origin may call the gateway (cross-origin resource sharing).

Only for origins that are allowed by name. A preflight is the browser's own question, without a key: it is answered here, goes
nowhere and leaves no event, since the request that it asks for has one. A preflight of any other origin is refused and recorded
like everything that comes without a key. What is answered to an allowed page, refusals and streams included, says that
the page may read it.

There are no cookies here, and so nothing is said of credentials: a page sends its key in a header.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache

from core.types import Headers
from proxy.http.exchange import Departed, Exchange, RequestHead
from proxy.http.origins import host_allowed, normal, origin_named

ORIGIN = b"origin"
_WANTED_METHOD, _WANTED_HEADERS = b"access-control-request-method", b"access-control-request-headers"
_WANTED_NETWORK = b"access-control-request-private-network"
_METHODS = b"GET, POST, DELETE, OPTIONS"
#: what clients of the protocol send, and browsers do not send unasked
_SENT = (
    b"Accept, Authorization, Baggage, Content-Type, Last-Event-ID, MCP-Protocol-Version, Mcp-Method, Mcp-Name, Mcp-Session-Id, "
    b"Traceparent, Tracestate, User-Agent, X-API-Key"
)
#: what they read
_READ = (
    b"Allow, MCP-Protocol-Version, Mcp-Method, Mcp-Name, Mcp-Session-Id, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, "
    b"Retry-After, WWW-Authenticate"
)
#: the arguments that a modern call mirrors in headers: their names are each server's own
_PARAM = re.compile(rb"mcp-param-[!#$%&'*+.^_`|~0-9a-z-]{1,128}", re.IGNORECASE)
_PARAMS_MOST = 64
_MAX_AGE = b"7200"  # seconds; no browser of today keeps it longer than a day, Chromium no longer than this


@lru_cache(maxsize=256)
def shared(origin: bytes) -> Headers:
    """Say that pages of this origin, as it is configured, and only these, may read an answer."""
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", _READ),
        (b"vary", b"Origin"),
    ]


async def answered(head: RequestHead, exchange: Exchange, origins: tuple[str, ...], hosts: tuple[str, ...]) -> bool:
    """Settle what a browser that names an origin is told; True when that was all: it asked beforehand, and is answered."""
    found = head.header_values(ORIGIN)
    if not origin_named(found, origins):
        return False
    exchange.shared = shared(normal(found[0]))
    if not is_preflight(head) or not host_allowed(head.header_values(b"host"), hosts):
        return False
    with suppress(Departed):
        await exchange.answer(204, permission(head), b"")
    return True


def is_preflight(head: RequestHead) -> bool:
    """Tell a browser's question whether a page may send a request from that request."""
    return head.verb == "OPTIONS" and ORIGIN in head.lookup and _WANTED_METHOD in head.lookup


def refusal(head: RequestHead, hosts: tuple[str, ...]) -> str:
    """Give the reason why a preflight was not granted; "" for any other request."""
    if not is_preflight(head):
        return ""
    return "bad_origin" if host_allowed(head.header_values(b"host"), hosts) else "bad_host"


def permission(head: RequestHead) -> Headers:
    """Say what a page may send: what clients of the protocol do, and of a server's own parameters those that were asked for."""
    wanted = b",".join(head.header_values(_WANTED_HEADERS)).replace(b" ", b"").split(b",", _PARAMS_MOST)[:_PARAMS_MOST]
    headers = [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", b", ".join([_SENT, *filter(_PARAM.fullmatch, wanted)])),
        (b"access-control-max-age", _MAX_AGE),
        (b"cache-control", b"no-store"),
    ]
    if head.header(_WANTED_NETWORK) == b"true":
        headers.append((b"access-control-allow-private-network", b"true"))
    return headers
