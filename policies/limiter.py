"""How many, how soon: the limits that apply to a request, checked all and then consumed all or none.

Where the windows are kept decides how far a limit reaches: in a file that the workers of one machine share (the default,
nothing to install), in Redis for several machines, or in one process. All three count alike (policies.limiter_table): never
more than N in any W seconds, a place free at most W/64 seconds late.

    refs = limits_for(snapshot, principal, target)
    admission = await limiter.admit(refs)

When Redis does not answer, the setting decides: "closed" refuses with limiter_unavailable, "local" counts on this machine alone;
either way `alarm` says so until Redis is back.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from policies import limits
from policies.limiter_redis import RedisDown, RedisWindows
from policies.limiter_shared import LocalTable, Locked, SharedTable
from policies.limiter_table import Verdict, Window

if TYPE_CHECKING:
    from policies.engine import Principal, Target
    from policies.snapshot import Snapshot
    from policies.specs import LimitSpec

__all__ = ["Admission", "LimitRef", "Limiter", "limits_for", "references"]

log = logging.getLogger("sentinel.limits")

_SECOND: Final = 1_000_000_000


class LimitRef(NamedTuple):
    """One limit as it applies to one request: which bucket, how many, in how many seconds."""

    bucket: bytes
    requests: int
    window: float
    name: str = ""


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether there is room, and if not, in how many seconds."""

    allowed: bool
    reason: str = ""  # "", rate_limited, limiter_unavailable
    retry_after: float = 0.0
    limit: int = 0
    remaining: int = 0
    which: str = ""  # the limit that is full, or the tightest of those that are not

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


_ADMITTED: Final = Admission(True)


class Windows(Protocol):
    """Where windows are counted."""

    async def decide(self, windows: Sequence[Window]) -> tuple[Verdict, int]:
        """The verdict, and the time it was made at on the clock of its `free_at`."""

    async def close(self) -> None:
        """Let go of everything."""


@lru_cache(maxsize=16384)
def _refs(spec: LimitSpec, identities: tuple[str, ...]) -> tuple[LimitRef, ...]:
    """The buckets of one limit. They are named by what the limit says, so that writing the same policy again, or
    another number into it, does not begin the count anew."""
    content = (spec.key, spec.role, spec.upstream, spec.kind, spec.pattern, spec.is_default, spec.per, identities)
    bucket = blake2b(repr(content).encode("utf-8", "surrogatepass"), digest_size=16).digest()
    name = spec.name or f"{spec.requests} in {spec.window_seconds} s"
    refs = (LimitRef(bucket, spec.requests, spec.window_seconds, name),)
    if spec.burst is not None and spec.burst < spec.requests:
        # "At once" is as long as so many take at the limit's own pace: 120 a minute, 10 at once is 10 in any 5 seconds.
        span = spec.window_seconds * spec.burst / spec.requests
        refs += (LimitRef(bucket, spec.burst, span, f"{name}, {spec.burst} at once"),)
    return refs


def references(specs: Sequence[LimitSpec], principal: Principal, target: Target | None) -> tuple[LimitRef, ...]:
    """The buckets that a request counts in, each once, by the tightest of the limits that share it."""
    if not specs:
        return ()
    found: dict[tuple[bytes, float], LimitRef] = {}
    for spec in specs:
        for ref in _refs(spec, tuple(_identity(word, principal, target) for word in spec.per)):
            place = (ref.bucket, ref.window)
            if place not in found or ref.requests < found[place].requests:
                found[place] = ref
    return tuple(found.values())


def _identity(word: str, principal: Principal, target: Target | None) -> str:
    if word == "key":
        return principal.key_prefix
    if word == "role":
        return principal.role
    if target is None:
        return ""
    return target.upstream if word == "upstream" else f"{target.kind}:{target.name}"


def limits_for(snapshot: Snapshot, principal: Principal, target: Target | None) -> tuple[LimitRef, ...]:
    """The buckets of the limits that apply; `target` None is protocol traffic that names none."""
    return references(limits.limits_for(snapshot, principal, target), principal, target)


class Limiter:
    """Decides about requests, wherever the windows are kept."""

    def __init__(self, windows: Windows, fallback: Windows | None = None) -> None:
        self._windows = windows
        self._fallback = fallback
        #: what is wrong with the limits; "" when nothing is. For metrics, health and the admin.
        self.alarm = ""

    @classmethod
    def open(cls, var: Path, *, redis_url: str = "", instance: str = "", fail: str = "closed") -> Limiter:
        """The limiter of an installation: in Redis when it has one, else in its state folder."""
        if not redis_url:
            return cls(SharedTable(var / "limiter"))
        # Machines that share a Redis share the limits, whatever instance they are.
        return cls(RedisWindows(redis_url), SharedTable(var / "limiter") if fail == "local" else None)

    @classmethod
    def local(cls) -> Limiter:
        """Limits of one process."""
        return cls(LocalTable())

    async def admit(self, refs: Sequence[LimitRef]) -> Admission:
        """Take a place in every window, or in none."""
        if not refs:
            return _ADMITTED
        windows = [Window(ref.bucket, ref.requests, round(ref.window * _SECOND)) for ref in refs]
        try:
            verdict, now = await self._windows.decide(windows)
        except (RedisDown, Locked) as error:
            self._raise_alarm(f"limits cannot be checked: {error or type(error).__name__}")
            if self._fallback is None:
                return Admission(False, "limiter_unavailable", 1.0)
            try:
                verdict, now = await self._fallback.decide(windows)
            except Locked:
                return Admission(False, "limiter_unavailable", 1.0)
        else:
            if self.alarm:
                self._raise_alarm("")
        if verdict.which < 0:
            self._raise_alarm("the table of limits is full")
            return Admission(False, "limiter_unavailable", 1.0)
        ref = refs[verdict.which]
        if verdict.allowed:
            return Admission(True, "", 0.0, ref.requests, verdict.remaining, ref.name)
        return Admission(False, "rate_limited", (verdict.free_at - now) / _SECOND, ref.requests, 0, ref.name)

    def _raise_alarm(self, text: str) -> None:
        if text and not self.alarm:
            log.warning("%s", text)
        elif self.alarm and not text:
            log.warning("limits are checked again")
        self.alarm = text

    async def close(self) -> None:
        """Let go of files and connections."""
        await self._windows.close()
        if self._fallback is not None:
            await self._fallback.close()
