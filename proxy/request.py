"""What goes to the upstream: the original bytes, the headers that may pass, the upstream's own session id."""

from __future__ import annotations

import logging
from typing import Any

import orjson

from core.types import Headers
from proxy.call import Call
from proxy.gateway import Gateway
from proxy.http.headers import ACCEPT, request_headers
from proxy.mcp.mirrors import VERSION
from proxy.upstreams.transports.base import UpstreamError, UpstreamRequest

log = logging.getLogger("sentinel.proxy")


def upstream_request(call: Call) -> UpstreamRequest:
    """Make the upstream's request of a call; a stream that only listens may be silent for as long as it likes."""
    silence = None
    if call.spec is not None and call.spec.tool_timeouts and call.target is not None and call.target.kind == "tool":
        silence = call.spec.silence(call.target.name)
    return UpstreamRequest(
        verb=call.verb.encode(),
        headers=upstream_headers(call, call.session),
        body=call.body if call.verb == "POST" else b"",
        first_byte_timeout=silence,
        idle_timeout=0 if call.listens else silence,
        caller=call.key_id,
        aside=call.verb == "DELETE" or (call.message is not None and call.message.kind != "request"),
    )


def upstream_headers(call: Call, session: bytes = b"") -> Headers:
    """Write the headers of the upstream's request of a call, in a session of the upstream's."""
    # the client of the older transport reads a stream, and we are the one that reads the upstream's answers
    headers = call.headers if call.endpoint == "mcp" else [line for line in call.headers if line[0] != ACCEPT]
    last_event = call.resumes.event_id if call.resumes is not None else b""
    return request_headers(
        call.verb, headers, call.protocol, session=session, last_event=last_event, secret=call.presented.value
    )


def takes_cancels(call: Call) -> bool:
    """Tell whether the upstream has to be told that nobody waits any more: in the modern era the end of the stream says it,
    and processes and HTTP+SSE sessions are told where they live.
    """
    message, spec = call.message, call.spec
    legacy = call.era is not None and not call.era.modern and spec is not None and spec.transport == "streamable-http"
    return (
        legacy
        and call.executed
        and message is not None
        and message.kind == "request"
        and message.method != "initialize"
    )


async def cancel_upstream(gateway: Gateway, call: Call) -> None:
    """Tell the upstream that a request of a legacy session is given up."""
    params = b'{"requestId":%b,"reason":"it took too long"}' % call.rpc_id
    await _say(gateway, call, b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":%b}' % params, "a cancel")


async def error_response(gateway: Gateway, call: Call, rpc_id: Any, method: str) -> None:
    """Answer a server's request that policy refuses, in the caller's stead."""
    body = orjson.dumps(
        {"jsonrpc": "2.0", "id": rpc_id, "error": {"code": 403, "message": f"The policy does not allow {method}."}}
    )
    await _say(gateway, call, body, "the answer to a refused request of its own")


async def _say(gateway: Gateway, call: Call, body: bytes, what: str) -> None:
    """Send a message of the gateway's own in a call's session."""
    if call.spec is None:
        return
    version = [line for line in call.protocol if line[0] == VERSION]
    headers = request_headers("POST", protocol=version, session=call.session)
    try:
        transport = gateway.registry.transport(call.spec.slug)
        response = await transport.send(UpstreamRequest(b"POST", headers, body, caller=call.key_id))
        response.abort()
    except UpstreamError as error:
        log.warning("an upstream did not take %s", what, extra={"error": error.detail})
