"""A client that knows only HTTP+SSE, in front of an upstream that does not speak it, through two workers."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from proxy.mcp.sse import SseReader
from tests.support import clients
from tests.support.fixtures import Everything, Stage
from tests.support.older import Older
from tests.support.upstream import FakeUpstream, Request, event, failure, sse, status
from tests.support.wire import LEGACY, META, MODERN, request

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("stage")]


def play(stage: Stage, role: str) -> dict:
    address = f"{stage.gateway.url}/sse/everything"
    script = clients.SCRIPTS / "sse1.py"
    done = subprocess.run(
        [clients.python(clients.MCP1), script, address, stage.keys[role].key],
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_an_older_client_lists_calls_and_is_refused_in_its_stream(stage: Stage, everything: Everything) -> None:
    since = stage.gateway.now()
    # Several sessions, so that streams and posts meet on different workers.
    for _ in range(4):
        seen = play(stage, "user")
        denied = seen.pop("denied")
        assert denied.startswith("No policy rule allows this request. (audit id "), denied
        assert seen == {"tools": ["list_customers", "public.echo"], "echo": "grüß dich"}
    events = stage.gateway.events(since, 4 * 6)
    calls = [e for e in events if e["method"] == "tools/call"]
    assert sorted((e["tool_name"], e["outcome"], e["status_code"]) for e in calls) == (
        [("public.echo", "allowed", 200)] * 4 + [("test_simple_text", "denied", 403)] * 4
    )
    assert all(
        e["response_json"]["result"]["content"][0]["text"] == "grüß dich" for e in calls if e["outcome"] == "allowed"
    )


@pytest.mark.parametrize(("code", "rpc_id"), [(406, None), (400, None), (404, None), (400, "absent")])
def test_an_upstreams_error_without_an_id_is_the_answer(
    stage: Stage, fake: FakeUpstream, code: int, rpc_id: str | None
) -> None:
    """Else a client would wait for ever."""
    told = failure(rpc_id, -32000, "Not Acceptable")
    if rpc_id:
        del told["id"]
    fake.script(status(code, json.dumps(told).encode(), "application/json"), method="tools/call")
    since = stage.gateway.now()
    with Older(stage.gateway.url, "fake", stage.keys["admin"].key).begin() as session:
        answer = session.ask("tools/call", {"name": "public.echo", "arguments": {}}, "mine")
        assert answer["error"] == {"code": -32000, "message": "Not Acceptable"}
    assert stage.gateway.event(since, method="tools/call")["response_json"] == answer


@pytest.mark.parametrize(
    "silent", [b"id: 1\nretry: 50\ndata: \n\n", b"data:\n\n", b"id: 1\nevent: message\ndata: \n\n"]
)
def test_an_event_without_data_is_not_told(stage: Stage, fake: FakeUpstream, silent: bytes) -> None:
    """A client of this transport would take it for a message that it cannot read; what follows it comes all the same."""
    result = {"content": [{"type": "text", "text": "after it"}]}
    told = event({"jsonrpc": "2.0", "id": 7, "result": result})
    fake.script(sse([silent, told]), method="tools/call")
    with Older(stage.gateway.url, "fake", stage.keys["admin"].key).begin() as session:
        assert session.ask("tools/call", {"name": "public.echo", "arguments": {}}, 7)["result"] == result
        events = SseReader().feed(session.stream.received)
    assert [one.data for one in events if not one.raw.startswith(b":") and not one.data.strip()] == []


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json", "*/*"])
def test_the_upstream_is_spoken_to_by_its_own_transport(stage: Stage, fake: FakeUpstream, accept: str) -> None:
    """With both forms of an answer, the session, and the version that was agreed on, whatever the client sends."""
    with Older(stage.gateway.url, "fake", stage.keys["admin"].key) as session:
        session.headers["Accept"] = accept
        session.begin()
        assert session.ask("tools/list")["result"]["tools"]
    (listening,) = [request for request in fake.requests if request.verb == "GET"]
    known = listening.header("mcp-session-id")
    assert known is not None

    def of_client(verb: str, method: str = "") -> list[Request]:
        """Its requests; the gateway, which saw a list that it had not read, reads it in a session of its own."""
        found = fake.seen(method) if method else fake.requests
        return [one for one in found if one.verb == verb and one.header("mcp-session-id") == known]

    until = time.monotonic() + 10
    while not of_client("DELETE"):
        assert time.monotonic() < until
        time.sleep(0.05)
    (listing,) = of_client("POST", "tools/list")
    (delete,) = of_client("DELETE")
    assert listing.header("accept") == "application/json, text/event-stream"
    assert listening.header("accept") == "text/event-stream"
    assert {request.header("mcp-protocol-version") for request in (listing, listening, delete)} == {LEGACY}


def test_modern_messages_are_refused_in_words(stage: Stage, fake: FakeUpstream) -> None:
    with Older(stage.gateway.url, "fake", stage.keys["admin"].key) as session:
        modern = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/list"}
        assert session.post(request("tools/list", {"_meta": META}, 1), modern).status == 202
        refused = session.answer(1)["error"]
        assert (refused["code"], refused["data"]["reason"]) == (-32022, "unsupported_version")
        assert not fake.count("tools/list")


def test_another_key_cannot_post_into_a_stream(stage: Stage, everything: Everything) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", stage.gateway.port, timeout=20)
    connection.request("GET", "/sse/everything", headers={"Authorization": f"Bearer {stage.keys['admin'].key}"})
    stream = connection.getresponse()
    assert stream.status == 200
    assert stream.readline() == b"event: endpoint\n"
    address = stream.readline().decode().removeprefix("data: ").strip()
    assert address.startswith("/messages/everything?session_id=")
    body = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
    for role, code in (("user", 404), ("admin", 202)):
        post = http.client.HTTPConnection("127.0.0.1", stage.gateway.port, timeout=20)
        headers = {"Authorization": f"Bearer {stage.keys[role].key}", "Content-Type": "application/json"}
        post.request("POST", address, body, headers)
        assert post.getresponse().status == code
        post.close()
    connection.close()
