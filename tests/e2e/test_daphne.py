"""The same ASGI application under Daphne and `runserver`, as far as is promised there (functional tests)."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support import clients
from tests.support.fixtures import Everything, Stage
from tests.support.gateway import Gateway
from tests.support.upstream import FakeUpstream, sse

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("daphne")]

PIPE = shlex.join([sys.executable, str(Path(__file__).resolve().parents[1] / "proxy" / "stdio_server.py")])
NOTE = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "working"}}


@pytest.fixture
def upstream(daphne_stage: Stage) -> FakeUpstream:
    daphne_stage.fake.forget()
    return daphne_stage.fake


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_calls_are_decided_and_recorded(daphne_stage: Stage, upstream: FakeUpstream, era: str) -> None:
    since = daphne_stage.gateway.now()
    statuses = [
        daphne_stage.client(role, era=era).call("get_customer", {"customer_id": 1}).status
        for role in ("admin", "readonly", None)
    ]
    assert statuses == [200, 403, 401]
    assert upstream.count("tools/call") == 1
    found = daphne_stage.gateway.events(since, 3)
    assert [event["outcome"] for event in found] == ["allowed", "denied", "unauthenticated"]


def test_a_key_in_the_address_is_refused_and_printed_nowhere(daphne_stage: Stage, upstream: FakeUpstream) -> None:
    # Daphne's own access log prints addresses, so keys do not belong there.
    answer = daphne_stage.client("admin", place="query").call("get_customer")
    assert answer.status == 401
    assert not upstream.requests


def test_streams_pass_as_they_come(daphne_stage: Stage, upstream: FakeUpstream) -> None:
    upstream.script(sse([NOTE], hold=1.5, answer={"content": []}), method="tools/call")
    begun = time.monotonic()
    with daphne_stage.client().call("public.echo", stream=True) as answer:
        answer.until(b"working")
        assert time.monotonic() - begun < 1.0
        answer.until(b'"result"')


def test_a_client_that_leaves_closes_the_exchange_upstream(daphne_stage: Stage, upstream: FakeUpstream) -> None:
    upstream.script(sse([NOTE], hold=60), method="tools/call")
    since = daphne_stage.gateway.now()
    with daphne_stage.client(era="modern").call("public.echo", stream=True) as answer:
        answer.until(b"working")
    assert upstream.seen("tools/call")[0].gone.wait(15)
    assert daphne_stage.gateway.event(since)["outcome"] == "cancelled"
    # The server is none the worse for it.
    upstream.forget()
    assert daphne_stage.client().call("get_customer").status == 200


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_a_real_client(daphne_stage: Stage, upstream: FakeUpstream, era: str) -> None:
    headers = {"Authorization": f"Bearer {daphne_stage.keys['admin'].key}"}
    steps = [{"do": "list_tools"}, {"do": "call", "name": "get_customer", "arguments": {"customer_id": "1"}}]
    url = f"{daphne_stage.gateway.url}/mcp/fake"
    outcome = clients.run(clients.PYTHON2, url, steps, era=era, headers=headers)
    tools, called = outcome["steps"]
    assert len(tools["ok"]["tools"]) == 4
    assert json.loads(called["ok"]["content"][0]["text"]) == {"customer_id": "1"}


def test_commands_and_older_servers_live_in_the_one_process(daphne_stage: Stage) -> None:
    """There is no process beside it that holds them, and none is needed."""
    gateway, key = daphne_stage.gateway, daphne_stage.keys["admin"]
    with Everything("--transport", "sse") as older:
        gateway.commands(
            ["upstreams", "add", "pipe", "--command", PIPE],
            ["upstreams", "add", "pipe-each", "--command", PIPE, "--per-session"],
            ["upstreams", "add", "older", "--url", older.url.replace("/mcp", "/sse"), "--transport", "sse"],
        )
        time.sleep(1.0)
        since = gateway.now()
        pids = {gateway.client(key, "pipe").call("x", {}, timeout=60).result["pid"] for _ in range(3)}
        assert len(pids) == 1
        sessions = [gateway.client(key, "pipe-each").initialize() for _ in range(2)]
        pids |= {session.call("x", {}).result["pid"] for session in sessions * 2}
        assert len(pids) == 3
        with sessions[0].ask("", verb="GET", headers={"Accept": "text/event-stream"}, stream=True) as stream:
            assert sessions[0].call("x", {"changed": True}).status == 200
            stream.until(b"list_changed")
        os.kill(sessions[1].call("x", {}).result["pid"], signal.SIGKILL)
        assert gateway.client(key, "pipe").call("x", {"die": True}).status == 502
        old = gateway.client(key, "older").initialize()
        assert old.call("public.echo", {"text": "hello"}).result["content"][0]["text"] == "hello"
        outcomes = [event["outcome"] for event in gateway.events(since, method="tools/call")]
        assert outcomes.count("upstream_error") == 1 and outcomes.count("allowed") == len(outcomes) - 1


def test_runserver_runs_it_too() -> None:
    with FakeUpstream() as fake, Gateway(server="runserver") as gateway:
        gateway.add_upstream("fake", fake.url)
        gateway.manage("upstreams", "add", "pipe", "--command", PIPE)
        key = gateway.create_key("any", "readonly")
        time.sleep(1.0)
        since = gateway.now()
        assert gateway.client(key).call("list_customers").status == 200
        assert gateway.event(since)["key_name"] == "any"
        admin = gateway.create_key("more", "admin")
        time.sleep(1.0)
        pid = gateway.client(admin, "pipe").call("x", {}, timeout=60).result["pid"]
        assert psutil.pid_exists(pid)
        gateway.stop()
        until = time.monotonic() + 10
        while psutil.pid_exists(pid):  # a command ends with the server that started it
            assert time.monotonic() < until
            time.sleep(0.05)
