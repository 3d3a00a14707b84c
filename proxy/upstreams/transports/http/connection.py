"""One connection to an HTTP/1.1 upstream and the exchanges it carries, one after the other.

The connection feeds what arrives to llhttp (httptools) and hands it to the running exchange; the exchange is what the
pipeline reads. Everything an upstream can do wrong ends here as an UpstreamError of the exchange and a closed
connection, never as an exception in the event loop.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Callable
from copy import copy
from math import inf
from typing import Any, cast

import httptools

from core.types import Headers
from proxy.upstreams.transports.base import (
    Broken,
    Redirected,
    TimedOut,
    TooLarge,
    TransportLimits,
    UpstreamError,
    UpstreamResponse,
)

#: body bytes waiting for a reader: above it, reading from the socket stops until all of them were taken
HIGH_WATER = 256 * 1024
MAX_INFORMATIONAL = 16
_ENDED_EARLY = "The upstream ended the connection before its answer was whole."
_NOT_HTTP = "The upstream's answer is not valid HTTP."
_TOO_LARGE = "The upstream's answer is larger than this gateway accepts."


class UpstreamExchange(UpstreamResponse):
    """One request's answer as it comes in; the head first, then the body."""

    __slots__ = (
        "_chunks", "_connection", "_error", "_first_byte", "_paused_at", "_size", "_total", "_waiter",
        "coding", "deadline", "done", "head_done", "idle", "received", "started",
    )  # fmt: skip

    def __init__(self, connection: Connection, now: float, first_byte: float, idle: float) -> None:
        super().__init__(0, [])
        self._connection: Connection | None = connection
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._error: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._paused_at = 0.0
        self._total = inf
        #: what the body is compressed with, as its head says
        self.coding = b""
        self.idle = idle
        self._first_byte = first_byte
        #: when the sweeper gives this exchange up; inf while it is the reader who is slow
        self.deadline = now + first_byte
        self.started = now
        self.received = 0
        self.head_done = False
        self.done = False

    @property
    def waiting(self) -> int:
        """Give how many bytes of the body have come and were not read yet."""
        return self._size

    async def head(self) -> None:
        """Wait for the head."""
        if not self.head_done and self._error is None:
            await self._wait()
        if self._error is not None and not self.head_done:
            raise copy(self._error)  # what is raised refers to the frames it passes, and they to this

    async def read(self) -> bytes:
        """Give what has arrived of the body, waiting for something; b"" at its end."""
        chunks = self._chunks
        while not chunks:
            if self._error is not None:
                raise copy(self._error)  # what is raised refers to the frames it passes, and they to this
            if self.done:
                return b""
            await self._wait()
        if len(chunks) == 1:
            data = chunks.popleft()
        else:
            data = b"".join(chunks)
            chunks.clear()
        self._size = 0
        if self._paused_at and self._connection is not None:
            self._resume(self._connection)
        return data

    def abort(self) -> None:
        """Close the connection at once, unless the answer is already whole."""
        connection, self._connection = self._connection, None
        self._chunks.clear()
        self._size = 0
        if connection is not None and not self.done:
            self.fail(Broken("The exchange with the upstream was given up."))
            connection.abort()

    # -- called by the connection ------------------------------------------------------------------------------

    def fail(self, error: UpstreamError) -> None:
        """End the exchange with an error; what was already received may still be read."""
        if not self.done:
            self.done = True
            self._error = error.with_traceback(None)
            self._wake()

    def renew(self, now: float) -> None:
        """Take an interim head for what it is: the upstream works on it."""
        self.deadline = now + self._first_byte

    def take_head(self, status: int, headers: Headers, now: float, total: float) -> None:
        """Take the head; `total` bounds the whole body in seconds (inf for streams)."""
        self.status = status
        self.headers = headers
        self.head_done = True
        self._total = now + total
        self.deadline = min(now + self.idle, self._total)
        self._wake()

    def take(self, data: bytes, now: float) -> bool:
        """Take a piece of the body; False when reading from the socket should pause."""
        self._chunks.append(data)
        self._size += len(data)
        self.received += len(data)
        self.deadline = min(now + self.idle, self._total)
        self._wake()
        if self._size <= HIGH_WATER or self._paused_at:
            return True
        self._paused_at = now
        self.deadline = inf
        return False

    def finish(self) -> None:
        """End the exchange: the answer is whole, the connection no longer ours."""
        self.done = True
        self._connection = None
        self._wake()

    def _resume(self, connection: Connection) -> None:
        now = connection.loop.time()
        self._total += now - self._paused_at
        self._paused_at = 0.0
        self.deadline = min(now + self.idle, self._total)
        connection.resume()

    async def _wait(self) -> None:
        connection = self._connection
        if connection is None:
            return
        self._waiter = connection.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Connection(asyncio.Protocol):
    """A connection, kept alive between exchanges."""

    __slots__ = (
        "_body_limit", "_closed_cb", "_fed_bytes", "_fields", "_fixed", "_head_bytes", "_header_count", "_informational", "_now", "_parser",
        "_paused",
        "_poll", "_released_cb", "alive", "exchange", "expires", "keep_for", "limits", "loop", "transport",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limits: TransportLimits,
        released: Callable[[Connection, UpstreamExchange], None],
        closed: Callable[[Connection, UpstreamExchange | None], None],
    ) -> None:
        self.loop = loop
        self.limits = limits
        self._released_cb = released
        self._closed_cb = closed
        self.transport: asyncio.Transport | None = None
        self.exchange: UpstreamExchange | None = None
        self.alive = False
        self.expires = 0.0
        self.keep_for = limits.keep_alive
        self._poll: Any = None
        self._now = 0.0
        self._paused = False
        self._parser: Any = None
        self._reset()

    def _reset(self) -> None:
        self._fields: Headers = []
        self._fed_bytes = 0
        self._head_bytes = 0
        self._header_count = 0
        self._fixed = False
        self._body_limit = 0
        self._informational = 0

    # -- for the pool ------------------------------------------------------------------------------------------

    def begin(self, data: bytes, exchange: UpstreamExchange) -> None:
        """Write a request; the exchange gets its answer."""
        self._reset()
        self.exchange = exchange
        assert self.transport is not None  # noqa: S101 - the pool hands out open connections only
        self.transport.write(data)

    def quiet(self) -> bool:
        """Tell whether an idle connection is surely still of use: open, and nothing lies unread in its socket.

        A server that has closed it, or sent bytes nobody asked for, shows as readable here before any event of the
        loop says so. That leaves the time a packet is on its way as the only window in which a request can be lost.
        """
        return self.alive and not self._poll.poll(0)

    def abort(self) -> None:
        """Close at once; unsent bytes are dropped."""
        self.alive = False
        if self.transport is not None:
            self.transport.abort()

    def resume(self) -> None:
        """Read from the socket again."""
        self._paused = False
        if self.alive and self.transport is not None:
            self.transport.resume_reading()

    def time_out(self, exchange: UpstreamExchange, now: float) -> None:
        waited = f"{now - exchange.started:.1f} s"
        if exchange.head_done:
            error = TimedOut("The upstream stopped sending its answer.", detail=f"incomplete after {waited}")
        else:
            error = TimedOut("The upstream did not answer in time.", detail=f"no answer after {waited}")
        exchange.fail(error)
        self.abort()

    # -- asyncio.Protocol --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, and a poll object that sees what the loop has not read yet."""
        self.transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)
        self.alive = True
        self._poll = select.poll()
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; whatever it does not like breaks the exchange."""
        exchange = self.exchange
        if exchange is None:  # bytes that answer nothing: an idle connection is no longer to be trusted
            self.abort()
            return
        if not exchange.head_done:
            self._fed_bytes += len(data)
        self._now = self.loop.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._break(cause if isinstance(cause, UpstreamError) else Broken(_NOT_HTTP, detail=str(cause or error)))
        except httptools.HttpParserUpgrade:
            self._break(Broken(_NOT_HTTP, detail="it switched protocols without being asked"))
        except httptools.HttpParserError as error:
            self._break(Broken(_NOT_HTTP, detail=str(error)))
        else:
            if not exchange.head_done and not exchange.done and self._fed_bytes > self.limits.head_bytes:
                self._break(TooLarge(_TOO_LARGE, detail=f"headers over {self.limits.head_bytes} bytes"))

    def eof_received(self) -> bool:
        """End a body that only the end of the connection delimits; anything else has ended early."""
        exchange = self.exchange
        if exchange is not None and exchange.head_done and not self._fixed:
            self.exchange = None
            self.alive = False
            exchange.finish()
            self._closed_cb(self, exchange)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        self._parser = None
        exchange, self.exchange = self.exchange, None
        if exchange is not None and not exchange.done:
            detail = type(exc).__name__ if exc else "connection closed"
            exchange.fail(Broken(_ENDED_EARLY, detail=f"{detail} after {exchange.received} bytes of body"))
        self._closed_cb(self, exchange)

    def _break(self, error: UpstreamError) -> None:
        exchange = self.exchange
        if exchange is not None:
            exchange.fail(error)
        self.abort()

    # -- httptools ---------------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header; trailers are counted and dropped."""
        self._header_count += 1
        self._head_bytes += len(name) + len(value)
        if self._header_count > self.limits.header_count or self._head_bytes > self.limits.head_bytes:
            raise TooLarge(_TOO_LARGE, detail="too many or too large headers")
        exchange = self.exchange
        if exchange is not None and not exchange.head_done:
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Judge the head, and pass it on unless it is an interim one."""
        exchange = self.exchange
        if exchange is None:
            raise Broken(_NOT_HTTP, detail="an answer nobody asked for")
        status: int = self._parser.get_status_code()
        fields, self._fields = self._fields, []
        if status < 200:
            self._informational += 1
            if status == 101 or status < 100 or self._informational > MAX_INFORMATIONAL:
                raise Broken(_NOT_HTTP, detail=f"interim status {status}")
            exchange.renew(self._now)
            return
        if 300 <= status < 400:
            way, where = _target_of(fields)
            raise Redirected(
                f"The upstream answered with a redirect ({status}), which is not followed: fix the upstream's URL.",
                detail=way,
                said=where,
            )
        streaming = self._judge(exchange, status, fields)
        self._body_limit = 0 if streaming else self.limits.answer_bytes
        total = inf if streaming else self.limits.answer_seconds
        exchange.take_head(status, fields, self._now, total)

    def _judge(self, exchange: UpstreamExchange, status: int, fields: Headers) -> bool:
        streaming = False
        lengths = 0
        for name, value in fields:
            if name == b"content-length":
                lengths += 1
                self._fixed = True
                if len(value) > 15 or not value.isdigit() or lengths > 1:
                    raise Broken(_NOT_HTTP, detail="content-length")
                if int(value) > self.limits.answer_bytes:
                    raise TooLarge(_TOO_LARGE, detail=f"content-length {int(value)}")
            elif name == b"transfer-encoding":
                if value.strip().lower() != b"chunked":
                    raise Broken(_NOT_HTTP, detail="transfer-encoding other than chunked")
                self._fixed = True
            elif name == b"content-encoding":
                exchange.coding += b"," + value
            elif name == b"content-type":
                streaming = value.lstrip().lower().startswith(b"text/event-stream")
            elif name == b"keep-alive":
                self._heed(value)
        if status in (204, 304):
            self._fixed = True
        return streaming

    def _heed(self, value: bytes) -> None:
        # Node and others say how long they keep an idle connection; a second less keeps us from meeting its end
        for part in value.split(b","):
            key, _, seconds = part.strip().partition(b"=")
            if key.lower() == b"timeout" and seconds.isdigit() and len(seconds) < 8:
                self.keep_for = min(self.keep_for, max(int(seconds) - 1.0, 0.0))

    def on_body(self, data: bytes) -> None:
        """Hand a piece of the body to the exchange, within the limits and at the reader's pace."""
        exchange = self.exchange
        if exchange is None or exchange.done:
            return
        if self._body_limit and exchange.received + len(data) > self._body_limit:
            raise TooLarge(_TOO_LARGE, detail=f"over {self._body_limit} bytes")
        if not exchange.take(data, self._now) and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        exchange = self.exchange
        if exchange is None or not exchange.head_done:  # the end of an interim answer
            return
        self.exchange = None
        exchange.finish()
        transport = self.transport
        if (
            transport is None
            or not self._parser.should_keep_alive()
            or transport.is_closing()
            or transport.get_write_buffer_size()  # it answered before it had read the request
        ):
            self.abort()
        elif self._paused:
            self.resume()
        self._released_cb(self, exchange)


def _target_of(fields: Headers) -> tuple[str, str]:
    """Give where a redirect leads in words of our own, and in the server's."""
    for name, value in fields:
        if name == b"location":
            where = value.split(b"?")[0][:200].decode("latin-1")
            way = "an https address" if where.lower().startswith("https:") else "another address"
            return f"to {way}", f"to {where}"
    return "without a location", ""
