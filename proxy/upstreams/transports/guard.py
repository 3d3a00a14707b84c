"""Around a transport: how many calls may wait at once, and a circuit that opens when trying has become pointless.

The circuit counts what the upstream did wrong to everybody and what cost time to find out: connections that could not be
made, processes that could not be started. What one call met is that call's alone: one that is slow, waits too long, is
cancelled or is answered with rubbish says nothing about the next, else one caller could shut an upstream for all. Refused
connections are known at once and need no protection, so an upstream that comes back is used by the very next call. While the
circuit is open callers are told that it is (503, not executed); after the pause one call tries again.
"""

from __future__ import annotations

import asyncio

from core.ledger import Ledger
from proxy.upstreams.transports.base import (
    Busy,
    Transport,
    Unreachable,
    UpstreamError,
    UpstreamRequest,
    UpstreamResponse,
)

FAILURES_TO_OPEN = 5
SLOW_SECONDS = 1.0
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0


class Guard:
    """A transport with a concurrency limit and a circuit breaker."""

    def __init__(
        self, inner: Transport, *, max_concurrent: int = 512, slow: float = SLOW_SECONDS, aside: bool = False
    ) -> None:
        self.inner = inner
        #: what says `aside` has room of its own: calls that wait must not keep away what would end them
        self._aside = None if aside else Guard(inner, max_concurrent=max_concurrent, slow=slow, aside=True)
        self.max_concurrent = max_concurrent
        self.waiting = 0
        #: who has how many of the calls that wait; the gateway's own are not counted
        self.shares = Ledger(max_concurrent)
        self._slow = slow
        self._failures = 0
        self._pause = FIRST_PAUSE
        self._open_until = 0.0
        self._trying = False
        self._cause = ""

    @property
    def open(self) -> bool:
        return self._failures >= FAILURES_TO_OPEN

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send through the inner transport, unless it is full or the circuit is open."""
        if request.aside and self._aside is not None:
            return await self._aside.send(request)
        if self.waiting >= self.max_concurrent:
            raise Busy("The upstream has as many calls waiting as it may have.", detail=f"{self.waiting} waiting")
        caller = request.caller
        # While less than half is taken nobody can have more than a share.
        if caller and 2 * self.waiting >= self.max_concurrent - 1 and not self.shares.room(caller):
            raise Busy(
                "This key has its share of the calls that may wait for the upstream.",
                detail=f"{self.shares.of(caller)} of {self.waiting} waiting are this key's",
            )
        trial = False
        if self._failures >= FAILURES_TO_OPEN:
            now = asyncio.get_running_loop().time()
            if self._trying or now < self._open_until:
                raise Busy(
                    "The upstream could not be reached lately and is left alone for a moment.",
                    detail=f"circuit open, not tried: {self._cause}",
                    retry_after=self._open_until - now,
                )
            trial = self._trying = True
        self.waiting += 1
        if caller:
            self.shares.add(caller)
        started = asyncio.get_running_loop().time()
        try:
            response = await self.inner.send(request)
        except UpstreamError as error:
            self._failed(error, asyncio.get_running_loop().time(), started)
            raise
        else:
            if self._failures:
                self.reset()
            return response
        finally:
            self.waiting -= 1
            if caller:
                self.shares.give(caller)
            if trial:
                self._trying = False

    def reset(self) -> None:
        """Close the circuit: the upstream answers."""
        self._failures = 0
        self._pause = FIRST_PAUSE

    async def close(self, grace: float = 0.0) -> None:
        await self.inner.close(grace)

    def _failed(self, error: UpstreamError, now: float, started: float) -> None:
        if not isinstance(error, Unreachable) or now - started < self._slow:
            # it was there, is slow for this call, or said at once that it is not: nobody waits in vain for a connection
            if self.open and not isinstance(error, Busy):
                self.reset()
            return
        self._failures += 1
        if self.open:
            self._cause = error.detail or error.message
            self._open_until = now + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
