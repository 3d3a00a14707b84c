"""What becomes of calls and streams when `serve` is told to stop: they finish or are recorded, within a bound."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.gateway import Gateway
from tests.support.upstream import Exchange, FakeUpstream, event

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def pair() -> Iterator[tuple[Gateway, FakeUpstream]]:
    with FakeUpstream() as fake, Gateway(workers=2, SENTINEL_GRACEFUL_TIMEOUT="5s") as gateway:
        gateway.add_upstream("fake", fake.url)
        yield gateway, fake


def test_calls_in_flight_finish_and_streams_are_closed(pair: tuple[Gateway, FakeUpstream]) -> None:
    gateway, fake = pair

    async def slow(exchange: Exchange) -> None:
        await asyncio.sleep(2)
        await exchange.result({"content": [{"type": "text", "text": "late"}]})

    async def endless(exchange: Exchange) -> None:
        await exchange.head(200, [("Content-Type", "text/event-stream")])
        while True:
            await exchange.chunk(event({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x"}}))
            await asyncio.sleep(0.1)

    fake.script(slow, name="public.echo")
    fake.script(endless, name="list_customers")
    key = gateway.create_key("stopping", role="admin")
    time.sleep(1.2)
    since = gateway.now()
    answers: list[Any] = []
    threads = [
        threading.Thread(
            target=lambda: answers.append(gateway.client(key).initialize().call("public.echo", {"text": "x"}))
        )
        for _ in range(6)
    ]
    stream = gateway.client(key).initialize().call("list_customers", {}, stream=True)
    stream.until(b"data:")
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while fake.count(name="public.echo") < 6 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert gateway.process is not None
    begun = time.monotonic()
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(40) == 0
    took = time.monotonic() - begun
    for thread in threads:
        thread.join(10)
    stream.close()
    assert took < 20
    assert [answer.status for answer in answers] == [200] * 6
    assert all(b"late" in answer.body for answer in answers)
    gateway.start()
    calls = gateway.events(since, count=7, method="tools/call")
    outcomes = sorted((item["tool_name"], item["outcome"]) for item in calls)
    assert outcomes[1:] == [("public.echo", "allowed")] * 6
    assert outcomes[0][0] == "list_customers"
    assert outcomes[0][1] in ("allowed", "cancelled", "interrupted")


def test_a_call_that_does_not_finish_is_cut_off_and_recorded(pair: tuple[Gateway, FakeUpstream]) -> None:
    gateway, fake = pair

    async def never(exchange: Exchange) -> None:
        await asyncio.sleep(60)

    fake.script(never, name="public.echo")
    key = gateway.create_key("stopping", role="admin")
    time.sleep(1.2)
    since = gateway.now()

    def call() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            gateway.client(key).initialize().call("public.echo", {"text": "x"})

    thread = threading.Thread(target=call)
    thread.start()
    fake.wait_for("tools/call", timeout=10)
    assert gateway.process is not None
    begun = time.monotonic()
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(60) == 0
    assert 4 < time.monotonic() - begun < 30
    thread.join(20)
    gateway.start()
    (found,) = gateway.events(since, count=1, method="tools/call")
    assert found["outcome"] in ("interrupted", "cancelled", "upstream_error")
