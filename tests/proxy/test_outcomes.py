"""How a request ends, and which style a refusal goes out in: the upstream's where it says one, else the installation's."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from audit.journal.logger import Admission, Refusal
from proxy import outcomes
from proxy.call import Record, State
from proxy.http.refusals import refuse
from proxy.upstreams.specs import UpstreamSpec, Way
from proxy.upstreams.transports.base import Broken, Busy, Unreachable, UpstreamError
from tests.proxy.fake_transport import Scene, made

CALL = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"x"%s}}'


def answer(installation: str, upstream: str = "", *, body: bytes = CALL % b"", reason: str = "no_rule", **known: Any):
    """What a call with this body is told when it is refused."""
    spec: Any = SimpleNamespace(refusals=upstream)
    given = {"rpc_id": b"7", "principal": object(), "spec": spec} | known
    call = made(body, state=State.INTENDED, reason=reason, **given)
    gateway: Any = SimpleNamespace(config=SimpleNamespace(refusals=installation))
    found = outcomes.answer_for(gateway, call, refuse(reason, call=call), "0198-x")
    value = json.loads(found.body)
    assert found.status in (200, refuse(reason).status)
    return "tool-result" if "result" in value else "in-band" if found.status == 200 else "http"


@pytest.mark.parametrize(
    ("installation", "upstream", "style"),
    [
        ("auto", "", "http"),
        ("tool-result", "", "tool-result"),
        ("tool-result", "http", "http"),
        ("tool-result", "auto", "http"),
        ("http", "in-band", "in-band"),
        ("in-band", "tool-result", "tool-result"),
    ],
)
def test_an_upstreams_own_word_goes_before_the_installations(installation: str, upstream: str, style: str) -> None:
    assert answer(installation, upstream) == style


@pytest.mark.parametrize("live", [{"session": b"s"}, {"link": object()}])
@pytest.mark.parametrize("reason", ["no_rule", "rate_limited", "internal_error", "upstream_busy", "upstream_timeout"])
def test_a_live_session_gets_what_its_model_reads(live: dict[str, Any], reason: str) -> None:
    assert answer("auto", reason=reason, **live) == "tool-result"
    assert answer("auto", reason=reason, **live, body=CALL % b',"task":{}') == "in-band"
    assert answer("auto", reason=reason, **live, body=CALL.replace(b"tools/call", b"prompts/get") % b"") == "in-band"


@pytest.mark.parametrize("reason", ["revoked_during_stream", "unknown_session", "era_mismatch", "body_too_large"])
@pytest.mark.parametrize("mode", ["auto", "in-band", "tool-result"])
def test_what_is_no_refusal_of_a_call_keeps_its_status(mode: str, reason: str) -> None:
    assert answer(mode, reason=reason, session=b"s") == "http"


@pytest.mark.parametrize("mode", ["auto", "in-band", "tool-result"])
def test_a_caller_without_a_valid_key_keeps_its_status(mode: str) -> None:
    assert answer(mode, reason="policy_stale", principal=None, spec=None) == "http"


@pytest.mark.parametrize("mode", ["auto", "in-band", "tool-result"])
def test_a_clients_own_answer_is_not_answered_within_200(mode: str) -> None:
    body = b'{"jsonrpc":"2.0","id":7,"result":{}}'
    assert answer(mode, reason="rate_limited", body=body, session=b"s") == "http"


# -- how a request ends, said once


@pytest.mark.parametrize("record", [Record.KEPT, Record.LOST])
@pytest.mark.parametrize("reason", ["client_gone", "server_stopping", "revoked_during_stream"])
def test_an_end_that_is_settled_is_not_told_otherwise(record: Record, reason: str) -> None:
    call = made(CALL % b"", outcome="allowed", reason="allowed_by_rule", answer_status=200, record=record)
    outcomes.departed(call, reason)
    assert (call.outcome, call.reason, call.answer_status, call.refusal) == ("allowed", "allowed_by_rule", 200, None)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("reason", ["client_gone", "cancelled", "server_stopping"])
def test_who_has_the_answer_has_left_nothing_unanswered(state: State, reason: str) -> None:
    call = made(CALL % b"", outcome="allowed", reason="allowed_by_rule", answer_status=200, state=state)
    outcomes.departed(call, reason)
    kept = state is State.DELIVERED and reason != "server_stopping"
    assert (call.reason, call.outcome) == (
        ("allowed_by_rule", "allowed")
        if kept
        else (reason, "interrupted" if reason == "server_stopping" else "cancelled")
    )


@pytest.mark.parametrize("state", [State.INTENDED, State.SENT, State.STREAMING])
@pytest.mark.parametrize("error", [Unreachable("Away."), Broken("Rubbish."), Busy("Full.")])
async def test_what_an_error_says_of_the_request_holds_until_its_answer_has_begun(
    tmp_path: Path, state: State, error: UpstreamError
) -> None:
    call = made(CALL % b"", state=state)
    outcomes.upstream_failed(Scene(tmp_path).gateway, call, error)
    seen = state is State.STREAMING or (state is State.SENT and error.executed)
    assert outcomes.ran(call) is (None if seen else False)
    assert (call.outcome, call.reason) == ("upstream_error", error.reason) and call.refusal is not None


@pytest.mark.parametrize(
    ("transport", "reason"), [("streamable-http", "upstream_broken"), ("stdio", "server_stopping")]
)
def test_a_process_of_ours_that_stops_with_us_has_not_failed(tmp_path: Path, transport: str, reason: str) -> None:
    scene = Scene(tmp_path)
    scene.gateway.stopping = True
    call = made(CALL % b"", spec=UpstreamSpec("crm", Way(transport)))
    outcomes.upstream_failed(scene.gateway, call, Broken("Rubbish."))
    assert call.reason == reason


def test_an_upstream_that_fails_after_a_cancel_was_cancelled(tmp_path: Path) -> None:
    call = made(CALL % b"")
    call.exchange.ended_by = "cancelled"
    outcomes.upstream_failed(Scene(tmp_path).gateway, call, Broken("Rubbish."))
    assert (call.reason, call.refusal) == ("cancelled", None)


async def test_a_flood_is_counted_and_told_its_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(tmp_path)
    kind = scene.log.admit(Refusal(None, "", "", "", "", "", "")).kind
    monkeypatch.setattr(scene.log, "admit", lambda _: Admission(kind, None, False, "0198-counted"))
    call = made(CALL % b"", state=State.ARRIVED)
    outcomes.refused(call, refuse("no_rule", call=call))
    assert await outcomes._durable(scene.gateway, call) == "0198-counted"
    assert call.record is Record.KEPT and call.event is None and not scene.log.events


async def test_whatever_fails_at_the_end_those_who_count_hear_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scene, told = Scene(tmp_path), []
    scene.gateway.observers.append(told.append)

    async def defect(*_: Any) -> str:
        raise RuntimeError("a defect")

    monkeypatch.setattr(outcomes, "_record", defect)
    await outcomes.record(scene.gateway, call := made(CALL % b""))
    assert told == [call] and "could not be recorded" in caplog.text
