from __future__ import annotations

import json

import pytest

from proxy.upstreams.probe import expired, probe
from proxy.upstreams.transports.base import BufferedResponse, TimedOut, UpstreamError, UpstreamRequest, UpstreamResponse

JSON = [(b"content-type", b"application/json")]
DISCOVERED = {"result": {"supportedVersions": ["2026-07-28", "2025-11-25"], "capabilities": {}}}
LEGACY_DISCOVERED = {"result": {"supportedVersions": ["2025-11-25"], "capabilities": {}}}
INITIALIZED = {"result": {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s"}}}


def error(code, **data):
    return {"error": {"code": code, "message": "no", "data": data}}


class Scripted:
    """Answers server/discover and initialize as a test says."""

    def __init__(self, discover, initialize, *, sse: bool = False) -> None:
        self.answers = {"server/discover": discover, "initialize": initialize}
        self.asked: list[str] = []
        self.sse = sse

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        if request.verb == b"DELETE":
            return BufferedResponse(405, [])
        message = json.loads(request.body)
        self.asked.append(message["method"])
        if message["method"].startswith("notifications/"):
            return BufferedResponse(202, [])
        assert (dict(request.headers).get(b"mcp-protocol-version") == b"2026-07-28") == (
            message["method"] == "server/discover"
        )
        answer = self.answers[message["method"]]
        if isinstance(answer, UpstreamError):
            raise answer
        status, body = answer
        if isinstance(body, bytes):
            return BufferedResponse(status, [(b"content-type", b"text/html")], body)
        raw = json.dumps({"jsonrpc": "2.0", "id": message["id"], **body}).encode()
        if self.sse:
            note = b'data: {"jsonrpc":"2.0","method":"notifications/message"}\n\n'
            return BufferedResponse(
                status, [(b"content-type", b"text/event-stream")], b": hi\n\n" + note + b"data: " + raw + b"\n\n"
            )
        return BufferedResponse(status, JSON, raw)

    async def close(self, grace: float = 0.0) -> None: ...


@pytest.mark.parametrize("sse", [False, True])
@pytest.mark.parametrize(
    ("discover", "initialize", "era"),
    [
        ((200, DISCOVERED), (200, INITIALIZED), "dual"), ((200, DISCOVERED), (404, error(-32601)), "modern"), ((200, DISCOVERED), (400, error(-32602)), "modern"),
        ((200, LEGACY_DISCOVERED), (200, INITIALIZED), "legacy"), ((400, error(-32600)), (200, INITIALIZED), "legacy"), ((400, error(-32000)), (200, INITIALIZED), "legacy"),
        ((200, error(-32601)), (200, INITIALIZED), "legacy"), ((404, b"not found"), (200, INITIALIZED), "legacy"), ((405, b""), (200, INITIALIZED), "legacy"),
        ((200, b"<html>"), (200, INITIALIZED), "legacy"), ((400, error(-32022, supported=["2027-01-01"])), (400, error(-32022)), "modern"),
        ((400, error(-32020)), (200, INITIALIZED), "modern"), ((400, error(-32021)), (200, INITIALIZED), "modern"),
        ((401, b""), (200, INITIALIZED), ""), ((403, b""), (200, INITIALIZED), ""), ((500, b""), (200, INITIALIZED), ""), ((503, error(-32600)), (200, INITIALIZED), ""),
        ((429, b""), (200, INITIALIZED), ""), ((404, b""), (404, b""), ""), ((400, error(-32600)), (401, b""), ""), ((400, error(-32600)), (502, b""), ""),
    ],
)  # fmt: skip
async def test_the_table_of_verdicts(discover, initialize, era, sse):
    verdict = await probe(Scripted(discover, initialize, sse=sse))
    assert verdict.era == era
    assert bool(verdict.cause) == (verdict.client is None)


async def test_no_verdict_from_a_time_out():
    with pytest.raises(TimedOut):
        await probe(Scripted(TimedOut("slow"), (200, INITIALIZED)))
    assert (await probe(Scripted((200, DISCOVERED), TimedOut("slow")))).era == "modern"


async def test_the_old_transport_is_not_asked_for_the_new_era():
    server = Scripted((200, DISCOVERED), (200, INITIALIZED))
    assert (await probe(server, kind="sse")).era == "legacy"
    assert server.asked == ["initialize", "notifications/initialized"]


def test_verdicts_expire_and_legacy_ones_sooner():
    assert expired("", 0)
    assert not expired("legacy", 3600)
    assert expired("legacy", 25 * 3600)
    assert not expired("modern", 25 * 3600)
    assert expired("modern", 8 * 24 * 3600)
