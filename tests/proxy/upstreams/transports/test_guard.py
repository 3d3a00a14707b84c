from __future__ import annotations

import asyncio

import pytest

from proxy.upstreams.transports import guard as module
from proxy.upstreams.transports.base import (
    Broken,
    BufferedResponse,
    Busy,
    Cancelled,
    TimedOut,
    TooLarge,
    Unreachable,
    UpstreamError,
    UpstreamRequest,
)
from proxy.upstreams.transports.guard import Guard

REQUEST = UpstreamRequest(b"POST")


class Fake:
    def __init__(self) -> None:
        self.sent = 0
        self.delay = 0.0
        self.error: UpstreamError | None = None

    async def send(self, request: UpstreamRequest) -> BufferedResponse:
        self.sent += 1
        await asyncio.sleep(self.delay)
        if self.error is not None:
            raise self.error
        return BufferedResponse(200, [])

    async def close(self, grace: float = 0.0) -> None: ...


async def failure(guard: Guard) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await guard.send(REQUEST)
    return caught.value


async def test_no_more_wait_than_may():
    inner = Fake()
    inner.delay = 0.1
    guard = Guard(inner, max_concurrent=3)
    running = [asyncio.create_task(guard.send(REQUEST)) for _ in range(3)]
    await asyncio.sleep(0.01)
    error = await failure(guard)
    assert isinstance(error, Busy)
    assert error.reason == "upstream_busy"
    assert not error.executed
    assert inner.sent == 3
    await asyncio.gather(*running)
    assert guard.waiting == 0
    await guard.send(REQUEST)


async def test_what_would_end_the_calls_that_wait_has_room_of_its_own():
    inner = Fake()
    inner.delay = 0.2
    guard = Guard(inner, max_concurrent=2)
    running = [asyncio.create_task(guard.send(REQUEST)) for _ in range(2)]
    await asyncio.sleep(0.01)
    assert isinstance(await failure(guard), Busy)
    inner.delay = 0.0
    for _ in range(5):
        await guard.send(REQUEST._replace(caller="k", aside=True))
    assert guard.waiting == 2
    await asyncio.gather(*running)


async def test_one_caller_leaves_room_for_the_next():
    inner = Fake()
    inner.delay = 0.2
    guard = Guard(inner, max_concurrent=8)
    running = [asyncio.create_task(guard.send(REQUEST._replace(caller="loud"))) for _ in range(20)]
    await asyncio.sleep(0.01)
    assert guard.waiting == inner.sent == 4
    quiet = [asyncio.create_task(guard.send(REQUEST._replace(caller="quiet"))) for _ in range(2)]
    own = asyncio.create_task(guard.send(REQUEST))  # the gateway's own is nobody's share
    answers = await asyncio.gather(*running, return_exceptions=True)
    assert sum(isinstance(answer, Busy) and not answer.executed for answer in answers) == 16
    assert [answer.status for answer in await asyncio.gather(*quiet, own)] == [200] * 3
    assert guard.waiting == guard.shares.total == 0


async def test_cancelled_calls_give_their_place_back():
    inner = Fake()
    inner.delay = 5
    guard = Guard(inner, max_concurrent=1)
    task = asyncio.create_task(guard.send(REQUEST))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    inner.delay = 0
    await guard.send(REQUEST)


async def test_quick_refusals_never_open_the_circuit_so_a_restart_is_used_at_once():
    inner = Fake()
    inner.error = Unreachable("refused")
    guard = Guard(inner)
    for _ in range(50):
        assert (await failure(guard)).reason == "upstream_unreachable"
    assert inner.sent == 50
    inner.error = None
    await guard.send(REQUEST)


@pytest.mark.parametrize("error", [TimedOut("too slow"), Cancelled("taken back"), Broken("garbage"), TooLarge("huge")])
async def test_what_one_call_meets_is_that_calls_alone(error):
    inner = Fake()
    inner.delay, inner.error = 0.02, error
    guard = Guard(inner, slow=0.01)
    for _ in range(20):
        await failure(guard)
    assert not guard.open
    assert inner.sent == 20


async def test_calls_given_up_by_their_callers_say_nothing():
    inner = Fake()
    inner.delay = 60
    guard = Guard(inner, slow=0.01)
    for _ in range(14):
        task = asyncio.create_task(guard.send(REQUEST))
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    inner.delay = 0
    assert not guard.open
    assert (await guard.send(REQUEST)).status == 200


async def test_connecting_in_vain_opens_it_and_one_trial_closes_it(monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.2)
    inner = Fake()
    inner.delay, inner.error = 0.02, Unreachable("no connection")
    guard = Guard(inner, slow=0.01)
    for _ in range(5):
        await failure(guard)
    assert guard.open
    error = await failure(guard)
    assert (error.reason, error.executed) == ("upstream_busy", False)
    assert 0 < error.retry_after <= 0.2
    assert inner.sent == 5
    await asyncio.sleep(0.25)
    results = await asyncio.gather(*(guard.send(REQUEST) for _ in range(10)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Busy"] * 9 + ["Unreachable"]
    assert inner.sent == 6
    await asyncio.sleep(0.25)
    await failure(guard)
    assert inner.sent == 6  # the pause has doubled
    await asyncio.sleep(0.3)
    inner.error = None
    await guard.send(REQUEST)
    assert not guard.open
    await asyncio.gather(*(guard.send(REQUEST) for _ in range(10)))


async def test_answers_of_any_kind_count_as_life():
    inner = Fake()
    inner.delay, inner.error = 0.02, Broken("garbage")
    guard = Guard(inner, slow=0.01)
    for _ in range(20):
        await failure(guard)
    assert not guard.open
