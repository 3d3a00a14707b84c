"""What is open is minded: calls that wait for an upstream, and streams that wait for either side.

A call may outlive whatever gave it: its key is rotated or moved to another role, the role is narrowed, the upstream is
disabled. So whenever keys, policy or upstreams have changed, and now and then, each that is on its way goes through
*authenticate* and *authorize* again, on a copy that leaves no trace in its event, and ends with a reason or goes on as what
its key is now. An upstream that is disabled answers what it was asked before.

Each second streams are kept alive, those of keys that have expired end, and so do those whose clients do not read.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from copy import copy

from proxy.call import Call
from proxy.follow_ups import resumption
from proxy.gateway import Gateway
from proxy.mcp.message import Refused
from proxy.pipeline import authenticate, authorize

log = logging.getLogger("sentinel.proxy")

#: how often streams are looked at: keep-alive comments, what they hold, expiry of their keys
TICK = 1.0
#: how often streams are judged again although nothing was changed: hours of rules begin and end
JUDGE_SECONDS = 30.0
#: so many are judged before others get their turn
JUDGED_AT_ONCE = 50
#: a policy that could not be confirmed lately refuses new calls, and ends none
_PASSING = frozenset({"policy_stale"})


class Watch:
    """Minds what is open in one gateway, for as long as that runs."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def start(self) -> None:
        """Begin; the gateway's stop ends it."""
        loop = asyncio.get_running_loop()

        def changed(*_: object) -> None:  # called by the thread that reads snapshots
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._look_again)

        self._gateway.holder.subscribe(changed)
        self._gateway.tend(self._tick())
        self._gateway.tend(self._judge_all())

    def _look_again(self) -> None:
        self._gateway.changed_ns = time.perf_counter_ns()
        self._close_revoked()
        self._gateway.changed.set()

    def _close_revoked(self) -> None:
        snapshot = self._gateway.snapshot
        if snapshot is None:
            return
        now = time.time()
        for call in list(self._gateway.calls):
            generation = call.auth.generation if call.auth is not None else None
            if call.executed and not snapshot.key_is_live(call.key_id, now, generation):
                call.exchange.end("revoked_during_stream")

    async def _judge_all(self) -> None:
        changed = self._gateway.changed
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(JUDGE_SECONDS):
                    await changed.wait()
            changed.clear()
            for number, call in enumerate([call for call in self._gateway.calls if call.executed], 1):
                try:
                    reason = judge_again(self._gateway, call)
                except Exception:
                    log.exception("an open stream could not be judged again", extra={"audit_id": str(call.id)})
                    reason = "denied_during_stream"
                if reason:
                    call.exchange.end(reason)
                if not number % JUDGED_AT_ONCE:
                    await asyncio.sleep(0)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            try:
                self._look_at_streams()
            except Exception:  # else one defect would end keep-alives and the expiry of streams for good
                log.exception("open streams could not be looked at")

    def _look_at_streams(self) -> None:
        gateway = self._gateway
        gateway.logger.give_up()
        self._close_revoked()
        now, interval = time.monotonic(), gateway.config.keepalive_interval
        for calls in list(gateway.streams.values()):
            for call in list(calls):
                resumption.hold(gateway, call, now)
                if not call.holds(gateway.ledger, call.waiting()):
                    call.exchange.end("too_much_waiting")
                elif call.keep_alive is not None and 0 < interval <= now - call.last_write:
                    gateway.spawn(call.keep_alive())


def judge_again(gateway: Gateway, call: Call) -> str:
    """Judge a call that waits, or an open stream; "" when it goes on (as its key's principal of now), else why it ends."""
    spec = gateway.upstream(call.slug)
    if spec is None or call.spec is None or (call.listens and spec.way != call.spec.way):
        return "upstream_changed" if call.streaming else ""
    again = copy(call)
    again.spec, again.target, again.decision = spec, None, None
    again.stages, again.details = [], {}
    failure = authenticate(gateway, again)
    if failure is not None:
        return "" if failure.reason in _PASSING else "revoked_during_stream"
    try:
        authorize(gateway, again)
    except Refused as refused:
        return "" if refused.reason in _PASSING else "denied_during_stream"
    call.principal = again.principal
    return ""
