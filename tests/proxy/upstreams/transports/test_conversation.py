from __future__ import annotations

import asyncio
import json

import pytest

from proxy.mcp.replies import LARGE_BYTES
from proxy.upstreams.transports import conversation
from proxy.upstreams.transports.conversation import Conversation
from proxy.upstreams.transports.stdio.child import Child, Ring


def message(method: str, uri: str) -> dict:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"uri": uri}}


class Pipe:
    """A shared pipe whose server says yes to everything."""

    def __init__(self) -> None:
        self.heard: list[dict] = []
        self.silent = False
        self.conversation = Conversation(self.write, private=False, idle=5, limit=1 << 22)

    async def write(self, raw: bytes) -> None:
        said = json.loads(raw)
        self.heard.append(said)
        if self.silent or "id" not in said:
            return
        answer = {"jsonrpc": "2.0", "id": said["id"], "result": {}}
        asyncio.get_running_loop().call_soon(self.conversation.deliver, json.dumps(answer).encode())

    async def ask(self, method: str, uri: str, session: bytes, caller: str = "") -> None:
        value = message(method, uri)
        await self.conversation.request(json.dumps(value).encode(), value, session=session, caller=caller)

    async def cancel(self, rpc_id: object, session: bytes, caller: str) -> None:
        value = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": rpc_id}}
        await self.conversation.accept(json.dumps(value).encode(), value, session=session, caller=caller)

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


OTHERS = [("A", b"other"), ("B", b""), ("B", b"one"), ("", b"one"), ("", b"")]


@pytest.mark.parametrize("modern", [False, True])
@pytest.mark.parametrize("session", [b"one", b""])
async def test_nobody_cancels_anothers_call(session: bytes, modern: bool) -> None:
    pipe = Pipe()
    pipe.silent = True
    value = message("tools/call", "x")
    raw = json.dumps(value).encode()
    running = [
        asyncio.create_task(
            pipe.conversation.request(raw, value, session=session, caller=caller, modern=modern, first_byte=5)
        )
        for caller in ("A", "C")
    ]
    await asyncio.sleep(0)
    for caller, its in OTHERS:
        if (caller, its) != ("A", session):
            await pipe.cancel(1, its, caller)
    await pipe.cancel("1", session, "A")  # another id
    assert [said["method"] for said in pipe.heard] == ["tools/call"] * 2
    await pipe.cancel(1, session, "A")
    assert pipe.heard[-1]["params"]["requestId"] == pipe.heard[0]["id"]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def test_one_session_id_of_two_callers_is_two_listeners() -> None:
    pipe = Pipe()
    one, two = pipe.conversation.listen(b"s", "A"), pipe.conversation.listen(b"s", "B")
    await pipe.ask("resources/subscribe", "test://a", b"s", "A")
    pipe.updated("test://a")
    assert b"test://a" in await heard(one)
    assert await heard(two) == b""
    pipe.conversation.forget(b"s", "B")
    pipe.updated("test://a")
    assert two.done and b"test://a" in await heard(one)


async def test_one_that_unsubscribes_ends_nobody_elses_updates() -> None:
    pipe = Pipe()
    listeners = [pipe.conversation.listen(b"s", caller) for caller in ("A", "B")]
    for caller in ("A", "B"):
        await pipe.ask("resources/subscribe", "test://a", b"s", caller)
    await pipe.ask("resources/unsubscribe", "test://a", b"s", "B")
    assert [said["method"] for said in pipe.heard] == ["resources/subscribe"] * 2
    pipe.updated("test://a")
    assert b"test://a" in await heard(listeners[0])
    assert await heard(listeners[1]) == b""
    await pipe.ask("resources/unsubscribe", "test://a", b"s", "A")
    assert pipe.heard[-1]["method"] == "resources/unsubscribe"


async def test_what_stands_behind_a_large_line_is_taken_after_it() -> None:
    taken: list[bytes] = []
    ends: list[str] = []
    begun = asyncio.Event()

    async def large(line: bytes) -> bool:
        begun.set()
        await asyncio.sleep(0.05)
        taken.append(line)
        return True

    child = Child(
        received=lambda line: not taken.append(line),
        received_large=large,
        ended=ends.append,
        ring=Ring(),
        max_line=1 << 20,
        mark=0,
    )
    big = b'"' + b"x" * LARGE_BYTES + b'"'
    child.pipe_data_received(1, b"1\n" + big + b"\n2\n")
    await begun.wait()
    child.pipe_data_received(1, b"3\n")
    child.connection_lost(None)
    assert taken == [b"1"] and not ends  # its end is told when all that it said was taken
    await child.gone.wait()
    assert taken == [b"1", big, b"2", b"3"] and len(ends) == 1


@pytest.mark.parametrize("part", [b"{},", b'"a",', b"1,"])
async def test_a_message_with_too_many_values_still_finds_its_call(part: bytes) -> None:
    pipe = Pipe()
    pipe.silent = True
    value = message("tools/call", "x")
    call = asyncio.create_task(pipe.conversation.request(json.dumps(value).encode(), value))
    await asyncio.sleep(0)
    raw = b'{"jsonrpc":"2.0","result":{"a":[' + part * 300_000 + b'1]},"id":%d}' % pipe.heard[0]["id"]
    assert await pipe.conversation.deliver_large(raw)
    response = await call
    assert await response.read() == raw.replace(b'"id":%d}' % pipe.heard[0]["id"], b'"id":1}')
