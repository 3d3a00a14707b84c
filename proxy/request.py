"""What goes to the upstream: the original bytes, the headers that may pass, the upstream's own session id."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import orjson

from proxy.headers import ACCEPT, request_headers
from proxy.mirrors import VERSION
from proxy.transports.base import Headers, UpstreamError, UpstreamRequest

if TYPE_CHECKING:
    from proxy.call import Call
    from proxy.gateway import Gateway

log = logging.getLogger("sentinel.proxy")


def upstream_request(call: Call) -> UpstreamRequest:
    """Make the upstream's request of a call; a stream that only listens may be silent for as long as it likes."""
    listens = call.verb == "GET" or (call.message is not None and call.message.method == "subscriptions/listen")
    return UpstreamRequest(
        verb=call.verb.encode(),
        headers=upstream_headers(call, call.session),
        body=call.body if call.verb == "POST" else b"",
        idle_timeout=0 if listens else None,
        caller=call.key_id,
        aside=call.verb == "DELETE" or (call.message is not None and call.message.kind != "request"),
    )


def upstream_headers(call: Call, session: bytes = b"") -> Headers:
    """Write the headers of the upstream's request of a call, in a session of the upstream's."""
    # a client of the older transport reads answers from its stream, in whatever form they come to us
    headers = call.headers if call.endpoint == "mcp" else [line for line in call.headers if line[0] != ACCEPT]
    last_event = call.resumes.event_id if call.resumes is not None else b""
    return request_headers(
        call.verb, headers, call.protocol, session=session, last_event=last_event, secret=call.presented.value
    )


async def error_response(gateway: Gateway, call: Call, rpc_id: Any, method: str) -> None:
    """Answer a server's request that policy refuses, in the caller's stead."""
    if call.spec is None:
        return
    body = orjson.dumps(
        {"jsonrpc": "2.0", "id": rpc_id, "error": {"code": 403, "message": f"The policy does not allow {method}."}}
    )
    version = [line for line in call.protocol if line[0] == VERSION]
    headers = request_headers("POST", protocol=version, session=call.session)
    try:
        transport = gateway.registry.transport(call.spec.slug)
        response = await transport.send(UpstreamRequest(b"POST", headers, body, caller=call.key_id))
        response.abort()
    except UpstreamError as error:
        log.warning("a refused request of the server could not be answered", extra={"error": error.detail})
