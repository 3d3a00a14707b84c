"""A client that knows only HTTP+SSE, in front of an upstream that does not speak it, through two workers."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.support import clients
from tests.support.fixtures import Everything, Stage

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
    for role, status in (("user", 404), ("admin", 202)):
        post = http.client.HTTPConnection("127.0.0.1", stage.gateway.port, timeout=20)
        headers = {"Authorization": f"Bearer {stage.keys[role].key}", "Content-Type": "application/json"}
        post.request("POST", address, body, headers)
        assert post.getresponse().status == status
        post.close()
    connection.close()
