"""Upstreams that compress what they say, whatever they were asked for: read, judged and recorded as what they said."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import brotli
import pytest
from backports import zstd

from tests.support import clients
from tests.support.fixtures import Everything, Stage
from tests.support.upstream import Behaviour, Exchange, FakeUpstream, event

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("stage")]

Compress = Callable[[bytes], bytes]
WAYS: dict[str, Compress] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstd.compress,
    "gzip, br": lambda data: brotli.compress(gzip.compress(data)),
}
TOKEN = "sk-ant-api03-" + "Zx9" * 31


def squeezed(
    way: str, result: Any, status: int = 200, content_type: str = "application/json", spoil: Compress = bytes
) -> Behaviour:
    """Answer with a JSON-RPC result (or with bytes), compressed."""

    async def behave(exchange: Exchange) -> None:
        body = result
        if not isinstance(body, bytes):
            body = json.dumps({"jsonrpc": "2.0", "id": exchange.request.id, **body}).encode()
        body = WAYS.get(way, gzip.compress)(body)
        await exchange.answer(status, spoil(body), [("Content-Type", content_type), ("Content-Encoding", way)])

    return behave


def streamed(results: list[Any]) -> Behaviour:
    """Stream events, each flushed, compressed by gzip as a whole."""

    async def behave(exchange: Exchange) -> None:
        engine = zlib.compressobj(wbits=31)
        await exchange.head(200, [("Content-Type", "text/event-stream"), ("Content-Encoding", "gzip")])
        for result in results:
            value = {"jsonrpc": "2.0", **({"id": exchange.request.id} if "result" in result else {}), **result}
            await exchange.chunk(engine.compress(event(value)) + engine.flush(zlib.Z_SYNC_FLUSH))
        await exchange.chunk(engine.flush())
        await exchange.end()

    return behave


def said(text: str) -> dict[str, Any]:
    return {"result": {"content": [{"type": "text", "text": text}]}}


@pytest.fixture
def fake(stage: Stage) -> FakeUpstream:
    stage.fake.forget()
    return stage.fake


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_passes_as_what_was_compressed(stage: Stage, fake: FakeUpstream, way: str) -> None:
    fake.script(squeezed(way, said(f"caf\u00e9 {TOKEN}")), method="tools/call")
    since = stage.gateway.now()
    answer = stage.client(era="legacy").call("squeeze")
    assert answer.status == 200 and answer.header("content-encoding") is None
    assert answer.result["content"][0]["text"] == f"caf\u00e9 {TOKEN}"
    record = stage.gateway.event(since)
    assert record["outcome"] == "allowed" and record["response_bytes"] == len(answer.body)
    kept = json.dumps(record["response_json"], ensure_ascii=False)
    assert "caf\u00e9" in kept and "REDACTED" in kept and TOKEN not in json.dumps(record)
    assert fake.seen("tools/call")[0].header("accept-encoding") == "identity"


def test_a_list_loses_what_may_not_be_called(stage: Stage, fake: FakeUpstream) -> None:
    tools = [{"name": name, "inputSchema": {"type": "object"}} for name in ("list_customers", "delete_customer")]
    fake.script(squeezed("br", {"result": {"tools": tools}}), method="tools/list")
    answer = stage.client("readonly", era="legacy").ask("tools/list")
    assert [tool["name"] for tool in answer.result["tools"]] == ["list_customers"]


def test_a_stream_passes_event_by_event(stage: Stage, fake: FakeUpstream) -> None:
    notice = {"method": "notifications/message", "params": {"level": "info", "data": "on my way"}}
    fake.script(streamed([notice, said("there")]), method="tools/call")
    since = stage.gateway.now()
    answer = stage.client(era="legacy").call("flow")
    assert [each.get("method", "result") for each in answer.messages] == ["notifications/message", "result"]
    assert stage.gateway.event(since)["response_json"]["result"] == said("there")["result"]


def test_an_error_s_words_are_kept_readable(stage: Stage, fake: FakeUpstream) -> None:
    fake.script(squeezed("zstd", b"the disk is full", 500, "text/plain"), method="tools/call")
    since = stage.gateway.now()
    assert stage.client(era="legacy").call("squeeze").status == 502
    assert "the disk is full" in json.dumps(stage.gateway.event(since)["response_json"])
    fake.script(squeezed("gzip", {"error": {"code": -32602, "message": "no such tool"}}, 404), method="tools/call")
    assert stage.client(era="legacy").call("squeeze").error["message"] == "no such tool"


@pytest.mark.parametrize(
    ("way", "spoil"),
    [
        ("compress", bytes), ("gzip, snappy", bytes), ("zstd", lambda data: data[:-3]), ("gzip", lambda data: data + b"tail"),
        ("br", lambda data: b"not brotli at all"), ("deflate", lambda data: data[:10]),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_a_502_with_an_event(
    stage: Stage, fake: FakeUpstream, way: str, spoil: Compress
) -> None:
    fake.script(squeezed(way, said("x" * 500), spoil=spoil), method="tools/call")
    since = stage.gateway.now()
    answer = stage.client(era="legacy").call("squeeze")
    assert answer.status == 502 and answer.error["data"]["reason"] == "upstream_broken"
    record = stage.gateway.event(since)
    assert (record["outcome"], record["status_code"]) == ("upstream_error", 502)
    if way in ("compress", "gzip, snappy"):
        assert "may have run" in answer.error["message"]


def test_a_bomb_is_refused(stage: Stage, fake: FakeUpstream) -> None:
    fake.script(squeezed("gzip", b" " * 100_000_000), method="tools/call")
    since = stage.gateway.now()
    assert stage.client(era="legacy").call("squeeze", timeout=60).status == 502
    assert stage.gateway.event(since)["reason"] == "upstream_too_large"


@pytest.fixture(scope="module", params=[(), ("--json",)], ids=["streams", "json"])
def real(request: Any, stage: Stage) -> Iterator[str]:
    with Everything("--compressed", *request.param) as server:
        slug = f"squeezed{len(request.param)}"
        stage.gateway.add_upstream(slug, server.url)
        yield slug


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("kind", [clients.PYTHON2, clients.TYPESCRIPT2], ids=lambda kind: kind.name)
def test_real_clients_and_a_real_server_that_compresses_all_it_says(
    stage: Stage, real: str, kind: Any, era: str
) -> None:
    steps = [
        {"do": "list_tools"},
        {"do": "call", "name": "public.echo", "arguments": {"text": "gr\u00fc\u00df dich"}},
        {"do": "call", "name": "test_tool_with_progress", "progress": True},
    ]
    headers = {"Authorization": f"Bearer {stage.keys['admin'].key}"}
    outcome = clients.run(kind, f"{stage.gateway.url}/mcp/{real}", steps, era=era, headers=headers)
    assert "failed" not in outcome, outcome
    tools, echo, _ = outcome["steps"]
    assert len(tools["ok"]["tools"]) > 5 and echo["ok"]["content"][0]["text"] == "gr\u00fc\u00df dich"
