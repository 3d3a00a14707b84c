"""Floods of refusals in the admin and the API: few rows, and nobody's refusals hidden behind another's."""

from __future__ import annotations

from sentinel.refused_acts import RefusedActs


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_insider_is_not_hidden_behind_strangers() -> None:
    flood = RefusedActs(clock=Clock())
    written = sum(flood.admit("203.0.113.7", "missing_credential") is not None for _ in range(500))
    assert written == 20
    assert [flood.admit(7, "permission_denied", known=True) for _ in range(12)] == [0] * 12
    assert flood.admit("198.51.100.1", "missing_credential") == 0  # nor is another stranger


def test_nor_behind_strangers_from_everywhere() -> None:
    flood = RefusedActs(clock=Clock())
    written = sum(flood.admit(f"2001:db8:{n:x}", "missing_credential") is not None for n in range(5000))
    assert written == 100
    assert [flood.admit(n, "permission_denied", known=True) for n in range(50)] == [0] * 50


def test_nor_is_what_one_does_beside_what_one_does_more_loudly() -> None:
    flood = RefusedActs(clock=Clock())
    for _ in range(100):
        flood.admit(7, "rate_limited", known=True)
    assert flood.admit(7, "permission_denied", known=True) == 0


def test_what_was_left_out_is_told_by_whoever_comes_next() -> None:
    clock = Clock()
    flood = RefusedActs(per_second=2, clock=clock)
    assert [flood.admit("a", "x") for _ in range(5)] == [0, 0, None, None, None]
    assert flood.admit("b", "x") == 0
    clock.now += 1
    assert [flood.admit("a", "x") for _ in range(3)] == [3, 0, None]
    for number in range(3000):  # so many kinds that this one is forgotten: its count is not
        clock.now += 0.01
        flood.admit(number, "x")
    clock.now += 1
    assert flood.admit("c", "x") is not None
