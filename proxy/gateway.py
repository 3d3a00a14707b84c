"""What one worker process shares between its requests: the snapshot, the audit logger, limits, upstreams, open streams.

It is state alone, and knows no stage: what minds open streams (proxy.watch) and what happens to a request (proxy.pipeline) know it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from audit.journal.logger import AuditLogger
from audit.redaction.sanitizer import MISSING, Payload
from audit.redaction.sanitizer import current as current_sanitizer
from core.conf.settings import Config
from core.heavy import Heavy
from policies.limiter.limiter import Limiter, Traffic
from policies.snapshot.snapshot import Snapshot, SnapshotHolder
from proxy.call import Call
from proxy.follow_ups.in_flight import InFlight
from proxy.follow_ups.task_book import TaskBook
from proxy.http.sessions import SessionSealer
from proxy.legacy.mailboxes import Mailboxes
from proxy.upstreams.health import UpstreamHealth
from proxy.upstreams.registry import UpstreamRegistry
from proxy.upstreams.specs import UpstreamSpec

#: how long before the end of the grace what still waits is told that it is over
LAST_WORD_SECONDS = 0.5


class Gateway:
    """The worker's state; built once per process (sentinel.server.wiring) and handed to every call."""

    def __init__(
        self,
        *,
        config: Config,
        holder: SnapshotHolder,
        logger: AuditLogger,
        limiter: Limiter,
        registry: UpstreamRegistry,
        mailboxes: Mailboxes,
        query_keys: bool,
    ) -> None:
        self.config = config
        self.holder = holder
        self.logger = logger
        self.limiter = limiter
        self.registry = registry
        self.mailboxes = mailboxes
        self.heavy = Heavy()
        self.tasks = TaskBook(config.var / "tasks")
        #: what keys send beside calls
        self.traffic = Traffic(config.session_traffic_limit)
        self.sealer = SessionSealer(config.secret_key)
        #: bytes that wait in this worker, by key
        self.ledger = registry.ledger
        self.query_keys = query_keys and config.query_keys
        #: open streams by the id of the key they were opened with
        self.streams: dict[str, set[Call]] = {}
        self.stream_count = 0
        #: everything between arrival and recorded outcome, for a clean stop
        self.calls: set[Call] = set()
        self.standing = UpstreamHealth()
        self.in_flight = InFlight(mailboxes.folder, mailboxes.slot)
        self.stopping = False
        #: called with each finished call; sentinel.observability.metrics listens here
        self.observers: list[Callable[[Call], None]] = []
        #: set when keys, policy or upstreams have changed, and when that last was (time.perf_counter_ns)
        self.changed = asyncio.Event()
        self.changed_ns = 0
        self._tending: list[asyncio.Task[None]] = []
        self._background: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- life

    async def start(self) -> None:
        """Begin: the mailboxes of older streams, and the ways on which other workers tell this one of a cancel."""
        await self.mailboxes.start()
        self.in_flight.start()
        self.spawn(asyncio.to_thread(self.tasks.sweep))  # a folder may hold many, and nobody waits for it
        self._loop = asyncio.get_running_loop()

    async def stop(self) -> None:
        """End: close what is still open, once its outcome is recorded."""
        self._stop_calls()
        deadline = time.monotonic() + 5
        while self.calls and time.monotonic() < deadline:  # noqa: ASYNC110 - a bounded wait at the very end
            await asyncio.sleep(0.02)
        for task in self._tending:
            task.cancel()
        await self.mailboxes.stop()
        self.in_flight.stop()
        await self.registry.close()
        self.heavy.close()

    def begin_stop(self) -> None:
        """End what only listens; what waits for an answer may have it within the grace, and is then told that it is over."""
        self.stopping = True
        for calls in list(self.streams.values()):
            for call in list(calls):
                if call.listens:
                    call.exchange.end("server_stopping")
        if self._loop is not None:
            self._loop.call_later(max(self.config.graceful_timeout - LAST_WORD_SECONDS, 0), self._stop_calls)

    def _stop_calls(self) -> None:
        self.stopping = True
        for call in list(self.calls):
            call.exchange.end("server_stopping")

    def tend(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run something for as long as the gateway does."""
        self._tending.append(asyncio.get_running_loop().create_task(coroutine))

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run something beside the request that asked for it, and keep hold of it until it is done."""
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # -- what stages ask for

    @property
    def snapshot(self) -> Snapshot | None:
        """The keys and the policy as of now; None until they were read for the first time."""
        return self.holder.current

    def upstream(self, slug: str) -> UpstreamSpec | None:
        """The upstream of that name, if there is one and it is enabled."""
        return self.registry.spec(slug)

    async def payload(
        self,
        raw: bytes,
        value: Any = MISSING,
        *,
        compact: bytes = b"",
        caller: str = "",
        level: str = "full",
        side: str = "request",
    ) -> Payload:
        """Sanitise a payload (and what it was parsed to, when it was); off the loop, in its caller's turn, when that is dear."""
        sanitizer = current_sanitizer()
        found = sanitizer.quick(value, raw, level, side=side, compact=compact)
        if found is not None:
            return found
        return await self.heavy.run(caller, sanitizer.payload, value, raw, level, side=side)

    # -- streams

    def stream_opened(self, call: Call) -> None:
        """Note an open stream, so that a revocation or a stop can find it."""
        self.streams.setdefault(call.key_id, set()).add(call)
        self.stream_count += 1

    def sent(self, call: Call) -> None:
        """Note that a call goes to its upstream: from here on it is judged again whenever something has changed."""
        if call.started_ns < self.changed_ns:  # it was let in by what has changed since
            self.changed.set()

    def stream_closed(self, call: Call) -> None:
        calls = self.streams.get(call.key_id)
        if calls and call in calls:
            calls.discard(call)
            self.stream_count -= 1
            if not calls:
                del self.streams[call.key_id]

    def streams_of(self, key_id: str) -> int:
        """How many streams a key has open on this worker."""
        return len(self.streams.get(key_id, ()))


_current: Gateway | None = None


def current() -> Gateway:
    """This process's gateway; it is an error to ask before it was built."""
    if _current is None:
        raise RuntimeError("the gateway of this process has not been started")
    return _current


def install(gateway: Gateway | None) -> None:
    """Make a gateway this process's own."""
    global _current
    _current = gateway
