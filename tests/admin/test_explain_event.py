"""Explain beside an event: what was decided then, and what the call as it was kept would meet today."""

from __future__ import annotations

import html
import re

import pytest

from core.access.actors import Actor
from policies.documents import reader
from policies.models import RateLimit, Rule
from policies.services import keys as key_acts
from policies.services import policy as policy_acts
from tests.admin.conftest import acts

pytestmark = pytest.mark.django_db
PLACE = "/admin/policies/rule/explain/"
POLICY = """
roles:
  support: {{}}
rules:
  - name: small refunds
    effect: allow
    roles: [support]
    tool: refund
    when: [{{argument: amount, le: {most}}}]
rate_limits:
  per_api_key: {{requests: 10, window_seconds: 60}}
"""


def apply(most: int = 100) -> Rule:
    policy_acts.apply_document(reader.parse(POLICY.format(most=most)), actor=Actor.system())
    return Rule.objects.get(name="small refunds")


def shown(text: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html.unescape(text[text.index("<h1") :])).split())


@pytest.fixture
def refund(event):
    def make(amount=50, **fields):
        key = key_acts.create_key(name="support-bot", role="support", actor=Actor.system()).key
        values = {
            "api_key_id": key.pk, "key_name": key.name, "key_prefix": key.prefix, "role": "support", "tool_name": "refund",
            "request_json": {"jsonrpc": "2.0", "id": 1, "method": "tools/call",
                             "params": {"name": "refund", "arguments": {"amount": amount, "note": "late"}}},
        }  # fmt: skip
        return event(**{**values, **fields})

    return make


def decided(rule: Rule | None, allowed: bool, version: int = 3, reason: str = "") -> dict:
    about = {"id": rule.pk, "name": rule.name, "effect": "allow"} if rule else None
    return {"allowed": allowed, "reason": reason, "rule": about, "policy_version": version, "stages": []}


def test_the_arguments_that_were_kept_are_asked_with(refund, as_duty):
    rule = apply()
    made = refund(decision=decided(rule, True))
    administrator = as_duty("administrator")
    page = administrator.get(f"/admin/audit/auditevent/{made.id}/change/").content.decode()
    (link,) = re.findall(r'href="([^"]*explain/[?]event[^"]*)"', page)
    text = shown(administrator.get(html.unescape(link)).content.decode())
    assert (
        "Decided then" in text and "policy version 3" in text and f"Rule {rule.pk} “small refunds” allowed it" in text
    )
    assert "support-bot may use tool refund" in text and "may not" not in text
    assert "Policy would decide as it did then." in text
    assert len(acts("admin.payloads.viewed")) == 2  # the event's page, and this one
    apply(most=20)
    text = shown(administrator.get(html.unescape(link)).content.decode())
    assert "support-bot may not use tool refund" in text and "Policy would decide otherwise than it did then." in text
    # Asked again with other arguments it is another question, and no look at the event's.
    looks = len(acts("admin.payloads.viewed"))
    again = {
        "event": made.id,
        "key": str(made.api_key_id),
        "upstream": "crm",
        "kind": "tool",
        "tool": "refund",
        "arguments": '{"amount": 5}',
    }
    text = shown(administrator.get(PLACE, again).content.decode())
    assert "may use tool refund" in text and "asked otherwise" in text and "Policy would decide" not in text
    assert len(acts("admin.payloads.viewed")) == looks


def test_a_limited_call_is_told_as_limited_and_by_which_limit(refund, as_duty):
    rule = apply()
    limit = RateLimit.objects.get()
    about = {"id": limit.pk, "name": "agents", "requests": 10, "window_seconds": 60, "retry_after": 7.2}
    known = refund(
        outcome="limited",
        reason="rate_limited",
        status_code=429,
        decision=decided(rule, True),
        details={"limit": about},
    )
    page = as_duty("administrator").get(f"{PLACE}?event={known.id}").content.decode()
    text = shown(page)
    assert "It was refused by a limit, not by a rule." in text and "callout good" not in page
    assert "the limit agents was full (10 in 60 s)" in text and f"/admin/policies/ratelimit/{limit.pk}/change/" in page
    old = refund(
        outcome="limited", reason="rate_limited", status_code=429, decision=decided(rule, True), key_name="old"
    )
    text = shown(as_duty("administrator", username="a2").get(f"{PLACE}?event={old.id}").content.decode())
    assert "the event does not say which" in text and "not by a rule" in text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"request_json": None}, "were not kept"),
        ({"request_json": {"_truncated": True, "method": "tools/call"}}, "too large to be kept whole"),
        ({"amount": {"password": "hunter2"}}, "redacted or shortened"),
    ],
)
def test_what_was_not_kept_as_it_was_is_said(fields, words, refund, as_duty):
    rule = apply()
    made = refund(decision=decided(rule, True), **fields)
    page = as_duty("administrator").get(f"{PLACE}?event={made.id}").content.decode()
    assert words in shown(page)
    if "amount" not in fields:
        assert "may with some arguments" in shown(page) and "callout stop" not in page
        assert "Policy would decide" not in shown(page)


def test_who_may_not_read_arguments_is_told_so_and_learns_none(refund, as_duty):
    rule = apply()
    made = refund(amount=4711, decision=decided(rule, True))
    page = as_duty("policy-manager").get(f"{PLACE}?event={made.id}").content.decode()
    assert "4711" not in page and "Its arguments are for auditors" in page and "may with some arguments" in shown(page)
    assert not acts("admin.payloads.viewed")


def test_a_key_that_is_gone_and_a_rule_that_is_gone(refund, as_duty):
    rule = apply()
    made = refund(decision=decided(rule, True), api_key_id="00000000-0000-4000-8000-000000000001", key_name="gone")
    Rule.objects.filter(pk=rule.pk).delete()
    page = as_duty("administrator").get(f"{PLACE}?event={made.id}")
    text = shown(page.content.decode())
    assert page.status_code == 200 and "(gone by now)" in text and "role support may" in text


@pytest.mark.parametrize("value", ["x", "00000000-0000-4000-8000-000000000001", "%00", "'"])
def test_an_event_that_is_not_there_changes_nothing(value, as_duty):
    assert as_duty("administrator").get(f"{PLACE}?event={value}").status_code == 200


@pytest.mark.parametrize(
    ("outcome", "reason", "stages", "bad"),
    [
        ("invalid", "duplicate_member", [("authenticate", "ok")], "Parse"),
        ("invalid", "duplicate_member", [("authenticate", "ok"), ("parse", "duplicate_member")], "Parse"),
        ("invalid", "unknown_upstream", [("authenticate", "ok"), ("parse", "unknown_upstream")], "Parse"),
        ("unauthenticated", "expired_key", [("authenticate", "expired_key")], "Authenticate"),
        ("limited", "rate_limited", [("authenticate", "ok"), ("parse", "ok"), ("authorize", "allowed_by_rule"), ("rate-limit", "rate_limited")], "Rate limit"),
        ("upstream_error", "upstream_timeout", [("authenticate", "ok"), ("parse", "ok"), ("authorize", "open_method"), ("rate-limit", "ok")], "Forward"),
        ("cancelled", "client_gone", [("authenticate", "ok"), ("parse", "ok"), ("authorize", "allowed_by_rule"), ("rate-limit", "ok")], "Forward"),
    ],
)  # fmt: skip
def test_the_red_sign_stands_at_the_stage_that_refused(outcome, reason, stages, bad, event, as_duty):
    listed = [{"stage": stage, "result": result, "us": 3} for stage, result in stages]
    decision = {
        "allowed": None,
        "stage": stages[-1][0],
        "reason": reason,
        "rule": None,
        "policy_version": 1,
        "stages": listed,
    }
    made = event(outcome=outcome, reason=reason, decision=decision, status_code=400)
    page = as_duty("viewer").get(f"/admin/audit/auditevent/{made.id}/change/").content.decode()
    assert re.findall(r'<li class="bad">.*?<strong>(.*?)</strong>', page) == [bad]
    assert "refused as malformed" not in page
    assert ("malformed" in page.split("</h1>")[0].split("<h1")[1]) is (reason == "duplicate_member")
