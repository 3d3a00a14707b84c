"""The seam between the pipeline and the ways to an upstream.

A transport takes one HTTP-shaped request and gives one HTTP-shaped response, whatever lies behind it (an HTTP server,
an older HTTP+SSE server, a child process). What can go wrong is one small tree; each leaf carries its reason (audit.reasons)
and a sentence that may be shown to the caller (it names no address and no credential).

    UpstreamError
        Unreachable          upstream_unreachable    no connection: refused, DNS, TLS; surely not executed
            EgressRefused        egress_refused      the address is one that upstreams may not have
        TimedOut             upstream_timeout        no answer within the limits
        Broken               upstream_broken         the answer is not HTTP or not MCP, or ended too early
            Redirected           upstream_redirect   a 3xx: never followed
            TooLarge             upstream_too_large  the answer is over the limits
        Busy                 upstream_busy           concurrency limit or open circuit; surely not executed
        Unread               too_much_waiting        the caller does not read what was sent to it
        Cancelled            cancelled               the caller took the request back
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from core.ledger import SMALL
from core.types import Headers

#: how long an upstream may be silent where nobody has said otherwise, in seconds
PATIENCE = 300.0


class UpstreamError(Exception):
    """An upstream did not give a usable answer."""

    reason = "upstream_error"

    def __init__(
        self, message: str, *, detail: str = "", said: str = "", executed: bool = True, retry_after: float = 0.0
    ) -> None:
        super().__init__(message)
        #: for the caller
        self.message = message
        #: for the audit event, in words of our own: may name addresses, never credentials and nothing of a payload
        self.detail = detail
        #: what the upstream itself said (an error's body, its last words): a payload, and kept as one or not at all
        self.said = said
        #: False when the upstream surely did not see the whole request
        self.executed = executed
        #: seconds, for Busy
        self.retry_after = retry_after


class Unreachable(UpstreamError):
    """No connection could be had; nothing was executed."""

    reason = "upstream_unreachable"

    def __init__(self, message: str, *, detail: str = "", said: str = "", executed: bool = False) -> None:
        super().__init__(message, detail=detail, said=said, executed=executed)


class EgressRefused(Unreachable):
    """The upstream's address is not one that upstreams may have."""

    reason = "egress_refused"


class TimedOut(UpstreamError):
    """The upstream took too long; it may have executed the request."""

    reason = "upstream_timeout"


class Broken(UpstreamError):
    """The upstream's answer is malformed, or ended before it was whole."""

    reason = "upstream_broken"


class Redirected(Broken):
    """The upstream answered with a redirect, which is never followed."""

    reason = "upstream_redirect"


class TooLarge(Broken):
    """The upstream's answer is over a limit."""

    reason = "upstream_too_large"


class Busy(UpstreamError):
    """The upstream is at its concurrency limit, or its circuit is open; nothing was sent."""

    reason = "upstream_busy"

    def __init__(self, message: str, *, detail: str = "", retry_after: float = 1.0) -> None:
        super().__init__(message, detail=detail, executed=False, retry_after=retry_after)


class Unread(UpstreamError):
    """More waits for the caller than one may have waiting; the upstream did nothing wrong."""

    reason = "too_much_waiting"


class Cancelled(UpstreamError):
    """The caller took the request back; nobody waits for its answer any more."""

    reason = "cancelled"


@dataclass(frozen=True, slots=True)
class TransportLimits:
    """How long and how much; seconds and bytes, 0 seconds for no limit."""

    connect: float = 5.0
    first_byte: float = PATIENCE
    #: of silence; whatever comes of an answer begins it anew
    idle: float = PATIENCE
    #: a whole answer that is no stream, however busily it comes
    answer_seconds: float = 86400.0
    answer_bytes: int = 64 * 1024 * 1024
    head_bytes: int = 64 * 1024
    header_count: int = 100
    #: an idle connection is kept this long: less than the 5 s of uvicorn and Node, so that it is we who close
    keep_alive: float = 4.0
    idle_connections: int = 128


class UpstreamRequest(NamedTuple):
    """One request to an upstream: headers are already allow-listed (proxy.http.headers), names lower-case."""

    verb: bytes
    headers: Sequence[tuple[bytes, bytes]] = ()
    body: bytes = b""
    #: overrides of the transport's own limits, in seconds; None keeps them, 0 means no limit
    first_byte_timeout: float | None = None
    idle_timeout: float | None = None
    #: who asks: what a caller names by ids of its own choice is looked up for that caller alone, and nobody takes more than a
    #: share of what callers share; "" for the gateway itself
    caller: str = ""
    #: nobody waits for its answer, or it ends what waits: a notification, an answer to the server, the end of a session
    aside: bool = False


class UpstreamResponse(ABC):
    """The head of an answer, and its body to be read piece by piece."""

    __slots__ = ("_media", "headers", "status")

    #: an event of our own that a stream begins with
    greeting = b""
    #: whether every message in it was judged and recorded before it was put there
    judged = False

    def __init__(self, status: int, headers: Headers) -> None:
        self.status = status
        #: as the upstream sent them, names lower-case, hop-by-hop included (proxy.http.headers chooses)
        self.headers = headers
        self._media: bytes | None = None

    def header(self, name: bytes) -> bytes:
        """Give the first value of a header, b"" when absent."""
        for key, value in self.headers:
            if key == name:
                return value
        return b""

    @property
    def content_type(self) -> bytes:
        """Give the media type alone, lower-case."""
        if self._media is None:
            self._media = self.header(b"content-type").partition(b";")[0].strip().lower()
        return self._media

    @property
    def streaming(self) -> bool:
        return self.content_type == b"text/event-stream"

    @property
    def waiting(self) -> int:
        """Give how many bytes of the body have come and were not read yet."""
        return 0

    @abstractmethod
    async def read(self) -> bytes:
        """Give the next piece of the body, b"" at its end; raises UpstreamError when it breaks off."""

    @abstractmethod
    def abort(self) -> None:
        """Give the exchange up at once; safe at any time, any number of times, also after the end."""

    async def last_words(self, reason: str) -> bytes:
        """Give what a stream still has to say that is about to end, for a reason of the gateway's."""
        return b""

    async def body(self, limit: int, grown: Callable[[int], None] | None = None) -> bytes:
        """Read the rest of the body whole, within a limit.

        `grown` is told how much of it there is so far, once that is worth counting, and may raise.
        """
        pieces: list[bytes] = []
        size = 0
        while piece := await self.read():
            size += len(piece)
            if size > limit:
                self.abort()
                raise TooLarge(
                    "The upstream's answer is larger than this gateway accepts.", detail=f"over {limit} bytes"
                )
            if size > SMALL and grown is not None:
                grown(size)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class BufferedResponse(UpstreamResponse):
    """A response whose body is already here."""

    __slots__ = ("_body",)

    def __init__(self, status: int, headers: Headers, body: bytes = b"") -> None:
        super().__init__(status, headers)
        self._body = body

    async def read(self) -> bytes:
        """Give the body once, then its end."""
        body, self._body = self._body, b""
        return body

    def abort(self) -> None:
        self._body = b""


@runtime_checkable
class Transport(Protocol):
    """A way to one upstream; safe for concurrent use within one event loop."""

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request and give the head of its answer; raises UpstreamError.

        Cancelling the waiting task aborts the exchange at once.
        """

    async def close(self, grace: float = 0.0) -> None:
        """Take no new requests, let running ones end for `grace` seconds, then abort what is left."""
