"""An honest caller beside twenty hostile clients: it is served, and what they take is bounded.

Times are judged by `python -m tests.chaos.neighbours` on a machine that does nothing else; here others test beside this, so
the bounds on time are wide, and those on bytes, descriptors, rows and lines are the promise.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos import neighbours
from tests.chaos.neighbours import KINDS, Place

pytestmark = [pytest.mark.timeout(400), pytest.mark.xdist_group("neighbours")]

MB = 1 << 20
BUFFER, EACH = 64, 24


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    settings = {"SENTINEL_BUFFER_BYTES": f"{BUFFER}MiB", "SENTINEL_BUFFER_BYTES_PER_KEY": f"{EACH}MiB"}
    settings |= {"SENTINEL_MAX_ANSWER_BYTES": "4MiB", "SENTINEL_MAX_CONNECTIONS_PER_SOURCE": "300"}
    with neighbours.place(**settings) as here:
        here.measure(1, [])
        yield here


def test_the_honest_caller_is_served_and_the_rest_is_bounded(place: Place) -> None:
    beside = place.measure(8, list(KINDS))
    print(beside)
    assert not beside.failed and len(beside.times) >= 5, beside
    assert beside.descriptors < 1000, beside
    assert beside.log_bytes < 100_000, beside
    assert beside.rows < 3000, beside


def test_streams_that_nobody_reads_take_no_more_than_their_key_may(place: Place) -> None:
    beside = place.measure(6, ["unread"])
    print(beside)
    assert not beside.failed, beside
    assert beside.memory < 2 * EACH * MB + 150 * MB, beside  # two workers; what allocators keep is not counted


def test_connections_of_one_source_leave_room(place: Place) -> None:
    beside = place.measure(5, ["connections"])
    print(beside)
    assert not beside.failed, beside
    assert beside.descriptors < 600, beside
    assert "as many connections open as it may have" in place.gateway.output()
    assert place.gateway.output().count("as many connections open as it may have") < 100
