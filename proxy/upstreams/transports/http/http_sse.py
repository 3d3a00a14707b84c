"""Upstreams that only speak the older HTTP+SSE transport (2024-11-05).

Such a server is one long GET stream, whose first event names the address to POST messages to; all answers come on the
stream. Through the transport seam it looks like any other: each session has a stream of its own, and answers are found on
it by id. A session begins with `initialize`, or, for a client that speaks the same, with the GET that opens its stream.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any
from urllib.parse import urljoin

from core.ledger import Ledger
from core.types import Headers
from proxy.mcp.replies import LARGE_BYTES
from proxy.mcp.sse import EventTooLarge, SseEvent, SseReader
from proxy.upstreams.egress import BadUrl, Origin, parse_url
from proxy.upstreams.transports.base import (
    Broken,
    BufferedResponse,
    TimedOut,
    TooLarge,
    Unreachable,
    UpstreamError,
    UpstreamRequest,
    UpstreamResponse,
)
from proxy.upstreams.transports.conversation import Conversation, is_modern, parse
from proxy.upstreams.transports.http.streamable_http import StreamableHttpTransport
from proxy.upstreams.transports.session_table import SessionTable, new_token
from proxy.upstreams.transports.stdio.transport import SESSION, asked, refusal

#: header of a GET that is to open a session, as a client's own stream does in this transport
OPEN = b"x-upstream-open"
MAX_SESSIONS = 1024
MAX_ENDPOINT = 2000
#: a stream is open, and has named its endpoint, within this: nothing was asked yet that could take its time
OPEN_SECONDS = 60.0
_NOT_SSE = "The upstream did not open an event stream: it does not speak HTTP+SSE at this URL."


class Channel:
    """An open stream of an HTTP+SSE server, read up to its `endpoint` event."""

    def __init__(self, response: UpstreamResponse, reader: SseReader) -> None:
        self._response = response
        self._reader = reader
        self._events: deque[SseEvent] = deque()
        #: called whenever something comes, comments that keep the stream open included
        self.heard: Callable[[], None] = _nothing
        #: where messages are posted: path and query on the upstream's own origin
        self.endpoint = b""

    async def next(self) -> SseEvent | None:
        """Give the next event after the endpoint's, None at the end; raises UpstreamError."""
        while not self._events:
            data = await self._response.read()
            if not data:
                return None
            self.heard()
            try:
                self._events.extend(self._reader.feed(data))
            except EventTooLarge:
                self.abort()
                raise TooLarge("The upstream sent an event larger than this gateway accepts.") from None
        return self._events.popleft()

    def abort(self) -> None:
        """Close the stream at once."""
        self._response.abort()


class HttpSseTransport:
    """An HTTP+SSE server."""

    def __init__(self, pool: StreamableHttpTransport, *, ledger: Ledger | None = None) -> None:
        self._pool = pool
        self.ledger = ledger
        self._sessions: SessionTable[_SessionStream] = SessionTable(MAX_SESSIONS)
        self._closed = False

    async def connect(self) -> None:
        """Make a connection and keep it for the next request; raises Unreachable. For checks."""
        await self._pool.connect()

    # -- to the server -----------------------------------------------------------------------------------------

    async def open(self, headers: Headers, *, idle: float = 0.0) -> Channel:
        """Open a stream and wait for its endpoint; 4xx and 5xx, other types and foreign endpoints are errors."""
        limits = self._pool.limits
        request = UpstreamRequest(
            b"GET", [*_without_accept(headers), (b"accept", b"text/event-stream")], idle_timeout=idle
        )
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(limits.first_byte or inf, OPEN_SECONDS)
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._pool.send(request)
        except (TimedOut, TimeoutError):
            raise TimedOut("The upstream did not open its stream in time.", executed=False) from None
        try:
            if response.status != 200 or not response.streaming:
                kind = response.content_type.decode("latin-1")[:60]
                raise Broken(_NOT_SSE, detail=f"status {response.status}", said=kind or "no type")
            channel = Channel(response, SseReader(limits.answer_bytes))
            async with asyncio.timeout_at(deadline):
                while (event := await channel.next()) is not None:
                    if event.event == "endpoint":
                        channel.endpoint = self.endpoint(event.data)
                        return channel
            raise Broken(_NOT_SSE, detail="the stream ended before it named an endpoint")
        except TimeoutError:
            response.abort()
            raise TimedOut("The upstream named no endpoint in time.", executed=False) from None
        except BaseException:
            response.abort()
            raise

    async def post(self, endpoint: bytes, headers: Headers, body: bytes) -> UpstreamResponse:
        """Post a message to an endpoint that `open` gave."""
        return await self._pool.send(UpstreamRequest(b"POST", headers, body), endpoint)

    def endpoint(self, data: bytes) -> bytes:
        """Resolve an endpoint as the server named it; it must be on the server's own origin."""
        origin = self._pool.origin
        try:
            if len(data) > MAX_ENDPOINT:
                raise BadUrl("too long")
            target = parse_url(
                urljoin(f"{origin.scheme}://{origin.authority}{origin.target}", data.decode("ascii").strip())
            )
        except (BadUrl, ValueError):
            raise Broken("The upstream named an endpoint that is not a URL.") from None
        if not _same_origin(target, origin):
            raise Broken(
                "The upstream named an endpoint on another host, which is refused.", said=f"host {target.host[:200]}"
            )
        return target.target.encode()

    # -- to the pipeline ---------------------------------------------------------------------------------------

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Take a request as a Streamable HTTP server would."""
        if self._closed:
            raise Unreachable("The upstream was removed or changed.")
        session = dict(request.headers).get(SESSION, b"")
        if request.verb == b"POST":
            message = parse(request.body)
            if message is None:
                return refusal(400, -32700, "Parse error")
            return await self._message(request, message, session)
        if request.verb not in (b"GET", b"DELETE"):
            return refusal(405, -32600, "Method Not Allowed", [(b"allow", b"GET, POST, DELETE")])
        if request.verb == b"GET" and not session and (OPEN, b"1") in request.headers:
            return await self._opened(request)
        if self._sessions.get(session) is None:
            return refusal(404 if session else 400, -32600, "Session not found")
        if request.verb == b"GET":
            return self._sessions.listen(session, request.caller)
        self._sessions.leave(session)
        return BufferedResponse(200, [])

    async def close(self, grace: float = 0.0) -> None:
        """Let calls end within the grace, then close every stream."""
        self._closed = True
        deadline = asyncio.get_running_loop().time() + grace
        while any(stream.conversation.calls for stream in self._sessions.peers()):
            if asyncio.get_running_loop().time() >= deadline:
                break
            await asyncio.sleep(0.05)
        await self._sessions.close()
        await self._pool.close(max(deadline - asyncio.get_running_loop().time(), 0.0))

    async def _opened(self, request: UpstreamRequest) -> UpstreamResponse:
        """Open a session whose first message is still to come; gives its stream."""
        self._sessions.make_room(request.caller)
        headers = [line for line in request.headers if line[0] != OPEN]
        stream = _SessionStream(self, await self.open(headers), headers)
        token = self._sessions.add(stream, caller=request.caller)
        response = self._sessions.listen(token, request.caller)
        response.headers.append((SESSION, token))
        return response

    async def _message(self, request: UpstreamRequest, message: dict[str, Any], session: bytes) -> UpstreamResponse:
        headers = [(name, value) for name, value in request.headers if name != SESSION]
        if is_modern(message, dict(headers).get(b"mcp-protocol-version", b"")):
            return refusal(400, -32600, "Bad Request: this server only speaks HTTP+SSE (2024-11-05)", id=asked(message))
        known = self._sessions.get(session) if session else None
        if known is None and message.get("method") == "initialize" and "id" in message:
            self._sessions.make_room(request.caller)
            stream = _SessionStream(self, await self.open(headers), headers)
            token = new_token()
            try:
                response = await stream.request(request, message, token)
            except BaseException:
                self._sessions.dispose(stream)
                raise
            self._sessions.add(stream, token, request.caller)
            response.headers.append((SESSION, token))
            return response
        if not session:
            return refusal(400, -32600, "Bad Request: Missing session ID", id=asked(message))
        if known is None:
            return refusal(404, -32600, "Session not found", id=asked(message))
        if isinstance(message.get("method"), str) and "id" in message:
            return await known.request(request, message, session)
        await known.conversation.accept(request.body, message, session=session, caller=request.caller)
        return BufferedResponse(202, [])


class _SessionStream:
    """A session's stream, and the conversation on it."""

    def __init__(self, transport: HttpSseTransport, channel: Channel, headers: Headers) -> None:
        limits = transport._pool.limits
        self._transport = transport
        self._channel = channel
        self._headers = [(b"content-type", b"application/json")] + [
            (name, value) for name, value in headers if name in (b"user-agent", b"mcp-protocol-version")
        ]
        self._first_byte = limits.first_byte
        self.alive = True
        self.conversation = Conversation(
            self._write, private=True, idle=limits.idle, limit=limits.answer_bytes, ledger=transport.ledger
        )
        channel.heard = self.conversation.heard
        self._pump = asyncio.get_running_loop().create_task(self._receive())

    async def request(self, request: UpstreamRequest, message: dict[str, Any], session: bytes) -> UpstreamResponse:
        """Send a request; its answer comes on the stream."""
        limit = self._first_byte if request.first_byte_timeout is None else request.first_byte_timeout
        return await self.conversation.request(
            request.body, message, session=session, caller=request.caller, first_byte=limit, idle=request.idle_timeout
        )

    async def close(self) -> None:
        self.alive = False
        self._channel.abort()
        self._pump.cancel()
        await asyncio.wait([self._pump])

    async def _write(self, raw: bytes) -> None:
        if not self.alive:
            raise Broken("The upstream's stream has ended.", executed=False)
        response = await self._transport.post(self._channel.endpoint, self._headers, raw)
        if not 200 <= response.status < 300:
            response.abort()
            raise Broken("The upstream did not accept the message.", detail=f"status {response.status}")
        await response.body(self._transport._pool.limits.answer_bytes)

    async def _receive(self) -> None:
        error: UpstreamError = Broken("The upstream ended its stream before it had answered.")
        try:
            while (event := await self._channel.next()) is not None:
                if len(event.message) > LARGE_BYTES:
                    await self.conversation.deliver_large(event.message)
                elif event.message:
                    self.conversation.deliver(event.message)
        except UpstreamError as failure:
            error = failure
        finally:
            self.alive = False
            self._channel.abort()
            self.conversation.fail(error)


def _nothing() -> None:
    """Tell nobody."""


def _same_origin(one: Origin, other: Origin) -> bool:
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


def _without_accept(headers: Headers) -> Headers:
    return [(name, value) for name, value in headers if name not in (b"accept", b"content-type")]
