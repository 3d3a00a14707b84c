"""The answer on its way back: what passes, what does not, what is recorded before it does, and how each road ends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy import pipeline
from proxy.call import Call, Record, State
from proxy.legacy.listener import Resumed
from proxy.mcp.era import MODERN_VERSIONS
from proxy.mcp.sse import KEEP_ALIVE
from proxy.relay import ERROR_BYTES
from proxy.upstreams.transports.base import Broken, Cancelled, Unreachable, Unread
from tests.proxy.fake_transport import (
    EVENTS,
    POLICY,
    Plain,
    Scene,
    Seen,
    Stream,
    body,
    call,
    event,
    never,
    plain,
    request,
)

META = {
    "io.modelcontextprotocol/protocolVersion": MODERN_VERSIONS[0],
    "io.modelcontextprotocol/clientCapabilities": {},
}
MODERN: dict[str, Any] = {
    "data": request("tools/call", {"name": "get", "arguments": {}, "_meta": META}),
    "headers": [(b"mcp-protocol-version", MODERN_VERSIONS[0].encode()), (b"mcp-method", b"tools/call"), (b"mcp-name", b"get")],
}  # fmt: skip
PROGRESS = request("notifications/progress", {"progressToken": 1, "progress": 1}, rpc_id=None)
ROOTS = request("roots/list", rpc_id="server-1")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def stream_of(seen: Seen) -> dict[str, Any]:
    """What the event says of the stream."""
    found: dict[str, Any] = seen.details["stream"]
    return found


# -- a plain answer


async def test_a_tool_that_fails_itself_has_answered(scene: Scene) -> None:
    scene.upstream.say(plain({"isError": True, "content": []}), plain(error={"code": -32000, "message": "no"}))
    seen = await scene.ask(call())
    assert seen.said == ("allowed", "allowed_by_rule", 200) and seen.details["tool_error"] is True
    seen = await scene.ask(call())
    assert seen.status == 200 and seen.details["rpc_error"] == -32000 and seen.json["error"]["message"] == "no"


async def test_an_answer_waits_for_its_record(scene: Scene) -> None:
    scene.log.fails = {"outcome"}
    scene.upstream.say(plain())
    seen = await scene.ask(call())
    assert (
        seen.status == 503
        and seen.data["executed"] is True
        and "It was done all the same." in seen.json["error"]["message"]
    )
    assert seen.said == ("unrecorded", "audit_unavailable", 503) and b"content" not in seen.body
    assert seen.call is not None and (seen.call.state, seen.call.record) == (State.SENT, Record.LOST)


async def test_what_nobody_waits_for_is_accepted_and_says_nothing(scene: Scene) -> None:
    scene.upstream.say(plain(b"welcome", status=202, kind=b"text/plain"))
    seen = await scene.ask(request("notifications/initialized", rpc_id=None))
    assert (seen.status, seen.body, seen.said[0]) == (202, b"", "allowed") and seen.headers[b"content-length"] == b"0"


async def test_a_get_where_there_is_no_stream(scene: Scene) -> None:
    for status in (200, 404):
        scene.upstream.say(plain(b"<html>", status=status, kind=b"text/html"))
        seen = await scene.ask(verb="GET", headers=[(b"accept", b"text/event-stream")])
        assert (seen.status, seen.event["outcome"]) == (405, "allowed") and b"GET" not in seen.headers[b"allow"]
        assert f"HTTP {status}" in seen.details["error"] and b"<html>" not in seen.body


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(scene: Scene, status: int) -> None:
    scene.upstream.say(plain(status=status, headers=[(b"location", b"http://evil.test")]))
    seen = await scene.ask(call())
    assert seen.said == ("upstream_error", "upstream_redirect", 502) and len(scene.upstream.asked) == 1
    assert b"evil" not in seen.body and seen.data["may_have_run"] is True


@pytest.mark.parametrize("status", [401, 407, 500, 503])
async def test_a_failure_of_the_upstreams(scene: Scene, status: int) -> None:
    """Nothing of its page passes to the client; it is kept as what the upstream said, so far."""
    page = b"secret page " * ERROR_BYTES
    scene.upstream.say(plain(page, status=status, kind=b"text/html"))
    seen = await scene.ask(call())
    assert seen.said == ("upstream_error", "upstream_error", 502) and seen.details["error"] == f"HTTP {status}"
    assert b"secret page" not in seen.body and "secret page" in seen.event["response_json"]
    assert scene.upstream.given[0].aborted
    scene.upstream.say(plain(status=status, error={"code": -1, "message": "down"}))
    assert (await scene.ask(call())).details["rpc_error"] == -1
    scene.upstream.say(Plain(status, b"", b"", fails=Broken("Cut.")))
    assert (await scene.ask(call())).said == ("upstream_error", "upstream_error", 502)


async def test_an_upstream_that_refuses_in_the_protocols_words(scene: Scene) -> None:
    scene.upstream.say(plain(status=404, error={"code": -32601, "message": "no such session"}))
    seen = await scene.ask(call())
    assert (seen.status, seen.said) == (404, ("upstream_error", "upstream_refused", 404))
    assert seen.json["error"]["message"] == "no such session" and seen.decision["executed"] is False


@pytest.mark.parametrize("page", [b"<html>", body({"content": []}), PROGRESS, b'{"jsonrpc":"2.0","id":7,"error"'])
async def test_and_in_no_words_of_the_protocol(scene: Scene, page: bytes) -> None:
    scene.upstream.say(plain(page, status=400))
    seen = await scene.ask(call())
    assert (seen.status, seen.said) == (400, ("upstream_error", "upstream_refused", 400))
    assert "earlier version only" in seen.json["error"]["message"] and seen.json["error"]["code"] == 400
    assert (
        seen.details["error"].startswith("The upstream answered HTTP 400")
        and seen.json["error"]["data"]["executed"] is False
    )


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (plain(b"hello", kind=b"text/plain"), ""),
        (plain(b"{", kind=b"application/json"), "not_json"),
        (plain(b"", kind=b"application/json"), "not_json"),
        (plain(body(rpc_id=8)), ""),
        (plain(PROGRESS), ""),
        (plain(request("ping")), ""),
        (plain(b'{"jsonrpc":"2.0","id":7,"result":{},"result":{"content":[]}}'), "duplicate_member"),
        (plain(b"[" + body() + b"]"), "batch"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_what_is_no_answer_does_not_pass(scene: Scene, answer: Plain, detail: str) -> None:
    kept = answer._body
    scene.upstream.say(answer)
    seen = await scene.ask(call())
    assert seen.said == ("upstream_error", "upstream_broken", 502) and seen.details.get("error", "").startswith(detail)
    assert seen.event.get("response_bytes", 0) == len(kept) and seen.data["may_have_run"] is True


async def test_an_id_that_is_only_spelled_otherwise_is_the_same_to_clients(scene: Scene) -> None:
    scene.upstream.say(plain(body(rpc_id="7")))
    seen = await scene.ask(call())
    assert seen.status == 200 and seen.json["id"] == "7"


async def test_an_answer_over_the_limits(tmp_path: Path) -> None:
    scene = Scene(tmp_path, max_answer_bytes=1000)
    scene.upstream.say(plain({"content": ["x" * 1000]}))
    seen = await scene.ask(call())
    assert seen.said == ("upstream_error", "upstream_too_large", 502) and scene.upstream.given[0].aborted
    scene = Scene(tmp_path, buffer_bytes=300_000, buffer_bytes_per_key=100_000)
    scene.upstream.say(plain({"content": ["x" * 250_000]}))
    seen = await scene.ask(call())
    assert seen.said == ("limited", "too_much_waiting", 429) and seen.data["may_have_run"] is True
    assert scene.gateway.ledger.of(seen.event["api_key_id"]) == 0


async def test_lists_lose_what_the_caller_may_not_call(scene: Scene) -> None:
    tools = [{"name": name, "inputSchema": {"type": "object"}} for name in ("get", "get_more", "drop_all")]
    scene.upstream.say(plain({"tools": tools}), plain({"tools": 7}))
    seen = await scene.ask(request("tools/list"))
    assert [tool["name"] for tool in seen.json["result"]["tools"]] == ["get"] and seen.details["list"] == {
        "kept": 1,
        "hidden": 2,
    }
    seen = await scene.ask(request("tools/list"))
    assert seen.said == ("upstream_error", "upstream_broken", 502)


@pytest.mark.parametrize("reason", ["revoked_during_stream", "denied_during_stream", "cancelled"])
async def test_an_answer_that_nobody_may_have_any_more(scene: Scene, reason: str) -> None:
    """It has come, but whoever asked may not have it: it goes nowhere, whatever the upstream said."""

    class Late(Plain):
        async def read(self) -> bytes:
            next(iter(scene.gateway.calls)).exchange.ended_by = reason
            return await super().read()

    scene.upstream.say(Late(200, b"application/json", body({"content": ["the answer"]})))
    seen = await scene.ask(call())
    assert seen.event["outcome"] == "cancelled" and seen.event["reason"] == reason and b"the answer" not in seen.body


async def test_a_session_is_sealed_for_its_key(scene: Scene) -> None:
    begin = request(
        "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    )
    scene.upstream.say(plain({"protocolVersion": "2025-11-25"}, headers=[(b"mcp-session-id", b"theirs")]), plain())
    seen = await scene.ask(begin)
    sealed = seen.headers[b"mcp-session-id"]
    assert sealed != b"theirs" and seen.event["session"]
    used = await scene.ask(call(), headers=[(b"mcp-session-id", sealed)])
    assert used.event["session"] == seen.event["session"]
    assert (b"mcp-session-id", b"theirs") in scene.upstream.asked[1].headers
    other = await scene.ask(call(), headers=[(b"mcp-session-id", sealed)], key=scene.holder.add("user"))
    assert other.said == ("invalid", "unknown_session", 404)


async def test_a_client_that_leaves_at_the_head_changes_nothing_that_is_recorded(scene: Scene) -> None:
    client = scene.client(call())
    client.broken = True
    scene.upstream.say(plain())
    seen = await scene.ask(client)
    assert seen.said == ("allowed", "allowed_by_rule", 200) and seen.order[-1] == "outcome"
    assert seen.call is not None and (seen.call.outcome, seen.call.exchange.ended_by) == ("allowed", "client_gone")


# -- a stream


async def test_an_answer_in_a_stream(scene: Scene) -> None:
    scene.upstream.say(Stream(b": hello\n\n", event(PROGRESS), event(body()) + event(PROGRESS)))
    seen = await scene.ask(call())
    assert seen.order == ["intent", "upstream", "head", "body", "body", "answer", "body", "outcome"]
    assert [each.get("id") for each in seen.messages] == [None, 7, None] and seen.ended
    assert seen.said == ("allowed", "allowed_by_rule", 200) and stream_of(seen)["ended"] == "complete"
    assert seen.call is not None and (seen.call.state, seen.call.record) == (State.DELIVERED, Record.KEPT)
    assert seen.headers[b"content-type"] == EVENTS and seen.headers[b"x-accel-buffering"] == b"no"


async def test_only_one_answer_passes(scene: Scene) -> None:
    scene.upstream.say(Stream(event(body({"content": ["first"]})), event(body({"content": ["second"]})), event(b"{")))
    seen = await scene.ask(call())
    assert len(seen.messages) == 1 and b"second" not in seen.body and stream_of(seen)["dropped"] == 2
    assert seen.said == ("allowed", "allowed_by_rule", 200)


@pytest.mark.parametrize(
    ("pieces", "reason", "words"),
    [
        ([event(body(rpc_id=8))], "upstream_broken", "another request's id"),
        ([event(b"{")], "upstream_broken", "cannot be read"),
        ([event(PROGRESS), Broken("It was cut off.")], "upstream_broken", "cut off"),
        ([event(PROGRESS), Unreachable("It is away.")], "upstream_unreachable", "away"),
        ([event(PROGRESS), Unread("Read first.")], "too_much_waiting", "Read first"),
        ([event(PROGRESS) + body()[:9]], "upstream_broken", "ended within an event"),
        ([event(PROGRESS), event(b"x" * 3000)], "upstream_too_large", "too large"),
        ([b"data: " + b"x" * 3000], "upstream_too_large", "too large"),
    ],
)
async def test_a_stream_that_goes_wrong_before_its_answer(
    tmp_path: Path, pieces: list[Any], reason: str, words: str
) -> None:
    scene = Scene(tmp_path, max_answer_bytes=2000)
    scene.upstream.say(Stream(*pieces))
    seen = await scene.ask(call())
    last = seen.messages[-1]
    assert seen.status == 200 and last["id"] == 7 and last["error"]["data"]["reason"] == reason
    assert words in last["error"]["message"] and "It may have run." in last["error"]["message"]
    assert seen.event["outcome"] == "upstream_error" and seen.event["reason"] == reason
    assert seen.decision["executed"] is None, "once its answer has begun, the upstream has seen it"
    assert stream_of(seen)["ended"] == "cut" and seen.order[-3:] == ["answer", "body", "outcome"]
    assert seen.call is not None and seen.call.state is State.ANSWERED and scene.upstream.given[0].aborted


async def test_a_stream_that_cannot_be_taken_up_again_was_sent_all_the_same(
    monkeypatch: pytest.MonkeyPatch, scene: Scene
) -> None:
    """The error is of the attempt to go on, which surely was not seen; the request was."""
    monkeypatch.setattr("proxy.legacy.listener.SHORTEST_PAUSE", 0.001)

    async def away(last_id: bytes) -> Any:
        raise Unreachable("It is away.")

    first = Stream(event(PROGRESS, event_id="1") + b"retry: 1\n\n")
    scene.upstream.say(Resumed(first, 10_000, lambda: True, away))
    seen = await scene.ask(call())
    assert seen.event["reason"] == "upstream_unreachable" and seen.decision["executed"] is None
    assert seen.messages[-1]["error"]["data"]["may_have_run"] is True


async def test_a_stream_without_its_answer_in_either_era(scene: Scene) -> None:
    scene.upstream.say(Stream(event(PROGRESS)), Stream(event(PROGRESS)))
    seen = await scene.ask(call())
    assert stream_of(seen)["ended"] == "without_answer" and seen.said[0] == "allowed"
    seen = await scene.ask(MODERN["data"], headers=MODERN["headers"])
    assert (
        seen.said == ("upstream_error", "upstream_broken", 502)
        and seen.messages[-1]["error"]["data"]["reason"] == "upstream_broken"
    )


async def test_an_answer_that_may_still_come(scene: Scene) -> None:
    session = [(b"mcp-session-id", scene.session)]
    scene.upstream.say(
        Stream(event(b"", event_id="e1") + event(PROGRESS, event_id="e2")), Stream(event(body(), event_id="e3"))
    )
    seen = await scene.ask(call(), headers=session)
    assert seen.order == ["intent", "upstream", "head", "promise", "body", "waits"]
    assert (
        seen.call is not None
        and seen.call.waits
        and (seen.call.state, seen.call.record) == (State.STREAMING, Record.KEPT)
    )
    held = [line[4:] for line in seen.body.split(b"\n") if line.startswith(b"id: ")][-1]
    assert held != b"e2"
    taken = await scene.ask(verb="GET", headers=[*session, (b"accept", EVENTS), (b"last-event-id", held)])
    assert (b"last-event-id", b"e2") in scene.upstream.asked[1].headers
    assert taken.order == ["intent", "upstream", "head", "answer", "brought", "body", "outcome"]
    assert taken.details["resumed"] == {"call": str(seen.event["id"]), "rpc_id": "7", "answered": True}
    assert taken.messages[0]["id"] == 7
    stranger = await scene.ask(
        verb="GET", headers=[(b"accept", EVENTS), (b"last-event-id", held)], key=scene.holder.add("user")
    )
    assert stranger.said == ("invalid", "unknown_event", 400)


@pytest.mark.parametrize("allowed", [True, False])
async def test_a_request_of_the_servers(tmp_path: Path, allowed: bool) -> None:
    scene = Scene(
        tmp_path,
        policy=POLICY + '  - {name: asks, effect: allow, roles: [user], method: "roots/list"}\n' * allowed,
    )
    scene.upstream.say(Stream(event(ROOTS), event(request("ping", rpc_id=1)), event(body())))
    seen = await scene.ask(call())
    (asked,) = [each for each in seen.events if each["id"] != seen.event["id"]]
    passed = [each.get("method") for each in seen.messages]
    if allowed:
        assert asked["outcome"] == "allowed" and passed == ["roots/list", "ping", None]
        assert seen.order.index("event") < seen.order.index("body")
    else:
        assert (asked["outcome"], asked["status_code"]) == ("denied", 403) and passed == ["ping", None]
        await asyncio.sleep(0.01)
        assert orjson.loads(scene.upstream.asked[1].body)["error"]["code"] == 403
    assert (asked["method"], asked["rpc_id"]) == ("roots/list", '"server-1"')
    assert stream_of(seen)["server_requests"][0]["event"] == str(asked["id"])


async def test_what_a_server_asks_is_recorded_or_not_asked(scene: Scene) -> None:
    scene.log.fails = {"event"}
    scene.upstream.say(Stream(event(ROOTS), event(body())))
    seen = await scene.ask(call())
    assert seen.event["reason"] == "audit_unavailable" and b"roots/list" not in seen.body


async def test_an_answer_in_a_stream_waits_for_its_record(scene: Scene) -> None:
    scene.log.fails = {"answer"}
    scene.upstream.say(Stream(event(PROGRESS), event(body({"content": ["the answer"]}))))
    seen = await scene.ask(call())
    assert b"the answer" not in seen.body and seen.messages[-1]["error"]["data"]["reason"] == "audit_unavailable"
    assert seen.messages[-1]["error"]["data"]["may_have_run"] is True
    assert seen.call is not None and (seen.call.state, seen.call.record) == (State.STREAMING, Record.LOST)


ENDS = {
    "revoked_during_stream": ("cancelled", 401),
    "denied_during_stream": ("cancelled", 403),
    "upstream_changed": ("cancelled", 503),
    "server_stopping": ("interrupted", 503),
    "too_much_waiting": ("limited", 429),
}


@pytest.mark.parametrize("reason", ENDS)
async def test_a_stream_that_is_ended_says_why(scene: Scene, reason: str) -> None:
    scene.upstream.say(Stream(event(PROGRESS), never))
    seen = await scene.ask(call(), meanwhile=lambda found: found.exchange.end(reason), after="body")
    outcome, status = ENDS[reason]
    assert seen.said == (outcome, reason, status) and seen.status == 200 and seen.ended
    told = "invalid_credential" if reason == "revoked_during_stream" else reason
    assert seen.messages[-1]["error"]["data"]["reason"] == told
    assert stream_of(seen)["ended"] == reason and scene.upstream.given[0].aborted == 1


async def test_a_client_that_takes_back_what_it_asked(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancel reaches the upstream on the connection it comes on, so the stream of its call is not cut at once."""
    monkeypatch.setattr(pipeline, "CANCEL_SECONDS", 0.05)
    scene.upstream.say(Stream(event(PROGRESS), never))
    seen = await scene.ask(call(), meanwhile=lambda found: found.exchange.end("cancelled"), after="body")
    assert seen.said == ("cancelled", "cancelled", 200) and [each.get("id") for each in seen.messages] == [None]
    assert not scene.upstream.given[0].aborted
    await asyncio.sleep(0.1)
    assert scene.upstream.given[0].aborted == 1


@pytest.mark.parametrize("answered", [True, False])
async def test_a_client_that_leaves(scene: Scene, answered: bool) -> None:
    client = scene.client(call())
    scene.upstream.say(Stream(event(body() if answered else PROGRESS), never))
    seen = await scene.ask(client, meanwhile=lambda _: client.left.set(), after="body")
    assert seen.said == (("allowed", "allowed_by_rule", 200) if answered else ("cancelled", "client_gone", 200))
    assert stream_of(seen)["ended"] == "client_gone" and not seen.ended
    assert seen.call is not None and seen.call.state is (State.DELIVERED if answered else State.STREAMING)


async def test_a_client_that_leaves_as_its_answer_is_written(scene: Scene) -> None:
    """The answer is recorded and went nowhere: who asked did not get it."""
    client = scene.client(call())

    async def leave() -> bytes:
        client.broken = True
        return event(body())

    scene.upstream.say(Stream(event(PROGRESS), leave))
    seen = await scene.ask(client)
    assert seen.said[:2] == ("cancelled", "client_gone") and seen.call is not None and seen.call.state is State.ANSWERED


async def test_a_client_that_is_gone_before_the_head(scene: Scene) -> None:
    client = scene.client(call())
    client.broken = True
    scene.upstream.say(Stream(event(body())))
    seen = await scene.ask(client)
    assert (
        seen.said[:2] == ("cancelled", "client_gone")
        and not seen.status
        and seen.order == ["intent", "upstream", "outcome"]
    )


class Talkative(Stream):
    """A stream that has something to say however it ends, as the older transport's has."""

    async def last_words(self, reason: str) -> bytes:
        return event(body({"content": ["last words"]}))


async def test_a_stream_that_is_ended_says_what_it_still_has_to_say(scene: Scene) -> None:
    scene.upstream.say(Talkative(event(PROGRESS), never))
    seen = await scene.ask(call(), meanwhile=lambda found: found.exchange.end("denied_during_stream"), after="body")
    assert b"last words" in seen.body and seen.said == ("cancelled", "denied_during_stream", 403)


async def test_a_stream_whose_call_ends_before_its_head_is_answered_whole(scene: Scene) -> None:
    async def ended(_: Any) -> Stream:
        next(iter(scene.gateway.calls)).exchange.ended_by = "denied_during_stream"  # between the answer's head and ours
        return Talkative(event(body()))

    scene.upstream.say(ended)
    seen = await scene.ask(call())
    assert (seen.status, seen.said) == (403, ("cancelled", "denied_during_stream", 403)) and seen.data[
        "may_have_run"
    ] is True


async def test_an_upstream_that_says_it_was_cancelled(scene: Scene) -> None:
    scene.upstream.say(Stream(event(PROGRESS), Cancelled("It was taken back.")))
    seen = await scene.ask(call())
    assert seen.said == ("cancelled", "cancelled", 200) and len(seen.messages) == 1 and seen.ended


async def test_a_listener_hears_and_is_not_answered(scene: Scene) -> None:
    scene.upstream.say(Stream(event(request("notifications/tools/list_changed", rpc_id=None)), event(body())))
    seen = await scene.ask(verb="GET", headers=[(b"accept", EVENTS)])
    assert [each["method"] for each in seen.messages] == ["notifications/tools/list_changed"]
    assert stream_of(seen)["unasked"] == 1 and scene.gateway.registry.changed == ["crm"]  # type: ignore[attr-defined]
    assert seen.said == ("allowed", "open_method", 200)


async def test_more_than_a_share_waits(tmp_path: Path) -> None:
    scene = Scene(tmp_path, buffer_bytes=300_000, buffer_bytes_per_key=100_000)
    stream = Stream(event(PROGRESS), event(PROGRESS))
    stream.unread = 250_000
    scene.upstream.say(stream)
    seen = await scene.ask(call())
    assert (
        seen.event["reason"] == "too_much_waiting"
        and seen.messages[-1]["error"]["data"]["reason"] == "too_much_waiting"
    )
    assert scene.gateway.ledger.of(seen.event["api_key_id"]) == 0


async def test_a_defect_within_a_stream(scene: Scene) -> None:
    scene.upstream.say(Stream(event(PROGRESS), RuntimeError("a defect")))
    seen = await scene.ask(call())
    assert (
        seen.said[:2] == ("interrupted", "internal_error")
        and seen.messages[-1]["error"]["data"]["reason"] == "internal_error"
    )


async def test_a_quiet_stream_is_kept_alive_between_events(scene: Scene) -> None:
    async def quiet(found: Call) -> None:
        assert found.keep_alive is not None and scene.gateway.streams_of(found.key_id) == 1
        await found.keep_alive()
        found.exchange.end("upstream_changed")

    scene.upstream.say(Stream(event(PROGRESS), never))
    seen = await scene.ask(call(), meanwhile=quiet, after="body")
    assert KEEP_ALIVE in seen.body
