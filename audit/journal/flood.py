"""When refusals become counts (pure): neither a stranger nor a looping agent may fill the disk or hide others' events.

What a refusal leaves is decided from its raw fields, before any event is made of it, so that one more of a flood costs a
look into a table. Refusals of one kind, up to `PER_SECOND` in a second, leave an event each. Beyond that they are counted:
one counted event stands for all further ones of that kind until its window ends. A kind is (source, reason) for callers
without a valid key, and (key, reason, target) for those with one.

Ever-new targets make no ever-new kinds: beyond `NAMES` in a window, a caller's further ones share one kind without a name.
And a caller, whatever its reasons and targets, has so many events, so many bytes of kept requests and so much of the processor in a
second, then its refusals are counted. So are all when they come from too many callers; strangers never use up what callers
with a key have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Any

from core.access.addresses import parse_address

__all__ = ["Flood", "Group", "Kind", "kind_of", "source_of"]

Kind = tuple[Hashable, ...]  # begins with the caller (its sort and its name), then the reason

PER_SECOND = 20
TOTAL_PER_SECOND = 400
PER_CALLER = 60
# What these events of one caller may keep of what was asked, in bytes; of the rest only its size and digest are kept.
KEPT_PER_CALLER = 64 * 1024
KEPT_AT_MOST = 8 * 1024  # of one request
NAMES = 20
MOST_GROUPS = 500  # of each sort of callers
WINDOW_SECONDS = 10.0
IDLE_SECONDS = 3.0
# What the events of refusals may take of a second of the processor; a caller's first few are made whatever they take.
CALLER_SHARE = 0.1
ALL_SHARE = 0.4
FIRST_FEW = 2
# Of a name, what tells kinds apart.
_NAME = 256


@dataclass(slots=True)
class Group:
    """One counted event while it counts: its first refusal is the sample; none while that is still being made."""

    kind: Kind
    began: float
    touched: float
    event: Any = None
    count: int = 0
    first_ts: int = 0
    last_ts: int = 0
    seq: int = 0
    saved: int = field(default=0)  # the count that the journal knows


@dataclass(slots=True)
class _Account:
    """What one second has seen so far, of one caller or of one sort of callers."""

    events: int = 0
    kept: int = 0
    seconds: float = 0.0


def _pays(caller: _Account, sort: _Account) -> bool:
    few = caller.events < FIRST_FEW
    return sort.seconds < ALL_SHARE and (few or caller.seconds < CALLER_SHARE)


class Flood:
    """Decides what each refusal leaves; times are seconds of a clock that never goes back."""

    def __init__(self, per_second: int = PER_SECOND, total: int = TOTAL_PER_SECOND, groups: int = MOST_GROUPS) -> None:
        self.per_second, self.total, self.most = per_second, total, groups
        self.groups: dict[Hashable, Group] = {}
        self._second = self._window = 0
        self._seen: dict[Hashable, int] = {}
        self._callers: dict[Hashable, _Account] = {}
        self._sorts: dict[Hashable, _Account] = {}
        self._names: dict[Hashable, set[Kind]] = {}
        # How many groups there are of each sort of callers, so that strangers leave callers with a key theirs.
        self._open: Counter[Hashable] = Counter()

    def admit(self, kind: Kind, reason: str, now: float, force: bool = False) -> Group | None:
        """Give None when the refusal gets its own event, else the group that counts it (new if its count is 0)."""
        self._begin(now)
        kind = self._named(kind)
        caller = self._callers.setdefault(kind[:2], _Account())
        sort = self._sorts.setdefault(kind[0], _Account())
        seen = self._seen.get(kind, 0)
        room = seen < self.per_second and caller.events < PER_CALLER and sort.events < self.total
        if force or not room or not _pays(caller, sort):
            return self._group(kind, reason, now)
        self._seen[kind] = seen + 1
        caller.events += 1
        sort.events += 1
        return None

    def keep(self, kind: Kind, size: int) -> bool:
        """Whether the event that was just admitted may keep what was asked, in so many bytes."""
        caller = self._callers.setdefault(kind[:2], _Account())
        caller.kept += min(size, KEPT_AT_MOST)
        return caller.kept <= KEPT_PER_CALLER

    def charge(self, kind: Kind, seconds: float) -> None:
        """Note what making an event took of the processor."""
        for table, key in ((self._callers, kind[:2]), (self._sorts, kind[0])):
            if (account := table.get(key)) is not None:
                account.seconds += seconds

    def _begin(self, now: float) -> None:
        second, window = int(now), int(now / WINDOW_SECONDS)
        if second != self._second:
            self._second = second
            self._seen.clear()
            self._callers.clear()
            self._sorts.clear()
        if window != self._window:
            self._window = window
            self._names.clear()

    def _named(self, kind: Kind) -> Kind:
        """Leave the name out of a kind whose caller has named too many."""
        if len(kind) == 3:
            return kind
        names = self._names.setdefault(kind[:3], set())
        if kind not in names:
            if len(names) >= NAMES:
                return kind[:3]
            names.add(kind)
        return kind

    def _group(self, kind: Kind, reason: str, now: float) -> Group:
        group = self.groups.get(kind)
        if group is None and self._open[kind[0]] >= self.most:
            kind = ("any", kind[0], reason)
            group = self.groups.get(kind)
        if group is None:
            group = self.groups[kind] = Group(kind, now, now)
            self._open[kind[0]] += 1
        group.touched = now
        return group

    def kept(self, group: Group) -> Group:
        """Give the group that counts for this one's kind: itself, also when its window has ended meanwhile, or its successor."""
        there = self.groups.get(group.kind)
        if there is None:
            there = self.groups[group.kind] = group
            self._open[group.kind[0]] += 1
        return there

    def ended(self, now: float, everything: bool = False) -> list[Group]:
        over = [
            group
            for group in self.groups.values()
            if everything or now - group.began >= WINDOW_SECONDS or now - group.touched >= IDLE_SECONDS
        ]
        for group in over:
            del self.groups[group.kind]
            self._open[group.kind[0]] -= 1
        return over


def kind_of(refusal: Any) -> Kind:
    """Name the kind of a refusal, given as an event or as its raw fields; IPv6 counts by /64, which one customer has."""
    if refusal.api_key_id is None:
        return ("source", source_of(refusal.client_ip), refusal.reason)
    return (
        "key",
        refusal.api_key_id,
        refusal.reason,
        refusal.upstream[:_NAME],
        refusal.target_kind,
        refusal.method[:_NAME],
        (refusal.tool_name or "")[:_NAME],
    )


def source_of(address: Any) -> str:
    text = str(address or "")
    parsed = parse_address(text) if ":" in text else None
    return parsed.packed[:8].hex() if isinstance(parsed, IPv6Address) else str(parsed or text)
