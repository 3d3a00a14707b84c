"""Replay of a known week under a known draft gives exactly the known difference."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, transaction

from core.ids import uuid7
from policies.documents.reader import parse
from policies.engine.compiled import PolicySet
from policies.engine.decide import decide
from policies.engine.types import Context, Principal, Target
from policies.models import ApiKey, Role
from policies.simulate.recorded import replay
from policies.simulate.replay import ALTERED, ANNOTATIONS, NOT_KEPT, NOT_SEEN, TRUNCATED, Replay
from policies.specs import numbered

pytestmark = pytest.mark.django_db
NOW = datetime.now(UTC)
WEEK = NOW - timedelta(days=7)
OLD = """
roles: {user: {allow: [get, pay]}, admin: {allow: ["*"]}}
"""
DRAFT = """
roles: {user: {allow: [get], deny: [secret]}, admin: {allow: ["*"]}}
rules:
  - {name: small, effect: allow, roles: [user], tool: pay, when: [{argument: amount, le: 100}]}
  - {name: night, effect: deny, roles: "*", tool: night, hours: {from: "00:00", to: "06:00"}}
  - {name: notes, effect: deny, roles: "*", tool: noted, when: [{annotation: readOnlyHint, eq: false}]}
  - {name: home, effect: deny, roles: "*", tool: home, networks: [10.0.0.0/8]}
"""


class Raw:
    """A stored request as it is written."""

    def __init__(self, text):
        self.text = text


def event(name, arguments=None, *, role="user", allowed=True, reason="allowed_by_rule", at=NOW - timedelta(hours=1), request=..., count=1, ip=None, kind="tool",
          key="mcps_live_AAAAAAAAAAAA", outcome="allowed", ended=None):  # fmt: skip
    if request is ...:
        request = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": name, "arguments": arguments or {}},
        }
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO audit_auditevent (id, ts, api_key_id, key_prefix, key_name, role, upstream, method, tool_name, target_kind, outcome, reason,"
            " decision, request_json, count, client_ip) VALUES (%s, %s, %s, %s, 'k', %s, 'crm', 'tools/call', %s, %s, %s, %s, %s, %s, %s, %s)",
            [uuid7(int(at.timestamp() * 1e6)), at, "00000000-0000-0000-0000-000000000001", key, role, name, kind, outcome, ended or reason,
             json.dumps({"allowed": allowed, "reason": reason}), None if request is None else request.text if isinstance(request, Raw) else json.dumps(request), count, ip],
        )  # fmt: skip


def report(text=DRAFT, **more):
    return replay(text, WEEK, **more)


def test_the_known_difference():
    for amount in (1, 50, 100, 101, 5000):
        event("pay", {"amount": amount})
    for _ in range(10):
        event("get")
    event("pay", {"amount": 5000}, role="admin")
    event("pay", {"amount": 5}, allowed=False, reason="no_rule", outcome="denied")
    event("secret", allowed=False, reason="no_rule", outcome="denied", count=40)
    event("get", at=WEEK - timedelta(days=1))  # before it
    event("get", allowed=None, reason="rate_limited", outcome="limited")  # decided by nothing
    found = report()
    assert (found.decided, found.changed, found.newly_denied, found.newly_allowed, found.undecidable) == (
        57,
        3,
        2,
        1,
        0,
    )
    by_name = {(g["name"], g["to"]): g for g in found.groups}
    assert by_name["pay", "denied"]["count"] == 2 and by_name["pay", "denied"]["reason"] == "no_rule"
    assert by_name["pay", "allowed"]["rule"].startswith("small:")
    assert len(by_name["pay", "denied"]["examples"]) == 2


def test_what_cannot_be_decided_is_said_with_its_cause():
    event("pay", request=None)
    event("pay", request={"_truncated": True, "_bytes": 9, "_head": "", "_tail": ""})
    event("pay", {"amount": "[REDACTED:number:0123abcd]"})
    event("pay", {"amount": 5, "note": "[REDACTED:token:0123abcd]"})  # redacted elsewhere
    event("noted", role="admin")
    event("pay", request=None, role="admin")  # nothing to ask of an administrator
    found = report()
    assert found.because == {NOT_KEPT: 1, TRUNCATED: 1, ALTERED: 1, ANNOTATIONS: 1}
    assert (found.undecidable, found.decided) == (4, 2)


def test_time_and_place_are_those_of_the_event():
    night = (NOW - timedelta(days=1)).replace(hour=3)
    event("night", role="admin", at=night)
    event("night", role="admin", at=night.replace(hour=12))
    event("home", role="admin", ip="10.1.1.1")
    event("home", role="admin", ip="11.1.1.1")
    found = report()
    assert (found.decided, found.changed) == (4, 2)


def test_a_key_that_reaches_less_is_still_refused():
    role = Role.objects.create(name="somebody")
    ApiKey.objects.create(public_id="A" * 12, name="k", role=role, upstreams=["pay"])
    event("get", allowed=False, reason="no_rule", outcome="denied")
    assert report().changed == 0


def test_progress_reaches_its_end():
    event("get")
    seen = []
    report(progress=lambda done, of: seen.append((done, of)))
    assert seen[-1][0] == seen[-1][1] and len(seen) >= 7


def test_replaying_the_policy_that_decided_changes_nothing():
    policy = PolicySet(numbered(parse(DRAFT).spec))
    principal = Principal(None, "k", "mcps_live_AAAAAAAAAAAA", "user")
    for at in range(200):
        name, arguments = ("get", "pay", "secret", "night")[at % 4], {"amount": at}
        moment = NOW - timedelta(minutes=37 * at)
        decision = decide(policy, principal, Target("tool", "crm", name, arguments), Context(moment, "10.0.0.1"))
        outcome = "allowed" if decision.allowed else "denied"
        event(
            name, arguments, allowed=decision.allowed, reason=decision.reason, outcome=outcome, at=moment, ip="10.0.0.1"
        )
    found = report()
    assert (found.decided, found.changed, found.undecidable) == (200, 0, 0)


def test_values_are_told_apart_by_type_and_by_every_digit():
    draft = """
roles: {user: {}}
rules:
  - {name: one, effect: allow, roles: [user], tool: pay, when: [{argument: amount, eq: 1}]}
  - {name: tenth, effect: allow, roles: [user], tool: pay, when: [{argument: amount, eq: 0.1}]}
"""
    long = '{"params":{"name":"pay","arguments":{"amount":%s}}}'
    for _ in range(2):  # the second of each is decided as the first was
        event("pay", {"amount": 1})
        event("pay", {"amount": True})
        event("pay", {"amount": "1"})
        event("pay", {"amount": 0.1})
        event("pay", {"amount": [1]})
        event("pay", {})
        event("pay", request=Raw(long % "0.1000000000000000000001"))
        event("pay", request=Raw(long % "36893488147419103233"))
    found = report(draft)
    assert (found.decided, found.changed, found.undecidable) == (16, 12, 0)
    assert {group["reason"]: group["count"] for group in found.groups} == {"policy_error": 10, "no_rule": 2}


def test_what_failed_after_it_was_allowed_is_replayed_and_what_was_never_decided_is_not():
    event("get", outcome="upstream_error", ended="upstream_timeout")
    event("pay", {"amount": 5000}, outcome="cancelled", ended="client_gone")
    event("get", outcome="limited", reason="rate_limited", allowed=None)
    found = report()
    assert (found.decided, found.changed) == (2, 1)
    assert found.groups[0]["from"] == "allowed"


# -- whoever may not see arguments ---------------------------------------------------------------------------------------

SECRET = {"amount": 73, "to": {"name": "alice"}, "tags": ["a", "b"], "note": "hello"}
ASKS = [
    {"argument": "amount", "ge": 73}, {"argument": "amount", "le": 72}, {"argument": "amount", "eq": 73}, {"argument": "amount", "ne": 73},
    {"argument": "amount", "in": [73, 5]}, {"argument": "to.name", "eq": "alice"}, {"argument": "to.name", "matches": "a.*"},
    {"argument": "note", "like": "h*"}, {"argument": "note", "not_like": "h*"}, {"argument": "note", "min_length": 5},
    {"argument": "tags[]", "items": "any", "eq": "a"}, {"argument": "tags", "max_length": 1}, {"argument": "to", "absent": True},
    {"argument": "note", "present": True}, {"argument": "note", "type": "string"}, {"argument": "note", "under": "/hello"},
]  # fmt: skip
SHAPES = (
    'roles: {{user: {{allow: []}}}}\nrules:\n  - {{effect: allow, roles: "*", tool: pay, when: [{asks}]}}\n',
    'roles: {{user: {{allow: [pay]}}}}\nrules:\n  - {{effect: deny, roles: "*", tool: pay, when: [{asks}]}}\n',
    'roles: {{user: {{allow: []}}}}\nrules:\n  - {{effect: allow, roles: "*", tool: "p*", when: [{asks}, {{subject: name, eq: pay}}]}}\n',
)


@pytest.mark.parametrize("shape", range(len(SHAPES)))
@pytest.mark.parametrize("asks", ASKS, ids=str)
@pytest.mark.parametrize(("allowed", "reason"), [(True, "allowed_by_rule"), (False, "no_rule")])
def test_no_condition_tells_an_argument_to_whoever_may_not_see_it(asks, shape, allowed, reason):
    text = SHAPES[shape].format(asks=json.dumps(asks))
    parse(text)
    found = []
    for arguments in (SECRET, {}, {"amount": 1, "note": "x"}, None):
        with transaction.atomic():
            event(
                "pay",
                arguments,
                allowed=allowed,
                reason=reason,
                outcome="allowed" if allowed else "denied",
                **({"request": None} if arguments is None else {}),
            )
            told = report(text, payloads=False)
            found.append(
                (
                    told.decided,
                    told.changed,
                    told.undecidable,
                    dict(told.because),
                    [{**g, "examples": []} for g in told.groups],
                )
            )
            transaction.set_rollback(True)
    assert found == [found[0]] * len(found)
    assert not found[0][2] or found[0][3] == {NOT_SEEN: 1}


def test_what_does_not_hang_on_arguments_is_decided_all_the_same():
    event("pay", {"amount": 5000})
    event("get")
    event("pay", {"amount": 5000}, role="admin")
    event("home", role="admin", ip="10.1.1.1")
    found = report(payloads=False)
    assert (found.decided, found.changed, found.because) == (3, 1, {NOT_SEEN: 1})


def test_arguments_are_not_even_read(monkeypatch):
    event("pay", {"amount": 5000})
    found: list[object] = []
    real = Replay.decide_one

    def watch(self, plan, one):
        found.append(one.request)
        return real(self, plan, one)

    monkeypatch.setattr(Replay, "decide_one", watch)
    report(payloads=False)
    assert found == [None]
    report()
    assert found[1]
