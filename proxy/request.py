"""What goes to the upstream: the original bytes, the headers that may pass, the upstream's own session id."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import orjson

from proxy.headers import request_headers
from proxy.transports.base import UpstreamError, UpstreamRequest

if TYPE_CHECKING:
    from proxy.call import Call
    from proxy.gateway import Gateway

log = logging.getLogger("sentinel.proxy")


def upstream_request(call: Call) -> UpstreamRequest:
    """Make the upstream's request of a call; a stream that only listens may be silent for as long as it likes."""
    listens = call.verb == "GET" or (call.message is not None and call.message.method == "subscriptions/listen")
    return UpstreamRequest(
        verb=call.verb.encode(),
        headers=request_headers(call.headers, call.session, call.presented.value, last_event(call)),
        body=call.body if call.verb == "POST" else b"",
        idle_timeout=0 if listens else None,
    )


def last_event(call: Call) -> bytes:
    """The upstream's own id of the event that a stream goes on from, b"" when it begins anew."""
    return call.resumes.event_id if call.resumes is not None else b""


async def error_response(gateway: Gateway, call: Call, rpc_id: Any, method: str) -> None:
    """Answer a server's request that policy refuses, in the caller's stead."""
    if call.spec is None:
        return
    body = orjson.dumps(
        {"jsonrpc": "2.0", "id": rpc_id, "error": {"code": 403, "message": f"The policy does not allow {method}."}}
    )
    kept = [(n, v) for n, v in call.headers if n in (b"accept", b"mcp-protocol-version")]
    headers = [*request_headers(kept, call.session, call.presented.value), (b"content-type", b"application/json")]
    try:
        transport = gateway.registry.transport(call.spec.slug)
        response = await transport.send(UpstreamRequest(verb=b"POST", headers=headers, body=body))
        response.abort()
    except UpstreamError as error:
        log.warning("a refused request of the server could not be answered", extra={"error": error.detail})
