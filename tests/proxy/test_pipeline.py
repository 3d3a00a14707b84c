"""Every stage of the pipeline, and every way out of it: what its client is told, what its event says, what the upstream saw."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from audit.journal.tickets import AuditUnavailable
from policies.limiter.limiter import LimitAnswer
from proxy.call import Record, State
from proxy.mcp.definitions import Definition
from proxy.pipeline import PARSE_OFF_LOOP, STRANGER_BYTES
from proxy.upstreams.transports.base import (
    Broken,
    Busy,
    Cancelled,
    EgressRefused,
    TimedOut,
    Unreachable,
    Unread,
    UpstreamError,
)
from tests.proxy.fake_transport import POLICY, Scene, Seen, call, never, plain, request

SSE = [(b"accept", b"text/event-stream")]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def refused(seen: Seen, reason: str, status: int, outcome: str, stage: str = "") -> None:
    """The client is told of a refusal, the event says the same, and nothing was executed."""
    assert (seen.status, seen.said) == (status, (outcome, reason, status))
    assert seen.data["audit_id"] == str(seen.event["id"]) and seen.decision["executed"] is False
    assert seen.call is not None and seen.call.record is Record.KEPT and not seen.call.executed
    assert "upstream" not in seen.order and not seen.order.count("intent")
    if stage:
        assert (seen.decision["stage"], seen.decision["stages"][-1]["result"]) == (stage, reason)


async def test_a_call_that_passes(scene: Scene) -> None:
    scene.upstream.say(plain({"content": [{"type": "text", "text": "hi"}]}))
    seen = await scene.ask(call("get", a=1))
    assert seen.order == ["intent", "upstream", "outcome", "head", "body"]
    assert seen.status == 200 and seen.json["result"]["content"][0]["text"] == "hi" and seen.ended
    assert seen.said == ("allowed", "allowed_by_rule", 200) and seen.decision["executed"] is True
    assert [each["stage"] for each in seen.decision["stages"]] == ["authenticate", "parse", "authorize", "rate-limit"]
    assert all(each["result"] in ("ok", "allowed_by_rule") for each in seen.decision["stages"])
    (sent,) = scene.upstream.asked
    assert (sent.verb, sent.body) == (b"POST", call("get", a=1)) and scene.key.encode() not in repr(sent).encode()
    assert seen.call is not None and (seen.call.state, seen.call.record) == (State.SENT, Record.KEPT)


# -- authenticate


async def test_a_caller_without_a_key(scene: Scene) -> None:
    seen = await scene.ask(call(), key="")
    refused(seen, "missing_credential", 401, "unauthenticated", "authenticate")
    assert (
        seen.headers[b"www-authenticate"] and seen.event["tool_name"] == "get"
    )  # what it wanted is known all the same
    assert seen.event["request_json"] and not seen.event.get("api_key_id")


@pytest.mark.parametrize(
    ("reason", "told", "changes"),
    [
        ("invalid_credential", "invalid_credential", None),
        ("revoked_key", "invalid_credential", {"revoked_at": 1.0}),
        ("expired_key", "invalid_credential", {"expires_at": 1.0}),
        ("wrong_network", "invalid_credential", {"networks": ("10.0.0.0/8",)}),
        ("administrative_key", "invalid_credential", {"duty": "administrator"}),
    ],
)
async def test_a_key_that_is_not_valid_here(
    scene: Scene, reason: str, told: str, changes: dict[str, Any] | None
) -> None:
    key = "mcps_live_nonsense" if changes is None else scene.holder.add("" if "duty" in changes else "user", **changes)
    seen = await scene.ask(call(), key=key)
    refused(seen, reason, 401, "unauthenticated", "authenticate")
    assert seen.data["reason"] == told and reason not in seen.body.decode().replace(told, "")


async def test_a_key_in_the_address_where_that_is_off(tmp_path: Path) -> None:
    scene = Scene(tmp_path, query_keys=False)
    seen = await scene.ask(call(), key="", scope={"sentinel.query_credentials": (scene.key,)})
    refused(seen, "query_forbidden", 401, "unauthenticated", "authenticate")
    scene = Scene(tmp_path, query_keys=True)
    scene.upstream.say(plain())
    seen = await scene.ask(call(), key="", scope={"sentinel.query_credentials": (scene.key,)})
    assert seen.said[0] == "allowed" and seen.event["auth_method"] == "query"


async def test_two_credentials_and_one_in_the_wrong_place(scene: Scene) -> None:
    seen = await scene.ask(call(), headers=[(b"x-api-key", b"another")])
    refused(seen, "credential_ambiguous", 400, "invalid", "authenticate")
    seen = await scene.ask(call(), key="", scope={"sentinel.query_credentials": (None,)})
    refused(seen, "credential_misplaced", 400, "invalid", "authenticate")


async def test_keys_that_were_never_read(scene: Scene) -> None:
    scene.holder.current = None
    seen = await scene.ask(call())
    refused(seen, "policy_stale", 503, "denied", "authenticate")
    assert seen.headers[b"retry-after"]


async def test_a_stranger_is_read_so_far_and_no_further(scene: Scene) -> None:
    seen = await scene.ask(call("get", text="x" * STRANGER_BYTES), key="")
    refused(seen, "missing_credential", 401, "unauthenticated")
    assert seen.event["request_bytes"] == STRANGER_BYTES


async def test_a_preflight_is_answered_and_leaves_nothing(tmp_path: Path) -> None:
    scene = Scene(tmp_path, allowed_origins=("https://app.example.com",))
    asks = [(b"origin", b"https://app.example.com"), (b"access-control-request-method", b"POST")]
    seen = await scene.ask(verb="OPTIONS", key="", headers=asks)
    assert seen.status == 204 and not seen.events
    gone = scene.client()
    gone.broken = True  # left meanwhile: nothing to tell, nothing raised
    assert not (await scene.ask(gone, verb="OPTIONS", key="", headers=asks)).events
    other = await scene.ask(verb="OPTIONS", key="", headers=[(b"origin", b"https://evil.test"), asks[1]])
    refused(other, "bad_origin", 403, "invalid")


# -- parse

MODERN = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
MODERN_HEADERS = [(b"mcp-protocol-version", b"2026-07-28"), (b"mcp-method", b"tools/call"), (b"mcp-name", b"get")]


@pytest.mark.parametrize(
    ("reason", "status", "asked"),
    [
        ("bad_host", 400, {"host": b"evil.test"}),
        ("bad_origin", 403, {"headers": [(b"origin", b"https://evil.test")]}),
        ("method_not_allowed", 405, {"verb": "PUT"}),
        ("method_not_allowed", 405, {"verb": "POST", "endpoint": "sse"}),
        ("method_not_allowed", 405, {"verb": "GET", "endpoint": "messages"}),
        ("invalid_request", 400, {"verb": "GET", "headers": [(b"last-event-id", b"1"), (b"last-event-id", b"2")]}),
        ("unknown_upstream", 404, {"slug": "elsewhere"}),
        ("unsupported_encoding", 415, {"headers": [(b"content-encoding", b"gzip")]}),
        ("unsupported_media_type", 415, {"kind": b"text/plain"}),
        ("unsupported_media_type", 415, {"kind": None}),
        ("not_json", 400, {"data": b"{"}),
        ("not_utf8", 400, {"data": b'{"\xff":1}'}),
        ("batch", 400, {"data": b"[]"}),
        ("duplicate_member", 400, {"data": b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}'}),
        ("invalid_request", 400, {"data": b'{"jsonrpc":"2.0","id":7}'}),
        ("invalid_params", 400, {"data": request("tools/call", {})}),
        ("unknown_session", 404, {"headers": [(b"mcp-session-id", b"made-up")]}),
        ("unknown_session", 404, {"endpoint": "messages"}),
        ("unknown_event", 400, {"verb": "GET", "headers": [*SSE, (b"last-event-id", b"made-up")]}),
        ("unsupported_version", 400, {"headers": [(b"mcp-protocol-version", b"1999-01-01")]}),
        ("header_mismatch", 400, {"headers": [(b"mcp-protocol-version", b"2026-07-28")], "data": request("tools/list", {"_meta": MODERN})}),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
async def test_what_cannot_be_understood(scene: Scene, reason: str, status: int, asked: dict[str, Any]) -> None:
    verb = asked.get("verb", "POST")
    seen = await scene.ask(
        asked.get("data", call() if verb != "GET" else b""), **{k: v for k, v in asked.items() if k != "data"}
    )
    refused(seen, reason, status, "invalid", "parse")


async def test_the_verbs_that_there_are(scene: Scene) -> None:
    assert (await scene.ask(verb="PUT")).headers[b"allow"] == b"POST, GET, DELETE"
    assert (await scene.ask(verb="PUT", endpoint="sse")).headers[b"allow"] == b"GET"
    assert (await scene.ask(verb="HEAD")).body == b""


async def test_what_was_known_of_a_message_that_was_refused(scene: Scene) -> None:
    seen = await scene.ask(b'{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"get","arguments":7}}')
    assert (seen.json["id"], seen.event["rpc_id"], seen.event["method"]) == ("a", '"a"', "tools/call")


async def test_a_body_that_is_too_large_is_known_by_its_beginning(tmp_path: Path) -> None:
    scene = Scene(tmp_path, max_body_bytes=200)
    seen = await scene.ask(call("get", text="x" * 200))
    refused(seen, "body_too_large", 413, "invalid", "parse")
    assert seen.event["request_bytes"] == 200 and seen.json["id"] == 7


async def test_a_body_that_does_not_come(tmp_path: Path) -> None:
    scene = Scene(tmp_path, body_timeout=0.1)
    seen = await scene.ask(scene.client(b"{", half=True))
    refused(seen, "body_timeout", 408, "invalid", "parse")


async def test_a_client_that_leaves_within_its_body(scene: Scene) -> None:
    client = scene.client(b"{", half=True)
    client.left.set()
    seen = await scene.ask(client)
    assert seen.said == ("cancelled", "client_gone", 499) and not seen.status and seen.decision["executed"] is False


async def test_more_than_a_share_of_what_may_wait(tmp_path: Path) -> None:
    scene = Scene(tmp_path, buffer_bytes=300_000, buffer_bytes_per_key=100_000)
    seen = await scene.ask(call("get", text="x" * 250_000))
    refused(seen, "too_much_waiting", 429, "limited", "parse")
    assert (
        seen.headers[b"retry-after"] == b"5"
        and scene.gateway.ledger.of(str(seen.call.key_id if seen.call else "")) == 0
    )


async def test_a_large_body_is_read_beside_the_loop(scene: Scene) -> None:
    scene.upstream.say(plain())
    assert (await scene.ask(call("get", text="x" * PARSE_OFF_LOOP))).said[0] == "allowed"
    seen = await scene.ask(b"{" + b" " * PARSE_OFF_LOOP)
    refused(seen, "not_json", 400, "invalid", "parse")


async def test_an_id_that_waits_is_not_used_twice(scene: Scene) -> None:
    again: list[Seen] = []

    async def second(_: Any) -> Any:
        again.append(await scene.ask(call(), headers=[(b"mcp-session-id", scene.session)]))
        return plain()

    scene.upstream.say(second)
    first = await scene.ask(call(), headers=[(b"mcp-session-id", scene.session)])
    assert again[0].call is not None and again[0].call.reason == "id_in_use" and again[0].status == 400
    assert first.call is not None and first.status == 200
    scene.upstream.say(plain())
    assert (await scene.ask(call(), headers=[(b"mcp-session-id", scene.session)])).status == 200, "it waits no more"


@pytest.mark.parametrize(("speaks", "modern", "status"), [("legacy", True, 400), ("modern", False, 400)])
async def test_two_eras_do_not_meet(tmp_path: Path, speaks: str, modern: bool, status: int) -> None:
    scene = Scene(tmp_path, spec={"era": speaks, "era_checked_at": time.time()})
    data = request("tools/call", {"name": "get", "_meta": MODERN}) if modern else call()
    seen = await scene.ask(data, headers=MODERN_HEADERS if modern else ())
    refused(seen, "era_mismatch", status, "invalid", "parse")
    assert seen.data["supported"] and seen.data["requested"]


async def test_the_older_transport_has_no_modern_era(scene: Scene) -> None:
    seen = await scene.ask(verb="GET", endpoint="sse", headers=[(b"mcp-protocol-version", b"2026-07-28")])
    refused(seen, "method_not_allowed", 405, "invalid", "parse")


# -- authorize


async def test_no_rule_and_a_rule_that_denies(scene: Scene) -> None:
    seen = await scene.ask(call("drop_all"))
    refused(seen, "no_rule", 403, "denied", "authorize")
    seen = await scene.ask(call("get_more"))
    refused(seen, "denied_by_rule", 403, "denied", "authorize")
    assert "Ask the desk instead." in seen.json["error"]["message"] and seen.decision["rule"]["name"] == "not this one"


async def test_a_key_of_other_upstreams(scene: Scene) -> None:
    seen = await scene.ask(call(), key=scene.holder.add("user", upstreams=frozenset({"other"})))
    refused(seen, "no_rule", 403, "denied", "authorize")


async def test_a_policy_that_could_not_be_confirmed(scene: Scene) -> None:
    scene.holder.age = scene.config.snapshot_max_age + 1
    refused(await scene.ask(call()), "policy_stale", 503, "denied")


async def test_a_definition_that_waits_for_approval(tmp_path: Path) -> None:
    scene = Scene(tmp_path, spec={"definitions": {("tool", "get"): Definition("tool", "get", "", "", "quarantined")}})
    refused(await scene.ask(call()), "tool_definition_changed", 403, "denied", "authorize")
    # hidden and nonexistent look the same: who may not have it does not learn that it waits
    refused(await scene.ask(call(), key=scene.holder.add("nobody")), "no_rule", 403, "denied", "authorize")


async def test_a_task_that_is_nobodys(scene: Scene) -> None:
    seen = await scene.ask(request("tasks/get", {"taskId": "made-up"}), headers=[(b"mcp-session-id", scene.session)])
    assert (seen.event["reason"], seen.event["outcome"]) == ("unknown_task", "invalid") and not scene.upstream.asked


async def test_a_tool_behind_a_dispatcher(tmp_path: Path) -> None:
    scene = Scene(tmp_path, spec={"dispatchers": {"get": "name"}})
    seen = await scene.ask(call("get", name="drop_all"))
    refused(seen, "no_rule", 403, "denied", "authorize")
    assert seen.details["inner"] == ["drop_all"] and seen.event["tool_name"] == "drop_all"


# -- rate-limit

LIMITED = POLICY + "rate_limits: {per_api_key: {requests: 1, window_seconds: 60}}\n"


async def test_a_limit_that_is_used_up(scene: Scene) -> None:
    scene.holder.swap(LIMITED)
    scene.upstream.say(plain())
    assert (await scene.ask(call())).status == 200
    seen = await scene.ask(call())
    refused(seen, "rate_limited", 429, "limited", "rate-limit")
    assert int(seen.headers[b"retry-after"]) > 0 and seen.headers[b"ratelimit-limit"] == b"1"
    assert seen.details["limit"]["requests"] == 1


async def test_a_limiter_that_cannot_count(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async def cannot(_: Any) -> LimitAnswer:
        return LimitAnswer(False, "limiter_unavailable", 1.0)

    scene.holder.swap(LIMITED)
    monkeypatch.setattr(scene.gateway.limiter, "admit", cannot)
    refused(await scene.ask(call()), "limiter_unavailable", 503, "limited", "rate-limit")


async def test_too_much_beside_calls(tmp_path: Path) -> None:
    scene = Scene(tmp_path, session_traffic_limit=1)
    scene.upstream.say(plain({"tools": []}))
    assert (await scene.ask(request("tools/list"))).status == 200
    seen = await scene.ask(request("tools/list"))
    refused(seen, "too_much_traffic", 429, "limited", "rate-limit")
    told = await scene.ask(request("notifications/cancelled", {"requestId": 7}, rpc_id=None))
    assert told.status == 202  # what nobody waits for is never refused


@pytest.mark.parametrize("bound", ["max_streams", "max_streams_per_key"])
async def test_too_many_streams(tmp_path: Path, bound: str) -> None:
    scene = Scene(tmp_path, **{bound: 0})
    seen = await scene.ask(verb="GET", headers=SSE)
    refused(seen, "too_many_streams", 429, "limited", "rate-limit")


# -- record intent


async def test_nothing_is_executed_without_a_record(scene: Scene) -> None:
    scene.log.fails = {"intent"}
    seen = await scene.ask(call())
    assert seen.status == 503 and seen.data["executed"] is False and not scene.upstream.asked
    assert seen.said == ("unrecorded", "audit_unavailable", 503) and seen.decision["executed"] is False
    assert seen.call is not None and (seen.call.state, seen.call.record) == (State.ARRIVED, Record.LOST)


async def test_an_intent_that_is_lost_on_its_way(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost() -> None:
        raise AuditUnavailable("the disk is full")

    monkeypatch.setattr(scene.log, "intent", lambda _: lost())
    seen = await scene.ask(call())
    assert seen.status == 503 and seen.data["executed"] is False and not scene.upstream.asked
    assert seen.call is not None and (seen.call.state, seen.call.record) == (State.INTENDED, Record.LOST)


# -- forward


@pytest.mark.parametrize(
    ("error", "reason", "status", "executed"),
    [
        (Unreachable("It is away.", detail="refused"), "upstream_unreachable", 502, False),
        (EgressRefused("Not there."), "egress_refused", 502, False),
        (Busy("Full.", retry_after=3.2), "upstream_busy", 503, False),
        (TimedOut("Too slow."), "upstream_timeout", 504, None),
        (Broken("Rubbish.", said="Ошибка"), "upstream_broken", 502, None),
        (Unread("Read first."), "too_much_waiting", 429, None),
        (UpstreamError("Failed."), "upstream_error", 502, None),
    ],
)
async def test_an_upstream_that_gives_no_answer(
    scene: Scene, error: UpstreamError, reason: str, status: int, executed: bool | None
) -> None:
    scene.upstream.say(error)
    seen = await scene.ask(call())
    assert list(dict.fromkeys(seen.order)) == ["intent", "upstream", "outcome", "head", "body"]
    assert (seen.status, seen.said) == (status, ("upstream_error", reason, status))
    assert seen.decision["executed"] is executed and seen.data.get("executed") is executed
    assert (
        seen.data.get("may_have_run", False)
        is (executed is None)
        == ("It may have run." in seen.json["error"]["message"])
    )
    assert seen.details.get("error", "") == error.detail and (b"retry-after" in seen.headers) is (status == 503)
    assert ("response_json" in seen.event) is bool(error.said)
    assert seen.call is not None and seen.call.state is (State.SENT if executed is None else State.INTENDED)


async def test_an_upstream_that_is_slow_hears_that_nobody_waits(scene: Scene) -> None:
    scene.upstream.say(TimedOut("Too slow."))
    await scene.ask(call(), headers=[(b"mcp-session-id", scene.session)])
    await asyncio.sleep(0.01)
    assert (
        b"notifications/cancelled" in scene.upstream.asked[1].body and b'"requestId":7' in scene.upstream.asked[1].body
    )


async def test_an_upstream_that_was_removed_meanwhile(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    intent = scene.log.intent

    def removed(made: Any) -> Any:
        scene.holder.extras["upstreams"] = {"crm": replace(scene.spec, enabled=False)}
        return intent(made)

    monkeypatch.setattr(scene.log, "intent", removed)
    seen = await scene.ask(call())
    assert seen.said == ("upstream_error", "upstream_unreachable", 502) and seen.decision["executed"] is False
    assert not scene.upstream.asked


async def test_a_defect_of_ours_is_recorded_and_answered(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.upstream.say(RuntimeError("a defect"))
    seen = await scene.ask(call())
    assert (seen.status, seen.said) == (500, ("interrupted", "internal_error", 500))
    assert seen.data["may_have_run"] is True and seen.decision["executed"] is None and "a stage failed" in caplog.text


ENDS = {
    "client_gone": ("cancelled", 499, 0),
    "cancelled": ("cancelled", 499, 200),
    "revoked_during_stream": ("cancelled", 401, 401),
    "denied_during_stream": ("cancelled", 403, 403),
    "upstream_changed": ("cancelled", 503, 503),
    "server_stopping": ("interrupted", 503, 503),
}


@pytest.mark.parametrize("reason", ENDS)
async def test_a_call_that_is_ended_while_it_waits(scene: Scene, reason: str) -> None:
    outcome, recorded, told = ENDS[reason]
    scene.upstream.say(never)
    seen = await scene.ask(call(), meanwhile=lambda found: found.exchange.end(reason))
    assert (seen.status, seen.said) == (told, (outcome, reason, recorded))
    assert seen.decision["executed"] is None and seen.order[:3] == ["intent", "upstream", "outcome"]
    assert seen.body == b"" if told in (0, 200) else seen.data["may_have_run"]


async def test_a_client_that_leaves_while_it_waits(scene: Scene) -> None:
    client = scene.client(call())
    scene.upstream.say(never)
    seen = await scene.ask(client, meanwhile=lambda _: client.left.set())
    assert seen.said == ("cancelled", "client_gone", 499) and not seen.status and seen.order[-1] == "outcome"


async def test_a_call_that_is_ended_before_it_is_sent(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    intent = scene.log.intent

    def ended(made: Any) -> Any:
        next(iter(scene.gateway.calls)).exchange.end("server_stopping")
        return intent(made)

    monkeypatch.setattr(scene.log, "intent", ended)
    seen = await scene.ask(call())
    assert seen.said == ("interrupted", "server_stopping", 503) and seen.decision["executed"] is False
    assert not scene.upstream.asked and seen.data["executed"] is False


async def test_an_upstream_that_was_told_that_nobody_waits(scene: Scene) -> None:
    scene.upstream.say(Cancelled("It was taken back."))
    seen = await scene.ask(call())
    assert seen.said == ("cancelled", "cancelled", 499) and seen.status == 200 and seen.body == b""


async def test_a_server_that_stops_hard_loses_no_record(scene: Scene) -> None:
    scene.upstream.say(never)
    task = asyncio.current_task()
    assert task is not None
    seen: list[Any] = []

    async def ask() -> None:
        seen.append(await scene.ask(call(), meanwhile=lambda _: asking.cancel()))

    asking = asyncio.ensure_future(ask())
    await asyncio.gather(asking, return_exceptions=True)
    (recorded,) = scene.log.events
    assert recorded.as_record()["reason"] == "server_stopping" and scene.order[-1] in ("outcome", "body")


async def test_who_takes_a_request_back_ends_it(scene: Scene) -> None:
    session = [(b"mcp-session-id", scene.session)]
    scene.upstream.say(never)

    async def take_back(found: Any) -> None:
        await scene.ask(request("notifications/cancelled", {"requestId": 7}, rpc_id=None), headers=session)

    seen = await scene.ask(call(), headers=session, meanwhile=take_back)
    taken = [each.as_record() for each in scene.log.events]
    assert {(each["method"], each["reason"]) for each in taken} >= {("tools/call", "cancelled")}
    assert seen.status == 200 and seen.body == b""


async def test_an_outcome_that_is_not_taken(scene: Scene) -> None:
    scene.upstream.say(Broken("Rubbish."))
    scene.log.fails = {"outcome"}
    seen = await scene.ask(call())
    assert seen.status == 503 and seen.data["reason"] == "audit_unavailable" and seen.data["may_have_run"] is True
    assert seen.call is not None and seen.call.record is Record.LOST
