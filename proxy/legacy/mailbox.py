"""The streams of clients that know only HTTP+SSE: what is said to them comes from any worker, and is read by one GET.

Such a client opens a stream here and posts its messages elsewhere, perhaps to another worker. So each worker keeps the
mailboxes of the streams it holds, and a unix socket below SENTINEL_VAR by which the others reach them. A mailbox lives as
long as its stream; the address that reaches it is sealed for one key.

    worker that holds the stream:   mailbox = mailboxes.create();  data, judged = await mailbox.read()
    worker that took the post:      link = await mailboxes.link(address, request);  await link.push(event)

A mailbox knows which requests wait for an answer in it, so that an id is used once at a time, a cancel finds the call it
means, and every call is told when the stream ends. What ends says why, and a last word still comes through.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hashlib import sha256

from core.ledger import Hold
from proxy.upstreams.transports.base import UpstreamError

#: what an event takes beside its bytes
_EACH = 64
#: why a call ends whose stream is no more
GONE = "client_gone"
#: how long a stream that ends waits for the last words of the calls that were to be answered on it, in seconds
LAST_WORDS = 2.0


class Duplicate(Exception):
    """A request with this id waits already."""


def known_by(rpc_id: bytes) -> str:
    """Name a request of a session by what its id says."""
    return sha256(rpc_id).hexdigest()[:32]


class MailboxLink(ABC):
    """A way into one mailbox, of one post."""

    def __init__(self, request: str, session: bytes, version: bytes) -> None:
        #: what the post's request is known by, "" when it is none
        self.request = request
        #: the upstream's own session id, once it gave one, and the version that was agreed on
        self.session = session
        self.version = version
        #: why the call is to end, once it is
        self.ended = ""
        #: is told that
        self.told: Callable[[str], None] | None = None
        #: what is pushed next is the answer: with it the request waits no more, and its id may be used again
        self.settled = False

    def end(self, reason: str) -> None:
        """Have the call end: its client takes it back, or its stream ends."""
        self.ended = self.ended or reason
        if self.told is not None:
            self.told(reason)

    @abstractmethod
    async def push(self, event: bytes) -> None:
        """Put one event into the stream."""

    async def remember(self, session: bytes, version: bytes) -> None:
        """Note the upstream's session for the posts that follow, and listen to what it says beside answers."""
        self.session, self.version = session, version

    @abstractmethod
    def cancel(self, request: str, reason: str) -> None:
        """Tell the call of another request of this session that its client takes it back, or has."""

    def close(self) -> None:
        """Let go of the mailbox, and of the call."""
        self.told = None


class Mailbox:
    """What waits to be written into one open stream, and who waits for it."""

    def __init__(self, name: str, forget: Callable[[], None], held: Hold, overflown: Callable[[], None]) -> None:
        self.name = name
        self.session = b""
        self.version = b""
        #: why it takes no more posts
        self.closing = ""
        self.closed = False
        #: called when the upstream has begun a session
        self.begun: Callable[[], Awaitable[None]] | None = None
        self._requests: dict[str, Callable[[str], None]] = {}
        self._events: deque[tuple[bytes, bool]] = deque()
        self._unread = 0
        self._changed = asyncio.Event()
        self._error: UpstreamError | None = None
        self._forget = forget
        self._held = held
        self._overflown = overflown

    # -- for posts

    def claim(self, request: str, end: Callable[[str], None]) -> bool:
        """Note a request that waits here for its answer; False when one with its id does already."""
        if request and request in self._requests:
            return False
        if request:
            self._requests[request] = end
        return True

    def release(self, request: str, end: Callable[[str], None]) -> None:
        """Forget a request: it has its answer, or gets none. Another one may have its id by now, and stays."""
        if self._requests.get(request) == end:
            del self._requests[request]
            self._changed.set()

    def cancel(self, request: str, reason: str) -> None:
        """Tell the call of a request that its client takes it back, or has."""
        if request in self._requests:
            self._requests[request](reason)

    def push(self, event: bytes, *, judged: bool = True) -> None:
        """Put events into the stream; it ends when its client leaves more unread than its key may have waiting."""
        if self.closed:
            return
        self._unread += len(event) + _EACH
        if self._held.set(self._unread) or self.closing:
            self._events.append((event, judged))
        else:
            self._events.clear()
            self._held.close()
            self.closing = "too_much_waiting"
            self._overflown()
        self._changed.set()

    async def remember(self, session: bytes, version: bytes) -> None:
        """Note the upstream's session."""
        self.session, self.version = session, version
        if self.begun is not None:
            await self.begun()

    # -- for the stream

    async def offer(self, piece: bytes) -> None:
        """Put in what the upstream itself said, and wait until it was taken."""
        self.push(piece, judged=False)
        while self._events and not self.closed:
            await self._wait()

    def fail(self, error: UpstreamError) -> None:
        """Have the stream end with an error once all that came before it was read."""
        self._error = error
        self._changed.set()

    async def read(self) -> tuple[bytes, bool]:
        """Wait for the next events, and whether they were judged; b"" when the mailbox was shut."""
        while not self._events:
            if self.closed:
                return b"", True
            if self._error is not None:
                raise self._error
            await self._wait()
        event, judged = self._events.popleft()
        self._unread -= len(event) + _EACH
        self._held.set(self._unread)
        self._changed.set()
        return event, judged

    async def last_words(self, reason: str) -> bytes:
        """Have every call end that waits here, for the stream's reason; gives what is still to be said to the client."""
        self.closing = self.closing or reason
        self._end_calls(reason)
        await self.quiet()
        words = b"".join(event for event, judged in self._events if judged)
        self._events.clear()
        return words

    async def quiet(self) -> None:
        """Wait until nobody waits here for an answer, for a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                while self._requests:
                    await self._wait()

    def shut(self, reason: str = GONE) -> None:
        self.closing = self.closing or reason
        self.closed = True
        self._events.clear()
        self._held.close()
        self._changed.set()
        self._forget()
        self._end_calls(reason)

    def _end_calls(self, reason: str) -> None:
        for end in list(self._requests.values()):
            end(reason)

    async def _wait(self) -> None:
        # several may wait, each for its own: whoever is woken looks, and clears it only before it waits anew
        self._changed.clear()
        await self._changed.wait()
