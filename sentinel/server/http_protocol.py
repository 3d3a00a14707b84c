"""uvicorn's HTTP protocol with what it leaves out: deadlines, bounds, and no second reading of a message's borders.

The parser (llhttp, strict) refuses bare line feeds, folded headers, control characters, two lengths, and a length
beside chunks. Refused here, before any application runs:
  a head that is not complete in time, is too large, or has too many lines
  a transfer coding other than one `chunked`, or any in HTTP/1.0; versions other than 1.0 and 1.1
  a target that is neither a path nor the whole http address of the host that the request is for
  more connections than one source may have, more requests at once than one connection may have
  a missing, doubled or malformed Host, outside the gateway's own addresses (there the gateway refuses and records it)
What HTTP/1.0 asks is answered without chunks. An offer to upgrade (h2c, as curl and Java send it) is ignored: its request is served, body and all, as the last of its connection.
After that: trailers are dropped (they would join the headers while the application reads them), what is left of a
body after its answer is read in bounds, and a peer that stops reading is cut off. An answer goes out in one write where
that can be, and all pauses of a connection share one timer (docs/adr/0003 has what that is worth).

Bytes refused here are no requests: they are counted (`refused`), and leave no event.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from sentinel.server.connections import Connections

HEAD_MOST = 64 * 1024
TARGET_MOST = 16 * 1024
HEADERS_MOST = 128
JOINED_MOST = 64 * 1024
LEFTOVER_MOST = 64 * 1024 * 1024
LEFTOVER_TIME = 10.0
READER_PATIENCE = 60.0
PIPELINED_MOST = 256  # requests that have come before the one in front of them was answered
# Here the application itself refuses a bad Host, because it records each of its requests, or does not look at the host.
HOST_IS_ITS_OWN = (b"/mcp", b"/sse", b"/messages", b"/livez", b"/readyz")
_CHUNKED = b"\r\ntransfer-encoding: chunked\r\n"
_HOST = re.compile(rb"(?:[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")

refused: Counter[str] = Counter()


class RefusedHead(Exception):
    """The bytes are no request that is answered; carries the status and a short reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Outgoing:
    """Where answers are written: the head of one waits for what follows it in the same turn of the loop.

    A whole answer is so one packet, and one call into the kernel, instead of two. Large pieces are not copied for that.
    """

    __slots__ = ("_head", "_loop", "_transport", "is_closing")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Write at once, but for what looks like a head (if it is none, it is only a moment late)."""
        if self.is_closing():  # the client has left, and nobody was told yet
            return
        if self._head:
            if len(data) <= JOINED_MOST:
                data, self._head = self._head + data, b""
            else:
                self.flush()
        elif data.startswith(b"HTTP/1.1 "):
            self._head = data
            self._loop.call_soon(self.flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        """Close, once all is written."""
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        """Write a head that nothing has followed yet."""
        head, self._head = self._head, b""
        if head and not self.is_closing():
            self._transport.write(head)


class Unchunked:
    """Where answers in HTTP/1.0 are written, which knows no chunks: what uvicorn frames goes out bare, until the connection ends."""

    __slots__ = ("_framed", "_outgoing", "close", "is_closing")

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing
        self._framed = False
        self.close = outgoing.close
        self.is_closing = outgoing.is_closing

    def write(self, data: bytes) -> None:
        """Write a head without the word of chunks, or the inside of one chunk."""
        if self._framed:
            size, _, rest = data.partition(b"\r\n")
            data = rest[: int(size, 16)] if size else b""
        elif data.startswith(b"HTTP/1.1 ") and _CHUNKED in data:
            self._framed = True
            data = data.replace(_CHUNKED, b"\r\n", 1)
        if data:
            self._outgoing.write(data)


class _Body:
    """Takes one body from a parser, and nothing of what follows it."""

    def __init__(self, protocol: GuardedProtocol) -> None:
        self._protocol: GuardedProtocol | None = protocol

    def on_body(self, body: bytes) -> None:
        if self._protocol is not None:
            self._protocol.on_body(body)

    def on_message_complete(self) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.on_message_complete()


class GuardedProtocol(HttpToolsProtocol):
    """One connection."""

    header_timeout = 10.0
    scheme_outside = ""  # how people reach it, when that is told: TLS ends in front of us
    counted = Connections(1_000_000, 1_000_000)  # those of this worker, by source
    leaving = False  # every answer is the last one on its connection, since this worker is about to stop

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._in_head = True
        self._head_size = 0
        self._refusal: RefusedHead | None = None
        self._bodied = b""  # how the body is framed of a request that offers to upgrade, until it is read
        self._head_timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None
        self._leftover_timer: asyncio.TimerHandle | None = None
        self._leftover = 0
        self._outgoing: Outgoing = None  # type: ignore[assignment]  # until it is connected
        self._idle_timer: asyncio.TimerHandle | None = None
        self._idle_since = 0.0  # by the loop's clock; 0 while something is asked or answered

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin: the head is due."""
        super().connection_made(transport)
        self._running: RequestResponseCycle | None = None  # what is answered now; `cycle` is what was read last
        self._source = self.counted.source(self.client[0] if self.client else "")
        if not self.counted.admit(self, self._source):
            refused["too_many_connections"] += 1
            transport.abort()
        if self.scheme_outside:
            self.scheme = self.scheme_outside  # type: ignore[assignment]
        self._outgoing = Outgoing(transport, self.loop)
        self._head_timer = self.loop.call_later(self.header_timeout, self._head_overdue)

    def connection_lost(self, exc: Exception | None) -> None:
        """End: no timer outlives its connection."""
        for timer in (self._head_timer, self._reader_timer, self._leftover_timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._reader_timer = self._leftover_timer = self._idle_timer = None
        self.counted.forget(self, self._source)
        running = self._running
        if running is not None and running is not self.cycle and not running.response_complete:
            # More was sent before this was answered: uvicorn tells the last request alone that its client has left.
            running.disconnected = True
            running.message_event.set()
        super().connection_lost(exc)

    @property
    def busy(self) -> bool:
        """Tell whether a request on it waits for its answer."""
        return self._running is not None and not self._running.response_complete

    @property
    def sending(self) -> bool:
        """Tell whether a request on it has not arrived as a whole."""
        return self.cycle is not None and self.cycle.more_body

    def give_way(self) -> None:
        """Close at once, for a newer connection of the same source."""
        refused["too_many_connections"] += 1
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; refuse in one place whatever cannot be read."""
        if self.transport.is_closing():
            return
        self._idle_since = 0.0
        if self._in_head:
            self._head_size += len(data)
        try:
            self.parser.feed_data(data)
            if self._in_head and self._head_size > HEAD_MOST:
                raise RefusedHead(431, "head_too_large")
        except RefusedHead as refusal:
            self._refuse(refusal)
        except httptools.HttpParserUpgrade as paused:
            # Answered as if nothing had been asked for; what follows its body on this connection is not ours to read.
            if self.cycle is not None:
                self.cycle.keep_alive = False
            if self._bodied:
                self._read_on(data[paused.args[0] :])
        except httptools.HttpParserError:
            self._refuse(self._refusal or RefusedHead(400, "malformed"))
        if self._in_head and self._head_size:
            # A kept-alive connection that has sent the first bytes of its next head is under the same deadline.
            if self._head_timer is None and not self.transport.is_closing():
                self._head_timer = self.loop.call_later(self.header_timeout, self._head_overdue)
        elif self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _read_on(self, data: bytes) -> None:
        """Read the body of a request at whose head the parser stopped, since it offers to upgrade."""
        framing, self._bodied = self._bodied, b""
        self.parser = httptools.HttpRequestParser(_Body(self))
        try:
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self._refuse(RefusedHead(400, "malformed"))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _head_overdue(self) -> None:
        self._head_timer = None
        if self._in_head and not self.transport.is_closing():
            if self._head_size:
                self._refuse(RefusedHead(408, "head_timeout"))
            else:
                refused["silent"] += 1
                self.transport.close()

    def _refuse(self, refusal: RefusedHead) -> None:
        """Answer, unless an earlier request on this connection still waits for its own answer; close in any case."""
        refused[refusal.reason] += 1
        self._in_head = True
        self.pipeline.clear()
        if self.cycle is not None and not self.cycle.response_complete:
            if self.cycle.response_started or not self.cycle.more_body:
                self.cycle.keep_alive = False
                self.flow.pause_reading()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = b'{"error":{"code":%d,"message":"%s"}}' % (refusal.status, _MESSAGES[refusal.reason])
        self.transport.write(
            b"".join(
                [
                    STATUS_LINE[refusal.status],
                    b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body),
                    body,
                ]
            )
        )
        self.transport.close()

    def _raise(self, status: int, reason: str) -> None:
        # httptools wraps what a callback raises; the wrapped exception is found here again.
        self._refusal = RefusedHead(status, reason)
        raise self._refusal

    # The parser's callbacks

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_size = max(1, self._head_size)  # begun, perhaps in the same read that ended the message before
        self._head_lines = 0
        self._lines_size = 0

    def on_url(self, url: bytes) -> None:
        """Take a part of the target, in bounds."""
        super().on_url(url)
        if len(self.url) > TARGET_MOST:
            self._raise(414, "target_too_long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header line, in bounds; a trailer is dropped."""
        self._head_lines += 1
        self._lines_size += len(name) + len(value)
        if self._head_lines > HEADERS_MOST or self._lines_size > HEAD_MOST:
            self._raise(431, "head_too_large")
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Check the head as a whole, then let the application run."""
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._raise(400, "version")
        hosts = []
        framing = b""
        for name, value in self.headers:
            if name == b"host":
                hosts.append(value)
            elif name == b"transfer-encoding":
                if value.strip().lower() != b"chunked" or version == "1.0":
                    self._raise(400, "transfer_coding")
                framing = b"transfer-encoding: chunked"
            elif name == b"content-length" and value.strip(b"0"):
                framing = b"content-length: " + value
        # The whole address, as a proxy is asked: the same one, where it names this host.
        if self.url[:7].lower() == b"http://":
            authority, slash, path = self.url[7:].partition(b"/")
            if [authority.lower()] == [host.lower() for host in hosts] and authority:
                self.url = slash + path
        if not self.url.startswith(b"/") or b"#" in self.url:
            self._raise(400, "target")
        if len(self.pipeline) >= PIPELINED_MOST:
            self._raise(400, "pipelined")
        if not self.url.startswith(HOST_IS_ITS_OWN):
            if len(hosts) > 1 or (not hosts and version == "1.1") or (hosts and not _HOST.fullmatch(hosts[0])):
                self._raise(400, "host")
        super().on_headers_complete()
        if self.leaving:
            self.cycle.keep_alive = False
        self.cycle.transport = self._outgoing if version == "1.1" else Unchunked(self._outgoing)  # type: ignore[assignment]
        self._bodied = framing if framing and self.parser.should_upgrade() else b""
        self._in_head = False
        self._head_size = 0

    def on_body(self, body: bytes) -> None:
        """Hand on a part of the body; what comes after the answer is counted."""
        if self._leftover_timer is not None:
            self._leftover += len(body)
            if self._leftover > LEFTOVER_MOST:
                self.transport.close()
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a message: the next head may come."""
        if self._bodied:
            return  # the parser takes the head of an offer to upgrade for all of it
        super().on_message_complete()
        self._in_head = True
        self._head_size = 0
        if self._leftover_timer is not None:
            self._leftover_timer.cancel()
            self._leftover_timer = None
            self._begin_idle()

    # Answers

    def on_response_complete(self) -> None:
        """End an answer: the next request may be handled, or come; one timer for all of a connection's pauses."""
        self.server_state.total_requests += 1
        self._outgoing.flush()  # of an answer without a body
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._begin_idle()
        cycle: RequestResponseCycle = self.cycle
        if cycle.response_complete and cycle.more_body:
            # A body that was not read to its end may still come, but not for long.
            self._leftover = 0
            self._leftover_timer = self.loop.call_later(LEFTOVER_TIME, self.transport.close)

    def _begin_idle(self) -> None:
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._idle)

    def _idle(self) -> None:
        """Close a connection on which nothing was asked for long enough; look again later at one that was busy since."""
        self._idle_timer = None
        if self._idle_since:
            left = self._idle_since + self.timeout_keep_alive - self.loop.time()
            if left > 0:
                self._idle_timer = self.loop.call_later(left, self._idle)
            else:
                self.transport.close()

    def pause_writing(self) -> None:
        """Note that the peer does not read fast enough; it has to read something within a minute."""
        super().pause_writing()
        if self._reader_timer is None:
            self._reader_timer = self.loop.call_later(READER_PATIENCE, self._reader_gone)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def _reader_gone(self) -> None:
        refused["not_reading"] += 1
        self.transport.abort()


_MESSAGES = {
    "malformed": b"This is not a well-formed HTTP request.",
    "head_timeout": b"The head of the request was not complete in time.",
    "head_too_large": b"The head of the request is too large.",
    "target_too_long": b"The address is too long.",
    "version": b"Only HTTP/1.1 and HTTP/1.0 are spoken here.",
    "transfer_coding": b"The only transfer coding is chunked.",
    "target": b"The address must be a path.",
    "pipelined": b"Too many requests were sent before the first was answered.",
    "host": b"Exactly one valid Host header is needed.",
}
