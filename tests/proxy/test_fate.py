"""What a refusal says became of the request: the same in its data, in its words and in the event, and never what nobody knows."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from audit.journal.tickets import AuditUnavailable
from audit.reasons import REASONS
from proxy import outcomes
from proxy.call import FOR_GOOD, Call, State
from proxy.http.exchange import Departed, Exchange
from proxy.http.refusals import refuse
from proxy.relay import relay
from proxy.upstreams.transports.base import BufferedResponse
from tests.proxy.fake_transport import made as begun

CALL = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"x"}}'
MODES = ("http", "in-band", "tool-result")
WORDS = "It may have run."


def made(body: bytes = CALL, **known: Any) -> Call:
    """A call of a live session that the upstream was sent."""
    return begun(body, **{"session": b"s", "principal": object(), **known})


def told(call: Any, mode: str = "http") -> tuple[str, dict[str, Any]]:
    """The text and the data of what its client is told."""
    gateway: Any = SimpleNamespace(config=SimpleNamespace(refusals=mode))
    value = json.loads(outcomes.answer_for(gateway, call, call.refusal, "0198-x").body)
    if "error" in value:
        return value["error"]["message"], value["error"]["data"]
    return value["result"]["content"][0]["text"], value["result"]["_meta"]["mcp-sentinel/refusal"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("reason", sorted(row.code for row in REASONS.values() if row.status))
def test_words_and_data_say_the_same(reason: str, mode: str) -> None:
    for executed in (True, False):
        call = made(state=State.SENT if executed else State.INTENDED, reason=reason)
        call.refusal = refuse(reason, call=call)
        text, data = told(call, mode)
        assert (WORDS in text, data.get("may_have_run", False), data.get("executed")) == (
            (True, True, None) if executed else (False, False, False)
        )
        assert text.count(WORDS) <= 1 and text.endswith(" (audit id 0198-x)")
        assert outcomes.ran(call) is (None if executed else False)


@pytest.mark.parametrize("ends", [outcomes.failed, lambda call: outcomes.departed(call, "server_stopping")])
def test_a_defect_and_a_stop_leave_it_open(ends: Any) -> None:
    call = made()
    ends(call)
    text, data = told(call)
    assert WORDS in text and data["may_have_run"] is True


ENDS = {"revoked_during_stream": 401, "denied_during_stream": 403, "server_stopping": 503, "upstream_changed": 503}


@pytest.mark.parametrize("reason", ENDS)
def test_the_event_of_a_stream_that_is_ended_has_the_status_of_its_last_word(reason: str) -> None:
    call = made(answer_status=200, state=State.STREAMING)
    outcomes.departed(call, reason)
    assert call.answer_status == ENDS[reason] == told(call)[1].get("code", call.refusal.code)
    nobody: list[dict[str, Any]] = [{"rpc_id": b""}, {"state": State.ANSWERED}, {"torn": True}]  # is told anything
    for known in nobody + [{"resumable": True}] * (reason not in FOR_GOOD):
        call = made(**{"answer_status": 200, "state": State.STREAMING, **known})
        outcomes.departed(call, reason)
        assert call.answer_status == 200


def test_nobody_asks_again_with_a_notification() -> None:
    call = made(b'{"jsonrpc":"2.0","method":"notifications/x"}', rpc_id=b"", reason="upstream_error")
    call.refusal = refuse("upstream_error", call=call)
    assert WORDS not in told(call)[0]


@pytest.mark.parametrize(
    ("known", "done", "words"),
    [
        ({"state": State.INTENDED}, False, "so it was not done."),
        ({"outcome": "allowed"}, True, "It was done all the same."),
        ({"state": State.STREAMING, "outcome": "allowed"}, None, WORDS),
        ({"outcome": "upstream_error", "reason": "upstream_timeout"}, None, WORDS),
        ({"outcome": "upstream_error", "reason": "upstream_refused"}, False, "so it was not done."),
    ],
)
def test_what_cannot_be_recorded_says_what_became_of_it(known: dict[str, Any], done: bool | None, words: str) -> None:
    call = made(**known)
    outcomes.unrecordable(call, AuditUnavailable("full"))
    text, data = told(call)
    assert words in text and [other for other in ("not done", "was done", WORDS) if other in text] == [
        {False: "not done", True: "was done", None: WORDS}[done]
    ]
    assert data.get("executed") is done and data.get("may_have_run", False) is (done is None)
    assert outcomes.ran(call) is done


@pytest.mark.parametrize("reason", ["revoked_during_stream", "denied_during_stream", "cancelled"])
async def test_an_answer_that_waits_for_its_turn_is_not_delivered_after_that(reason: str) -> None:
    """A large answer is read and redacted in a thread, in its key's turn: whatever ends the call meanwhile keeps it back."""

    async def send(what: Any) -> None:
        raise AssertionError(what)

    exchange = Exchange({"type": "http", "method": "POST", "headers": []}, None, send)  # type: ignore[arg-type]

    async def payload(*given: Any, **more: Any) -> Any:
        exchange.end(reason)

    def unwritten(event: Any) -> Any:
        raise AssertionError("an outcome was recorded")

    gateway: Any = SimpleNamespace(
        config=SimpleNamespace(max_answer_bytes=1000), payload=payload, logger=SimpleNamespace(outcome=unwritten),
        snapshot=None, ledger=None, spec=None,
    )  # fmt: skip
    call = made(exchange=exchange, body=CALL, event=SimpleNamespace(), key_id="k")
    answer = b'{"jsonrpc":"2.0","id":7,"result":{"content":[]}}'
    with pytest.raises(Departed, match=reason):
        await relay(gateway, call, BufferedResponse(200, [(b"content-type", b"application/json")], answer))
