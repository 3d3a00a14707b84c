"""Tasks are ruled by the call that made them: whose they are, what they show, and what becomes of them."""

from __future__ import annotations

import asyncio
import http.client
import json
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support import clients
from tests.support.fixtures import SETTINGS
from tests.support.gateway import Gateway, Key
from tests.support.upstream import Exchange, FakeUpstream, event, failure
from tests.support.wire import Client, Response, encoded, send

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("tasks")]

POLICY = """\
roles:
  narrow: {allow: [get_customer]}
  admin: {allow: ["*"]}
  changing: {allow: [get_customer, delete_customer, public.echo]}
  asked: {allow: [get_customer, forever, "method:elicitation/create"]}
  strict: {allow: ["*"], deny: ["method:tasks/cancel", "method:tasks/list"]}
rate_limits:
  limits:
    - {name: calls of narrow, role: changing, per: [key], requests: 8, window_seconds: 3600}
audit:
  - {level: digest, tool: list_customers}
"""
NARROWED = POLICY.replace("[get_customer, delete_customer, public.echo]", "[get_customer, public.echo]")
KEYS = {"narrow": 3, "admin": 2, "changing": 1, "strict": 1, "asked": 1}
SECRET = "ghp_" + "abcdEFGH1234567890abcdEFGH1234567890"


@dataclass
class Tasks:
    """What a server keeps of tasks: for all its callers in one place, as one does that knows the gateway alone."""

    fake: FakeUpstream
    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    streams: bool = False

    async def call(self, exchange: Exchange) -> None:
        request = exchange.request
        if not request.modern and "task" not in request.params:
            return await exchange.result({"content": [], "task": {"taskId": "unasked", "ttl": 1000}})
        name = secrets.token_hex(8)
        task = {"taskId": name, "status": "working", "createdAt": "x", "lastUpdatedAt": "x", "ttl": 60_000}
        self.known[name] = task
        result = {"resultType": "task", **task} if request.modern else {"task": task}
        if not self.streams:
            return await exchange.result(result)
        await exchange.head(200, [("Content-Type", "text/event-stream")])
        await exchange.chunk(b"id: up-1\nretry: 100\ndata:\n\n")
        exchange.upstream.script(self.late(request.id, result), verb="GET", times=1)
        return await exchange.end()

    @staticmethod
    def late(rpc_id: Any, result: dict[str, Any]) -> Any:
        async def behave(exchange: Exchange) -> None:
            await exchange.head(200, [("Content-Type", "text/event-stream")])
            await exchange.chunk(event({"jsonrpc": "2.0", "id": rpc_id, "result": result}))
            await exchange.end()

        return behave

    async def ask(self, exchange: Exchange) -> None:
        request = exchange.request
        more = {"resultType": "complete"} if request.modern else {}
        if request.method == "tasks/list":
            return await exchange.result({"tasks": list(self.known.values()), "nextCursor": "2"})
        task = self.known.get(request.params["taskId"])
        if task is None:
            return await exchange.json(failure(request.id, -32602, "no such task"))
        if request.method == "tasks/result":
            return await exchange.result({"content": [{"type": "text", "text": f"token={SECRET}"}]})
        return await exchange.result(task | more)

    def serve(self) -> None:
        self.fake.script(self.call, method="tools/call")
        for method in ("get", "result", "cancel", "update", "list"):
            self.fake.script(self.ask, method=f"tasks/{method}")


@dataclass
class Scene:
    gateway: Gateway
    fake: FakeUpstream
    keys: dict[str, list[Key]]

    def client(self, role: str, number: int = 0, upstream: str = "fake", **options: Any) -> Client:
        return self.gateway.client(self.keys[role][number], upstream, **options)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with FakeUpstream() as fake, Gateway(workers=3, SENTINEL_RESUME_WAIT="3s", **SETTINGS) as gateway:
        policy = gateway.home / "policy.yaml"
        policy.write_text(POLICY)
        named = [(role, f"{role}-{n}") for role, count in KEYS.items() for n in range(count)]
        _, _, _, _, *printed = gateway.commands(
            ["upstreams", "add", "fake", "--url", fake.url, "--dispatcher", "public.echo=name"],
            ["upstreams", "add", "other", "--url", fake.url],
            ["upstreams", "add", "older", "--url", fake.url, "--transport", "sse"],
            ["policy", "apply", str(policy)],
            *(["keys", "create", name, "--role", role, "--json"] for role, name in named),
        )
        keys: dict[str, list[Key]] = {role: [] for role in KEYS}
        for (role, name), told in zip(named, map(json.loads, printed), strict=True):
            keys[role].append(Key(told["id"], told["key"], name))
        time.sleep(1.0)
        yield Scene(gateway, fake, keys)


@pytest.fixture
def tasks(scene: Scene) -> Tasks:
    scene.fake.forget()
    made = Tasks(scene.fake)
    made.serve()
    return made


def begin(client: Client, tool: str = "get_customer", arguments: Any = None) -> str:
    """Make a task; its id."""
    more = {} if client.era == "modern" else {"task": {"ttl": 60_000}}
    result = client.ask("tools/call", {"name": tool, "arguments": arguments or {}, **more}).result
    return str(result["taskId"] if client.era == "modern" else result["task"]["taskId"])


def ask(client: Client, what: str, task: str) -> Response:
    """Ask for a task."""
    headers = {"Mcp-Name": encoded(task)} if client.era == "modern" else {}
    answer = client.ask(f"tasks/{what}", {"taskId": task}, headers=headers)
    assert isinstance(answer, Response)
    return answer


def unknown(answer: Response) -> bool:
    """Whether it says that there is no such task."""
    error = answer.error
    return (error["code"], error["data"]["reason"], error["message"][:22]) == (
        -32602,
        "unknown_task",
        "There is no such task.",
    )


class Older:
    """A client of the older transport."""

    def __init__(self, gateway: Gateway, upstream: str, key: str) -> None:
        self.port, self.fields = gateway.port, {"Authorization": f"Bearer {key}"}
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        self.connection.request("GET", f"/sse/{upstream}", headers=self.fields)
        self.stream = self.connection.getresponse()
        assert self.stream.readline() == b"event: endpoint\n"
        self.address = self.stream.readline().decode().removeprefix("data: ").strip()

    def post(self, method: str, params: dict[str, Any], rpc_id: int) -> None:
        """Post a message."""
        body = {"jsonrpc": "2.0", "id": rpc_id, "method": method, "params": params}
        self.answer = send(f"http://127.0.0.1:{self.port}{self.address}", body, self.fields)

    def ask(self, method: str, params: dict[str, Any], rpc_id: int) -> dict[str, Any]:
        """Post a message and read its answer from the stream."""
        self.post(method, params, rpc_id)
        assert self.answer.status == 202, self.answer.body
        while line := self.stream.readline():
            if line.startswith(b"data: {"):
                return dict(json.loads(line[6:]))
        raise AssertionError("the stream has ended")

    def refused(self) -> int:
        """Give the code of a refusal, which is the answer of the post, or comes on the stream."""
        if self.answer.status != 202:
            return int(self.answer.error["code"])
        while not (line := self.stream.readline()).startswith(b"data: {"):
            assert line
        return int(json.loads(line[6:])["error"]["code"])

    def close(self) -> None:
        """Close the stream."""
        self.connection.close()


WAYS = [("legacy", ("get", "result", "cancel")), ("modern", ("get", "update", "cancel"))]


@pytest.mark.parametrize(("era", "ways"), WAYS)
def test_whoever_made_a_task_may_ask_for_it_and_nobody_else(
    scene: Scene, tasks: Tasks, era: str, ways: tuple[str, ...]
) -> None:
    task = begin(scene.client("narrow", era=era))
    for what in ways:
        for _ in range(4):  # whichever worker
            assert "result" in ask(scene.client("narrow", era=era), what, task).json, what
    seen = len(scene.fake.requests)
    others = [
        scene.client("narrow", 1, era=era),
        scene.client("admin", era=era),
        scene.client("narrow", upstream="other", era=era),
    ]
    for client in others:
        for what in ways:
            answer = ask(client, what, task)
            assert answer.status == 404 and unknown(answer), what
    for name in (task + "x", task[:-1], task.upper() + ".", " " + task, "../" + task, "x" * 5_000, "é☃"):
        assert unknown(ask(scene.client("narrow", era=era), ways[0], name)), name
    assert len(scene.fake.requests) == seen


def test_in_a_session_it_is_no_404(scene: Scene, tasks: Tasks) -> None:
    """A 404 would tell the client that its session is over."""
    since = scene.gateway.now()
    mine, other = scene.client("narrow").initialize(), scene.client("narrow", 1).initialize()
    task = begin(mine)
    answer = ask(other, "get", task)
    assert answer.status == 200 and unknown(answer)
    assert other.ask("ping").result == {}
    assert scene.gateway.event(since, method="tasks/get")["status_code"] == 404
    assert "result" in ask(scene.client("narrow"), "result", task).json  # of the same key, in no session


def test_what_names_no_task(scene: Scene, tasks: Tasks) -> None:
    client = scene.client("admin")
    for params in ({}, {"taskId": 1}, {"taskId": ""}, {"taskId": None}, {"taskId": ["a"]}, {"TaskId": "a"}):
        for what in ("get", "result", "cancel"):
            assert client.ask(f"tasks/{what}", params).status == 400, params
    assert client.ask("tasks/cancel", {"taskId": "a"}, None).status == 400  # it takes an id
    assert not scene.fake.requests


def test_a_list_shows_ones_own(scene: Scene, tasks: Tasks) -> None:
    mine, other = scene.client("narrow", 2), scene.client("admin", 1)
    own = {begin(mine) for _ in range(3)}
    theirs = {begin(other, "delete_customer") for _ in range(2)}
    result = mine.ask("tasks/list").result
    assert {task["taskId"] for task in result["tasks"]} == own and result["nextCursor"] == "2"
    assert {task["taskId"] for task in other.ask("tasks/list").result["tasks"]} == theirs
    assert scene.client("narrow", 2, upstream="other").ask("tasks/list").result["tasks"] == []

    async def odd(exchange: Exchange) -> None:
        await exchange.result(
            {"tasks": [{"taskid": theirs.pop()}, {"taskId": next(iter(own)), "TaskId": "x"}, "x", None]}
        )

    scene.fake.script(odd, method="tasks/list", times=1)
    assert mine.ask("tasks/list").result["tasks"] == []


def test_the_event_names_the_tool_and_keeps_no_secret(scene: Scene, tasks: Tasks) -> None:
    client = scene.client("narrow")
    task = begin(client)
    since = scene.gateway.now()
    assert SECRET in ask(client, "result", task).body.decode()
    told = scene.gateway.event(since, method="tasks/result")
    assert (told["tool_name"], told["target_kind"], told["outcome"]) == ("get_customer", "tool", "allowed")
    assert told["decision"]["rule"] and told["decision"]["reason"] == "allowed_by_rule"
    assert SECRET not in json.dumps(told) and "[REDACTED:" in json.dumps(told["response_json"])
    # the tool's audit level is that of its tasks
    kept = begin(scene.client("admin"), "list_customers")
    since = scene.gateway.now()
    ask(scene.client("admin"), "result", kept)
    told = scene.gateway.event(since, method="tasks/result")
    assert "content" not in json.dumps(told["response_json"])


def test_a_rule_denies_by_name(scene: Scene, tasks: Tasks) -> None:
    client = scene.client("strict")
    task = begin(client)
    assert "result" in ask(client, "get", task).json
    assert ask(client, "cancel", task).error["data"]["reason"] == "denied_by_rule"
    assert client.ask("tasks/list").error["data"]["reason"] == "denied_by_rule"
    assert not scene.fake.count("tasks/cancel") + scene.fake.count("tasks/list")


def test_a_task_that_nobody_asked_for_is_nobodys(scene: Scene, tasks: Tasks) -> None:
    client = scene.client("admin")
    assert client.call("get_customer").result["task"]["taskId"] == "unasked"
    assert unknown(ask(client, "get", "unasked"))


def test_a_tool_s_name_fills_no_disk(scene: Scene, tasks: Tasks) -> None:
    client = scene.client("admin")
    for number in range(8):
        client.ask("tools/call", {"name": f"{number}{'é' * 300_000}", "arguments": {}, "task": {"ttl": 60_000}})
    assert len(tasks.known) == 8
    kept = [place.stat().st_size for place in (scene.gateway.var / "tasks").rglob("*") if place.is_file()]
    assert max(kept, default=0) <= 16 * 1024
    for task in tasks.known:
        assert unknown(ask(client, "get", task))
    tasks.known.clear()
    task = begin(client)
    assert "result" in ask(client, "get", task).json


def test_an_answer_on_another_stream(scene: Scene, tasks: Tasks) -> None:
    tasks.streams = True
    client = scene.client("narrow").initialize()
    first = client.ask("tools/call", {"name": "get_customer", "task": {}}, 7)
    (sealed,) = [line[4:] for line in first.body.decode().splitlines() if line.startswith("id: ")]
    second = send(client.address, headers=client.headers() | {"Last-Event-ID": sealed}, verb="GET")
    task = second.result["task"]["taskId"]
    assert "result" in ask(client, "result", task).json
    assert unknown(ask(scene.client("narrow", 1), "result", task))


@pytest.mark.parametrize("upstream", ["older", "fake"])
def test_over_the_older_transport(scene: Scene, tasks: Tasks, upstream: str) -> None:
    """In front of a server that speaks it, and of one that does not."""
    outbox: list[bytes] = []

    async def stream(exchange: Exchange) -> None:
        await exchange.head(200, [("Content-Type", "text/event-stream")])
        await exchange.chunk(b"event: endpoint\ndata: /messages/1\n\n")
        while True:
            while outbox:
                await exchange.chunk(outbox.pop(0))
            await asyncio.sleep(0.01)

    async def posted(exchange: Exchange) -> None:
        request = exchange.request
        answer: Any = {"tasks": [*tasks.known.values()]}
        if request.method == "tools/call":
            tasks.known[f"old-{request.id}"] = {"taskId": f"old-{request.id}", "ttl": None}
            answer = {"task": tasks.known[f"old-{request.id}"]}
        elif request.method != "tasks/list":
            answer = tasks.known[request.params["taskId"]]
        outbox.append(event({"jsonrpc": "2.0", "id": request.id, "result": answer}))
        await exchange.answer(202)

    if upstream == "older":
        scene.fake.script(stream, verb="GET")
        for method in ("tools/call", "tasks/get", "tasks/list"):
            scene.fake.script(posted, method=method)
    tasks.known["another's"] = {"taskId": "another's"}
    mine = Older(scene.gateway, upstream, scene.keys["narrow"][0].key)
    answer = mine.ask("tools/call", {"name": "get_customer", "task": {}}, 7)
    task = answer["result"]["task"]["taskId"]
    assert mine.ask("tasks/get", {"taskId": task}, 8)["result"]["taskId"] == task
    listed = mine.ask("tasks/list", {}, 9)["result"]["tasks"]
    assert task in [t["taskId"] for t in listed] and "another's" not in [t["taskId"] for t in listed]
    before = scene.fake.count("tasks/get")
    other = Older(scene.gateway, upstream, scene.keys["narrow"][1].key)
    other.post("tasks/get", {"taskId": task}, 8)
    assert other.refused() == -32602
    assert scene.fake.count("tasks/get") == before
    mine.close()
    other.close()


def test_updates_of_tasks_are_listened_for_by_their_maker(scene: Scene, tasks: Tasks) -> None:
    client = scene.client("narrow", era="modern")
    task = begin(client)

    async def listened(exchange: Exchange) -> None:
        await exchange.result({"resultType": "complete"})

    scene.fake.script(listened, method="subscriptions/listen")

    def listen(who: Client, *names: Any) -> Response:
        answer = who.ask("subscriptions/listen", {"notifications": {"taskIds": list(names)}})
        assert isinstance(answer, Response)
        return answer

    assert listen(client, task).status == 200 and listen(client).status == 200
    assert listen(client, 1).status == listen(client, "").status == listen(client, *"x" * 1001).status == 400
    assert unknown(listen(client, task, "other"))
    for other in (scene.client("narrow", 1, era="modern"), scene.client("admin", era="modern")):
        assert unknown(listen(other, task))


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_what_a_server_tells_everybody_of_a_task_reaches_its_maker(scene: Scene, tasks: Tasks, era: str) -> None:
    mine, other, admin = (scene.client(role, n, era=era) for role, n in (("narrow", 0), ("narrow", 1), ("admin", 0)))
    task = begin(mine)
    method = "notifications/tasks/status" if era == "legacy" else "notifications/tasks"

    def told(*params: Any) -> bytes:
        return b"".join(event({"jsonrpc": "2.0", "method": method, "params": one}) for one in params)

    async def stream(exchange: Exchange) -> None:
        await exchange.head(200, [("Content-Type", "text/event-stream")])
        about = {"taskId": task, "status": "completed", "result": {"content": []}}
        await exchange.chunk(told(about, {"taskId": "another's"}, {"taskId": [task]}, {"task": about}, {}))
        await exchange.chunk(
            event({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}})
        )
        if exchange.request.id is not None:
            await exchange.chunk(
                event({"jsonrpc": "2.0", "id": exchange.request.id, "result": {"resultType": "complete"}})
            )
        await exchange.end()

    def heard(client: Client) -> list[Any]:
        since = scene.gateway.now()
        if era == "legacy":
            scene.fake.script(stream, verb="GET", times=1)
            answer = send(client.address, headers=client.headers(), verb="GET")
        else:
            scene.fake.script(stream, method="subscriptions/listen", times=1)
            found = client.ask("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
            assert isinstance(found, Response)
            answer = found
        said = [json.loads(line[6:]) for line in answer.body.decode().splitlines() if line.startswith("data: {")]
        assert any(one.get("method") == "notifications/message" for one in said), answer.body
        names = [one["params"].get("taskId") for one in said if one.get("method") == method]
        about = scene.gateway.event(since)["details"]["stream"]
        assert about.get("withheld", 0) == 5 - len(names)
        return names

    if era == "legacy":
        for client in (mine, other, admin):
            client.initialize()
    assert heard(mine) == [task]
    assert heard(other) == heard(admin) == []


def test_what_a_call_s_own_stream_says_of_its_task_passes(scene: Scene, tasks: Tasks) -> None:
    client = scene.client("narrow")

    async def stream(exchange: Exchange) -> None:
        await exchange.head(200, [("Content-Type", "text/event-stream")])
        for task in ("early", "late"):
            about = {"taskId": task, "status": "working"}
            if task == "late":
                result = {"task": {"taskId": "early", "ttl": 1}}
                await exchange.chunk(event({"jsonrpc": "2.0", "id": exchange.request.id, "result": result}))
            await exchange.chunk(event({"jsonrpc": "2.0", "method": "notifications/tasks/status", "params": about}))
        await exchange.end()

    scene.fake.script(stream, method="tools/call", times=1)
    answer = client.ask("tools/call", {"name": "get_customer", "arguments": {}, "task": {}})
    assert b'"status":"working"' in answer.body.replace(b" ", b"") and b"late" not in answer.body


def test_calls_count_and_asking_does_not(scene: Scene, tasks: Tasks) -> None:
    client = scene.client("changing").initialize()
    task = begin(client)
    assert all("result" in ask(client, what, task).json for what in ("get", "result") * 10)
    inner = begin(client, "public.echo", {"name": "delete_customer"})
    deleting = begin(client, "delete_customer")
    assert all("result" in ask(client, "get", name).json for name in (task, inner, deleting))
    assert {t["taskId"] for t in client.ask("tasks/list").result["tasks"]} == {task, inner, deleting}
    # The role loses a tool, and with it the tasks of that tool, the ones behind another tool included; over a restart.
    scene.gateway.apply_policy(NARROWED)
    try:
        for name in (inner, deleting):
            answer = ask(client, "result", name)
            assert answer.error["data"]["reason"] == "no_rule", answer.body
        assert {t["taskId"] for t in client.ask("tasks/list").result["tasks"]} == {task}
        scene.gateway.restart()
        assert "result" in ask(scene.client("changing"), "get", task).json
        assert ask(scene.client("changing"), "get", deleting).error["data"]["reason"] == "no_rule"
    finally:
        scene.gateway.apply_policy(POLICY)
    assert "result" in ask(scene.client("changing"), "get", deleting).json
    replayed = scene.gateway.manage(
        "policy", "replay", str(scene.gateway.home / "policy.yaml"), "--since", "1h", "--json"
    )
    assert json.loads(replayed.stdout)["changed"] == 0


def listening(port: int) -> bool:
    """Whether anybody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_client_and_a_server_of_the_python_sdk(scene: Scene) -> None:
    python, script, port = clients.python(clients.MCP1), clients.SCRIPTS / "tasks1.py", clients.free_port()
    server = subprocess.Popen([python, script, "serve", str(port)])
    try:
        scene.gateway.add_upstream("sdk", f"http://127.0.0.1:{port}/mcp/")
        until = time.monotonic() + 30 * clients.PATIENCE
        while not listening(port):
            assert time.monotonic() < until, "the server did not start"
            time.sleep(0.1)
        time.sleep(1.0)
        since = scene.gateway.now()
        mine, other = scene.keys["asked"][0].key, scene.keys["admin"][0].key
        done = subprocess.run(
            [python, script, "play", f"{scene.gateway.url}/mcp/sdk", mine, other],
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert json.loads(done.stdout) == {
            "tools": ["get_customer", "forever"],
            "status": True,
            "result": "accept",
            "stranger": -32602,
            "strangers list": [],
            "list": True,
            "cancelled": "cancelled",
        }
        events = scene.gateway.events(since, 2, method="tasks/result")
        assert sorted((e["outcome"], e["tool_name"]) for e in events) == [
            ("allowed", "get_customer"),
            ("invalid", None),
        ]
    finally:
        server.terminate()
        server.wait(10)
