from __future__ import annotations

import asyncio
import json

from proxy.transports import conversation
from proxy.transports.conversation import Conversation


def message(method: str, uri: str) -> dict:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"uri": uri}}


class Pipe:
    """A shared pipe whose server says yes to everything."""

    def __init__(self) -> None:
        self.conversation = Conversation(self.write, private=False, idle=5, limit=1 << 20)

    async def write(self, raw: bytes) -> None:
        answer = {"jsonrpc": "2.0", "id": json.loads(raw)["id"], "result": {}}
        asyncio.get_running_loop().call_soon(self.conversation.deliver, json.dumps(answer).encode())

    async def ask(self, method: str, uri: str, session: bytes) -> None:
        value = message(method, uri)
        await self.conversation.request(json.dumps(value).encode(), value, session=session)

    def updated(self, uri: str) -> None:
        value = {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}}
        self.conversation.deliver(json.dumps(value).encode())


async def heard(listener) -> bytes:
    try:
        return await asyncio.wait_for(listener.read(), 0.05)
    except TimeoutError:
        return b""


async def test_an_update_goes_to_those_who_subscribed_to_that_resource() -> None:
    pipe = Pipe()
    one, two = (pipe.conversation.listen(session) for session in (b"one", b"two"))
    await pipe.ask("resources/subscribe", "test://a", b"one")
    await pipe.ask("resources/subscribe", "test://b", b"two")
    pipe.updated("test://a")
    assert b"test://a" in await heard(one)
    assert await heard(two) == b""
    await pipe.ask("resources/unsubscribe", "test://a", b"one")
    pipe.updated("test://a")
    assert await heard(one) == b""
    pipe.conversation.forget(b"two")
    again = pipe.conversation.listen(b"two")
    pipe.updated("test://b")
    assert await heard(again) == b""


async def test_subscriptions_of_clients_that_vanish_are_bounded(monkeypatch) -> None:
    monkeypatch.setattr(conversation, "MOST_SUBSCRIPTIONS", 100)
    pipe = Pipe()
    for number in range(300):
        await pipe.ask("resources/subscribe", "test://a", b"%d" % number)
    assert len(pipe.conversation._subscribed) == 100
    newest, oldest = pipe.conversation.listen(b"299"), pipe.conversation.listen(b"0")
    pipe.updated("test://a")
    assert b"test://a" in await heard(newest)
    assert await heard(oldest) == b""
