"""The exchange with a client, where a server would be hard to bring into the moment."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from proxy.http import exchange as module
from proxy.http.exchange import Departed, Exchange


class Client:
    """What a server hands over of a client: messages that come when the test says so."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for message in messages:
            self.messages.put_nowait(message)

    async def receive(self) -> dict[str, Any]:
        return await self.messages.get()

    async def send(self, message: Any) -> None:
        raise AssertionError("nothing is answered here")


BODY = {"type": "http.request", "body": b"{}", "more_body": False}
HALF = {"type": "http.request", "body": b"{", "more_body": True}
GONE = {"type": "http.disconnect"}


def exchange(client: Client) -> Exchange:
    return Exchange({}, client.receive, client.send)


async def test_a_body_that_does_not_end_is_given_up() -> None:
    client = Client(HALF)
    made = exchange(client)
    begun = time.monotonic()
    assert await made.read_body(1000, 0.3) == b"{" and made.body_state == "timed_out"
    assert 0.25 < time.monotonic() - begun < 2
    made.close()


@pytest.mark.parametrize("after", [0.0, 0.2])
async def test_a_departure_ends_what_may_be_interrupted(after: float) -> None:
    """Whether the client leaves as soon as it has asked or when the call already lasts."""
    client = Client(BODY)
    made = exchange(client)
    assert await made.read_body(1000, 5) == b"{}"
    made.watch()
    asyncio.get_running_loop().call_later(after, client.messages.put_nowait, GONE)
    begun = time.monotonic()
    with pytest.raises(Departed, match="client_gone"), made.interruptible():
        await asyncio.sleep(5)
    assert time.monotonic() - begun < 2
    made.close()
    await asyncio.sleep(0)  # the task may go on: the cancellation was taken back


async def test_a_slow_body_is_watched_from_its_end_on() -> None:
    client = Client(HALF)
    made = exchange(client)
    asyncio.get_running_loop().call_later(0.2, client.messages.put_nowait, BODY)
    assert await made.read_body(1000, 5) == b"{{}" and made.body_state == "complete"
    made.watch()
    client.messages.put_nowait(GONE)
    with pytest.raises(Departed), made.interruptible():
        await asyncio.sleep(5)
    made.close()


async def test_what_is_over_is_held_no_longer() -> None:
    made = exchange(Client(BODY))
    await made.read_body(1000, 5)
    made.watch()
    lasting = module._lasting_of(asyncio.get_running_loop())
    assert made in lasting._fresh
    made.close()
    assert made not in lasting._fresh
    await asyncio.sleep(module.LASTING_AFTER * 2)
    assert made._watcher is None


def test_loops_do_not_forget_each_others_exchanges() -> None:
    states: list[str] = []

    async def one() -> None:
        made = exchange(Client(HALF))
        async with asyncio.timeout(5):
            await made.read_body(1000, 0.3)
        states.append(made.body_state)
        made.close()

    threads = [threading.Thread(target=asyncio.run, args=(one(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    assert states == ["timed_out"] * 3
