from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from proxy.upstreams.transports import session_table
from proxy.upstreams.transports.base import (
    Broken,
    Cancelled,
    TimedOut,
    TransportLimits,
    Unreachable,
    UpstreamError,
    UpstreamRequest,
)
from proxy.upstreams.transports.stdio import transport as stdio
from proxy.upstreams.transports.stdio.child import CommandLine, Ring
from proxy.upstreams.transports.stdio.transport import StdioTransport

SERVER = str(Path(__file__).parents[3] / "stdio_server.py")


def command(*arguments: str, **options) -> CommandLine:
    return CommandLine((sys.executable, SERVER, *arguments), **options)


@pytest.fixture
async def start():
    started = []

    def make(*arguments, mode="shared", limits=None, **options) -> StdioTransport:
        transport = StdioTransport(
            command(*arguments, **options), mode=mode, limits=limits or TransportLimits(first_byte=5, idle=5, connect=3)
        )
        started.append(transport)
        return transport

    yield make
    for transport in started:
        pids = transport.pids()
        await transport.close()
        assert not any(psutil.pid_exists(pid) for pid in pids)
    assert [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE] == []


def post(message: dict | bytes, **headers: bytes) -> UpstreamRequest:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return UpstreamRequest(b"POST", [(name.replace("_", "-").encode(), value) for name, value in headers.items()], body)


def call(identifier=1, *, meta=None, **arguments) -> dict:
    params = {"name": "x", "arguments": arguments, **({"_meta": meta} if meta else {})}
    return {"jsonrpc": "2.0", "id": identifier, "method": "tools/call", "params": params}


async def ask(transport, message, **headers):
    response = await transport.send(post(message, **headers))
    return json.loads(await response.body(1 << 30))


def initialize(identifier="init", version="2025-11-25") -> dict:
    return {"jsonrpc": "2.0", "id": identifier, "method": "initialize", "params": {"protocolVersion": version}}


@pytest.mark.parametrize("leaves", [None, 0, 1], ids=["all-wait", "the-first-leaves", "the-second-leaves"])
async def test_whoever_comes_while_it_starts_waits_for_the_one_start(start, leaves):
    transport = start("--slow")
    waiting = []
    for number in range(3):
        waiting.append(asyncio.create_task(ask(transport, initialize(number))))
        await asyncio.sleep(0.2)
    if leaves is not None:
        waiting.pop(leaves).cancel()
    waiting.append(asyncio.create_task(ask(transport, call(9))))
    *greeted, called = await asyncio.gather(*waiting)
    assert [answer["result"]["capabilities"] for answer in greeted] == [{"tools": {}}] * len(greeted)
    assert {answer["result"]["serverInfo"]["name"] for answer in greeted} == {"child"}
    assert called["result"]["pid"] == transport.pids()[0]
    received = (await ask(transport, {"jsonrpc": "2.0", "id": 1, "method": "x"}))["result"]["received"]
    assert sum('"initialize"' in line for line in received) == 1


async def test_a_shared_process_is_initialised_once_and_answers_everyone(start):
    transport = start()
    response = await transport.send(post(initialize()))
    assert response.status == 200
    assert dict(response.headers)[b"mcp-session-id"]
    body = json.loads(await response.body(10000))
    assert body["id"] == "init"
    assert body["result"]["serverInfo"]["name"] == "child"
    assert body["result"]["protocolVersion"] == "2025-06-18"
    older = await ask(transport, initialize(7, "2025-03-26"))
    assert (older["id"], older["result"]["protocolVersion"]) == (7, "2025-03-26")
    assert (await transport.send(post({"jsonrpc": "2.0", "method": "notifications/initialized"}))).status == 202
    first, second = await ask(transport, call()), await ask(transport, call())
    assert first["result"]["pid"] == second["result"]["pid"]
    received = (await ask(transport, {"jsonrpc": "2.0", "id": 1, "method": "x"}))["result"]["received"]
    assert sum("notifications/initialized" in line for line in received) == 1


async def test_two_hundred_callers_with_one_id_get_their_own_answers(start):
    transport = start()
    answers = await asyncio.gather(
        *(ask(transport, call("same", echo=f"secret {n}", sleep=0.001 * (n % 7))) for n in range(200))
    )
    assert [answer["result"]["echo"] for answer in answers] == [f"secret {n}" for n in range(200)]
    assert {answer["id"] for answer in answers} == {"same"}


@pytest.mark.parametrize("identifier", ["1", 0, 1, 'é\\u0000\\"', 2**63, -5])
async def test_ids_come_back_with_value_and_type(start, identifier):
    transport = start()
    assert (await ask(transport, call(identifier)))["id"] == identifier


async def test_all_but_the_id_arrives_as_it_was_written(start):
    transport = start()
    raw = b'{ "params":{"arguments":{"n":12345678901234567890123,"d":1.10,"e":1e2,"s":"\\u0065"},\n"name":"x"},\r\n"id" : "a" ,"method":"tools/call","jsonrpc":"2.0"}'
    answer = await ask(transport, raw)
    expected = raw.replace(b"\n", b" ").replace(b"\r", b" ").replace(b'"a"', b"2").decode()
    assert answer["result"]["raw"] == expected
    assert answer["id"] == "a"


async def test_progress_follows_its_call_under_its_own_token(start):
    transport = start()

    async def one(n):
        response = await transport.send(post(call(1, meta={"progressToken": "mine"}, progress=3, echo=n)))
        assert response.streaming
        events = [
            json.loads(line[6:]) for line in (await response.body(1 << 20)).split(b"\n") if line.startswith(b"data: ")
        ]
        assert [event["params"]["progressToken"] for event in events[:3]] == ["mine"] * 3
        assert events[3]["result"]["echo"] == n
        assert len(events) == 4

    await asyncio.gather(*(one(n) for n in range(20)))


async def test_nothing_without_an_owner_reaches_a_caller_of_a_shared_process(start):
    transport = start()
    listener = await transport.send(UpstreamRequest(b"GET", [(b"mcp-session-id", b"other")]))
    answer = await transport.send(post(call(log=True, ask=True, noise=True, changed=True)))
    assert answer.content_type == b"application/json"
    body = await answer.body(1 << 20)
    assert b"secret of another" not in body
    heard = await asyncio.wait_for(listener.read(), 2)
    assert b"list_changed" in heard
    assert b"secret" not in heard
    assert b"sampling" not in heard
    received = (await ask(transport, {"jsonrpc": "2.0", "id": 1, "method": "x"}))["result"]["received"]
    assert any('"srv-1"' in line and "-32601" in line for line in received)
    assert any("complaint" in line for line in transport.stderr())
    assert any("not JSON" in line for line in transport.stderr())
    listener.abort()


async def test_cancellation_reaches_only_the_call_of_the_same_session(start):
    transport = start()
    task = asyncio.create_task(ask(transport, call(5, sleep=1), mcp_session_id=b"a"))
    await asyncio.sleep(0.4)
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}
    assert (await transport.send(post(cancel, mcp_session_id=b"b"))).status == 202
    assert (await transport.send(post(cancel, mcp_session_id=b"a"))).status == 202
    received = (await ask(transport, {"jsonrpc": "2.0", "id": 1, "method": "x"}))["result"]["received"]
    assert [json.loads(line)["params"]["requestId"] for line in received if "cancelled" in line] == [2]
    with pytest.raises(Cancelled):
        await task


async def test_giving_up_makes_up_no_cancel_in_the_legacy_era_and_sends_one_in_the_modern(start):
    transport = start()
    modern = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    for meta, expected in ((None, 0), (modern, 1)):
        task = asyncio.create_task(transport.send(post(call(5, meta=meta, sleep=2))))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        probe = {"jsonrpc": "2.0", "id": 1, "method": "x", "params": {"_meta": meta} if meta else {}}
        received = (await ask(transport, probe))["result"]["received"]
        assert sum("notifications/cancelled" in line for line in received) == expected
    assert len(transport.pids()) == 2


async def test_the_modern_era_is_never_initialised(start):
    transport = start()
    answer = await ask(transport, call(), mcp_protocol_version=b"2026-07-28")
    assert answer["result"]["pid"]
    received = (await ask(transport, {"jsonrpc": "2.0", "id": 1, "method": "x"}, mcp_protocol_version=b"2026-07-28"))[
        "result"
    ]["received"]
    assert not any("initialize" in line for line in received)


async def test_a_session_has_its_process_and_nobody_elses(start):
    transport = start(mode="session")
    assert (await transport.send(post(call()))).status == 400
    tokens = []
    for _ in range(2):
        response = await transport.send(post(initialize()))
        tokens.append(dict(response.headers)[b"mcp-session-id"])
        assert json.loads(await response.body(10000))["result"]["asked"] == {"protocolVersion": "2025-11-25"}
    a, b = [(await ask(transport, call(), mcp_session_id=token))["result"]["pid"] for token in tokens]
    assert a != b
    unknown = await transport.send(post(call("mine"), mcp_session_id=b"never-issued"))
    assert (unknown.status, json.loads(await unknown.body(10000))["id"]) == (404, "mine")
    answer = await transport.send(post(call(ask=True, log=True), mcp_session_id=tokens[0]))
    body = await answer.body(1 << 20)
    assert b"sampling/createMessage" in body
    assert b"secret of another" in body
    assert (await transport.send(UpstreamRequest(b"DELETE", [(b"mcp-session-id", tokens[0])]))).status == 200
    assert (await transport.send(post(call(), mcp_session_id=tokens[0]))).status == 404
    for _ in range(100):
        if not psutil.pid_exists(a):
            break
        await asyncio.sleep(0.05)
    assert not psutil.pid_exists(a)
    assert psutil.pid_exists(b)


async def test_sessions_whose_stream_was_dropped_end_and_leave_nothing(start, monkeypatch):
    monkeypatch.setattr(session_table, "ORPHAN_SECONDS", 2.0)
    transport = start(mode="session")
    for _ in range(2):
        tokens = []
        for _ in range(4):
            response = await transport.send(post(initialize()))
            tokens.append(dict(response.headers)[b"mcp-session-id"])
            stream = await transport.send(UpstreamRequest(b"GET", [(b"mcp-session-id", tokens[-1])]))
            stream.abort()
        pids = transport.pids()
        assert len(pids) == 4
        for _ in range(200):
            if not transport.pids():
                break
            await asyncio.sleep(0.05)
        assert transport.pids() == []
        for _ in range(100):
            if not any(psutil.pid_exists(pid) for pid in pids):
                break
            await asyncio.sleep(0.05)
        assert not any(psutil.pid_exists(pid) for pid in pids)
        assert (await transport.send(post(call(), mcp_session_id=tokens[0]))).status == 404


async def test_kill_under_load_answers_every_call_and_the_process_comes_back(start):
    transport = start()
    pid = (await ask(transport, call()))["result"]["pid"]
    running = [asyncio.create_task(ask(transport, call(n, sleep=5))) for n in range(60)]
    await asyncio.sleep(0.4)
    os.kill(pid, signal.SIGKILL)
    results = await asyncio.wait_for(asyncio.gather(*running, return_exceptions=True), 3)
    assert all(isinstance(result, Broken) for result in results)
    assert all(result.executed and "SIGKILL" in result.detail for result in results)
    again = (await ask(transport, call()))["result"]["pid"]
    assert again != pid
    assert not psutil.pid_exists(pid)
    for _ in range(3):
        with pytest.raises(Broken):
            await ask(transport, call(die=True))
    assert (await ask(transport, call()))["result"]["pid"]


async def test_a_hundred_kills_lose_no_answer(start, monkeypatch):
    monkeypatch.setattr(stdio, "LONGEST_BACKOFF", 0.1)
    transport = start()
    outcomes = {"answered": 0, "failed": 0}
    stop = asyncio.Event()

    async def client(n):
        while not stop.is_set():
            try:
                assert (await asyncio.wait_for(ask(transport, call(1, echo=n, sleep=0.01)), 20))["result"]["echo"] == n
                outcomes["answered"] += 1
            except UpstreamError:
                outcomes["failed"] += 1

    clients = [asyncio.create_task(client(n)) for n in range(10)]
    for _ in range(10):
        await asyncio.sleep(0.5)
        for pid in transport.pids():
            os.kill(pid, signal.SIGKILL)
    stop.set()
    await asyncio.wait_for(asyncio.gather(*clients), 30)
    assert outcomes["answered"] > 0
    assert outcomes["failed"] > 0


async def test_each_bad_command_fails_within_seconds_with_its_own_cause(start, tmp_path):
    async def cause(transport) -> UpstreamError:
        started = time.monotonic()
        with pytest.raises(UpstreamError) as caught:
            await ask(transport, call())
        assert time.monotonic() - started < 4
        return caught.value

    missing = StdioTransport(CommandLine(("no-such-program",)))
    assert "command not found" in (await cause(missing)).detail
    folder = StdioTransport(CommandLine((sys.executable,), directory="/nowhere"))
    assert "no such folder" in (await cause(folder)).detail
    failing = start("--fail")
    error = await cause(failing)
    assert isinstance(error, Unreachable)
    assert "cannot find my database" in error.said
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    assert "No such file" in (await cause(StdioTransport(CommandLine((str(script),))))).said


async def test_a_process_that_never_answers_times_out(start, monkeypatch):
    monkeypatch.setattr(stdio, "HANDSHAKE_SECONDS", 0.5)
    transport = start("--mute")
    with pytest.raises(TimedOut):
        await ask(transport, call())
    assert isinstance(transport.stderr(), list)


def running() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # ended, or an orphan of another test that has
            if SERVER in child.cmdline():
                found.append(child)
    return found


@pytest.mark.parametrize("mode", ["shared", "session"])
@pytest.mark.parametrize("delay", [0, 0.001, 0.01, 0.05, 0.15])
async def test_nothing_outlives_a_close_that_comes_while_it_is_started(start, mode, delay):
    transport = start(mode=mode)
    asking = [asyncio.create_task(ask(transport, initialize(n))) for n in range(3)]
    await asyncio.sleep(delay)
    await transport.close()
    answers = await asyncio.wait_for(asyncio.gather(*asking, return_exceptions=True), 5)
    assert all(isinstance(answer, UpstreamError | dict) for answer in answers), answers
    await asyncio.sleep(0.3)
    assert running() == []


async def test_nothing_outlives_a_close_that_comes_while_it_waits_to_be_started_again(start, monkeypatch):
    monkeypatch.setattr(stdio, "FIRST_BACKOFF", 1.0)
    transport = start()
    with pytest.raises(Broken):
        await ask(transport, call(die=True))
    asking = asyncio.create_task(ask(transport, call()))
    await asyncio.sleep(0.2)
    started = time.monotonic()
    await transport.close()
    with pytest.raises(Unreachable):
        await asking
    assert time.monotonic() - started < 0.5
    await asyncio.sleep(1.2)
    assert running() == []


async def test_the_environment_is_only_what_was_given(start, monkeypatch):
    monkeypatch.setenv("SENTINEL_SECRET_KEY", "do not tell")
    transport = start(environment={"GIVEN": "1"})
    environment = (await ask(transport, call()))["result"]["env"]
    assert environment["GIVEN"] == "1"
    assert "SENTINEL_SECRET_KEY" not in environment
    assert set(environment) <= {"GIVEN", "PATH", "HOME", "LANG", "LC_ALL", "TZ", "LC_CTYPE"}


async def test_memory_is_limited(start):
    transport = start(memory_bytes=400 << 20)
    pid = (await ask(transport, call()))["result"]["pid"]
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert f"{400 << 20}" in limits
    assert "Max core file size        0 " in limits


async def test_a_line_without_end_stops_the_process():
    endless = "import sys\nwhile True: sys.stdout.write('x' * 65536)"
    transport = StdioTransport(
        CommandLine((sys.executable, "-c", endless)), limits=TransportLimits(answer_bytes=1 << 20, first_byte=5)
    )
    with pytest.raises(UpstreamError):
        await ask(transport, call())
    await transport.close()


def test_the_ring_is_bounded():
    ring = Ring(1000)
    for n in range(10000):
        ring.feed(b"line %d\n" % n)
    ring.feed(b"x" * 100_000)
    assert sum(len(line) for line in ring.lines()) < 2100
    assert "line 9999" in ring.lines()
