"""What client and server say between calls: open to whoever reaches the upstream, and lost to no limit."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.support.fixtures import SETTINGS
from tests.support.gateway import Gateway, Key
from tests.support.upstream import Exchange, FakeUpstream, hang, result
from tests.support.wire import Client, send

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("between")]

POLICY = """\
roles:
  narrow: {allow: [get_customer]}
  nothing: {allow: []}
  open: {allow: [get_customer]}
  muted:
    allow: ["*"]
    deny: ["method:logging/*", "method:notifications/progress", "method:ping", "method:prompts/list", "method:resources/unsubscribe"]
  wild: {allow: [get_customer], deny: ["method:*"]}
  asked: {allow: [get_customer, "method:elicitation/create", "method:x/*", "method:notifications/x/*"]}
rules:
  - {name: no debugging from afar, effect: deny, roles: [narrow], method: logging/setLevel, networks: [10.0.0.0/8]}
rate_limits:
  per_api_key: {requests: 10, window_seconds: 20}
  limits:
    - {name: own methods, method: "x/*", per: [key], requests: 2, window_seconds: 20}
"""
LIMIT = 10
PLAIN = Path(__file__).resolve().parents[1] / "proxy" / "stdio_server.py"
#: how many keys of each role the tests use up
KEYS = {"open": 2, "narrow": 6, "nothing": 2, "muted": 4, "wild": 1, "asked": 4}
NOTIFICATIONS: list[tuple[str, dict[str, Any]]] = [
    ("initialized", {}),
    ("cancelled", {"requestId": 7, "reason": "enough"}),
    ("progress", {"progressToken": 1, "progress": 0.5}),
    ("roots/list_changed", {}),
    ("tasks/status", {"taskId": "t", "status": "working", "createdAt": "x", "lastUpdatedAt": "x", "ttl": None}),
    ("elicitation/complete", {"elicitationId": "e"}),
    ("message", {"level": "info", "data": "x"}),
]
ANSWERS = [
    {"jsonrpc": "2.0", "id": 1, "result": {"roots": []}},
    {"jsonrpc": "2.0", "id": "r-1", "result": {"action": "accept", "content": {"a": 1}}},
    {"jsonrpc": "2.0", "id": 2, "error": {"code": -1, "message": "The user said no."}},
]


@dataclass
class Scene:
    gateway: Gateway
    fake: FakeUpstream
    keys: dict[str, list[Key]]

    def client(self, role: str, upstream: str = "fake", **options: Any) -> Client:
        """A client with a key of its own, so that nothing has been counted for it."""
        return self.gateway.client(self.key(role), upstream, **options)

    def key(self, role: str) -> Key:
        """A key of a role that nobody has used."""
        return self.keys[role].pop()


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with FakeUpstream() as fake, Gateway(workers=3, **SETTINGS) as gateway:
        policy = gateway.home / "policy.yaml"
        policy.write_text(POLICY)
        named = [(role, f"{role}-{n}") for role, count in KEYS.items() for n in range(count)]
        _, _, _, *printed = gateway.commands(
            ["upstreams", "add", "fake", "--url", fake.url],
            ["upstreams", "add", "pipe", "--command", shlex.join([sys.executable, str(PLAIN)])],
            ["policy", "apply", str(policy)],
            *(["keys", "create", name, "--role", role, "--json"] for role, name in named),
        )
        keys: dict[str, list[Key]] = {role: [] for role in KEYS}
        for (role, name), told in zip(named, map(json.loads, printed), strict=True):
            keys[role].append(Key(told["id"], told["key"], name))
        time.sleep(1.0)
        yield Scene(gateway, fake, keys)


@pytest.fixture(autouse=True)
def fresh(scene: Scene) -> None:
    scene.fake.forget()


class Older:
    """A client of the older transport: a stream, and the address it named."""

    def __init__(self, scene: Scene, key: str) -> None:
        self.port, self.fields = scene.gateway.port, {"Authorization": f"Bearer {key}"}
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        self.connection.request("GET", "/sse/fake", headers=self.fields)
        self.stream = self.connection.getresponse()
        assert self.stream.status == 200
        assert self.stream.readline() == b"event: endpoint\n"
        self.address = self.stream.readline().decode().removeprefix("data: ").strip()

    def post(self, message: dict[str, Any]) -> int:
        """Post a message; the status."""
        return send(f"http://127.0.0.1:{self.port}{self.address}", message, self.fields).status

    def answer(self) -> dict[str, Any]:
        """Read the next message of the stream."""
        while line := self.stream.readline():
            if line.startswith(b"data: {"):
                return dict(json.loads(line[6:]))
        raise AssertionError("the stream has ended")


# --- Open to whoever reaches the upstream


@pytest.mark.parametrize("role", ["narrow", "nothing", "wild"])
def test_what_every_client_sends_by_itself_is_open(scene: Scene, role: str) -> None:
    scene.fake.script(result({}), method="logging/setLevel")
    client = scene.client(role).initialize()
    assert client.ask("ping").result == {}
    assert client.ask("logging/setLevel", {"level": "debug"}).result == {}
    assert client.tools() == ([] if role == "nothing" else ["get_customer"])
    since = scene.gateway.now()
    for name, params in NOTIFICATIONS:
        assert client.ask(f"notifications/{name}", params, None).status == 202, name
    for answer in ANSWERS:
        assert send(client.address, answer, client.headers()).status == 202, answer
    assert client.ask("notifications/cancelled", {"requestId": 7}, None).status == 202
    assert send(client.address, headers=client.headers(), verb="DELETE").status == 200
    count = len(NOTIFICATIONS) + len(ANSWERS) + 2
    assert {event["reason"] for event in scene.gateway.events(since, count)} == {"open_method"}
    assert [r.json for r in scene.fake.requests if r.json and "method" not in r.json] == ANSWERS


@pytest.mark.parametrize("role", ["narrow", "nothing"])
def test_the_same_on_the_older_transport(scene: Scene, role: str) -> None:
    older = Older(scene, scene.key(role).key)
    info = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "old", "version": "1"}}
    assert older.post({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": info}) == 202
    assert older.answer()["result"]["serverInfo"]["name"] == "fake"
    for name, params in NOTIFICATIONS:
        assert older.post({"jsonrpc": "2.0", "method": f"notifications/{name}", "params": params}) == 202, name
    for answer in ANSWERS:
        assert older.post(answer) == 202, answer
    scene.fake.wait_for("notifications/message")
    until = time.monotonic() + 5
    while len([r for r in scene.fake.requests if r.json and "method" not in r.json]) < len(ANSWERS):
        assert time.monotonic() < until, "an answer was lost"
        time.sleep(0.02)
    older.connection.close()


def test_a_method_of_somebodys_own_is_not(scene: Scene) -> None:
    client = scene.client("narrow").initialize()
    before = len(scene.fake.requests)
    for method in (
        "notifications/x/run",
        "notifications/cancelled2",
        "Notifications/cancelled",
        "logging/setlevel",
        "ping ",
    ):
        assert client.ask(method, {}, None).status == 403, method
    for method in ("logging/setlevel", "logging/getLevel", "tools/List", "server/discover2", "x/run"):
        assert client.ask(method, {}).refusal["reason"] == "no_rule", method
    assert len(scene.fake.requests) == before


@pytest.mark.parametrize("role", ["asked", "muted"])
def test_a_notification_with_an_id_is_none(scene: Scene, role: str) -> None:
    """Whoever speaks of a call by its id is told apart from others where it comes as a notification."""
    client = scene.client(role)
    for name, params in NOTIFICATIONS:
        answer = client.ask(f"notifications/{name}", params, 5)
        assert (answer.status, answer.error["code"]) == (400, -32600), name
    methods = ("logging/setLevel", "initialize", "tools/list")
    for method in methods:
        assert client.ask(method, {}, None).status == 400, method
    # The gateway may read the server's lists meanwhile, with ids.
    arrived = [(one.method, one.id) for one in scene.fake.requests]
    assert not [one for one in arrived if one[1] == 5 or (one[0] in methods and one[1] is None)], arrived


def test_a_rule_denies_by_name(scene: Scene) -> None:
    client = scene.client("muted").initialize()
    since = scene.gateway.now()
    for method in ("logging/setLevel", "ping", "prompts/list", "resources/unsubscribe"):
        answer = client.ask(method, {"level": "info", "uri": "test://one"})
        assert answer.refusal["reason"] == "denied_by_rule", method
    assert client.ask("notifications/progress", {"progressToken": 1, "progress": 1}, None).status == 403
    events = scene.gateway.events(since, 5)
    assert [(e["outcome"], e["target_kind"], e["tool_name"]) for e in events] == [("denied", "method", None)] * 5
    assert client.ask("notifications/cancelled", {"requestId": 1}, None).status == 202
    assert client.ask("resources/subscribe", {"uri": "test://one"}).error["code"] == -32601  # the upstream's own word


def test_explain_and_replay_say_the_same(scene: Scene) -> None:
    asked = [("narrow", "logging/setLevel"), ("narrow", "notifications/cancelled"), ("narrow", "x/run"), ("muted", "ping"),
             ("wild", "ping"), ("wild", "x/run"), ("nothing", "tools/list")]  # fmt: skip
    lines = [
        ["policy", "explain", "--role", role, "--upstream", "fake", "--method", method, "--ip", "127.0.0.1", "--json"]
        for role, method in asked
    ]
    told = [json.loads(text) for text in scene.gateway.commands(*lines)]
    assert [(one["allowed"], one["reason"]) for one in told] == [
        (True, "open_method"), (True, "open_method"), (False, "no_rule"), (False, "denied_by_rule"),
        (True, "open_method"), (False, "denied_by_rule"), (True, "open_method"),
    ]  # fmt: skip
    assert [len(one["limits"]) for one in told] == [0, 0, 1, 0, 0, 1, 0]
    cases = scene.gateway.home / "cases.yaml"
    cases.write_text(
        "cases:\n"
        "  - {role: narrow, upstream: fake, method: logging/setLevel, ip: 127.0.0.1, expect: allowed, reason: open_method}\n"
        "  - {role: narrow, upstream: fake, method: logging/setLevel, ip: 10.1.1.1, expect: denied, rule: no debugging from afar}\n"
        "  - {role: muted, upstream: fake, method: logging/setLevel, expect: denied, reason: denied_by_rule}\n"
    )
    scene.gateway.manage("policy", "test", str(cases))
    replayed = json.loads(
        scene.gateway.manage(
            "policy", "replay", str(scene.gateway.home / "policy.yaml"), "--since", "1h", "--json"
        ).stdout
    )
    assert replayed["changed"] == 0, replayed["groups"]


# --- Lost to no limit


def exhaust(client: Client) -> None:
    """Use up what a key may call."""
    calls = [client.call("get_customer", {"n": n}) for n in range(LIMIT + 1)]
    assert not any("isError" in call.result for call in calls[:-1])
    assert calls[-1].refusal["reason"] == "rate_limited"


def test_what_is_no_call_counts_for_nothing(scene: Scene) -> None:
    client = scene.client("narrow").initialize()
    for _ in range(15):
        assert client.ask("ping").result == {}
        assert client.tools() == ["get_customer"]
        assert client.ask("notifications/progress", {"progressToken": 1, "progress": 1}, None).status == 202
        again = scene.gateway.client(client.key).initialize()
        assert send(again.address, headers=again.headers(), verb="DELETE").status == 200
    exhaust(client)


def test_a_cancel_arrives_when_the_limit_is_used_up(scene: Scene) -> None:
    client = scene.client("narrow").initialize()
    exhaust(client)
    for name, params in NOTIFICATIONS:
        assert client.ask(f"notifications/{name}", params, None).status == 202, name
    assert scene.fake.seen("notifications/cancelled")[0].params["requestId"] == 7
    for answer in ANSWERS:
        assert send(client.address, answer, client.headers()).status == 202
    assert client.ask("ping").result == {} and client.tools() == ["get_customer"]
    scene.gateway.client(client.key).initialize()
    assert client.call("get_customer").refusal["reason"] == "rate_limited"
    assert send(client.address, headers=client.headers(), verb="DELETE").status == 200


@pytest.mark.parametrize("upstream", ["fake", "pipe"])
def test_a_cancel_arrives_when_the_upstream_is_full(scene: Scene, upstream: str) -> None:
    """What takes every place is what the cancel would end."""
    few = "from core.access.actors import Actor; from proxy.services import upstreams; upstreams.update_upstream(actor=Actor.system(), slug={!r}, max_concurrent={})"
    scene.gateway.manage("shell", "-c", few.format(upstream, 2))
    time.sleep(2.0)
    scene.fake.script(hang(), method="tools/call")
    client = scene.client("open", upstream=upstream).initialize()

    told: list[str] = []

    def call() -> None:
        with contextlib.suppress(OSError):
            told.append(client.call("get_customer", {"sleep": 12}, uuid4().hex, timeout=30).body.decode())

    try:
        for _ in range(LIMIT):  # over three workers, each with room for two
            threading.Thread(target=call, daemon=True).start()
        until = time.monotonic() + 10
        while not any("upstream_busy" in body for body in told):
            assert time.monotonic() < until, told
            time.sleep(0.05)
        for name, params in NOTIFICATIONS * 2:
            assert client.ask(f"notifications/{name}", params, None).status == 202, name
        for answer in ANSWERS:
            assert send(client.address, answer, client.headers()).status == 202
        assert send(client.address, headers=client.headers(), verb="DELETE").status in (200, 202, 204)
    finally:
        scene.gateway.manage("shell", "-c", few.format(upstream, 512))


@pytest.mark.parametrize(
    "answer", [{"result": {"action": "decline"}}, {"error": {"code": -32000, "message": "closed"}}]
)
def test_the_answer_to_the_server_arrives_when_the_limit_is_used_up(scene: Scene, answer: dict[str, Any]) -> None:
    told = threading.Event()
    question = {"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": {"message": "?"}}

    async def asks(exchange: Exchange) -> None:
        await exchange.head(200, [("Content-Type", "text/event-stream")])
        await exchange.chunk(f"data: {json.dumps(question)}\n\n".encode())
        while not told.is_set():
            await asyncio.sleep(0.01)
        done = {"jsonrpc": "2.0", "id": exchange.request.id, "result": {"content": []}}
        await exchange.chunk(f"data: {json.dumps(done)}\n\n".encode())
        await exchange.end()

    client = scene.client("asked").initialize()
    scene.fake.script(asks, method="tools/call", times=1)
    with client.call("get_customer", rpc_id=99, stream=True) as stream:
        stream.until(b"elicitation/create")
        for n in range(LIMIT - 1):
            assert "isError" not in client.call("get_customer", {"n": n}).result
        assert client.call("get_customer").refusal["reason"] == "rate_limited"
        assert send(client.address, {"jsonrpc": "2.0", "id": "q", **answer}, client.headers()).status == 202
        until = time.monotonic() + 5
        while not (seen := [r.json for r in scene.fake.requests if r.json and r.json.get("id") == "q"]):
            assert time.monotonic() < until, "the answer was lost"
            time.sleep(0.02)
        assert seen == [{"jsonrpc": "2.0", "id": "q", **answer}]
        told.set()
        stream.until(b'"content"')


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_reads_prompts_and_completions_count(scene: Scene, era: str) -> None:
    client = scene.client("muted", era=era)
    asked: list[tuple[str, dict[str, Any]]] = [
        ("resources/read", {"uri": "test://one"}),
        ("prompts/get", {"name": "greet"}),
        (
            "completion/complete",
            {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "a", "value": ""}},
        ),
        ("tools/call", {"name": "get_customer", "inputResponses": {"k": {"action": "accept"}}, "requestState": "s"}),
    ]
    statuses = [client.ask(*asked[n % 4]).status for n in range(LIMIT + 1)]
    assert statuses[-1] == 429 and 429 not in statuses[:-1], statuses
    assert client.ask("resources/list").status == 200


def test_a_limit_may_speak_of_methods(scene: Scene) -> None:
    client = scene.client("asked")
    assert [client.ask("x/run", {"n": n}).status for n in range(3)] == [200, 200, 429]
    assert [client.ask("notifications/x/go", {}, None).status for _ in range(4)] == [202] * 4  # of another name
    assert client.ask("x/go", {}, None).status == 429  # a notification that needs a rule is a method like any other


def test_a_flood_is_bounded_and_loses_no_notification() -> None:
    with FakeUpstream() as fake, Gateway(workers=1, SENTINEL_SESSION_TRAFFIC_LIMIT="20", **SETTINGS) as gateway:
        gateway.add_upstream("fake", fake.url)
        keys = [gateway.create_key(name, "admin") for name in ("loud", "quiet")]
        time.sleep(1.0)
        loud, quiet = (gateway.client(key).initialize() for key in keys)
        since = gateway.now()
        statuses = [loud.ask("tools/list").json for _ in range(25)]
        refused = [value["error"] for value in statuses if "error" in value]
        assert len(refused) == 7 and {error["data"]["reason"] for error in refused} == {"too_much_traffic"}
        assert all(0 < error["data"]["retry_after"] <= 61 for error in refused)
        event = gateway.events(since, outcome="limited")[0]
        assert (event["status_code"], event["reason"]) == (429, "too_much_traffic")
        for name, params in NOTIFICATIONS:
            assert loud.ask(f"notifications/{name}", params, None).status == 202, name
        assert send(loud.address, ANSWERS[1], loud.headers()).status == 202
        assert loud.call("get_customer").status == 200  # a call is none of it
        assert quiet.tools()  # and others do not feel it
        assert send(loud.address, headers=loud.headers(), verb="GET").status == 429
        assert send(loud.address, headers=loud.headers(), verb="DELETE").status == 200
