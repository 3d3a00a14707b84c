"""A real SDK server over stdio and over HTTP+SSE, behind the gateway, with real SDK clients in front of it."""

from __future__ import annotations

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.conftest import Pipes
from tests.support import clients
from tests.support.clients import Kind

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("pipes")]

STEPS: list[clients.Step] = [
    {"do": "list_tools"},
    {"do": "call", "name": "public.echo", "arguments": {"text": "grüß dich"}},
    {"do": "call", "name": "test_tool_with_progress", "progress": True},
    {"do": "list_prompts"},
    {"do": "prompt", "name": "test_prompt_with_arguments", "arguments": {"arg1": "a", "arg2": "b"}},
    {"do": "list_resources"},
    {"do": "read", "uri": "test://static-text"},
    {"do": "call", "name": "test_error_handling"},
    {"do": "call", "name": "no_such_tool"},
]
TOLD = ["public.echo", "test_tool_with_progress", "test_error_handling", "no_such_tool"]
# Servers over HTTP+SSE speak the legacy era alone; a command that has a process for each session is one for sessions.
CASES = [
    ("stdio", clients.PYTHON2, "legacy"),
    ("stdio", clients.PYTHON2, "modern"),
    ("stdio", clients.FAST, "modern"),
    ("stdio", clients.TYPESCRIPT1, "legacy"),
    ("stdio", clients.PYTHON1, "legacy"),
    ("stdio", clients.TYPESCRIPT2, "auto"),
    ("stdio-each", clients.PYTHON2, "legacy"),
    ("stdio-each", clients.FAST, "legacy"),
    ("sse", clients.PYTHON2, "legacy"),
    ("sse", clients.PYTHON2, "auto"),
    ("sse", clients.PYTHON1, "legacy"),
    ("sse", clients.TYPESCRIPT2, "legacy"),
]


@pytest.mark.parametrize(("upstream", "kind", "era"), CASES, ids=[f"{u}-{k.name}-{e}" for u, k, e in CASES])
def test_a_whole_session(pipes: Pipes, upstream: str, kind: Kind, era: str) -> None:
    since = pipes.gateway.now()
    headers = {"Authorization": f"Bearer {pipes.key.key}"}
    outcome = clients.run(kind, f"{pipes.gateway.url}/mcp/{upstream}", STEPS, era=era, headers=headers, timeout=120)
    assert "failed" not in outcome, outcome
    tools, echo, progress, prompts, prompt, resources, resource, failing, missing = outcome["steps"]
    assert {"public.echo", "json_schema_2020_12_tool"} <= {tool["name"] for tool in tools["ok"]["tools"]}
    assert echo["ok"]["content"][0]["text"] == "grüß dich"
    assert progress["ok"]["progress"] == [0, 50, 100]
    assert len(prompts["ok"]["prompts"]) == 5
    assert "arg1='a'" in prompt["ok"]["messages"][0]["content"]["text"]
    assert len(resources["ok"]["resources"]) == 3
    assert resource["ok"]["contents"][0]["text"].startswith("This is the content")
    assert failing["ok"]["isError"] is True
    assert missing["error"]["code"] == -32602
    events = [e for e in pipes.gateway.events(since, upstream=upstream) if e["method"] == "tools/call"]
    assert [event["tool_name"] for event in events] == TOLD
    assert {event["outcome"] for event in events} == {"allowed"}, json.dumps(events)[:3000]


def test_a_server_with_a_process_for_each_session_asks_its_client(pipes: Pipes) -> None:
    steps: list[clients.Step] = [
        {"do": "call", "name": "test_elicitation", "arguments": {"message": "who?"}},
        {"do": "call", "name": "test_sampling", "arguments": {"prompt": "say"}},
    ]
    headers = {"Authorization": f"Bearer {pipes.key.key}"}
    for upstream in ("stdio-each", "sse"):
        url = f"{pipes.gateway.url}/mcp/{upstream}"
        outcome = clients.run(clients.PYTHON2, url, steps, era="legacy", headers=headers, timeout=120)
        elicited, sampled = outcome["steps"]
        assert "Ada" in elicited["ok"]["content"][0]["text"], (upstream, outcome)
        assert "sampled by the client" in sampled["ok"]["content"][0]["text"], (upstream, outcome)


@pytest.mark.parametrize("upstream", ["stdio", "sse", "http"])
def test_a_client_that_knows_only_http_sse(pipes: Pipes, upstream: str) -> None:
    since = pipes.gateway.now()
    address = f"{pipes.gateway.url}/sse/{upstream}"
    done = subprocess.run(
        [clients.python(clients.MCP1), clients.SCRIPTS / "sse1.py", address, pipes.key.key],
        capture_output=True,
        text=True,
        timeout=90 * clients.PATIENCE,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout)
    assert {"public.echo", "test_simple_text"} <= set(seen["tools"])
    assert (seen["echo"], seen["denied"]) == ("grüß dich", None)
    calls = [e for e in pipes.gateway.events(since, upstream=upstream) if e["method"] == "tools/call"]
    assert [(event["tool_name"], event["outcome"]) for event in calls] == [
        ("public.echo", "allowed"),
        ("test_simple_text", "allowed"),
    ]


@pytest.mark.parametrize("upstream", ["http", "sse", "stdio", "stdio-each"])
def test_a_cancel_ends_a_real_servers_tool(pipes: Pipes, upstream: str) -> None:
    since, client = pipes.gateway.now(), pipes.client(upstream).initialize()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.call, "slow", {"seconds": 30}, rpc_id=7)
        time.sleep(0.7)
        assert client.ask("notifications/cancelled", {"requestId": 7}, None).status == 202
        answer = running.result(10)
    assert answer.status == 200 and not any("id" in message for message in answer.messages)
    event = pipes.gateway.event(since, method="tools/call", upstream=upstream)
    assert (event["outcome"], event["reason"]) == ("cancelled", "cancelled")
    assert client.call("public.echo", {"text": "still here"}).status == 200
