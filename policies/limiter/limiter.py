"""How many, how soon: all limits that apply to a request are checked, then all are consumed or none.

Where the windows are kept decides how far a limit reaches: in a file that the workers of one machine share (the default,
nothing to install), in Redis for several machines, or in one process. All three count alike (policies.limiter.table): never
more than N in any W seconds, a place free at most W/64 seconds late (docs/adr/0010).

    admission = await limiter.admit(limits_for(index, principal, target))      # limits_for: policies.engine.limits

When Redis does not answer, the setting decides: "closed" refuses with limiter_unavailable, "local" counts on this machine alone;
either way `alarm` says so until Redis is back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from core.conf.settings import Config
from policies.limiter.redis import TIMEOUT, RedisDown, RedisWindows
from policies.limiter.shared import LocalTable, Locked, SharedTable
from policies.limiter.table import Window, WindowVerdict

if TYPE_CHECKING:
    from policies.engine.limits import LimitRef

__all__ = ["LimitAnswer", "Limiter", "Traffic", "build_limiter"]

log = logging.getLogger("sentinel.limits")

_SECOND: Final = 1_000_000_000
#: names that one key may be counted by anew within a limit's window, so that nobody fills the table with ever-new ones
MOST_NAMES: Final = 2048
#: keys whose traffic beside calls is counted in one process
_TALKING: Final = 4096
#: how long after its last failure a limiter is said to be failing, when no call shows that it no longer is
ALARM_SECONDS: Final = 60.0


class LimitAnswer(NamedTuple):
    """Whether there is room, and if not, in how many seconds."""

    allowed: bool
    reason: str = ""  # "", rate_limited, limiter_unavailable
    retry_after: float = 0.0
    limit: int = 0
    remaining: int = 0
    which: LimitRef | None = None  # the limit that is full, or the tightest of those that are not

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """What an answer may say of the limit beside Retry-After."""
        if not self.limit:
            return ()
        return (
            (b"ratelimit-limit", b"%d" % self.limit),
            (b"ratelimit-remaining", b"%d" % self.remaining),
            (b"ratelimit-reset", b"%d" % -(-self.retry_after // 1)),
        )


_ADMITTED: Final = LimitAnswer(True)


class Windows(Protocol):
    """Where windows are counted."""

    #: one word for metrics: redis, machine or process
    name: str

    async def decide(self, windows: Sequence[Window]) -> tuple[WindowVerdict, int]:
        """The verdict, and the time it was made at on the clock of its `free_at`."""

    async def close(self) -> None:
        """Let go of everything."""


@lru_cache(maxsize=16384)
def _windows(
    bucket: bytes, requests: int, seconds: float, burst: int | None, count: int, namer: bytes
) -> tuple[Window, ...]:
    """What one limit asks of the table: its window, and a second one when only so many may come at once.

    Where callers choose what is counted, a third counts how many such names one of them makes.
    """
    name = blake2b(bucket, digest_size=16).digest()
    window = seconds * _SECOND
    windows: tuple[Window, ...] = (Window(name, requests, round(window), count),)
    if namer:
        names = blake2b(namer, digest_size=16, person=b"names").digest()
        windows += (Window(names, MOST_NAMES, round(window), makes=1),)
    if burst is None or burst >= requests:
        return windows
    # "At once" is as long as so many take at the limit's own pace: 120 a minute, 10 at once is 10 in any 5 seconds.
    return (*windows, Window(name, burst, round(window * burst / requests), count))


class Limiter:
    """Decides about requests, wherever the windows are kept."""

    def __init__(self, windows: Windows, fallback: Windows | None = None) -> None:
        self._windows = windows
        self._fallback = fallback
        self._alarm = ""
        self._alarmed_at = 0.0
        #: called with each decision, (where it was made, what it was); sentinel.observability.metrics listens here
        self.observers: list[Callable[[str, str], None]] = []

    @property
    def alarm(self) -> str:
        """What is wrong with the limits, "" when nothing is: for metrics, health and the admin.

        Without calls nobody finds out that it is over, so it is told for a while after the last failure only.
        """
        return self._alarm if time.monotonic() - self._alarmed_at < ALARM_SECONDS else ""

    @property
    def backend(self) -> str:
        """Where limits are counted now."""
        return self._fallback.name if self.alarm and self._fallback is not None else self._windows.name

    @classmethod
    def open(cls, var: Path, *, redis_url: str = "", fail: str = "closed", timeout: float = TIMEOUT) -> Limiter:
        """The limiter of an installation: in Redis when it has one, else in its state folder."""
        if not redis_url:
            return cls(SharedTable(var / "limiter"))
        return cls(RedisWindows(redis_url, timeout=timeout), SharedTable(var / "limiter") if fail == "local" else None)

    @classmethod
    def local(cls) -> Limiter:
        return cls(LocalTable())

    async def connect(self) -> None:
        """Connect to Redis ahead, where there is one, so that no call waits for that."""
        if isinstance(self._windows, RedisWindows):
            await self._windows.open()

    async def admit(self, refs: Sequence[LimitRef]) -> LimitAnswer:
        """Take a place in every window, or in none."""
        if not refs:
            return _ADMITTED
        admission = await self._admit(refs)
        for observe in self.observers:
            observe(self.backend, admission.reason or "admitted")
        return admission

    async def _admit(self, refs: Sequence[LimitRef]) -> LimitAnswer:
        windows: list[Window] = []
        owners: list[LimitRef] = []
        for ref in refs:
            spec = ref.spec
            asked = _windows(ref.bucket, spec.requests, spec.window_seconds, spec.burst, ref.count, ref.namer)
            windows += asked
            owners += [ref] * len(asked)
        try:
            verdict, now = await self._windows.decide(windows)
        except (RedisDown, Locked) as error:
            self._raise_alarm(f"limits cannot be checked: {error or type(error).__name__}")
            if self._fallback is None:
                return LimitAnswer(False, "limiter_unavailable", 1.0)
            try:
                verdict, now = await self._fallback.decide(windows)
            except Locked:
                return LimitAnswer(False, "limiter_unavailable", 1.0)
        else:
            if self._alarm:
                self._raise_alarm("")
        if verdict.which < 0:
            self._raise_alarm("the table of limits is full")
            return LimitAnswer(False, "limiter_unavailable", 1.0)
        requests, which = windows[verdict.which].requests, owners[verdict.which]
        if verdict.allowed:
            return LimitAnswer(True, "", 0.0, requests, verdict.remaining, which)
        return LimitAnswer(False, "rate_limited", max(0, verdict.free_at - now) / _SECOND, requests, 0, which)

    def _raise_alarm(self, text: str) -> None:
        if text and not self._alarm:
            log.warning("%s", text)
        elif self._alarm and not text:
            log.warning("limits are checked again")
        self._alarm, self._alarmed_at = text, time.monotonic()

    async def close(self) -> None:
        """Let go of files and connections."""
        await self._windows.close()
        if self._fallback is not None:
            await self._fallback.close()


class Traffic:
    """A bound of this process, for each key, on what is no call: far above what clients do, against floods alone."""

    def __init__(self, requests: int) -> None:
        self._table = LocalTable(_TALKING)
        self._requests = requests

    def wait(self, key: str) -> float:
        """Take a place; gives 0, or the seconds until there is one."""
        name = blake2b(key.encode(), digest_size=16).digest()
        verdict, now = self._table.decide_now((Window(name, self._requests, 60 * _SECOND),))
        if verdict.allowed or verdict.which < 0:  # more keys than there are slots are many, and none of them floods
            return 0.0
        return max(1, verdict.free_at - now) / _SECOND


def build_limiter(config: Config) -> Limiter:
    return Limiter.open(
        config.var, redis_url=config.redis_url, fail=config.limiter_fail, timeout=config.limiter_timeout
    )
