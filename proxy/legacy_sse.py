"""The older HTTP+SSE transport for clients that know no other: /sse/{upstream} and /messages/{upstream}.

The stream's first event names the address to post to. What the client is told is ours: a path under /messages, right
behind a path prefix too, whose `session_id` is sealed for the key that opened the stream; with another key it opens to
nothing (404). Behind it stands one of two things:

- an upstream that speaks this transport itself: the seal holds the upstream's own address, and everything passes through;
- any other upstream: the seal holds the address of a mailbox, a message is sent on as Streamable HTTP would send it, and
  what the upstream answers, refusals of policy too, comes as events of the stream.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from proxy.exchange import Exchange, Headers
from proxy.mailbox import Link, Mailbox
from proxy.refusals import refuse
from proxy.request import upstream_headers, upstream_request
from proxy.sse import encode
from proxy.transports.base import UpstreamError, UpstreamRequest, UpstreamResponse
from proxy.transports.splice import one_line

if TYPE_CHECKING:
    from proxy.call import Call
    from proxy.gateway import Gateway
    from proxy.transports.http_sse import Channel

ENDPOINT, MAILBOX = "endpoint", "mailbox"
_HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
_ACCEPTED = [(b"content-type", b"text/plain"), (b"content-length", b"8"), (b"cache-control", b"no-store")]


class ChannelResponse(UpstreamResponse):
    """An upstream's stream as the relay reads it: our own endpoint event first, then the upstream's events."""

    __slots__ = ("_channel", "greeting")

    def __init__(self, channel: Channel, greeting: bytes) -> None:
        super().__init__(200, list(_HEADERS))
        self._channel = channel
        self.greeting = greeting

    @property
    def endpoint(self) -> bytes:
        """Give the upstream's own address for what is posted to this stream."""
        return self._channel.endpoint

    async def read(self) -> bytes:
        """Give the next event's bytes, b"" at the end."""
        event = await self._channel.next()
        return event.raw if event is not None else b""

    def abort(self) -> None:
        """Close the upstream's stream."""
        self._channel.abort()


class MailboxResponse(UpstreamResponse):
    """A mailbox as the relay reads it; its end ends the upstream's session."""

    __slots__ = ("_call", "_gateway", "_mailbox", "greeting")

    #: what is put into a mailbox comes from the relay of the call that it answers
    judged = True

    def __init__(self, gateway: Gateway, call: Call, mailbox: Mailbox, greeting: bytes) -> None:
        super().__init__(200, list(_HEADERS))
        self._gateway, self._call, self._mailbox, self.greeting = gateway, call, mailbox, greeting

    async def read(self) -> bytes:
        """Give the next event, b"" at the end."""
        return await self._mailbox.read()

    def abort(self) -> None:
        """Shut the mailbox, and end the session that was opened for it."""
        if not self._mailbox.closed:
            self._mailbox.shut()
            if self._mailbox.session:
                self._gateway.spawn(_end_session(self._gateway, self._call, self._mailbox.session))


class MailboxExchange(Exchange):
    """Takes an answer to where a client of the older transport reads it: its stream. The post itself is over (202)."""

    __slots__ = ("_link",)

    def __init__(self, post: Exchange, link: Link) -> None:
        super().__init__(post.scope, post._receive, post._send)
        self._task = asyncio.current_task()
        self._link = link

    async def start(self, status: int, headers: Headers) -> None:
        """Note that the answer has begun; its head has nowhere to go."""
        self.started = True

    async def write(self, piece: bytes) -> None:
        """Put whole events into the stream."""
        self.sent_bytes += len(piece)
        await self._link.push(piece)

    async def finish(self, piece: bytes = b"") -> None:
        """Put the last events into the stream."""
        self.finished = True
        if piece:
            await self.write(piece)

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Put a whole JSON answer into the stream, as the event that clients of this transport wait for."""
        self.started = self.finished = True
        if body:
            await self.write(encode(one_line(body), event="message"))


async def open_endpoint(gateway: Gateway, call: Call) -> None:
    """Open the seal of a message's address; unknown, ended and another key's are the same 404."""
    presented = parse_qs(call.exchange.scope.get("query_string", b"").decode("latin-1")).get("session_id", [])
    if len(presented) == 1:
        value = gateway.sealer.open(presented[0], key_id=call.key_id, upstream=call.slug, purpose=ENDPOINT)
        if value is not None:
            call.session = value
            return
        value = gateway.sealer.open(presented[0], key_id=call.key_id, upstream=call.slug, purpose=MAILBOX)
        if value is not None and (link := await gateway.mailboxes.link(value)) is not None:
            call.link, call.session = link, link.session
            return
    call.session_refused = (presented or [""])[0].encode()
    raise refuse("unknown_session", call=call)


async def accept(call: Call) -> None:
    """Accept a message for a mailbox with 202; from here on everything is said in its stream."""
    if call.link is not None and not isinstance(call.exchange, MailboxExchange):
        await call.exchange.answer(202, list(_ACCEPTED), b"Accepted")
        call.exchange = MailboxExchange(call.exchange, call.link)


async def send(gateway: Gateway, call: Call) -> UpstreamResponse:
    """Open the stream of a GET, or send a message on."""
    sse = gateway.registry.sse(call.slug)
    if call.endpoint == "messages":
        if call.link is not None:
            return await gateway.registry.transport(call.slug).send(upstream_request(call))
        if sse is None:
            raise UpstreamError("The upstream no longer speaks the transport this session was opened with.")
        return await sse.post(call.session, upstream_headers(call), call.body)
    if sse is None:
        mailbox = gateway.mailboxes.create(
            gateway.ledger.hold(call.key_id), lambda: call.exchange.end("too_much_waiting")
        )
        sealed = _sealed(gateway, call, gateway.mailboxes.address(mailbox), MAILBOX)
        return MailboxResponse(gateway, call, mailbox, _endpoint(gateway, call, sealed))
    channel = await sse.open(upstream_headers(call))
    try:
        sealed = _sealed(gateway, call, channel.endpoint, ENDPOINT)
    except UpstreamError:
        channel.abort()
        raise
    return ChannelResponse(channel, _endpoint(gateway, call, sealed))


def _sealed(gateway: Gateway, call: Call, value: bytes, purpose: str) -> str:
    sealed = gateway.sealer.seal(value, key_id=call.key_id, upstream=call.slug, purpose=purpose)
    if sealed is None:
        raise UpstreamError("The upstream named an endpoint that cannot be passed on.")
    return sealed


def _endpoint(gateway: Gateway, call: Call, sealed: str) -> bytes:
    prefix = urlsplit(gateway.config.public_url).path.rstrip("/") if gateway.config.public_url else ""
    return encode(f"{prefix}/messages/{call.slug}?session_id={sealed}".encode(), event="endpoint")


async def _end_session(gateway: Gateway, call: Call, session: bytes) -> None:
    """Tell the upstream that a session is over, as a client of Streamable HTTP would."""
    try:
        headers = [(b"mcp-session-id", session)]
        response = await gateway.registry.transport(call.slug).send(
            UpstreamRequest(b"DELETE", headers, first_byte_timeout=5, caller=call.key_id)
        )
        response.abort()
    except UpstreamError:
        pass
