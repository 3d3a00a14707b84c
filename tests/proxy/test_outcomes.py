"""Which style a refusal goes out in: the upstream's where it says one, else the installation's."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from proxy import outcomes
from proxy.http.refusals import refuse
from proxy.mcp import message

CALL = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"x"%s}}'


def answer(installation: str, upstream: str = "", *, body: bytes = CALL % b"", reason: str = "no_rule", **known: Any):
    """What a call with this body is told when it is refused."""
    read = message.read(body)
    call: Any = SimpleNamespace(
        message=read, known=read.known, rpc_id=b"7", session=b"", link=None, era=None, principal=object(), executed=False,
        reason=reason, outcome="",
        spec=SimpleNamespace(refusals=upstream),
    )  # fmt: skip
    vars(call).update(known)
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
