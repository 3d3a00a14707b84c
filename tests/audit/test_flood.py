from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from audit.flood import IDLE_SECONDS, WINDOW_SECONDS, Flood, kind_of


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
