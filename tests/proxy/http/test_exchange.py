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


class Reader(Client):
    """A client that reads what it is sent, until it has left."""

    def __init__(self, gone_after: int = 99) -> None:
        super().__init__(BODY)
        self.said: list[Any] = []
        self.left = gone_after

    async def send(self, message: Any) -> None:
        if len(self.said) >= self.left:
            raise ConnectionResetError
        self.said.append(message)


async def test_an_answer_has_one_head_then_a_body_then_nothing() -> None:
    made = exchange(Reader())
    for early in (made.write(b"x"), made.finish()):
        with pytest.raises(RuntimeError):
            await early
    await made.start(200, [])
    with pytest.raises(RuntimeError):
        await made.start(200, [])
    await made.write(b"x")
    await made.finish()
    for late in (made.start(200, []), made.write(b"x"), made.finish(), made.answer(200, [], b"")):
        with pytest.raises(RuntimeError):
            await late
    assert made.started and made.finished and made.sent_bytes == 1
    made.end("server_stopping")
    assert not made.ended_by, "what is over is not ended"


async def test_what_is_closed_says_nothing_more() -> None:
    made = exchange(Reader())
    made.close()
    with pytest.raises(RuntimeError):
        await made.start(200, [])


@pytest.mark.parametrize("reason", ["", "server_stopping"])
async def test_a_client_that_leaves_at_the_head_has_left(reason: str) -> None:
    made = exchange(Reader(0))
    made.ended_by = reason
    with pytest.raises(Departed, match=reason or "client_gone"):
        await made.answer(200, [], b"x")
    assert made.started and not made.finished and made.ended_by == (reason or "client_gone")


async def test_and_within_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    made = exchange(Reader(1))
    await made.answer(200, [], b"x")  # the last piece: nobody is told any more
    assert made.finished and made.ended_by == "client_gone"
    made = exchange(Reader(2))
    with pytest.raises(Departed):
        await made.start(200, [])
        await made.write(b"x" * module.PIECE * 3)
    assert made.ended_by == "client_gone"


async def test_a_client_that_does_not_read_is_as_good_as_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITE_TIMEOUT", 0.05)

    class Full(Reader):
        async def send(self, message: Any) -> None:
            if message["type"] == "http.response.body":
                await asyncio.sleep(5)

    made = exchange(Full())
    await made.start(200, [])
    with pytest.raises(Departed, match="client_gone"):
        await made.write(b"x")
