"""What holds on every road through the gateway: the same promises, whatever the client and the upstream speak.

A road is a front (how the client speaks) and an upstream's transport; each promise is one test over all of them, and a cell
of the table in docs/protocol.md.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support import clients
from tests.support.fixtures import EVERYTHING, Everything
from tests.support.gateway import Gateway, Key
from tests.support.older import Older
from tests.support.wire import request

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("roads")]

#: the upstreams: what a name says of how one is reached
UPSTREAMS = ("http", "http-json", "sse", "stdio", "stdio-each")
FRONTS = {"sse": Older}
ROADS = [(front, upstream) for front in FRONTS for upstream in UPSTREAMS]
POLICY = """
roles:
  admin: {allow: ["*"]}
  hasty: {allow: ["*"], deny: ["delete_*"]}
rate_limits:
  per_tool:
    overrides:
      whoami: {requests: 1, window_seconds: 3600}
"""


@dataclass
class Place:
    """The gateway and what is behind it."""

    gateway: Gateway
    keys: dict[str, Key]

    def open(self, road: tuple[str, str], name: str = "admin") -> Any:
        """Open a session on a road."""
        front, upstream = road
        return FRONTS[front](self.gateway.url, upstream, self.keys[name].key).begin()

    def key(self, name: str, role: str = "admin") -> Key:
        """Make a key of its own for a test that takes it away."""
        self.keys[name] = self.gateway.create_key(name, role)
        time.sleep(1)
        return self.keys[name]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    real = shlex.join([str(clients.python()), str(EVERYTHING), "--transport", "stdio"])
    with (
        Everything() as http,
        Everything("--json") as plain,
        Everything("--transport", "sse") as sse,
        Gateway(workers=2, SENTINEL_CATALOGUE_REFRESH="0", SENTINEL_KEEPALIVE_INTERVAL="1s") as gateway,
    ):
        policy = gateway.home / "policy.yaml"
        policy.write_text(POLICY)
        *_, admin, hasty = gateway.commands(
            ["upstreams", "add", "http", "--url", http.url],
            ["upstreams", "add", "http-json", "--url", plain.url],
            ["upstreams", "add", "sse", "--url", sse.url.replace("/mcp", "/sse"), "--transport", "sse"],
            ["upstreams", "add", "stdio", "--command", real],
            ["upstreams", "add", "stdio-each", "--command", real, "--per-session"],
            ["policy", "apply", str(policy)],
            ["keys", "create", "admin", "--role", "admin", "--json"],
            ["keys", "create", "hasty", "--role", "hasty", "--json"],
        )
        keys = {name: Key(told["id"], told["key"], name) for name, told in _told(admin=admin, hasty=hasty)}
        time.sleep(1.0)
        yield Place(gateway, keys)


def _told(**made: str) -> list[tuple[str, Any]]:
    return [(name, json.loads(text)) for name, text in made.items()]


def call(tool: str, rpc_id: Any, **arguments: Any) -> dict[str, Any]:
    return request("tools/call", {"name": tool, "arguments": arguments}, rpc_id)


def reason_of(told: Any) -> str:
    """The reason of a refusal, as an error or as the result of a tool that failed."""
    data = told["error"]["data"] if "error" in told else next(iter(told["result"]["_meta"].values()))
    return str(data["reason"])


every_road = pytest.mark.parametrize("road", ROADS, ids=["-".join(road) for road in ROADS])


@every_road
def test_the_outcome_is_recorded_before_the_answer(place: Place, road: tuple[str, str]) -> None:
    """The call's own event has status, time and answer, and there is one."""
    since = place.gateway.now()
    with place.open(road) as session:
        assert session.ask("tools/call", {"name": "slow", "arguments": {"seconds": 0.5}}, 7)["result"]["content"]
    event = place.gateway.event(since, method="tools/call")
    assert (event["outcome"], event["status_code"], event["rpc_id"]) == ("allowed", 200, "7")
    assert event["latency_ms"] > 500
    assert event["response_json"]["result"]["content"][0]["text"] == "slow and done"


@every_road
def test_a_cancel_is_cancelled_at_once(place: Place, road: tuple[str, str]) -> None:
    since = place.gateway.now()
    with place.open(road) as session:
        assert session.post(call("slow", "long", seconds=60)).status == 202
        time.sleep(1)
        began = time.monotonic()
        cancel = request("notifications/cancelled", {"requestId": "long"}, None)
        assert session.post(cancel).status == 202
        event = place.gateway.event(since, method="tools/call")
        assert time.monotonic() - began < 5 * clients.PATIENCE
        assert (event["outcome"], event["reason"], event["status_code"]) == ("cancelled", "cancelled", 499)
        assert session.ask("tools/call", {"name": "public.echo", "arguments": {"text": "on"}})["result"]
        assert not [one for one in session.told if one.get("id") == "long"]
    note = place.gateway.event(since, method="notifications/cancelled")
    assert note["outcome"] == "allowed"


@every_road
def test_a_refusal_reaches_the_client(place: Place, road: tuple[str, str]) -> None:
    """Of what is not allowed, limited, unknown and malformed, under the request's own id; and the session goes on."""
    since = place.gateway.now()
    with place.open(road, "hasty") as session:
        for rpc_id, body, status, reason in (
            (1, call("delete_customer", 1), 403, "denied_by_rule"),
            (2, {**call("public.echo", 2), "ID": 3}, 400, "reserved_member"),
            ("three", request("tools/call", {"name": 5}, "three"), 400, "invalid_params"),
        ):
            assert session.post(body).status == 202
            assert reason_of(session.answer(rpc_id)) == reason
            event = place.gateway.events(since, 1, rpc_id=json.dumps(rpc_id))[0]
            assert (event["status_code"], event["reason"]) == (status, reason)
        missing = session.ask("tools/call", {"name": "no_such_tool", "arguments": {}}, 4)
        assert missing["error"]["code"] == -32602
        session.ask("tools/call", {"name": "whoami", "arguments": {}}, 5)
        limited = session.ask("tools/call", {"name": "whoami", "arguments": {}}, 6)
        assert reason_of(limited) == "rate_limited"
        assert session.ask("ping")["result"] == {}


@every_road
def test_what_belongs_to_no_request_arrives(place: Place, road: tuple[str, str]) -> None:
    with place.open(road) as session:
        session.ask("tools/call", {"name": "test_unsolicited", "arguments": {}})
        session.wait(lambda one: one.get("method") == "notifications/tools/list_changed")
        if road[1] != "stdio":  # a log line of a shared process may be about another client
            session.wait(lambda one: one.get("params", {}).get("data") == "unsolicited")


@every_road
def test_progress_arrives_before_its_answer(place: Place, road: tuple[str, str]) -> None:
    with place.open(road) as session:
        params = {"name": "test_tool_with_progress", "arguments": {}, "_meta": {"progressToken": "p-1"}}
        session.ask("tools/call", params, 9)
        seen = [one["params"]["progress"] if "method" in one else "answer" for one in session.told
                if one.get("params", {}).get("progressToken") == "p-1" or one.get("id") == 9]  # fmt: skip
        if road[1] == "http-json":  # such a server has no stream for it
            seen = [0, 50, 100, *seen]
        assert seen == [0, 50, 100, "answer"]


@every_road
def test_the_server_asks_its_client(place: Place, road: tuple[str, str]) -> None:
    if road[1] in ("stdio", "http-json"):
        pytest.skip("a shared process has no client to ask, nor has a server that answers in JSON alone")
    front, upstream = road
    since = place.gateway.now()
    with FRONTS[front](place.gateway.url, upstream, place.keys["admin"].key).begin({"elicitation": {}}) as session:
        session.post(call("test_elicitation", 3, message="who?"))
        asked = session.wait(lambda one: one.get("method") == "elicitation/create")
        answer = {"action": "accept", "content": {"username": "Ada", "email": "a@example.org"}}
        assert session.post({"jsonrpc": "2.0", "id": asked["id"], "result": answer}).status == 202
        assert "Ada" in session.answer(3)["result"]["content"][0]["text"]
    assert place.gateway.event(since, method="tools/call")["outcome"] == "allowed"


@every_road
def test_a_call_whose_stream_ends_early_is_resumed(place: Place, road: tuple[str, str]) -> None:
    """A server that ends the call's stream and keeps the answer for another: that is fetched, and recorded in the call."""
    since = place.gateway.now()
    with place.open(road) as session:
        told = session.ask("tools/call", {"name": "test_reconnection", "arguments": {}}, 5)
    assert told["result"]["content"][0]["text"] == "Reconnection test completed"
    event = place.gateway.event(since, method="tools/call")
    assert (event["outcome"], event["response_json"]["result"]) == ("allowed", told["result"])
    assert b"\nid:" not in session.stream.received


@every_road
def test_an_id_is_used_once_at_a_time(place: Place, road: tuple[str, str]) -> None:
    since = place.gateway.now()
    with place.open(road) as session:
        assert session.post(call("slow", 8, seconds=2)).status == 202
        for again in (8, "8"):  # some clients take these for one
            second = session.post(call("public.echo", again, text="second"))
            assert (second.status, second.error["code"], second.error["data"]["reason"]) == (
                400,
                -32600,
                "id_in_use",
            )
        assert session.answer(8)["result"]["content"][0]["text"] == "slow and done"
        assert session.ask("tools/call", {"name": "public.echo", "arguments": {"text": "third"}}, 8)
    events = place.gateway.events(since, 4, method="tools/call")
    assert sorted(event["reason"] for event in events if event["outcome"] == "invalid") == ["id_in_use"] * 2


@every_road
def test_a_revoked_key_has_its_last_word(place: Place, road: tuple[str, str]) -> None:
    name = f"revoked-{'-'.join(road)}"
    key = place.key(name)
    since = place.gateway.now()
    with place.open(road, name) as session:
        assert session.post(call("slow", 11, seconds=60)).status == 202
        time.sleep(1)
        place.gateway.revoke_key(key)
        assert session.ended.wait(6 * clients.PATIENCE)
        told = session.answer(11, 0.1) if session.told else None
        assert told is not None and reason_of(told) == "invalid_credential"
    event = place.gateway.event(since, method="tools/call")
    assert (event["outcome"], event["reason"]) == ("cancelled", "revoked_during_stream")


@every_road
def test_a_client_that_leaves_ends_its_calls(place: Place, road: tuple[str, str]) -> None:
    since = place.gateway.now()
    session = place.open(road)
    assert session.post(call("slow", 12, seconds=60)).status == 202
    time.sleep(1)
    session.close()
    event = place.gateway.event(since, method="tools/call")
    assert (event["outcome"], event["reason"]) == ("cancelled", "client_gone")


@pytest.mark.parametrize("kind", [clients.PYTHON1, clients.TYPESCRIPT1], ids=lambda kind: kind.name)
@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_real_clients_of_the_older_transport(place: Place, kind: clients.Kind, upstream: str) -> None:
    """They list, call, hear of progress, are asked, and go on after a refusal."""
    since = place.gateway.now()
    steps: list[clients.Step] = [
        {"do": "list_tools"},
        {"do": "call", "name": "public.echo", "arguments": {"text": "grüß dich"}},
        {"do": "call", "name": "test_tool_with_progress", "arguments": {}, "progress": True},
        {"do": "call", "name": "delete_customer", "arguments": {"customer_id": "1"}},
        {"do": "call", "name": "public.echo", "arguments": {"text": "again"}},
    ]
    asked = kind is clients.PYTHON1 and upstream not in ("stdio", "http-json")
    if asked:
        steps.append({"do": "call", "name": "test_elicitation", "arguments": {"message": "who?"}})
    headers = {"Authorization": f"Bearer {place.keys['hasty'].key}"}
    got = clients.run(kind, f"{place.gateway.url}/sse/{upstream}", steps, era="legacy", headers=headers)
    assert "failed" not in got, got
    tools, echo, progress, denied, again, *more = got["steps"]
    names = {tool["name"] for tool in tools["ok"]["tools"]}
    assert "public.echo" in names and "delete_customer" not in names
    assert echo["ok"]["content"][0]["text"] == "grüß dich"
    assert progress["ok"]["progress"] == ([] if upstream == "http-json" else [0, 50, 100])
    assert "error" in denied or denied["ok"]["isError"]
    assert again["ok"]["content"][0]["text"] == "again"
    assert all("ada" in one["ok"]["content"][0]["text"] for one in more)
    events = place.gateway.events(since, len(steps) - 1, method="tools/call")
    assert [event["outcome"] for event in events] == ["allowed", "allowed", "denied", "allowed", *["allowed"] * asked]
    assert all(event["response_json"] for event in events if event["outcome"] == "allowed")


def test_a_stop_has_its_last_word(place: Place) -> None:
    """Last: the gateway is stopped under calls on every road, and each is told under its own id."""
    since = place.gateway.now()
    sessions = {road: place.open(road) for road in ROADS}
    for road, session in sessions.items():
        assert session.post(call("slow", f"stop-{road[1]}", seconds=60)).status == 202
    time.sleep(1)
    place.gateway.stop()
    for road, session in sessions.items():
        assert session.ended.wait(10)
        told = [one for one in session.told if one.get("id") == f"stop-{road[1]}"]
        assert [reason_of(one) for one in told] == ["server_stopping"], (road, session.told)
        session.close()
    place.gateway.start()
    events = place.gateway.events(since, len(ROADS), method="tools/call")
    assert {(one["outcome"], one["reason"], one["status_code"]) for one in events} == {
        ("interrupted", "server_stopping", 503)
    }
    assert len(events) == len(ROADS)
