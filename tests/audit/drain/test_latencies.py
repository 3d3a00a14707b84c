"""Percentiles out of counts, compared with those of the sorted list."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from audit.drain.latencies import Span, bucket, percentile

R = random.Random
SHAPES: dict[str, Callable[[R], float]] = {
    "even": lambda r: r.uniform(1, 100),
    "one-decade-apart": lambda r: r.choice((3.0, 30.0, 300.0)),
    "long-tail": lambda r: r.lognormvariate(3, 1.5),
    "two-humps": lambda r: r.gauss(8, 1) if r.random() < 0.9 else r.gauss(1800, 200),
    "beyond-any-bound": lambda r: r.uniform(40_000, 3_600_000),
    "below-a-tenth": lambda r: r.uniform(0.001, 0.09),
    "all-the-same": lambda r: 41.6,
}


def counted(times: list[float]) -> list[Span]:
    held: dict[int, list[float]] = {}
    for ms in times:
        held.setdefault(bucket(round(ms * 1000)), []).append(ms)
    return [Span(len(group), min(group), max(group)) for group in held.values()]


def true(times: list[float], share: float) -> float:
    ordered, place = sorted(times), (len(times) - 1) * share
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@pytest.mark.parametrize("number", [1, 2, 3, 10, 101, 5_000])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_right_within_a_twentieth_whatever_the_times(shape: str, number: int) -> None:
    rng = R(f"{shape} {number}")
    times = [round(abs(SHAPES[shape](rng)), 3) for _ in range(number)]
    spans = counted(times)
    for share in (0.0, 0.5, 0.9, 0.95, 0.99, 1.0):
        found = percentile(spans, share)
        assert found is not None
        assert found.value == pytest.approx(true(times, share), rel=0.05)
        if found.exact or number <= 2:
            assert found.exact
            assert found.value == pytest.approx(true(times, share), rel=1e-9)


def test_one_call_is_told_as_it_was_and_none_as_nothing() -> None:
    assert percentile(counted([30.8]), 0.5) == percentile(counted([30.8]), 0.95) == (30.8, True)
    assert percentile([], 0.5) is None


def test_what_lies_between_two_bounds_is_never_called_exact() -> None:
    found = percentile([Span(1, 25, 50, known=False)], 0.5)
    assert found == (37.5, False)
    mixed = percentile([Span(9, 25, 50, known=False), Span(1, 3.0, 3.0)], 0.0)
    assert mixed == (3.0, True)


@pytest.mark.parametrize("us", [0, 1, 2, 999, 10**6, 3 * 10**11])
def test_every_duration_has_a_bucket_that_fits_its_column(us: int) -> None:
    assert -(2**15) <= bucket(us) < 2**15
