from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from audit.journal.flood import (
    ALL_SHARE,
    CALLER_SHARE,
    FIRST_FEW,
    IDLE_SECONDS,
    KEPT_AT_MOST,
    KEPT_PER_CALLER,
    NAMES,
    PER_CALLER,
    WINDOW_SECONDS,
    Flood,
    kind_of,
)


def refusal(**values: Any) -> SimpleNamespace:
    known = {
        "api_key_id": None,
        "client_ip": "192.0.2.1",
        "reason": "invalid_credential",
        "upstream": "crm",
        "target_kind": "tool",
        "method": "tools/call",
        "tool_name": "echo",
    }
    return SimpleNamespace(**{**known, **values})


def test_kinds() -> None:
    key = uuid.uuid4()
    assert kind_of(refusal()) == ("source", "192.0.2.1", "invalid_credential")
    assert kind_of(refusal(tool_name="a")) == kind_of(refusal(tool_name="b")), "a stranger chooses no kind by a name"
    assert kind_of(refusal(client_ip="2001:db8:1:2::5")) == kind_of(refusal(client_ip="2001:db8:1:2:ffff::9"))
    assert kind_of(refusal(client_ip="2001:db8:1:2::5")) != kind_of(refusal(client_ip="2001:db8:1:3::5"))
    assert kind_of(refusal(client_ip="::ffff:192.0.2.1")) == kind_of(refusal())
    assert kind_of(refusal(api_key_id=key, tool_name="a")) != kind_of(refusal(api_key_id=key, tool_name="b"))


def test_twenty_a_second_have_their_own_event() -> None:
    flood = Flood()
    kinds = [flood.admit(("source", "a", "r"), "r", 100.0 + n / 1000) for n in range(50)]
    assert [kind is None for kind in kinds] == [True] * 20 + [False] * 30
    assert flood.admit(("source", "b", "r"), "r", 100.1) is None, "another source is another kind"
    assert flood.admit(("source", "a", "r"), "r", 101.0) is None, "and another second begins again"


def test_a_window_ends() -> None:
    flood = Flood(per_second=0)
    group = flood.admit(("source", "a", "r"), "r", 100.0)
    assert flood.ended(100.0 + IDLE_SECONDS - 0.1) == []
    assert flood.ended(100.0 + IDLE_SECONDS) == [group]
    again = flood.admit(("source", "a", "r"), "r", 110.0)
    assert again is not group
    for second in range(int(WINDOW_SECONDS)):
        flood.admit(("source", "a", "r"), "r", 110.0 + second)
    assert flood.ended(110.0 + WINDOW_SECONDS) == [again], "also while it goes on"


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 4000)), max_size=400))
def test_whatever_comes_memory_and_events_are_bounded(calls: list[tuple[int, int]]) -> None:
    flood = Flood(per_second=5, total=30, groups=10)
    own = counted = 0
    now = 0.0
    for source, wait in calls:
        now += wait / 10_000
        group = flood.admit(("source", str(source), "r"), "r", now)
        if group is None:
            own += 1
        else:
            counted += 1
    assert own + counted == len(calls)
    assert len(flood.groups) <= 11
    assert own <= 30 * (int(now) + 1)


def key_kind(name: str, reason: str = "no_rule", key: str = "k") -> tuple[str, ...]:
    return ("key", key, reason, "crm", "tool", "tools/call", name)


def test_ever_new_names_are_no_ever_new_kinds() -> None:
    flood = Flood()
    left: list[Any] = [flood.admit(key_kind(f"t{n}"), "no_rule", 100.0 + n / 10_000) for n in range(5_000)]
    assert sum(one is None for one in left) <= PER_CALLER
    assert len(flood.groups) <= NAMES + 1
    nameless = flood.groups[("key", "k", "no_rule")]
    assert nameless is left[-1]
    other = flood.admit(key_kind("t1", key="other"), "no_rule", 100.6)
    assert other is None, "another key has its own events"


def test_a_caller_with_many_reasons_has_no_more_events() -> None:
    flood = Flood()
    kinds = [key_kind("x", f"reason{n % 50}") for n in range(2_000)]
    own = sum(flood.admit(kind, kind[2], 100.0 + n / 10_000) is None for n, kind in enumerate(kinds))
    assert own <= PER_CALLER


def test_so_many_bytes_of_a_second_are_kept() -> None:
    flood = Flood()
    kept = sum(min(size, KEPT_AT_MOST) for size in [50_000] * 100 if flood.keep(key_kind("x"), size))
    assert KEPT_PER_CALLER - KEPT_AT_MOST <= kept <= KEPT_PER_CALLER
    small = Flood()
    assert all(small.keep(key_kind("x"), 400) for _ in range(PER_CALLER)), "ordinary ones are kept whole"


def test_what_is_dear_is_counted_sooner() -> None:
    flood = Flood()
    dear, cheap = ("source", "a", "r"), ("source", "b", "r")
    own = 0
    for n in range(15):
        if flood.admit(dear, "r", 100.0 + n / 100) is None:
            own += 1
            flood.charge(dear, CALLER_SHARE / 3)
    assert FIRST_FEW < own <= 4
    assert flood.admit(cheap, "r", 100.5) is None, "who costs little feels nothing of it"
    assert flood.admit(dear, "r", 101.0) is None, "and another second begins again"
    for n in range(100):
        source = ("source", f"s{n}", "r")
        if flood.admit(source, "r", 102.0) is None:
            flood.charge(source, ALL_SHARE / 10)
    assert len(flood.groups) >= 80, "however many they are"
    assert flood.admit(key_kind("x"), "no_rule", 102.1) is None, "callers with a key are another sort"


def test_strangers_do_not_use_up_what_callers_with_a_key_have() -> None:
    flood = Flood(total=50)
    for n in range(500):
        flood.admit(("source", str(n), "r"), "r", 100.0)
    assert flood.admit(key_kind("x"), "no_rule", 100.1) is None


def test_strangers_do_not_use_up_the_groups_of_callers_with_a_key() -> None:
    flood = Flood(groups=10)
    for number in range(2_000):
        flood.admit(("source", f"198.51.100.{number}", "missing_credential"), "missing_credential", 1.0, force=True)
    kind = ("key", "insider", "denied_by_rule", "crm", "tool", "tools/call", "refund")
    group = flood.admit(kind, "denied_by_rule", 1.0, force=True)
    assert group is not None and group.kind == kind, "still named, however many strangers there are"
    assert len(flood.groups) == 12
    assert flood.ended(99.0, everything=True) and not flood.groups
    assert flood.kept(group) is group and flood.kept(group) is group, "its sample came late"
    assert flood.ended(99.5, everything=True) == [group]
    group = flood.admit(("source", "192.0.2.1", "missing_credential"), "missing_credential", 100.0, force=True)
    assert group is not None and group.kind[1] == "192.0.2.1", "what has ended leaves room"
