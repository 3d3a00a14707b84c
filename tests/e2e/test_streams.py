"""Streams: at once, byte for byte, with flat memory, closed when either side leaves, and cut by revocation."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import threading
import time
from pathlib import Path

import pytest

from tests.support.fixtures import Stage
from tests.support.upstream import Behaviour, Exchange, FakeUpstream, event, sse

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("stage")]


def tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parent = int(Path(f"/proc/{entry}/stat").read_text().rpartition(") ")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(entry))
    found, todo = [], [root]
    while todo:
        process = todo.pop()
        found.append(process)
        todo += parents.get(process, [])
    return found


def memory(stage: Stage) -> int:
    """Resident bytes of the gateway's Python processes together."""
    assert stage.gateway.process is not None
    total = 0
    for process in tree(stage.gateway.process.pid):
        try:
            command = Path(f"/proc/{process}/cmdline").read_bytes()
            if b"manage.py" in command:
                status = Path(f"/proc/{process}/status").read_text()
                total += int(status.split("VmRSS:")[1].split()[0]) * 1024
        except (OSError, IndexError):
            continue
    return total


def stream_of(total: int, piece: int = 65536) -> Behaviour:
    note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x" * piece}}
    block = event(note)

    async def behave(exchange: Exchange) -> None:
        await exchange.head(200, [("Content-Type", "text/event-stream")])
        for _ in range(total // len(block)):
            await exchange.chunk(block)
        last = {"jsonrpc": "2.0", "id": exchange.request.id, "result": {"content": []}}
        await exchange.chunk(event(last))
        await exchange.end()

    return behave


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_100_megabytes_with_flat_memory_and_the_first_byte_at_once(stage: Stage, fake: FakeUpstream, era: str) -> None:
    behaviour = stream_of(100 * 1024**2)
    fake.script(behaviour, method="tools/call")
    stage.client(era=era).call("public.echo", stream=True).close()  # whatever is loaded once is loaded
    time.sleep(0.5)
    before = memory(stage)
    since = stage.gateway.now()
    begun = time.monotonic()
    with stage.client(era=era).call("public.echo", stream=True) as answer:
        first = answer.response.read(1)
        assert time.monotonic() - begun < 1.0
        peak, received, tail, looked = before, len(first), b"", 0.0
        while data := answer.response.read1(1 << 20):
            received += len(data)
            tail = (tail + data)[-500:]
            if time.monotonic() - looked > 0.1:
                looked = time.monotonic()
                peak = max(peak, memory(stage))
    assert received > 99 * 1024**2
    assert b'"result":{"content":[]}' in tail
    assert peak - before < 40 * 1024**2, (before, peak)
    found = stage.gateway.event(since)
    assert found["outcome"] == "allowed"
    assert found["details"]["stream"]["bytes"] == received
    assert len((str(found["response_json"])).encode()) < 10_000


def test_events_pass_as_they_come(stage: Stage, fake: FakeUpstream) -> None:
    notes = [
        {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": n}} for n in (1, 2)
    ]
    fake.script(sse(notes, pause=0.5, hold=1.0, answer={"content": []}), method="tools/call")
    begun = time.monotonic()
    with stage.client().call("public.echo", stream=True) as answer:
        answer.until(b'"data":1')
        assert time.monotonic() - begun < 0.4
        answer.until(b'"data":2')
        assert time.monotonic() - begun < 0.9
        answer.until(b'"result"')


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_a_client_that_closes_the_stream_once_it_has_its_answer(stage: Stage, fake: FakeUpstream, era: str) -> None:
    """Many clients do; the call was answered, and the log says so."""
    answer = {"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "all of it"}]}}
    fake.script(sse([answer], hold=60), method="tools/call")
    since = stage.gateway.now()
    with stage.client(era=era).call("public.echo", stream=True) as stream:
        stream.until(b"all of it")
    assert fake.seen("tools/call")[0].gone.wait(5)
    found = stage.gateway.event(since)
    assert (found["outcome"], found["details"]["stream"]["ended"]) == ("allowed", "client_gone"), found


def test_bytes_are_the_same_over_any_chunk_borders(stage: Stage, fake: FakeUpstream) -> None:
    """But for the ids of events, which are sealed."""
    pieces = [
        b": a comment\n\n",
        b"id: 7\nretry: 100\ndata:\n\n",
        b'event: message\r\ndata: {"jsonrpc":"2.0",\r\ndata: "method":"notifications/message","params":{"level":"info","data":"\xc3\xa9"}}\r\n\r\n',
        b'data: {"jsonrpc":"2.0","id":1,"result":{"content":[],"big":12345678901234567890,"odd":1.10}}\n\n',
    ]
    for size in (1, 2, 3, 7, 1000):
        fake.forget()
        fake.script(sse(pieces, size=size), method="tools/call")
        answer = stage.client().call("public.echo")
        assert re.sub(rb"id: [\w.-]+", b"id: 7", answer.body) == b"".join(pieces), size
        assert b"id: 7\n" not in answer.body


def test_a_slow_reader_slows_the_upstream_and_not_the_memory(stage: Stage, fake: FakeUpstream) -> None:
    behaviour = stream_of(200 * 1024**2)
    fake.script(behaviour, method="tools/call")
    before = memory(stage)
    with stage.client().call("public.echo", stream=True) as answer:
        answer.until(b"notifications/message")
        time.sleep(3)  # nothing is read meanwhile
        assert memory(stage) - before < 40 * 1024**2
    assert fake.wait_for("tools/call")[0].gone.wait(5)


def test_revocation_stops_calls_within_a_second_and_streams_within_five(stage: Stage, fake: FakeUpstream) -> None:
    key = stage.gateway.create_key("short-lived", "admin")
    time.sleep(1.0)
    client = stage.gateway.client(key)
    assert client.call("get_customer").status == 200
    fake.script(sse([{"jsonrpc": "2.0", "method": "notifications/message", "params": {}}], hold=60), name="public.echo")
    since = stage.gateway.now()
    stream = client.call("public.echo", stream=True, timeout=30)
    stream.until(b"notifications/message")
    closed = threading.Event()

    def drain() -> None:
        with stream, contextlib.suppress(OSError, http.client.HTTPException):
            while stream.read():
                pass
        closed.set()

    threading.Thread(target=drain, daemon=True).start()
    stage.gateway.revoke_key(key)
    revoked = time.monotonic()
    while client.call("get_customer").status != 401:
        assert time.monotonic() - revoked < 1.0
    # On every worker, not only on the one that answered.
    time.sleep(max(0.0, revoked + 1.0 - time.monotonic()))
    assert {client.call("get_customer").status for _ in range(20)} == {401}
    assert closed.wait(max(0.1, revoked + 5.0 - time.monotonic()))
    assert fake.seen(name="public.echo")[0].gone.wait(2)
    found = [e for e in stage.gateway.events(since) if e["tool_name"] == "public.echo"]
    assert [e["reason"] for e in found] == ["revoked_during_stream"], found


def test_a_new_key_works_within_a_second(stage: Stage, fake: FakeUpstream) -> None:
    key = stage.gateway.create_key("fresh", "readonly")
    time.sleep(1.0)
    assert {stage.gateway.client(key).call("list_customers").status for _ in range(10)} == {200}
