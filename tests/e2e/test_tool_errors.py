"""What a tool or its upstream says of its own failure, over every road, as every reader of the log sees it."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any
from urllib.request import urlopen

import pytest

from tests.e2e.conftest import Pipes
from tests.support import upstream
from tests.support.upstream import FakeUpstream

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("pipes")]

FAILED = {"content": [{"type": "text", "text": "no such customer"}], "isError": True}
FINE: dict[str, Any] = {"content": [{"type": "text", "text": '{"isError": true, "error": {"code": 1}}'}]}


def streamed(value: dict[str, Any]) -> Any:
    async def behave(exchange: Any) -> None:
        message = {"jsonrpc": "2.0", "id": exchange.request.id, **value}
        await exchange.head(200, [("Content-Type", "text/event-stream")])
        await exchange.chunk(b'data: {"jsonrpc":"2.0","method":"notifications/message","params":{"isError":true}}\n\n')
        await exchange.chunk(b"data: " + json.dumps(message).encode() + b"\n\n")
        await exchange.end()

    return behave


@pytest.mark.parametrize(
    ("answer", "said", "outcome"),
    [
        (upstream.result(FAILED), True, "allowed"),
        (upstream.result({**FINE, "isError": False}), False, "allowed"),
        (upstream.result({**FINE, "isError": "true"}), False, "allowed"),
        (upstream.result(FINE), False, "allowed"),
        (upstream.error(-32602, "Unknown tool"), True, "allowed"),
        (upstream.error(-32602, "Unknown tool", http=400), True, None),
        (upstream.error(-32603, "Internal", http=500), True, "upstream_error"),
        (upstream.status(500, b"a page of the proxy in between"), False, "upstream_error"),
        (upstream.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhat?"), False, "upstream_error"),
        (streamed({"result": FAILED}), True, "allowed"),
        (streamed({"error": {"code": -32000, "message": "x"}}), True, "allowed"),
        (streamed({"result": FINE}), False, "allowed"),
    ],
)
@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_what_an_answer_says_of_itself(
    pipes: Pipes, silent: FakeUpstream, era: str, answer: Any, said: bool, outcome: str | None
) -> None:
    client = pipes.client("silent", era=era)
    if era == "legacy":
        client.initialize()
    silent.script(answer, method="tools/call")
    since = pipes.gateway.now()
    client.call("public.echo")
    (event,) = pipes.gateway.events(since, 1, method="tools/call")
    assert event["tool_error"] is said, event
    assert outcome is None or event["outcome"] == outcome


@pytest.mark.parametrize("name", ["stdio", "stdio-each", "http", "sse"])
def test_over_every_transport(pipes: Pipes, name: str) -> None:
    client = pipes.client(name).initialize()
    since = pipes.gateway.now()
    client.call("test_error_handling")
    client.call("test_simple_text")
    events = pipes.gateway.events(since, 2, method="tools/call")
    assert [event["tool_error"] for event in events] == [True, False]


def test_refusals_of_our_own_are_none_and_every_reader_sees_the_same(pipes: Pipes, silent: FakeUpstream) -> None:
    gateway = pipes.gateway
    client = pipes.client("silent").initialize()
    silent.script(upstream.result(FAILED), method="tools/call")
    since = gateway.now()
    client.call("public.echo")
    client.ask("tools/call", {"name": 7})
    pipes.client("no-such-upstream").call("public.echo")
    events = gateway.events(since, 3)
    assert [event["tool_error"] for event in events] == [True, False, False]
    time = ("--since", since.isoformat())
    found = [json.loads(line) for line in gateway.manage("audit", "export", *time, "--tool-error").stdout.splitlines()]
    assert [event["id"] for event in found] == [events[0]["id"]]
    rest = gateway.manage("audit", "export", *time, "--no-tool-error").stdout.splitlines()
    assert events[0]["id"] not in [json.loads(line)["id"] for line in rest] and len(rest) >= 2
    (ocsf,) = gateway.manage("audit", "export", *time, "--tool-error", "--format", "ocsf").stdout.splitlines()
    told = json.loads(ocsf)
    assert (told["status"], told["status_id"], told["severity_id"]) == ("Failure", 2, 2)
    assert told["status_detail"] == "tool_error" and told["unmapped"]["tool_error"] is True
    text = gateway.manage("audit", "export", *time, "--tool-error", "--format", "csv").stdout
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["tool_error"] == "true"
    assert " tool-error" in gateway.manage("audit", "tail", "--tool-error", "-n", "1").stdout
    metrics = urlopen(f"{gateway.url}/metrics", timeout=10).read().decode()
    assert re.search(r'sentinel_tool_errors_total\{method="tools/call",upstream="silent"\} [1-9]', metrics)
