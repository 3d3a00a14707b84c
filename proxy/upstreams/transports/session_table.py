"""Sessions that a transport keeps itself: bounded in number, ended when nobody uses them any more."""

from __future__ import annotations

import asyncio
import secrets
from typing import Generic, Protocol, TypeVar

from core.ledger import Ledger
from proxy.upstreams.transports.base import Busy, Cancelled, UpstreamResponse
from proxy.upstreams.transports.conversation import Conversation

#: a session whose stream was dropped ends after this long without a sign of life, one that never had one later
ORPHAN_SECONDS = 30.0
IDLE_SECONDS = 1800.0


class Peer(Protocol):
    """What a session holds: a process, a stream."""

    conversation: Conversation

    @property
    def alive(self) -> bool:
        """Tell whether it can still be spoken to."""

    async def close(self) -> None:
        """End it."""


PeerT = TypeVar("PeerT", bound=Peer)


class _State(Generic[PeerT]):
    __slots__ = ("caller", "last_used", "listened", "peer")

    def __init__(self, peer: PeerT, now: float, caller: str) -> None:
        self.peer = peer
        self.caller = caller
        self.last_used = now
        self.listened = False


class SessionTable(Generic[PeerT]):
    """Session ids of a transport's own making, and what each stands for."""

    def __init__(self, limit: int) -> None:
        self._shares = Ledger(limit)
        self._states: dict[bytes, _State[PeerT]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._states)

    def peers(self) -> list[PeerT]:
        """Give what the sessions stand for."""
        return [state.peer for state in self._states.values()]

    def make_room(self, caller: str = "") -> None:
        """End a caller's own longest unused session when it has its share of them; raises Busy when all are in use.

        Only when there is no room at all is it another's, of the caller that has most.
        """
        if self._shares.room(caller) or (not caller and self._shares.total < self._shares.most):
            return
        most = caller
        if not self._shares.of(caller):
            most = max((state.caller for state in self._states.values()), key=self._shares.of, default="")
        quiet = [
            (state.last_used, token)
            for token, state in self._states.items()
            if state.caller == most and not state.peer.conversation.busy
        ]
        if not quiet:
            raise Busy("The upstream has as many sessions as it may have.", detail=f"{len(self._states)} sessions")
        self.end(min(quiet)[1])

    def add(self, peer: PeerT, token: bytes = b"", caller: str = "") -> bytes:
        """Keep a session; gives its id."""
        loop = asyncio.get_running_loop()
        token = token or new_token()
        self._states[token] = _State(peer, loop.time(), caller)
        self._shares.add(caller)
        if self._sweeper is None:
            self._sweeper = loop.call_later(ORPHAN_SECONDS / 6, self._sweep)
        return token

    def get(self, token: bytes) -> PeerT | None:
        """Find a session; None when it is not known or what it stood for has ended."""
        state = self._states.get(token)
        if state is None:
            return None
        if not state.peer.alive:
            self.end(token)
            return None
        state.last_used = asyncio.get_running_loop().time()
        return state.peer

    def listen(self, token: bytes, caller: str = "") -> UpstreamResponse:
        state = self._states[token]
        state.listened = True
        return state.peer.conversation.listen(token, caller)

    def leave(self, token: bytes) -> bool:
        """End a session as its client asks, which takes back what it still waits for; False when it was not known."""
        state = self._states.get(token)
        if state is not None:
            state.peer.conversation.end(Cancelled("The session was ended by its client."))
        return self.end(token)

    def end(self, token: bytes) -> bool:
        """End a session; False when it was not known."""
        state = self._states.pop(token, None)
        if state is not None:
            self._shares.give(state.caller)
            self.dispose(state.peer)
        return state is not None

    def dispose(self, peer: PeerT) -> None:
        """Close something in the background, and keep hold of that until it is done."""
        task = asyncio.get_running_loop().create_task(peer.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """End all sessions."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for token in list(self._states):
            self.end(token)
        await asyncio.gather(*self._closing)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for token, state in list(self._states.items()):
            if state.peer.conversation.busy:
                state.last_used = now
            elif not state.peer.alive or now - state.last_used > (ORPHAN_SECONDS if state.listened else IDLE_SECONDS):
                self.end(token)
        self._sweeper = loop.call_later(ORPHAN_SECONDS / 6, self._sweep) if self._states else None


def new_token() -> bytes:
    """Make a session id nobody can guess."""
    return secrets.token_urlsafe(24).encode()
