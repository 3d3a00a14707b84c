"""Sliding windows against an exact log of what was admitted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.limiter.table import CELLS, Table, Window, table_bytes

SECOND = 1_000_000_000
KEY = b"k" * 16


def table(slots: int = 64) -> Table:
    return Table(memoryview(bytearray(table_bytes(slots))), slots, KEY)


def most_in_any(times: list[int], window: int) -> int:
    """The most requests in any half-open span of that length."""
    return max((sum(1 for t in times if start <= t < start + window) for start in times), default=0)


windows = st.tuples(st.integers(1, 6), st.sampled_from([1, 7, 60, 3600]))
steps = st.lists(st.integers(0, 40), min_size=1, max_size=120)


@given(windows, steps, st.integers(0, 10**18))
@settings(max_examples=400, deadline=None)
def test_never_more_than_n_in_any_w_and_a_place_back_in_time(
    limit: tuple[int, int], gaps: list[int], start: int
) -> None:
    requests, seconds = limit
    window = Window(b"b", requests, seconds * SECOND)
    subject = table()
    admitted: list[int] = []
    now = start
    for gap in gaps:
        now += gap * window.window // 97
        verdict = subject.decide([window], now)
        live = [t for t in admitted if t > now - window.window]
        if verdict.allowed:
            admitted.append(now)
            assert verdict.remaining >= 0
        else:
            # never early, and at most a sixtieth late: some request of the last W (1 + 1/60) still counts
            late = [t for t in admitted if t > now - window.window - window.window // 60]
            assert len(late) >= requests
            assert verdict.free_at > now
            oldest = sorted(admitted)[-requests]
            assert oldest + window.window <= verdict.free_at <= oldest + window.window + window.window // 60
        assert len(live) <= requests
    assert most_in_any(admitted, window.window) <= requests


@given(windows, steps)
@settings(max_examples=200, deadline=None)
def test_retry_after_is_exact(limit: tuple[int, int], gaps: list[int]) -> None:
    requests, seconds = limit
    window = Window(b"b", requests, seconds * SECOND)
    subject = table()
    now = 10**15
    for gap in gaps:
        now += gap * window.window // 97
        verdict = subject.decide([window], now)
        if not verdict.allowed:
            assert not subject.decide([window], verdict.free_at - 1).allowed
            assert subject.decide([window], verdict.free_at).allowed
            now = verdict.free_at


@given(st.lists(st.tuples(st.integers(0, 20), st.sets(st.sampled_from("abc"), min_size=1)), max_size=80))
@settings(max_examples=200, deadline=None)
def test_all_or_none(calls: list[tuple[int, set[str]]]) -> None:
    limits = {"a": Window(b"a", 2, SECOND), "b": Window(b"b", 3, 5 * SECOND), "c": Window(b"c", 5, SECOND)}
    subject = table()
    now = 10**15
    for gap, names in calls:
        now += gap * SECOND // 19
        asked = [limits[name] for name in sorted(names)]
        before = {name: subject.used(limit, now) for name, limit in limits.items()}
        full = [name for name in names if before[name] >= limits[name].requests]
        verdict = subject.decide(asked, now)
        assert verdict.allowed == (not full)
        taken = {name: subject.used(limit, now) - before[name] for name, limit in limits.items()}
        assert taken == {name: int(verdict.allowed and name in names) for name in limits}
        if verdict.allowed:
            assert verdict.remaining == min(w.requests - before[n] - 1 for n, w in limits.items() if n in names)
        else:
            assert asked[verdict.which].bucket.decode() in full
            assert subject.decide(asked, verdict.free_at).allowed
            now = verdict.free_at


def test_another_window_of_the_same_bucket_counts_by_itself() -> None:
    subject = table()
    assert subject.decide([Window(b"a", 1, SECOND), Window(b"a", 2, 60 * SECOND)], 10**15).allowed
    assert subject.used(Window(b"a", 1, SECOND), 10**15) == 1


def test_a_lower_number_counts_what_was_admitted_under_the_higher() -> None:
    subject = table()
    for _ in range(10):
        assert subject.decide([Window(b"a", 10, 64 * SECOND)], 10**15).allowed
    verdict = subject.decide([Window(b"a", 3, 64 * SECOND)], 10**15)
    assert not verdict.allowed and verdict.free_at == (10**15 // SECOND + CELLS + 1) * SECOND


def test_a_full_table_says_so_and_makes_room_when_windows_pass() -> None:
    subject = table(16)
    now = 10**15
    held: list[Window] = []
    while subject.decide([new := Window(b"%d" % len(held), 1, SECOND)], now).allowed:
        held.append(new)
    assert 8 <= len(held) <= 16
    verdict = subject.decide([new], now)
    assert (verdict.allowed, verdict.which) == (False, -1)
    # nothing of the living was lost, and a decision that finds no room takes nothing
    assert subject.decide([held[0]._replace(requests=2), new], now).which == -1
    assert [subject.used(window, now) for window in held] == [1] * len(held)
    later = now + 2 * SECOND
    for n in range(8):
        assert subject.decide([Window(b"x%d" % n, 1, SECOND)], later).allowed


def test_thousands_of_buckets() -> None:
    subject = table(16384)
    now = 10**15
    limits = [Window(b"key%d tool%d" % (n % 100, n // 100), 2, 60 * SECOND) for n in range(10_000)]
    for limit in limits:
        assert subject.decide([limit], now).allowed
    assert all(subject.used(limit, now + SECOND) == 1 for limit in limits)


class Killed(Exception):
    pass


class Stores:
    """Memory of a process that is killed at its n-th store."""

    def __init__(self, memory: memoryview, left: list[int]) -> None:
        self.memory = memory
        self.left = left

    def __getitem__(self, place: Any) -> Any:
        return self.memory[place]

    def __setitem__(self, place: Any, value: Any) -> None:
        self.left[0] -= 1
        if self.left[0] == 0:
            raise Killed
        self.memory[place] = value


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 12), st.sampled_from("abcdef")), max_size=60))
@settings(max_examples=300, deadline=None)
def test_a_process_killed_at_any_store_never_lets_one_too_many_in(calls: list[tuple[int, int, str]]) -> None:
    buffer = bytearray(table_bytes(8))
    limits = {name: Window(name.encode(), 3, SECOND) for name in "abcdef"}
    both = Window(b"all", 4, 3 * SECOND)
    admitted: dict[str, list[int]] = {name: [] for name in [*limits, "all"]}
    now = 10**15
    for gap, fatal, name in calls:
        now += gap * SECOND // 37
        subject = Table(memoryview(buffer), 8, KEY)
        left = [fatal]
        subject.words, subject._cells = Stores(subject.words, left), Stores(subject._cells, left)  # type: ignore[assignment]
        try:
            allowed = subject.decide([limits[name], both], now).allowed
        except Killed:
            continue
        if allowed:
            admitted[name].append(now)
            admitted["all"].append(now)
    for name, limit in [*limits.items(), ("all", both)]:
        assert most_in_any(admitted[name], limit.window) <= limit.requests


@pytest.mark.parametrize("slots", [7, 12])
def test_sizes_that_do_not_fit(slots: int) -> None:
    with pytest.raises(ValueError, match="fit"):
        Table(memoryview(bytearray(table_bytes(16))), slots, KEY)
    with pytest.raises(ValueError, match="fit"):
        Table(memoryview(bytearray(64)), 16, KEY)


def test_several_places_are_taken_together_or_not_at_all():
    subject, now = table(), 10**12
    wide, narrow = Window(b"wide", 10, 60 * SECOND, 3), Window(b"narrow", 4, 60 * SECOND, 2)
    assert subject.decide([wide, narrow], now) == (True, 1, 2, 0)
    assert subject.decide([wide, narrow], now).allowed
    refused = subject.decide([wide, narrow], now)
    assert (refused.allowed, refused.which) == (False, 1) and refused.free_at > now
    assert (subject.used(wide, now), subject.used(narrow, now)) == (6, 4)
    assert subject.decide([narrow], refused.free_at).allowed
    more = subject.decide([Window(b"new", 2, 60 * SECOND, 3)], now)
    assert (more.allowed, more.which, more.free_at) == (False, 0, now + 60 * SECOND)
    assert subject.used(Window(b"new", 2, 60 * SECOND), now) == 0
