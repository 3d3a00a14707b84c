"""Percentiles of what was only counted: right within 5 %, and exact where few were counted (pure).

A duration falls into one of the buckets that are each 5 % wider than the one before, without an upper end. Of each
bucket the number, the least and the most are known, so that the k-th shortest of all lies between these two; where a bucket
holds one or two, it is one of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Estimate", "Span", "bucket", "percentile"]

_WIDTH = math.log(1.05)


class Span(NamedTuple):
    """So many durations from `least` to `most`, evenly spread as far as is known."""

    number: int
    least: float
    most: float
    #: whether these two are durations that were counted, and not a bucket's bounds
    known: bool = True


class Estimate(NamedTuple):
    """A percentile, and whether it is exactly that."""

    value: float
    exact: bool


def bucket(microseconds: int) -> int:
    return math.floor(math.log(microseconds) / _WIDTH) if microseconds > 0 else -1


def percentile(spans: Iterable[Span], share: float) -> Estimate | None:
    """Give the percentile that a sorted list of all durations would have, between its two nearest places."""
    ordered = sorted((span for span in spans if span.number > 0), key=lambda span: span.least + span.most)
    whole = sum(span.number for span in ordered)
    if not whole:
        return None
    place = (whole - 1) * share
    low = math.floor(place)
    first, second = _at(ordered, low), _at(ordered, min(low + 1, whole - 1))
    between = place - low
    value = first.value + (second.value - first.value) * between
    return Estimate(value, first.exact and (second.exact or not between))


def _at(ordered: list[Span], place: int) -> Estimate:
    """Give the duration at one place of the sorted list."""
    for span in ordered:
        if place < span.number:
            if not span.known:
                return Estimate(span.least + (span.most - span.least) * (place + 0.5) / span.number, False)
            value = span.least + (span.most - span.least) * place / max(span.number - 1, 1)
            return Estimate(value, span.least == span.most or place in (0, span.number - 1))
        place -= span.number
    raise IndexError(place)
