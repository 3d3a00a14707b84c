"""The same promises on every road to an upstream that `/mcp` has: what is waited for, taken back, stopped and revoked.

Each test runs before Streamable HTTP, HTTP+SSE, a shared command and a command of each session's own, with the same server behind
all of them (tests/support/slow_server.py). docs/protocol.md has the table of these roads, which names the tests.
"""

from __future__ import annotations

import json
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.support.clients import free_port
from tests.support.gateway import Event, Gateway, Key
from tests.support.upstream import FakeUpstream, status
from tests.support.wire import Client, Response

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("roads")]

SERVER = Path(__file__).resolve().parents[1] / "support" / "slow_server.py"
ROADS = ("http", "sse", "stdio", "stdio-each")
#: how a call waits: with nothing said yet, or on a stream that has begun
WAYS = {"plain": {"sleep": 60}, "begun": {"progress": 1, "every": 0, "sleep": 60}}
#: the longest silence of the tool `short`; what is promised at once, and within 5 s, on a busy machine
SHORT, AT_ONCE, BOUND = 2, 6.0, 12.0

every_road = pytest.mark.parametrize("road", ROADS)
every_way = pytest.mark.parametrize("way", WAYS)


@dataclass
class Roads:
    """A gateway with the same slow server behind each transport, and a way to have calls run beside the test."""

    gateway: Gateway
    key: Key
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(32))

    def client(self, road: str, key: Key | None = None, **options: Any) -> Client:
        """A client with a session of its own."""
        return self.gateway.client(key or self.key, road, **options).initialize()

    def call(self, client: Client, tool: str, arguments: dict[str, Any], rpc_id: Any = 7) -> Future[Response]:
        """Have a call run, and come back when the server has it."""
        mark = f"{time.monotonic_ns()}"
        params = {"name": tool, "arguments": {**arguments, "mark": mark}, "_meta": {"progressToken": mark}}
        running = self.pool.submit(client.ask, "tools/call", params, rpc_id, timeout=90)
        until = time.monotonic() + 20
        while mark not in json.dumps(received(client)):
            assert time.monotonic() < until, "the call did not reach the server"
            time.sleep(0.05)
        return running

    def event(self, since: Any, road: str, **match: Any) -> Event:
        """The one event of a call on a road."""
        return self.gateway.event(since, upstream=road, method="tools/call", **match)


def received(client: Client) -> list[Any]:
    """What the server behind a road has been told."""
    found: list[Any] = client.ask("received", {}, "received").result["received"]
    return found


def cancel(client: Client, rpc_id: Any) -> Response:
    """Take a request back."""
    told: Response = client.ask("notifications/cancelled", {"requestId": rpc_id}, None)
    return told


def cancels(client: Client) -> int:
    return sum(message.get("method") == "notifications/cancelled" for message in received(client))


@contextmanager
def opened(**environment: str) -> Iterator[Roads]:
    with ExitStack() as stack:
        urls = {}
        for kind in ("http", "sse"):
            port = free_port()
            process = subprocess.Popen([sys.executable, str(SERVER), kind, str(port)])
            stack.callback(process.wait, 10)
            stack.callback(process.kill)
            urls[kind] = f"http://127.0.0.1:{port}/{'mcp' if kind == 'http' else 'sse'}"
            until = time.monotonic() + 30
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert time.monotonic() < until
                time.sleep(0.05)
        gateway = stack.enter_context(
            Gateway(workers=2, SENTINEL_CATALOGUE_REFRESH="0", SENTINEL_KEEPALIVE_INTERVAL="1s", **environment)
        )
        command = ["--command", shlex.join([sys.executable, str(SERVER), "stdio"])]
        bound = ["--tool-timeout", f"short={SHORT}s", "--tool-timeout", "s*=300s"]
        *_, made = gateway.commands(
            ["upstreams", "add", "http", "--url", urls["http"], *bound],
            ["upstreams", "add", "sse", "--url", urls["sse"], "--transport", "sse", *bound],
            ["upstreams", "add", "stdio", *command, *bound],
            ["upstreams", "add", "stdio-each", *command, "--per-session", *bound],
            ["keys", "create", "roads", "--role", "admin", "--json"],
        )
        told = json.loads(made)
        time.sleep(1.2)
        yield Roads(gateway, Key(told["id"], told["key"], "roads"))


@pytest.fixture(scope="module")
def roads() -> Iterator[Roads]:
    with opened() as found:
        yield found


# -- waiting


@every_road
@every_way
def test_silence_is_bounded_and_told(roads: Roads, road: str, way: str) -> None:
    since, client = roads.gateway.now(), roads.client(road)
    answer = roads.call(client, "short", WAYS[way]).result(SHORT + AT_ONCE + 20)
    assert SHORT <= answer.elapsed < SHORT + AT_ONCE
    assert answer.json["id"] == 7
    assert answer.status == 200  # in a session, that it may live on
    assert (answer.refusal["code"], answer.refusal["reason"]) == (504, "upstream_timeout")
    assert answer.refusal["may_have_run"] is True
    assert "may have run" in answer.refusal["text"]
    event = roads.event(since, road)
    assert (event["outcome"], event["reason"], event["decision"]["executed"]) == (
        "upstream_error",
        "upstream_timeout",
        None,
    )
    until = time.monotonic() + AT_ONCE
    while not cancels(client):
        assert time.monotonic() < until, "the server was not told"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def patient(roads: Roads) -> dict[tuple[str, str], Future[Response]]:
    """Calls that take their time, and may: on all roads beside each other, since each takes seconds."""
    asked = {
        ("comments", road): ("short", {"comments": 6, "every": SHORT * 0.5, "sleep": 0}) for road in ("http", "sse")
    }
    for road in ROADS:
        asked["progress", road] = ("short", {"progress": 6, "every": SHORT * 0.5, "sleep": 0})
        asked["longer", road] = ("slower", {"sleep": SHORT * 2})
    running = {which: roads.call(roads.client(which[1]), *call) for which, call in asked.items()}
    wait(running.values(), 60)
    return running


@every_road
def test_progress_renews_it(patient: dict[tuple[str, str], Future[Response]], road: str) -> None:
    answer = patient["progress", road].result(0)
    assert answer.elapsed > SHORT * 2
    assert answer.result["content"][0]["text"] == "late"


@pytest.mark.parametrize("road", ["http", "sse"])
def test_a_comment_renews_it(patient: dict[tuple[str, str], Future[Response]], road: str) -> None:
    answer = patient["comments", road].result(0)
    assert answer.elapsed > SHORT * 2
    assert answer.result["content"][0]["text"] == "late"


@every_road
def test_a_tool_with_a_longer_bound_is_waited_for(patient: dict[tuple[str, str], Future[Response]], road: str) -> None:
    answer = patient["longer", road].result(0)
    assert answer.elapsed > SHORT * 2
    assert answer.result["content"][0]["text"] == "late"


@every_road
def test_one_caller_does_not_shut_an_upstream_for_others(roads: Roads, road: str) -> None:
    slow = [roads.call(roads.client(road), "short", {"sleep": 60}) for _ in range(7)]
    assert {answer.result(60).refusal["code"] for answer in slow} == {504}
    for _ in range(7):
        client = roads.client(road)
        running = roads.call(client, "wait", {"sleep": 60})
        cancel(client, 7)
        running.result(AT_ONCE)
    for _ in range(6):
        answer = roads.client(road).call("quick", {})
        assert (answer.status, answer.result["content"][0]["text"]) == (200, "late")


# -- taking back


@every_road
@every_way
def test_a_cancel_is_cancelled_at_once(roads: Roads, road: str, way: str) -> None:
    since, client = roads.gateway.now(), roads.client(road)
    running = roads.call(client, "wait", WAYS[way])
    other = roads.client(road)
    cancel(other, 7)
    time.sleep(0.5)
    assert not running.done()  # another session's id is another call's
    begun = time.monotonic()
    told = cancel(client, 7)
    assert told.status == 202
    answer = running.result(AT_ONCE)
    assert time.monotonic() - begun < AT_ONCE
    assert answer.status == 200 and not any("id" in message for message in answer.messages)
    event = roads.event(since, road)
    assert (event["outcome"], event["reason"]) == ("cancelled", "cancelled")
    assert event["latency_ms"] < 30_000 and event["response_json"] is None
    assert cancels(client) >= 1
    assert client.call("quick", {}).status == 200  # the session goes on


@every_road
def test_a_cancel_that_comes_late_changes_nothing(roads: Roads, road: str) -> None:
    since, client = roads.gateway.now(), roads.client(road)
    assert client.call("quick", {}, rpc_id=7).status == 200
    assert cancel(client, 7).status == 202
    assert cancel(client, "7").status == 202
    assert roads.event(since, road)["outcome"] == "allowed"


@pytest.mark.parametrize(
    "road", ROADS[1:]
)  # over Streamable HTTP the server itself ends its sessions, and what they wait for
def test_who_ends_its_session_has_taken_back_what_it_asked(roads: Roads, road: str) -> None:
    since, client = roads.gateway.now(), roads.client(road)
    running = roads.call(client, "wait", {"sleep": 60})
    client.ask("", verb="DELETE")
    running.result(AT_ONCE)
    assert roads.event(since, road)["outcome"] == "cancelled"


@every_road
def test_two_requests_of_one_id_do_not_wait_in_one_session(roads: Roads, road: str) -> None:
    """Over all workers the second is refused, or waits where its cancel means it too."""
    client = roads.client(road)
    running = roads.call(client, "wait", {"sleep": 60})
    others = [roads.pool.submit(client.call, "short", {"sleep": 0}, rpc_id=7) for _ in range(6)]
    told = [other.result(60) for other in others]
    assert {answer.status for answer in told} <= {200, 400}
    for answer in told:
        if answer.status == 400:
            assert answer.refusal["reason"] == "id_in_use" and answer.refusal["executed"] is False
    cancel(client, 7)
    running.result(AT_ONCE)


# -- what is taken away


@dataclass
class Taken:
    """Calls from which something was taken away while they waited, on every road and in every way at once."""

    since: datetime
    running: dict[tuple[str, str], Future[Response]]
    #: how long after the taking away the last of them had ended
    seconds: float = 0.0


CASES = [(road, way) for road in ROADS for way in WAYS]


@pytest.fixture(scope="module")
def revoked(roads: Roads) -> Taken:
    """Calls whose keys are revoked."""
    lines = (["keys", "create", f"short-lived {road} {way}", "--role", "admin", "--json"] for road, way in CASES)
    keys = {
        case: Key(one["id"], one["key"], "")
        for case, one in zip(CASES, map(json.loads, roads.gateway.commands(*lines)), strict=True)
    }
    time.sleep(1.2)
    taken = Taken(roads.gateway.now(), {})
    for (road, way), key in keys.items():
        taken.running[road, way] = roads.call(roads.client(road, key), "wait", WAYS[way])
    roads.gateway.commands(*(["keys", "revoke", key.id] for key in keys.values()))
    begun = time.monotonic()
    wait(taken.running.values(), BOUND)
    taken.seconds = time.monotonic() - begun
    return taken


@every_road
@every_way
def test_a_revoked_key_gets_the_reason_and_nothing_more(roads: Roads, revoked: Taken, road: str, way: str) -> None:
    answer = revoked.running[road, way].result(0)
    assert revoked.seconds < BOUND
    assert answer.json["id"] == 7 and b"late" not in answer.body
    assert answer.status == (401 if way == "plain" else 200)
    assert (answer.refusal["code"], answer.refusal["reason"]) == (401, "invalid_credential")
    event = roads.event(revoked.since, road, key_name=f"short-lived {road} {way}")
    assert (event["outcome"], event["reason"]) == ("cancelled", "revoked_during_stream")


@pytest.fixture(scope="module")
def narrowed(roads: Roads) -> Taken:
    """Calls of roles that may call no more what they call."""
    rules = "roles:\n  admin: {allow: ['*']}\n"
    roles = [f"narrow-{road}-{way}" for road, way in CASES]
    roads.gateway.apply_policy(rules + "".join(f"  {role}: {{allow: ['*']}}\n" for role in roles))
    told = roads.gateway.commands(*(["keys", "create", role, "--role", role, "--json"] for role in roles))
    keys = [Key(one["id"], one["key"], "") for one in map(json.loads, told)]
    time.sleep(1.2)
    taken = Taken(roads.gateway.now(), {})
    for (road, way), key in zip(CASES, keys, strict=True):
        taken.running[road, way] = roads.call(roads.client(road, key), "wait", WAYS[way])
    begun = time.monotonic()
    roads.gateway.apply_policy(rules + "".join(f"  {role}: {{allow: ['*'], deny: ['wait']}}\n" for role in roles))
    wait(taken.running.values(), BOUND)
    taken.seconds = time.monotonic() - begun
    roads.gateway.commands(*(["keys", "revoke", key.id] for key in keys))
    roads.gateway.apply_policy(rules)
    return taken


@every_road
@every_way
def test_a_narrowed_role_ends_what_it_gives_no_more(roads: Roads, narrowed: Taken, road: str, way: str) -> None:
    answer = narrowed.running[road, way].result(0)
    assert answer.json["id"] == 7 and b"late" not in answer.body
    assert (answer.refusal["code"], answer.refusal["reason"]) == (403, "denied_during_stream")
    assert roads.event(narrowed.since, road, role=f"narrow-{road}-{way}")["reason"] == "denied_during_stream"


def test_a_stop_has_a_last_word_for_everybody() -> None:
    with opened(SENTINEL_GRACEFUL_TIMEOUT="3s") as roads:
        since = roads.gateway.now()
        running = {(road, way): roads.call(roads.client(road), "wait", WAYS[way]) for road in ROADS for way in WAYS}
        assert roads.gateway.process is not None
        roads.gateway.process.send_signal(signal.SIGTERM)
        for (road, way), future in running.items():
            answer = future.result(30)
            assert answer.json["id"] == 7, (road, way)
            assert answer.status == 200, (road, way, answer)
            assert answer.refusal["code"] == 503 and answer.refusal["reason"] == "server_stopping", (road, way)
            assert answer.refusal["may_have_run"] is True
        roads.gateway.process.wait(60)
        roads.gateway.start()
        events = roads.gateway.events(since, len(running), method="tools/call")
        assert {(event["outcome"], event["reason"]) for event in events} == {("interrupted", "server_stopping")}


# -- how an upstream stands


@pytest.mark.parametrize("road", ["stdio", "stdio-each"])
def test_an_upstream_whose_calls_fail_is_failing_until_one_does_not(roads: Roads, road: str) -> None:
    def state() -> str:
        told = json.loads(roads.gateway.manage("upstreams", "list", "--json").stdout)
        return str(next(line["status"] for line in told if line["slug"] == road))

    def told(value: float) -> bool:
        text = urlopen(f"{roads.gateway.url}/metrics", timeout=10).read().decode()
        return f'sentinel_upstream_check_ok{{upstream="{road}"}} {value}' in text

    def becomes(wanted: bool) -> None:
        until = time.monotonic() + 30
        while (state() == "failing") != wanted or not told(0.0 if wanted else 1.0):
            assert time.monotonic() < until, (state(), wanted)
            time.sleep(0.5)

    for _ in range(3):
        client = roads.client(road)
        answer = client.call("crash", {"die": True})
        assert (answer.refusal["code"], answer.refusal["reason"]) == (502, "upstream_broken")
        assert answer.refusal["may_have_run"] is True
    becomes(True)
    assert roads.client(road).ask("received", {}).status == 200  # which runs nothing
    time.sleep(5)
    assert state() == "failing"
    assert roads.client(road).call("quick", {}).status == 200
    becomes(False)


# -- what is wrong with an answer, and with the way to it


@pytest.fixture(scope="module")
def fake(roads: Roads) -> Iterator[FakeUpstream]:
    with FakeUpstream() as found:
        roads.gateway.add_upstream("fake", found.url)
        time.sleep(1.2)
        yield found


def test_what_an_upstream_refuses_itself_did_not_run(roads: Roads, fake: FakeUpstream) -> None:
    client = roads.client("fake")
    for code in (400, 403, 404, 409, 410, 418, 422, 429):
        since = roads.gateway.now()
        body = json.dumps({"jsonrpc": "2.0", "id": 7, "error": {"code": -32000, "message": "not now"}}).encode()
        fake.script(status(code, body, "application/json"), method="tools/call")
        answer = client.call("public.echo", {}, rpc_id=7)
        assert (answer.status, answer.body) == (code, body)
        event = roads.event(since, "fake")
        assert (event["outcome"], event["reason"], event["status_code"]) == ("upstream_error", "upstream_refused", code)
        assert event["decision"]["executed"] is False
        fake.script(status(code, b"<p>no", "text/html"), method="tools/call")
        told = client.call("public.echo", {}, rpc_id=7)
        assert told.status == code and told.json["id"] == 7 and told.refusal["executed"] is False


def test_an_answer_with_an_odd_status_is_an_answer_or_none(roads: Roads, fake: FakeUpstream) -> None:
    client = roads.client("fake")
    for code in (201, 202, 203, 205, 206, 226, 299):
        since = roads.gateway.now()
        body = json.dumps({"jsonrpc": "2.0", "id": 7, "result": {"content": []}}).encode()
        fake.script(status(code, body, "application/json"), method="tools/call")
        answer = client.call("public.echo", {}, rpc_id=7)
        assert (answer.status, answer.body) == (200, body)
        event = roads.event(since, "fake")
        assert (event["outcome"], event["status_code"], event["decision"]["executed"]) == ("allowed", 200, True)
        fake.script(status(code, b"fine", "text/plain"), method="tools/call")
        assert client.call("public.echo", {}, rpc_id=8).refusal["code"] == 502


def test_an_open_circuit_is_busy_and_nothing_was_sent(roads: Roads) -> None:
    """A server whose queue of connections is full: each attempt takes its time, and fails."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        filling = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
            filling.append(one)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        roads.gateway.add_upstream("full", url)
        time.sleep(1.2)
        since = roads.gateway.now()
        client = roads.gateway.client(roads.key, "full")
        told: list[Response] = []
        until = time.monotonic() + 120
        while not told or {answer.refusal["code"] for answer in told[-8:]} != {
            503
        }:  # of whichever worker has seen enough
            assert time.monotonic() < until, [answer.refusal for answer in told[-8:]]
            answers = [roads.pool.submit(client.call, "quick", {}) for _ in range(8)]
            told += [answer.result(60) for answer in answers]
        for answer in told:
            reason = {502: "upstream_unreachable", 503: "upstream_busy"}[answer.refusal["code"]]
            assert (answer.refusal["reason"], answer.refusal["executed"]) == (reason, False)
            assert answer.refusal["code"] == 502 or int(answer.header("retry-after") or 0) >= 1
        for event in roads.gateway.events(since, len(told), upstream="full"):
            assert event["outcome"] == "upstream_error" and event["decision"]["executed"] is False
        for one in filling:
            one.close()
    roads.gateway.manage("upstreams", "remove", "full")
