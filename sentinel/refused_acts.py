"""What the admin refuses leaves events too, but a flood of refusals must not become a flood of rows."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

PER_SECOND = 20
TOTAL_PER_SECOND = 100
MOST_KINDS = 1000


@dataclass(slots=True)
class _Kind:
    second: int = 0
    used: int = 0
    dropped: int = 0


class _Pool:
    """The kinds of one sort of people, as many as are remembered; what is forgotten of them is still counted."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.kinds: OrderedDict[Hashable, _Kind] = OrderedDict()
        self.second = 0
        self.used = 0
        self.dropped = 0

    def of(self, kind: Hashable) -> _Kind:
        found = self.kinds.get(kind)
        if found is None:
            found = self.kinds[kind] = _Kind()
            if len(self.kinds) > MOST_KINDS:
                self.dropped += self.kinds.popitem(last=False)[1].dropped
        self.kinds.move_to_end(kind)
        return found


class RefusedActs:
    """Bounds how many events a flood of refusals may write: beyond a rate they are only counted.

    Each kind (who, and why) has a rate of its own, so that nobody's refusals hide another's. Strangers, who can come from
    as many addresses as they like, have a bound together too, which people and keys that are known do not share.
    The next event of a kind that is written says how many were not.
    """

    def __init__(
        self,
        per_second: int = PER_SECOND,
        total: int = TOTAL_PER_SECOND,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = per_second
        self._clock = clock
        self._known = _Pool(0)
        self._strangers = _Pool(total)

    def admit(self, who: Hashable, reason: str, *, known: bool = False) -> int | None:
        """Return how many of this kind were dropped before this one, or None when this one is dropped too."""
        pool = self._known if known else self._strangers
        kind = pool.of((who, reason))
        second = int(self._clock())
        if second != kind.second:
            kind.second, kind.used = second, 0
        if second != pool.second:
            pool.second, pool.used = second, 0
        if kind.used >= self._rate or (pool.total and pool.used >= pool.total):
            kind.dropped += 1
            return None
        kind.used += 1
        pool.used += 1
        dropped = kind.dropped + pool.dropped
        kind.dropped = pool.dropped = 0
        return dropped
