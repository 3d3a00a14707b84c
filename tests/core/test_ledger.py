"""Shares: nobody takes what is left for the next, whatever they do; what is given back is there again."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from core.ledger import SMALL, Ledger
from proxy.upstreams.transports.base import Unread
from proxy.upstreams.transports.conversation import Conversation


def test_alone_it_is_half_and_there_is_always_room_for_another() -> None:
    ledger = Ledger(64)
    for owner in "abcd":
        while ledger.take(owner):
            pass
    assert [ledger.of(owner) for owner in "abcd"] == [32, 16, 8, 4]
    assert ledger.take("honest")


def test_one_place_is_for_whoever_comes_first() -> None:
    ledger = Ledger(1)
    assert ledger.take("a") and not ledger.take("b")
    ledger.give("a")
    assert ledger.take("b")


def test_nobody_has_more_than_its_own_bound() -> None:
    ledger = Ledger(1000, 10)
    assert ledger.take("a", 10) and not ledger.take("a")
    assert ledger.take("b", 10)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30 * SMALL))))
def test_whatever_grows_and_shrinks_the_sum_is_true_and_bounded(steps: list[tuple[int, int]]) -> None:
    ledger = Ledger(16 * SMALL, 8 * SMALL)
    holds = [ledger.hold("ab"[n % 2]) for n in range(5)]
    for number, size in steps:
        before = holds[number].size
        if not holds[number].set(size):
            assert holds[number].size == before
        assert ledger.total == sum(hold.size for hold in holds) <= 16 * SMALL
        assert ledger.of("a") <= 8 * SMALL and ledger.of("b") <= 8 * SMALL
    for hold in holds:
        hold.close()
        hold.close()
    assert ledger.total == 0 and not ledger.of("a")
    assert not holds[0].set(2 * SMALL)  # what is over cannot grow


async def test_who_does_not_read_a_shared_pipe_loses_that_stream_alone() -> None:
    async def write(raw: bytes) -> None: ...

    ledger = Ledger(8 * SMALL, 4 * SMALL)
    conversation = Conversation(write, private=False, idle=5, limit=1 << 30, ledger=ledger)
    idle, other = conversation.listen(b"1", "idle"), conversation.listen(b"2", "other")
    changed = b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"x":"%b"}}' % (b"x" * SMALL)
    for _ in range(12):
        conversation.deliver(changed)
        assert await other.read()
    assert ledger.of("idle") == 0  # it was let go of when it was ended
    read = b""
    try:
        while piece := await asyncio.wait_for(idle.read(), 5):
            read += piece
        raise AssertionError("it ended as if it were whole")
    except Unread as error:
        assert error.reason == "too_much_waiting"
    conversation.deliver(changed)
    assert await other.read()
