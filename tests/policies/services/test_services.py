"""Acts on keys and policy: what they store, what they refuse, what they leave behind."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from django.conf import settings
from django.core.exceptions import ValidationError
from django.utils import timezone

from audit.models import OutboxEvent
from core.access.actors import Actor
from policies.documents.reader import parse
from policies.engine import schemas
from policies.keys import credentials
from policies.keys.index import KeyRing
from policies.models import ApiKey, PolicyVersion, Revision, Role, Rule
from policies.services import keys as key_acts
from policies.services import policy as policy_acts
from policies.snapshot.loading import load_keys
from policies.specs import ConditionSpec, LimitSpec, RuleSpec

pytestmark = pytest.mark.django_db
ME = Actor(kind="user", name="ann")
DEFAULTS = """\
roles:
  admin:    {allow: ["*"]}
  user:     {allow: ["public.echo", "list_*"]}
  readonly: {allow: ["list_customers"]}
"""


def apply(text, **more):
    return policy_acts.apply_document(parse(text), actor=ME, **more)


def ring():
    from django.db import connection

    connection.ensure_connection()
    return KeyRing(load_keys(connection.connection), settings.SENTINEL.key_peppers)


def enters(secret, at=None):
    return ring().authenticate(secret, (at or timezone.now()).timestamp(), "10.0.0.1")


def events():
    return [row.record for row in OutboxEvent.objects.order_by("pk")]


@pytest.fixture(autouse=True)
def policy():
    apply(DEFAULTS)
    OutboxEvent.objects.all().delete()


# -- the start


def test_a_fresh_installation_has_three_roles_no_limits_and_says_so():
    first = PolicyVersion.objects.get(number=1)
    assert parse(first.document).spec.roles and first.author == "system"
    restored = policy_acts.apply_document(parse(first.document), actor=ME)
    assert policy_acts.export() == first.document
    assert restored.plan is not None
    assert sorted(parse(DEFAULTS).spec.rules, key=str) == sorted(parse(first.document).spec.rules, key=str)


# -- keys


def test_a_created_key_enters_and_its_secret_is_nowhere():
    made = key_acts.create_key(
        name="bot", role="user", actor=ME, networks=["10.0.0.0/8"], upstreams=["crm"], owner="team"
    )
    result = enters(made.secret)
    assert result.principal.role == "user" and result.principal.upstreams == {"crm"}
    assert str(made.secret) not in repr(made)
    secret = credentials.parse(made.secret).secret
    assert secret not in str(events()) and secret not in str(ApiKey.objects.filter(pk=made.key.pk).values())
    assert [e["method"] for e in events()] == ["admin.key.created"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"role": "nobody"}, "There is no role nobody; there are: admin, readonly, user."),
        ({"role": "user", "name": ""}, "1 to 100"),
        ({"role": "user", "name": "a\nb"}, "printable"),
        ({"role": "user", "expires_at": timezone.now() - timedelta(seconds=1)}, "has passed"),
        ({"role": "user", "networks": ["10.0.0.1/8"]}, "host bits"),
        ({"role": "user", "upstreams": ["Not A Slug"]}, "not an upstream's name"),
        ({"duty": "king"}, "king"),
        ({"role": "user", "duty": "viewer"}, "not both"),
        ({}, "not both"),
    ],
)
def test_keys_that_are_refused(more, words):
    with pytest.raises(ValidationError) as refused:
        key_acts.create_key(**{"name": "bot", "actor": ME, **more})
    assert words in str(refused.value)
    assert not ApiKey.objects.filter(name="bot").exists() and not events()


@pytest.mark.parametrize(("longest", "days"), [(0, 90), (365, 90), (30, 30)])
def test_an_administrative_key_always_ends(monkeypatch, longest, days):
    monkeypatch.setattr(settings, "SENTINEL", replace(settings.SENTINEL, key_max_days=longest))
    key = key_acts.create_key(name="bot", duty="viewer", actor=ME).key
    assert abs(key.expires_at - timezone.now() - timedelta(days=days)) < timedelta(minutes=1)
    with pytest.raises(ValidationError, match="always expires"):
        key_acts.update_key(key.pk, expires_at=None, actor=ME)


def test_rotation_with_overlap():
    made = key_acts.create_key(name="bot", role="user", actor=ME)
    again = key_acts.rotate_key(made.key.pk, actor=ME, overlap=timedelta(hours=1))
    later = timezone.now() + timedelta(hours=1, seconds=1)
    assert again.key.public_id == made.key.public_id
    assert (enters(made.secret).generation, enters(again.secret).generation) == (1, 2)
    assert enters(made.secret, later).failure == "expired_key" and enters(again.secret, later).principal
    third = key_acts.rotate_key(made.key.pk, actor=ME)
    assert (
        enters(made.secret).failure == enters(again.secret).failure == "expired_key" and enters(third.secret).principal
    )
    for overlap in (timedelta(days=8), timedelta(seconds=-1)):
        with pytest.raises(key_acts.KeyRefused):
            key_acts.rotate_key(made.key.pk, actor=ME, overlap=overlap)
    assert [e["method"] for e in events()] == ["admin.key.created", "admin.key.rotated", "admin.key.rotated"]


def test_pepper_rotation_keeps_live_keys(settings):
    made = key_acts.create_key(name="bot", role="user", actor=ME)
    old = settings.SENTINEL.key_peppers
    settings.SENTINEL = replace(settings.SENTINEL, key_peppers={**old, max(old) + 1: b"n" * 32})
    again = key_acts.create_key(name="bot2", role="user", actor=ME)
    assert enters(made.secret).principal and enters(again.secret).principal
    assert again.key.secrets.get().pepper_id == max(old) + 1


def test_revocation_is_final_and_told_once():
    made = key_acts.create_key(name="bot", role="user", actor=ME)
    key_acts.revoke_key(made.key.pk, actor=ME, reason="lost")
    key_acts.revoke_key(made.key.pk, actor=ME, reason="again")
    assert enters(made.secret).failure == "revoked_key"
    assert ApiKey.objects.get(pk=made.key.pk).revoked_reason == "lost"
    for act in (key_acts.rotate_key, key_acts.update_key):
        with pytest.raises(key_acts.KeyRefused, match="for good"):
            act(made.key.pk, actor=ME)
    assert [e["method"] for e in events()] == ["admin.key.created", "admin.key.revoked"]


def test_a_key_is_found_by_id_visible_part_or_unique_name():
    made = key_acts.create_key(name="bot", role="user", actor=ME)
    for reference in (made.key.pk, str(made.key.pk), made.key.public_id, made.key.prefix, "bot"):
        assert key_acts.find(reference).pk == made.key.pk
    key_acts.create_key(name="bot", role="user", actor=ME)
    for reference in ("bot", "nobody", "", made.secret):
        with pytest.raises(key_acts.KeyRefused):
            key_acts.find(reference)


def test_update_tells_what_changed_and_nothing_when_nothing_did():
    made = key_acts.create_key(name="bot", role="user", actor=ME)
    key_acts.update_key(made.key.pk, actor=ME, name="bot")
    key_acts.update_key(made.key.pk, actor=ME, role="admin", owner="x")
    assert [e["method"] for e in events()] == ["admin.key.created", "admin.key.changed"]
    assert enters(made.secret).principal.role == "admin"


# -- policy


def test_apply_is_idempotent_and_ids_stay():
    ids = dict(Rule.objects.values_list("pattern", "pk"))
    number = Revision.objects.get(kind="policy").number
    assert apply(DEFAULTS).plan.empty and not events()
    applied = apply(DEFAULTS.replace("list_customers", "list_orders"))
    assert len(applied.plan.lines()) == 2
    assert {p: pk for p, pk in Rule.objects.values_list("pattern", "pk") if p in ids} == {
        p: pk for p, pk in ids.items() if p != "list_customers"
    }
    assert applied.version >= number and PolicyVersion.objects.get(number=applied.version).author == "ann"
    assert [e["method"] for e in events()] == ["admin.policy.applied"]


def test_export_of_what_was_applied_changes_nothing():
    text = """
roles: {a: {description: "x: y", allow: ["*"], deny: ["@crm/del_*"]}, b: {allow: []}}
rules:
  - {name: night, effect: deny, roles: "*", kinds: [tool, prompt], pattern: "*", hours: {days: [sat, sun], from: "22:00", to: "06:30", zone: Europe/Berlin}}
  - {effect: allow, roles: [a, b], tool: pay, upstreams: [crm, pay], networks: [10.0.0.0/8], reason: "Ask.", note: n, observe: true,
     when: [{argument: amount, le: 100.5}, {argument: "l[].p", items: every, in: [a, 1, true]}, {annotation: readOnlyHint, eq: true}, {subject: name, like: "p*"}]}
  - {effect: allow, roles: [], resource: "file:///*", enabled: false, valid: {from: 2026-01-01T00:00:00+02:00, until: "2027-01-01T00:00:00Z"}}
rate_limits:
  per_api_key: [{requests: 10, window_seconds: 1}, {requests: 100, window_seconds: 60, burst: 5}]
  per_tool: {overrides: {"@crm/x*": {requests: 1, window_seconds: 5}}}
  limits: [{name: n, role: a, per: [role, upstream], requests: 5, window_seconds: 5}]
audit: [{level: digest, role: a, upstream: crm, tool: "secret*"}]
"""
    apply(text)
    exported = policy_acts.export()
    assert apply(exported).plan.empty and policy_acts.export() == exported
    assert apply(text).plan.empty


def test_dry_run_lists_what_the_admin_made_too_and_changes_nothing():
    policy_acts.create_rule(RuleSpec("deny", ("tool",), "made_in_admin", None), actor=ME)
    before = policy_acts.export()
    applied = apply(DEFAULTS, dry_run=True)
    assert applied.plan.lines() == ["- rule deny every role: tool made_in_admin"]
    assert policy_acts.export() == before
    assert [e["method"] for e in events()] == ["admin.rule.created"]


def test_a_role_that_live_keys_hold_is_not_dropped_others_are():
    live = key_acts.create_key(name="live bot", role="user", actor=ME).key
    dead = key_acts.create_key(name="dead", role="readonly", actor=ME)
    key_acts.revoke_key(dead.key.pk, actor=ME)
    without = 'roles: {admin: {allow: ["*"]}}'
    for dry_run in (True, False):
        with pytest.raises(policy_acts.PolicyRefused, match="live bot"):
            apply(without, dry_run=dry_run)
    assert Role.objects.count() == 3
    apply('roles: {admin: {allow: ["*"]}, user: {}}')
    assert ApiKey.objects.get(pk=dead.key.pk).former_role == "readonly"
    assert enters(dead.secret).key.role == "readonly"
    key_acts.revoke_key(live.pk, actor=ME)
    apply("")
    assert not Role.objects.exists() and not Rule.objects.exists()


def test_an_absent_section_means_none():
    policy_acts.create_limit(LimitSpec(5, 5, per=("key",)), actor=ME)
    assert "- limit 5 in 5 s per key" in apply(DEFAULTS).plan.lines()


def test_keys_that_a_document_names_must_exist():
    key = key_acts.create_key(name="bot", role="user", actor=ME).key
    text = DEFAULTS + "rules:\n  - {effect: deny, roles: '*', keys: [%s], tool: x}\n"
    with pytest.raises(policy_acts.PolicyRefused, match=r"line 6.*mcps_live_AAAAAAAAAAAA"):
        apply(text % "mcps_live_AAAAAAAAAAAA")
    apply(text % key.prefix)
    assert apply(policy_acts.export()).plan.empty


def test_a_refused_document_changes_nothing():
    before = policy_acts.export()
    with pytest.raises(policy_acts.PolicyRefused):
        policy_acts.check(
            replace(
                policy_acts.current_spec(),
                rules=(RuleSpec("allow", ("tool",), "x", None, conditions=(ConditionSpec("matches", "(", "a"),)),),
            )
        )
    with pytest.raises(policy_acts.PolicyRefused), policy_acts.editing_policy(ME, method="admin.rule.created"):
        rule = Rule.objects.create(effect="allow", kinds=["tool"], pattern="x", any_role=True)
        rule.conditions.create(path="a", operator="matches", value="(")
    assert policy_acts.export() == before and not events()


def test_one_thing_at_a_time():
    role = policy_acts.create_role(name="new", actor=ME)
    spec = RuleSpec("allow", ("tool",), "x", frozenset({"new"}), conditions=(ConditionSpec("le", 5, "a"),))
    rule = policy_acts.create_rule(spec, actor=ME)
    policy_acts.update_rule(rule, replace(spec, pattern="y", conditions=()), actor=ME)
    limit = policy_acts.create_limit(LimitSpec(5, 5, role="new"), actor=ME)
    policy_acts.update_limit(limit, LimitSpec(6, 5, role="new"), actor=ME)
    stored = policy_acts.current_spec()
    assert next(r for r in stored.rules if r.id == rule) == replace(spec, id=rule, pattern="y", conditions=())
    assert stored.limits[0].requests == 6
    policy_acts.update_role(role.pk, name="newer", actor=ME)
    policy_acts.delete_limit(limit, actor=ME)
    policy_acts.delete_role(role.pk, actor=ME)
    assert not Rule.objects.filter(pk=rule).exists()
    methods = [e["method"] for e in events()]
    assert methods == ["admin.role.created", "admin.rule.created", "admin.rule.changed", "admin.limit.created", "admin.limit.changed",
                       "admin.role.changed", "admin.limit.deleted", "admin.role.deleted"]  # fmt: skip
    changed = json.loads(events()[2]["details"])
    assert changed["before"]["tool"] == "x" and changed["after"]["tool"] == "y"


def test_every_version_can_come_back():
    first = policy_acts.export()
    version = PolicyVersion.objects.order_by("-number").first()
    assert version.document == first
    PolicyVersion.objects.create(number=version.number + 1000, author="x", document="roles: {only: {allow: [a]}}")
    policy_acts.roll_back(version.number + 1000, actor=ME)
    assert "only" in policy_acts.export()
    with pytest.raises(policy_acts.PolicyRefused):
        policy_acts.roll_back(10**9, actor=ME)


def test_conditions_are_held_against_a_known_schema():
    schema = {
        "type": "object",
        "properties": {"amount": {"type": "integer", "minimum": 1}, "currency": {"enum": ["EUR", "USD"]}, "lines": {"type": "array", "items": {"type": "object", "properties": {"sku": {"type": "string"}}}}},
    }  # fmt: skip
    before = schemas._provider, schemas._finder
    schemas.register(lambda: [("crm", "pay", schema)])
    try:
        text = DEFAULTS + "rules:\n  - {name: r, effect: allow, roles: '*', tool: pay, when: [{%s}]}\n"
        apply(text % "argument: amount, lt: 100")
        for bad, words in (
            (
                "argument: amuont, lt: 100",
                "there is no argument 'amuont' (there are: amount, currency, lines), says the schema of crm/pay",
            ),
            ("argument: amount, matches: '1.*'", "amount is integer, which matches cannot read"),
            ("argument: amount, lt: 1", "amount is at least 1, so it is never lt 1"),
            ("argument: amount, eq: many", "amount is integer, so it is never 'many'"),
            ("argument: currency, eq: GBP", "currency is one of EUR, USD, none of which can meet eq 'GBP'"),
            ("argument: 'lines[].skew', items: any, eq: x", "there is no argument 'lines[].skew'"),
            ("argument: 'amount[]', items: any, eq: x", "amount is no list"),
        ):
            with pytest.raises(policy_acts.PolicyRefused) as refused:
                apply(text % bad)
            assert words in refused.value.messages[0]
    finally:
        schemas.register(*before)
