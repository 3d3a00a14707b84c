"""Upstreams of the earlier era that know no sessions and refuse in plain text: their status passes, so that clients fall back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import clients
from tests.support.fixtures import Stage
from tests.support.upstream import Behaviour, Exchange, FakeUpstream, status
from tests.support.wire import send

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("stage")]

PAGE = b"<html><title>404</title>Cannot POST /mcp (token=hunter2-hunter2-hunter2)</html>"
REFUSALS: dict[str, tuple[int, bytes, str]] = {
    "404 text": (404, b"404 page not found\n", "text/plain; charset=utf-8"),
    "404 html": (404, PAGE, "text/html"),
    "404 nothing": (404, b"", ""),
    "404 other json": (404, b'{"detail":"Not Found"}', "application/json"),
    "405 text": (405, b"Method Not Allowed", "text/plain"),
    "400 text": (400, b"Bad Request: no valid session id", "text/plain"),
    "400 html": (400, PAGE, "text/html"),
    "410 text": (410, b"Gone", "text/plain"),
    "406 problem": (406, b'{"title":"Not Acceptable"}', "application/problem+json"),
    "415 text": (415, b"?", "text/plain"),
    "422 text": (422, b"unprocessable", "text/plain"),
}


def refusal(which: str) -> Behaviour:
    code, body, kind = REFUSALS[which]

    async def behave(exchange: Exchange) -> None:
        await exchange.answer(code, body, [("Content-Type", kind)] if kind else [])

    return behave


@pytest.fixture(scope="module")
def older(stage: Stage) -> Iterator[FakeUpstream]:
    """An upstream of which the gateway could not find the era, since it refused every check."""
    with FakeUpstream(sessions=False) as upstream:
        upstream.script(status(429, b"later"))
        stage.gateway.manage("upstreams", "add", "older", "--url", upstream.url, check=False)
        yield upstream


@pytest.mark.parametrize("which", REFUSALS)
def test_the_status_passes_and_the_words_do_not(stage: Stage, older: FakeUpstream, which: str) -> None:
    for method in ("server/discover", "tools/call", "initialize"):
        _refused_in_words(stage, older, which, method)


def _refused_in_words(stage: Stage, older: FakeUpstream, which: str, method: str) -> None:
    older.forget()
    older.script(refusal(which), method=method)
    era = "modern" if method == "server/discover" else "legacy"
    since = stage.gateway.now()
    params = {"name": "echo"} if method == "tools/call" else {}
    answer = stage.client(upstream="older", era=era).ask(method, params, rpc_id="n-1")
    code, words, _ = REFUSALS[which]
    assert (answer.status, answer.header("content-type")) == (code, "application/json")
    assert answer.json["id"] == "n-1" and answer.error["code"] == code
    assert str(code) in answer.error["message"] and (not words or words not in answer.body)
    assert (answer.header("allow") is not None) == (code == 405)
    event = stage.gateway.event(since)
    assert (event["status_code"], event["method"], event["outcome"]) == (code, method, "upstream_error")
    assert f"HTTP {code}" in event["details"]["error"]
    kept = json.dumps(event["response_json"])
    assert "hunter2" not in kept and (b"Cannot POST" not in words or "Cannot POST" in kept)


@pytest.mark.parametrize("which", ["404 text", "405 text", "400 html"])
@pytest.mark.parametrize("kind", [clients.PYTHON2, clients.TYPESCRIPT2, clients.FAST], ids=lambda kind: kind.name)
def test_a_client_that_speaks_both_eras_falls_back(stage: Stage, older: FakeUpstream, kind: Any, which: str) -> None:
    older.forget()
    older.script(refusal(which), method="server/discover")
    older.script(refusal(which), verb="GET")
    older.script(refusal(which), verb="DELETE")
    headers = {"Authorization": f"Bearer {stage.keys['admin'].key}"}
    steps = [{"do": "list_tools"}, {"do": "call", "name": "public.echo", "arguments": {"text": "x"}}]
    outcome = clients.run(kind, f"{stage.gateway.url}/mcp/older", steps, era="auto", headers=headers)
    assert outcome.get("version", "").startswith("2025-"), outcome
    assert all("ok" in step for step in outcome["steps"]), outcome


@pytest.mark.parametrize("kind", [clients.PYTHON1, clients.TYPESCRIPT1], ids=lambda kind: kind.name)
@pytest.mark.parametrize("which", ["404 html", "405 text"])
def test_older_clients_do_without_a_stream(stage: Stage, older: FakeUpstream, kind: Any, which: str) -> None:
    older.forget()
    older.script(refusal(which), verb="GET")
    older.script(refusal(which), verb="DELETE")
    headers = {"Authorization": f"Bearer {stage.keys['admin'].key}"}
    steps = [{"do": "list_tools"}, {"do": "call", "name": "public.echo", "arguments": {"text": "x"}}]
    outcome = clients.run(kind, f"{stage.gateway.url}/mcp/older", steps, era="legacy", headers=headers)
    assert all("ok" in step for step in outcome.get("steps", [{}])), outcome


@pytest.mark.parametrize(
    ("given", "body", "kind", "code"),
    [
        (404, b"Cannot GET /mcp", "text/html", 405), (405, b"", "text/plain", 405), (200, b"It works!", "text/html", 405),
        (200, b'{"name":"a server","version":"1"}', "application/json", 405), (204, b"", "text/plain", 405), (400, b"Cannot GET", "text/plain", 400),
    ],
)  # fmt: skip
def test_no_stream_is_a_405(stage: Stage, older: FakeUpstream, given: int, body: bytes, kind: str, code: int) -> None:
    older.forget()
    older.script(status(given, body, kind), verb="GET")
    since = stage.gateway.now()
    client = stage.client(upstream="older")
    answer = send(client.address, None, client.headers(), verb="GET")
    assert answer.status == code and (not body or body not in answer.body)
    if code == 405:
        assert "POST" in answer.header("allow") and "GET" not in answer.header("allow")
    event = stage.gateway.event(since)
    assert event["status_code"] == code and f"HTTP {given}" in event["details"]["error"]


@pytest.mark.parametrize("code", [404, 405, 400])
def test_a_delete_that_nobody_knows_keeps_its_status(stage: Stage, older: FakeUpstream, code: int) -> None:
    older.forget()
    older.script(status(code, b"Cannot DELETE /mcp"), verb="DELETE")
    client = stage.client(upstream="older")
    answer = send(client.address, None, client.headers(), verb="DELETE")
    assert answer.status == code and b"Cannot" not in answer.body


def test_a_session_that_is_over_is_still_a_404_on_a_get(stage: Stage) -> None:
    fake = stage.fake
    fake.forget()
    client = stage.client().initialize()
    fake.script(status(404, b"no such session"), verb="GET")
    assert send(client.address, None, client.headers(), verb="GET").status == 404
    fake.forget()
