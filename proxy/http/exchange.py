"""One HTTP exchange with a client: the body in, within bounds; the answer out, with backpressure; a departure seen at once.

Channels' own HTTP consumer buffers bodies without bound and never sees a client leave while it streams (docs/adr/0005).
This class is what replaces that part of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from core.ledger import SMALL
from core.types import Headers, Receive, Scope, Send

#: an answer goes out in pieces of this size, each once the client has read what went before: no more of it is copied
PIECE = 64 * 1024
#: how long one piece of an answer may wait for a client that does not read, in seconds
WRITE_TIMEOUT = 60.0
#: why a call ends that its client has taken back: before the upstream knows of it, and then
CANCELLING, CANCELLED = "cancelling", "cancelled"
#: how long a request has run before its body's deadline is kept and its client's departure looked for, in seconds
LASTING_AFTER = 0.05


class RequestHead:
    """Verb and headers of a request, as every reader of them wants to ask."""

    __slots__ = ("headers", "lookup", "verb")

    def __init__(self, scope: Scope) -> None:
        self.verb: str = scope["method"]
        self.headers: Headers = scope["headers"]
        #: first value of each header, names lower-case
        self.lookup: dict[bytes, bytes] = {name: value for name, value in reversed(self.headers)}

    def header(self, name: bytes) -> bytes:
        """Give the first value of a header, b"" when absent."""
        return self.lookup.get(name, b"")

    def header_values(self, name: bytes) -> list[bytes]:
        """Give every value of a header, in order."""
        if name not in self.lookup:
            return []
        if len(self.lookup) == len(self.headers):
            return [self.lookup[name]]
        return [value for key, value in self.headers if key == name]


class Departed(Exception):
    """The exchange is over before its answer: the client left, or it was closed from our side (reason says which)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Lasting:
    """Tells exchanges that they last: most are over before timers and tasks of their own would have been worth it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._fresh: dict[Exchange, float] = {}  # and when each is due, in the order in which they came
        self._due = False

    def add(self, exchange: Exchange) -> None:
        self._fresh[exchange] = self._loop.time() + LASTING_AFTER
        if not self._due:
            self._due = True
            self._loop.call_later(LASTING_AFTER, self._look)

    def discard(self, exchange: Exchange) -> None:
        self._fresh.pop(exchange, None)

    def _look(self) -> None:
        now = self._loop.time()
        due = [exchange for exchange, at in self._fresh.items() if at <= now]
        for exchange in due:
            del self._fresh[exchange]
            exchange.lasts()
        self._due = bool(self._fresh)
        if self._due:
            self._loop.call_later(next(iter(self._fresh.values())) - now, self._look)


_lasting: dict[asyncio.AbstractEventLoop, _Lasting] = {}


def _lasting_of(loop: asyncio.AbstractEventLoop) -> _Lasting:
    found = _lasting.get(loop)
    if found is None:
        for known in [known for known in _lasting if known.is_closed()]:
            del _lasting[known]
        found = _lasting[loop] = _Lasting(loop)
    return found


class AnswerState(IntEnum):
    """How far the answer to a client got: AWAITED -> BEGUN -> OVER, and from anywhere to OVER when nobody waits for it."""

    AWAITED = 0
    #: its head has gone out
    BEGUN = 1
    OVER = 2


class Exchange:
    """Reads one request's body and writes one answer: a head once, then its body, then nothing. Anything else raises.

    Beside that it may be `ended_by` something, once: the answer, if one is still to be given, says what.
    """

    __slots__ = (
        "_among",
        "_body_due",
        "_interruptible",
        "_lasts",
        "_receive",
        "_send",
        "_task",
        "_timer",
        "_watched",
        "_watcher",
        "body_state",
        "ended_by",
        "scope",
        "sent_bytes",
        "shared",
        "state",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        #: what every answer says to a browser, whoever makes it
        self.shared: Headers = []
        self._receive = receive
        self._send = send
        self._task: asyncio.Task[Any] | None = None
        self._among: _Lasting | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._body_due = 0.0  # by the loop's clock, while the body is read
        self._watched = self._lasts = self._interruptible = False
        self.state = AnswerState.AWAITED
        self.sent_bytes = 0
        #: complete | too_large | over_share | timed_out | gone
        self.body_state = "complete"
        #: why the exchange is over early: client_gone, or the reason given to end()
        self.ended_by = ""

    @property
    def started(self) -> bool:
        return self.state >= AnswerState.BEGUN

    @property
    def finished(self) -> bool:
        """Whether there is nothing more to say."""
        return self.state == AnswerState.OVER

    # -- in

    async def read_body(self, limit: int, seconds: float, fits: Callable[[int], bool] = lambda size: True) -> bytes:
        """Read the body up to a limit and a deadline; what could be read is returned, `body_state` says how it ended.

        `fits` is asked of a body that is no longer small whether so much of it may wait here.
        """
        pieces: list[bytes] = []
        size = 0
        self._task = task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        self._body_due = loop.time() + seconds
        self._among = _lasting_of(loop)
        self._among.add(self)
        try:
            while True:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    self.body_state = "gone"
                    self.ended_by = self.ended_by or "client_gone"
                    break
                piece: bytes = message.get("body", b"")
                size += len(piece)
                if size > limit:
                    self.body_state = "too_large"
                    pieces.append(piece[: limit - (size - len(piece))])
                    break
                if size > SMALL and not fits(size):
                    self.body_state = "over_share"
                    break
                if not message.get("more_body", False):
                    if not pieces:
                        return piece
                    pieces.append(piece)
                    break
                pieces.append(piece)
        except asyncio.CancelledError:
            if self.body_state != "timed_out" or task is None or task.uncancel() > 0:
                raise
        finally:
            self._body_due = 0.0
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        return b"".join(pieces)

    def _overdue(self) -> None:
        self.body_state = "timed_out"
        if self._task is not None:
            self._task.cancel()

    def watch(self) -> None:
        """Watch for the client's departure from now on; call once the body has been read."""
        self._watched = True
        if self._lasts:
            self.lasts()

    def lasts(self) -> None:
        """Do what only a request that takes its time needs: bound the time of its body, or see its client leave."""
        self._lasts = True
        loop = asyncio.get_running_loop()
        if self._body_due:
            self._timer = loop.call_later(max(self._body_due - loop.time(), 0), self._overdue)
        elif self._watched:
            self._watcher = loop.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                if not self.finished:
                    self.end("client_gone")
                return

    def end(self, reason: str) -> None:
        """End the exchange early, for a reason; an interruptible section is left at once."""
        if self.ended_by or self.finished:
            return
        self.ended_by = reason
        if self._interruptible and self._task is not None:
            self._task.cancel()

    def interruptible(self) -> Exchange:
        """Begin a section (`with`) that a departure ends with Departed; elsewhere a departure only sets `ended_by`."""
        if self.ended_by:
            raise Departed(self.ended_by)
        return self

    def __enter__(self) -> None:
        self._interruptible = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._interruptible = False
        if self.ended_by and isinstance(error, asyncio.CancelledError):
            # The cancellation was ours: take it back, so that what follows may await again.
            if self._task is not None:
                self._task.uncancel()
            raise Departed(self.ended_by) from None

    # -- out

    async def start(self, status: int, headers: Headers) -> None:
        if self.state != AnswerState.AWAITED:
            raise RuntimeError("an answer begins once")
        self.state = AnswerState.BEGUN
        if self.shared:
            headers = [*headers, *self.shared]
        try:
            await self._send({"type": "http.response.start", "status": status, "headers": headers})
        except OSError:
            raise self._left() from None

    def _left(self) -> Departed:
        self.ended_by = self.ended_by or "client_gone"
        return Departed(self.ended_by)

    async def write(self, piece: bytes) -> None:
        """Send a piece of the body; waits for a client that is slow, gives one up that does not read."""
        if len(piece) <= PIECE:
            await self._write(piece)
            return
        view = memoryview(piece)
        for at in range(0, len(view), PIECE):
            if at and self.ended_by:
                raise Departed(self.ended_by)  # whoever may have no more of it gets no more
            await self._write(bytes(view[at : at + PIECE]))

    async def _write(self, piece: bytes) -> None:
        if self.state != AnswerState.BEGUN:
            raise RuntimeError("a body is written between the head of an answer and its end")
        self.sent_bytes += len(piece)
        try:
            async with asyncio.timeout(WRITE_TIMEOUT):
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        except OSError:  # TimeoutError is one: a client that does not read is as good as gone
            raise self._left() from None

    async def finish(self, piece: bytes = b"") -> None:
        """Send the last of the body; a client that does not take it is given up."""
        if self.state != AnswerState.BEGUN:
            raise RuntimeError("an answer ends once, after its head")
        try:
            if len(piece) > PIECE:
                await self.write(piece)
                piece = b""
            self.state = AnswerState.OVER
            self.sent_bytes += len(piece)
            await self._send({"type": "http.response.body", "body": piece, "more_body": False})
        except OSError:
            self.ended_by = self.ended_by or "client_gone"
        except Departed:
            return
        finally:
            self.state = AnswerState.OVER

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        await self.start(status, headers)
        await self.finish(body)

    def close(self) -> None:
        """Stop watching; the consumer calls this last."""
        self.state = AnswerState.OVER
        if self._among is not None:
            self._among.discard(self)
        if self._watcher is not None:
            self._watcher.cancel()
        # What holds itself would wait for the garbage collector, with the body.
        self._watcher = self._task = None
