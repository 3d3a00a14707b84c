"""When refusals become counts (pure): neither a stranger nor a looping agent may fill the disk or hide others' events.

Refusals of one kind, up to `PER_SECOND` in a second, leave an event each. Beyond that they are counted: one counted event
stands for all further ones of that kind until its window ends. A kind is (source, reason) for callers without a valid key,
and (key, reason, target) for those with one. Whatever the number of kinds, the events of a second and the kinds counted at
once are bounded: beyond, kinds are merged by reason.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Any

from audit.addresses import parse_address

__all__ = ["Flood", "Group", "kind_of"]

PER_SECOND = 20
TOTAL_PER_SECOND = 400
MOST_GROUPS = 500
WINDOW_SECONDS = 10.0
IDLE_SECONDS = 3.0


@dataclass(slots=True)
class Group:
    """One counted event while it counts: its first refusal is the sample."""

    kind: Hashable
    began: float
    touched: float
    event: Any = None
    count: int = 0
    first_ts: int = 0
    last_ts: int = 0
    seq: int = 0
    saved: int = field(default=0)  # the count that the journal knows


class Flood:
    """Decides for each refusal whether it has an event of its own; times are seconds of a clock that never goes back."""

    def __init__(self, per_second: int = PER_SECOND, total: int = TOTAL_PER_SECOND, groups: int = MOST_GROUPS) -> None:
        self.per_second, self.total, self.most = per_second, total, groups
        self.groups: dict[Hashable, Group] = {}
        self._second = 0
        self._seen: dict[Hashable, int] = {}
        self._all = 0

    def admit(self, kind: tuple[Hashable, ...], reason: str, now: float, force: bool = False) -> Group | None:
        """Give None when the refusal gets its own event, else the group that counts it (new if its count is 0)."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._seen.clear()
            self._all = 0
        seen = self._seen.get(kind, 0)
        if not force and seen < self.per_second and self._all < self.total:
            self._seen[kind] = seen + 1
            self._all += 1
            return None
        group = self.groups.get(kind)
        if group is None:
            merged: tuple[Hashable, ...] = kind
            if len(self.groups) >= self.most:
                merged = ("any", reason)
                group = self.groups.get(merged)
            if group is None:
                group = self.groups[merged] = Group(merged, now, now)
        group.touched = now
        return group

    def ended(self, now: float, everything: bool = False) -> list[Group]:
        """Take out the groups whose window has ended."""
        over = [
            group
            for group in self.groups.values()
            if everything or now - group.began >= WINDOW_SECONDS or now - group.touched >= IDLE_SECONDS
        ]
        for group in over:
            del self.groups[group.kind]
        return over


def kind_of(event: Any) -> tuple[Hashable, ...]:
    """Name the kind of a refusal; addresses of IPv6 count by their /64, which one customer of a provider has."""
    if event.api_key_id is not None:
        return ("key", event.api_key_id, event.reason, event.upstream, event.target_kind, event.method, event.tool_name)
    return ("source", source_of(event.client_ip), event.reason)


def source_of(address: Any) -> str:
    """Name the source of an address."""
    text = str(address or "")
    parsed = parse_address(text) if ":" in text else None
    return parsed.packed[:8].hex() if isinstance(parsed, IPv6Address) else str(parsed or text)
