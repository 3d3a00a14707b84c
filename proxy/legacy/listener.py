"""What an upstream says on its event streams, read on behalf of a client that knows only HTTP+SSE.

The gateway is the upstream's client there, so it does what a client of Streamable HTTP does: a stream that ends before
its answer is gone on from, with the id of the last event (`Last-Event-ID`) after the pause that the server asked for. Ids
and pauses are between those two, and nothing to the gateway's own client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from proxy.mcp.sse import KEEP_ALIVE, EventTooLarge, SseEvent, SseReader, bare, presentable
from proxy.upstreams.transports.base import Broken, TooLarge, UpstreamError, UpstreamResponse

#: how long to wait before a stream is taken up again, in seconds, when the server did not say
PAUSE = 1.0
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
#: so many times in a row a stream may not be had, and one may end without having said anything
MOST_FAILURES = 3

#: opens the stream that goes on after the event with this id, b"" from now on
Open = Callable[[bytes], Awaitable[UpstreamResponse]]


class Cursor:
    """Reads streams into whole events without ids, and knows where the next one goes on."""

    def __init__(self, limit: int) -> None:
        self.last_id = b""
        self.pause = PAUSE
        self._limit = limit
        self._reader = SseReader(limit)

    async def read(self, response: UpstreamResponse) -> bytes:
        """Give the next events, b"" at the end of this stream."""
        while piece := await response.read():
            try:
                events = self._reader.feed(piece)
            except EventTooLarge:
                raise TooLarge("An event of the upstream's stream is too large.") from None
            if whole := b"".join([self._without_id(event) for event in events]):
                return whole
        return b""

    def rest(self) -> bytes:
        """Give what came after the last whole event, and begin a new stream."""
        reader, self._reader = self._reader, SseReader(self._limit)
        return reader.rest()

    def _without_id(self, event: SseEvent) -> bytes:
        if event.retry is not None:
            self.pause = min(max(int(event.retry) / 1000, SHORTEST_PAUSE), LONGEST_PAUSE)
        if event.id is not None and (not event.id or presentable(event.id)):
            self.last_id = event.id
        if event.message and event.id is None and event.retry is None:
            return event.raw
        # A client of the older transport takes blank data for a message that it cannot read.
        return bare(event) or KEEP_ALIVE


class Resumed(UpstreamResponse):
    """The answer to a request, over as many streams as the upstream takes for it."""

    __slots__ = ("_cursor", "_inner", "_open", "_wanted")

    def __init__(self, first: UpstreamResponse, limit: int, wanted: Callable[[], bool], again: Open) -> None:
        super().__init__(first.status, first.headers)
        self._inner = first
        self._cursor = Cursor(limit)
        self._wanted = wanted
        self._open = again

    @property
    def waiting(self) -> int:
        """Give how many bytes have come and were not read yet."""
        return self._inner.waiting

    async def read(self) -> bytes:
        """Give the next events; raises UpstreamError when the stream breaks off and cannot be gone on from."""
        failures = 0
        while True:
            broken: UpstreamError | None = None
            piece = b""
            try:
                piece = await self._cursor.read(self._inner)
            except Broken as error:
                if type(error) is not Broken:
                    raise
                broken = error
            if piece:
                return piece
            rest = self._cursor.rest()
            if not self._cursor.last_id or not self._wanted() or failures >= MOST_FAILURES:
                if broken is not None:
                    raise broken
                return rest
            failures += 1
            await self._again()

    async def _again(self) -> None:
        self._inner.abort()
        for left in reversed(range(MOST_FAILURES)):
            await asyncio.sleep(self._cursor.pause)
            try:
                found = await self._open(self._cursor.last_id)
            except UpstreamError:
                if not left:
                    raise
                continue
            self._inner = found
            if found.status == 200 and found.streaming:
                return
            found.abort()
            if found.status < 500:
                break
        raise Broken("The upstream's stream ended without an answer.", detail="it could not be taken up again")

    def abort(self) -> None:
        self._inner.abort()


async def listen(
    opened: Open, limit: int, heard: Callable[[UpstreamResponse], None], offer: Callable[[bytes], Awaitable[None]]
) -> None:
    """Hand on what an upstream says beside its answers, as long as it has a stream for that.

    `heard` is given each stream. Returns when there is none (and never was); raises Broken when the session is over.
    """
    cursor, ever, pause = Cursor(limit), False, PAUSE
    while True:
        said = False
        try:
            response = await opened(cursor.last_id)
            heard(response)
            if response.status == 200 and response.streaming:
                ever = True
                while piece := await cursor.read(response):
                    said = True
                    await offer(piece)
            elif response.status < 500:
                response.abort()
                if ever and response.status == 404:
                    raise SessionEnded("The upstream has ended the session.")
                return
            response.abort()
        except (SessionEnded, TooLarge):
            raise
        except UpstreamError:
            pass  # it is away: it is asked again, as long as somebody would listen
        cursor.rest()
        pause = cursor.pause if said else min(max(pause * 2, cursor.pause), LONGEST_PAUSE)
        await asyncio.sleep(pause)


class SessionEnded(Broken):
    """The upstream has ended the session."""
