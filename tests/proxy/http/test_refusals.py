"""Each refusal as bytes: status, code, reason, audit id, and the id as it was sent."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from audit.reasons import REASONS, answering
from proxy.http.refusals import IN_BAND, Answer, answer, not_found, refuse
from proxy.mcp.message import Readable, Refused

# Every reason of the closed vocabulary that is answered, with the status the contract gives it.
STATUS = {
    401: "missing_credential invalid_credential expired_key revoked_key wrong_network query_forbidden administrative_key",
    400: "credential_ambiguous credential_misplaced not_json not_utf8 byte_order_mark batch duplicate_member reserved_member too_deep "
    "invalid_request invalid_params lone_surrogate header_mismatch unsupported_version bad_host era_mismatch unknown_event id_in_use",
    403: "bad_origin no_rule denied_by_rule policy_error tool_definition_changed ambiguous_target nested_call "
    "denied_during_stream",
    404: "method_not_found unknown_upstream unknown_session unknown_task",
    405: "method_not_allowed",
    408: "body_timeout",
    413: "body_too_large",
    415: "unsupported_media_type unsupported_encoding",
    429: "rate_limited too_much_traffic too_many_streams too_much_waiting",
    502: "upstream_unreachable upstream_broken upstream_redirect upstream_too_large upstream_error egress_refused",
    503: "policy_stale limiter_unavailable upstream_busy upstream_changed server_stopping audit_unavailable",
    504: "upstream_timeout",
}
CASES = [(reason, status) for status, reasons in STATUS.items() for reason in reasons.split()]


def header(answered: Answer, name: bytes) -> list[bytes]:
    return [value for sent, value in answered.headers if sent == name]


def refusal(reason: str, message: str = "", *, id_json: bytes | None = None, **more: Any) -> Answer:
    """A refusal as it is answered, with what is given, and no more of a wait than that."""
    how = {name: more.pop(name) for name in ("audit_id", "style", "modern") if name in more}
    return answer(Refused(reason, message, known=Readable(id_json=id_json), **more), **how)


@pytest.mark.parametrize(("reason", "status"), CASES)
def test_each_reason(reason: str, status: int) -> None:
    found = refusal(reason, id_json=b'"r3"', audit_id="0190-x")
    body = json.loads(found.body)
    assert found.status == status
    assert body["jsonrpc"] == "2.0" and body["id"] == "r3"
    assert body["error"]["data"]["audit_id"] == "0190-x"
    assert body["error"]["message"]
    assert header(found, b"content-type") == [b"application/json"]
    assert header(found, b"cache-control") == [b"no-store"]
    assert header(found, b"content-length") == [b"%d" % len(found.body)]
    # the reserved range belongs to JSON-RPC and MCP: only their own codes stand in it
    code = body["error"]["code"]
    assert code in (-32700, -32600, -32601, -32602, -32020, -32022) or code == status
    assert (status == 401) == bool(header(found, b"www-authenticate"))
    assert (status == 405) == bool(header(found, b"allow"))


# The codes that JSON-RPC and MCP have for it; all else has its HTTP status.
CODES = {
    -32700: "not_json not_utf8 byte_order_mark",
    -32600: "credential_misplaced credential_ambiguous batch duplicate_member reserved_member too_deep invalid_request lone_surrogate "
    "body_too_large body_timeout unsupported_media_type unsupported_encoding bad_host id_in_use unknown_event",
    -32601: "method_not_found",
    -32602: "invalid_params unknown_task",
    -32020: "header_mismatch",
    -32022: "unsupported_version era_mismatch",
}


@pytest.mark.parametrize(("reason", "status"), CASES)
def test_each_code(reason: str, status: int) -> None:
    own = {named: code for code, reasons in CODES.items() for named in reasons.split()}
    assert json.loads(refusal(reason).body)["error"]["code"] == own.get(reason, status)


def test_the_registry_answers_with_nothing_else() -> None:
    named = {reason for reason, _ in CASES}
    assert {row.code for row in REASONS.values() if row.status} - named == {"internal_error", "revoked_during_stream"}


def test_the_table_for_clients_has_each_reason_once_with_its_status() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "clients.md").read_text(encoding="utf-8")
    shown: list[tuple[str, int]] = []
    for row in re.findall(r"^\| (\d{3} .*?) \|", page.partition("## When it does not work")[2], re.MULTILINE):
        status = 0
        for number, reason in re.findall(r"(?<!`)\b(\d{3})\b|`(\w+)`", row):
            status = int(number or status)
            if reason:
                shown.append((reason, status))
    told = {row.told_as or row.code for row in REASONS.values() if row.status}
    assert sorted(shown) == sorted((reason, REASONS[reason].status) for reason in told)


@pytest.mark.parametrize(
    "reason",
    ["invalid_credential", "expired_key", "revoked_key", "wrong_network", "query_forbidden", "administrative_key"],
)
def test_a_bad_key_is_never_told_how_it_is_bad(reason: str) -> None:
    assert refusal(reason, audit_id="a") == refusal("invalid_credential", audit_id="a")
    challenge = header(refusal(reason), b"www-authenticate")
    assert (
        len(challenge) == 1 and challenge[0].startswith(b"Bearer realm=") and b"resource_metadata" not in challenge[0]
    )


@pytest.mark.parametrize("id_json", [b"1", b'"1"', b"-0", b'"\\u0031"', b'"a\\/b"', b"18446744073709551615"])
def test_the_id_is_echoed_byte_for_byte(id_json: bytes) -> None:
    assert b'"id":' + id_json + b"," in refusal("no_rule", id_json=id_json).body


def test_without_an_id() -> None:
    assert json.loads(refusal("not_json").body)["id"] is None


def test_rate_limited() -> None:
    found = refusal("rate_limited", id_json=b'"r3"', retry_after=17, headers=((b"ratelimit-limit", b"2"),))
    assert found.status == 429
    assert header(found, b"retry-after") == [b"17"]
    assert header(found, b"ratelimit-limit") == [b"2"]
    assert json.loads(found.body)["error"]["data"]["retry_after"] == 17


@pytest.mark.parametrize("reason", ["no_rule", "rate_limited", "upstream_timeout", "audit_unavailable"])
def test_in_band(reason: str) -> None:
    http = refusal(reason, id_json=b"5", audit_id="a", retry_after=3)
    in_band = refusal(reason, id_json=b"5", audit_id="a", retry_after=3, style="in-band")
    assert in_band.status == 200
    assert (in_band.headers, in_band.body) == (http.headers, http.body)
    assert http.status in IN_BAND


@pytest.mark.parametrize("modern", [False, True])
def test_as_a_tools_result(modern: bool) -> None:
    told = {"id_json": b'"r"', "audit_id": "0198-x", "retry_after": 12, "data": {"executed": False}}
    http = refusal("rate_limited", **told)
    found = refusal("rate_limited", **told, style="tool-result", modern=modern)
    assert found.status == 200
    body, error = json.loads(found.body), json.loads(http.body)["error"]
    assert header(found, b"content-length") == [b"%d" % len(found.body)]
    text = "The rate limit is used up. Try again in 12 seconds. (audit id 0198-x)"
    assert error["message"] == text
    assert body == {
        "jsonrpc": "2.0",
        "id": "r",
        "result": {
            **({"resultType": "complete"} if modern else {}),
            "content": [{"type": "text", "text": text}],
            "isError": True,
            "_meta": {"mcp-sentinel/refusal": {"code": 429, **error["data"]}},
        },
    }
    assert error["data"] == {"reason": "rate_limited", "audit_id": "0198-x", "retry_after": 12, "executed": False}


@pytest.mark.parametrize(("reason", "status"), CASES)
def test_each_message_says_why_when_and_under_which_id(reason: str, status: int) -> None:
    without = json.loads(refusal(reason).body)["error"]["message"]
    whole = json.loads(refusal(reason, audit_id="0198-x", retry_after=1).body)["error"]["message"]
    assert without.endswith(".") and len(without) > 15
    assert whole == f"{without} Try again in 1 second. (audit id 0198-x)"
    assert "try again" not in without.lower()  # where there is a time, it is said once
    assert json.loads(refusal(reason, audit_id="0198-x").body)["error"]["message"] == f"{without} (audit id 0198-x)"


@pytest.mark.parametrize(("words", "shown"), [("Ask the data team.", ""), ("Ask the data team", "."), ("Not now!", "")])
def test_a_rules_own_words_replace_the_tables(words: str, shown: str) -> None:
    error = json.loads(refusal("denied_by_rule", message=words, audit_id="a").body)["error"]
    assert error["message"] == f"{words}{shown} (audit id a)" and error["data"]["reason"] == "denied_by_rule"


def test_a_refusal_that_was_raised() -> None:
    raised = Refused(
        "unsupported_version", "No.", known=Readable(id_json=b"9"), data={"supported": ["a"], "requested": "b"}
    )
    found = answer(raised, audit_id="x")
    assert json.loads(found.body) == {
        "jsonrpc": "2.0",
        "id": 9,
        "error": {
            "code": -32022,
            "message": "No. (audit id x)",
            "data": {"reason": "unsupported_version", "audit_id": "x", "supported": ["a"], "requested": "b"},
        },
    }
    allowed = Refused("method_not_allowed", "No.", headers=((b"allow", b"POST, GET"),))
    assert header(answer(allowed), b"allow") == [b"POST, GET"]


@pytest.mark.parametrize("reason", ["policy_stale", "upstream_busy", "too_many_streams", "no_rule", "upstream_timeout"])
def test_what_passes_by_itself_says_when(reason: str) -> None:
    assert refuse(reason).retry_after == (None if reason in ("no_rule", "upstream_timeout") else 5)
    assert [refuse(reason, retry_after=wait).retry_after for wait in (0.0, 0.1, 1.0, 16.2)] == [1, 1, 1, 17]


@pytest.mark.parametrize("reason", ["no such reason", "cancelled", "allowed_by_rule"])
def test_what_is_no_answer_is_a_defect(reason: str) -> None:
    assert refuse(reason).status == 500 and answering(reason).code == "internal_error"


def test_it_is_total() -> None:
    found = refusal("no such reason", message="half a pair \ud800", data={"x": "\udfff"})
    assert found.status == 500
    assert "\\ud800" in found.body.decode()
    json.loads(found.body)


def test_well_known_addresses_answer_in_json() -> None:
    found = not_found()
    assert found.status == 404 and header(found, b"content-type") == [b"application/json"]
    assert isinstance(json.loads(found.body), dict)
