"""The older HTTP+SSE transport for clients that know no other: /sse/{upstream} and /messages/{upstream}.

The stream's first event names the address to post to. What the client is told is ours: a path under /messages, right
behind a path prefix too, whose `session_id` is the upstream's own address, sealed for the key that opened the stream. Any
worker can open the seal, so nothing has to be remembered; with another key it opens to nothing (404).
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from proxy.headers import request_headers
from proxy.refusals import refuse
from proxy.sse import encode
from proxy.transports.base import UpstreamError, UpstreamResponse

if TYPE_CHECKING:
    from proxy.call import Call
    from proxy.gateway import Gateway
    from proxy.transports.http_sse import Channel

PURPOSE = "endpoint"
_HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]


class ChannelResponse(UpstreamResponse):
    """An upstream's stream as the relay reads it: our own endpoint event first, then the upstream's events."""

    __slots__ = ("_channel", "_first")

    def __init__(self, channel: Channel, first: bytes) -> None:
        super().__init__(200, list(_HEADERS))
        self._channel = channel
        self._first = first

    async def read(self) -> bytes:
        """Give the next event's bytes, b"" at the end."""
        if self._first:
            first, self._first = self._first, b""
            return first
        event = await self._channel.next()
        return event.raw if event is not None else b""

    def abort(self) -> None:
        """Close the upstream's stream."""
        self._channel.abort()


def open_endpoint(gateway: Gateway, call: Call) -> None:
    """Open the seal of a message's address; unknown and another key's are the same 404."""
    presented = parse_qs(call.exchange.scope.get("query_string", b"").decode("latin-1")).get("session_id", [])
    value = None
    if len(presented) == 1:
        value = gateway.sealer.open(presented[0], key_id=call.key_id, upstream=call.slug, purpose=PURPOSE)
    if value is None:
        raise refuse("unknown_session", call=call)
    call.session = value


async def send(gateway: Gateway, call: Call) -> UpstreamResponse:
    """Open the stream of a GET, or post a message to the address its stream named."""
    sse = gateway.registry.sse(call.slug)
    if sse is None:
        raise UpstreamError("This upstream does not speak the older HTTP+SSE transport; use /mcp instead.")
    headers = request_headers(call.headers)
    if call.endpoint == "messages":
        return await sse.post(call.session, headers, call.body)
    channel = await sse.open(headers)
    sealed = gateway.sealer.seal(channel.endpoint, key_id=call.key_id, upstream=call.slug, purpose=PURPOSE)
    if sealed is None:
        channel.abort()
        raise UpstreamError("The upstream named an endpoint that cannot be passed on.")
    prefix = urlsplit(gateway.config.public_url).path.rstrip("/") if gateway.config.public_url else ""
    address = f"{prefix}/messages/{call.slug}?session_id={sealed}"
    return ChannelResponse(channel, encode(address.encode(), event="endpoint"))
