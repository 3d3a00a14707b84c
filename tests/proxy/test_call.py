"""The states of a call: one way through them, and no other."""

from __future__ import annotations

import pytest

from proxy.call import FOR_GOOD, Record, State
from tests.proxy.fake_transport import call, made

WAY = list(State)


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("after", State)
def test_only_the_next_state_is_reached(before: State, after: State) -> None:
    found = made(call(), state=before)
    if after == before + 1:
        found.reach(after)
        assert found.state is after
    else:
        with pytest.raises(RuntimeError, match=f"is {before.name} .* become {after.name}"):
            found.reach(after)
        assert found.state is before


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("end", [Record.KEPT, Record.LOST])
def test_after_the_end_nothing_goes_on(state: State, end: Record) -> None:
    found = made(call(), state=state)
    found.close(end)
    for after in State:
        with pytest.raises(RuntimeError):
            found.reach(after)
    for other in Record:
        with pytest.raises(RuntimeError):
            found.close(other)
    assert (found.state, found.record) == (state, end)


def test_an_end_is_never_taken_back() -> None:
    with pytest.raises(RuntimeError):
        made(call()).close(Record.OPEN)


@pytest.mark.parametrize("state", State)
def test_what_is_true_of_a_state_is_true_of_those_after_it(state: State) -> None:
    found = made(call(), state=state)
    assert [found.intended, found.executed, found.streaming, found.answered] == [
        state >= each for each in (State.INTENDED, State.SENT, State.STREAMING, State.ANSWERED)
    ]


@pytest.mark.parametrize("state", State)
def test_only_what_was_sent_and_not_answered_may_not_have_been_seen(state: State) -> None:
    found = made(call(), state=state)
    found.unsent()
    assert found.state is (State.INTENDED if state is State.SENT else state)


@pytest.mark.parametrize("state", [State.STREAMING, State.ANSWERED])
@pytest.mark.parametrize("reason", ["client_gone", "server_stopping", *FOR_GOOD])
def test_it_waits_for_as_long_as_somebody_may_come_back(state: State, reason: str) -> None:
    found = made(call(), state=state, reason=reason)
    assert not found.waits
    found.resumable = True
    assert found.waits is (state is State.STREAMING and reason not in FOR_GOOD)
