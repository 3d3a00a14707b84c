"""What must not exist cannot be stored, whoever writes it; and each change is counted once."""

import uuid
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from policies.models import (
    ApiKey,
    AuditLevel,
    KeySecret,
    KeyUsage,
    PolicyVersion,
    RateLimit,
    Revision,
    Role,
    Rule,
    RuleCondition,
)

pytestmark = pytest.mark.django_db


def role():
    return Role.objects.get_or_create(name="tester")[0]


def key(**more):
    values = {"public_id": uuid.uuid4().hex[:12], "name": "k", "role": role(), **more}
    return ApiKey.objects.create(**values)


def rule(**more):
    return Rule.objects.create(**{"effect": "allow", "kinds": ["tool"], "pattern": "x", **more})


def limit(**more):
    return RateLimit.objects.create(**{"requests": 1, "window_seconds": 1, **more})


def condition(**more):
    return RuleCondition.objects.create(**{"rule": rule(), "path": "a", "operator": "eq", "value": 1, **more})


def secret(**more):
    return KeySecret.objects.create(
        **{"key": key(), "generation": 1, "digest": b"d" * 32, "pepper_id": 1, "last4": "abcd", **more}
    )


now = timezone.now
BAD = {
    "key with role and duty": lambda: key(duty="viewer"),
    "key with neither": lambda: key(role=None),
    "key with an unknown duty": lambda: key(role=None, duty="king"),
    "administrative key without an end": lambda: key(role=None, duty="viewer"),
    "key with a bad public id": lambda: key(public_id="short"),
    "key without a name": lambda: key(name=""),
    "key that expires before it is made": lambda: key(expires_at=now() - timedelta(days=1)),
    "key with a reason but not revoked": lambda: key(revoked_reason="x"),
    "revoked key without role or former role": lambda: key(role=None, revoked_at=now()),
    "live key with a former role": lambda: key(former_role="x"),
    "key with a bad network": lambda: connection.cursor().execute("UPDATE policies_apikey SET networks = '{10.0.0.1/8}' WHERE id = %s", [key().pk]),
    "two secrets without an end": lambda: [secret(key=(k := key())), secret(key=k, generation=2)],
    "generation twice": lambda: [secret(key=(k := key()), not_after=now()), secret(key=k, not_after=now())],
    "short digest": lambda: secret(digest=b"d" * 31),
    "generation 0": lambda: secret(generation=0),
    "role with a bad name": lambda: Role.objects.create(name="a b"),
    "role twice": lambda: [role(), Role.objects.create(name="tester")],
    "rule with a bad effect": lambda: rule(effect="maybe"),
    "rule without kinds": lambda: rule(kinds=[]),
    "rule with a bad kind": lambda: rule(kinds=["tool", "wand"]),
    "rule without a pattern": lambda: rule(pattern=""),
    "rule with half a window": lambda: rule(from_time="09:00"),
    "rule with an empty window": lambda: rule(from_time="09:00", to_time="09:00"),
    "rule with a bad day": lambda: rule(days=["someday"]),
    "rule that ends before it begins": lambda: rule(valid_from=now(), valid_until=now() - timedelta(days=1)),
    "rule's name twice": lambda: [rule(name="n"), rule(name="n")],
    "condition with a bad operator": lambda: condition(operator="near"),
    "condition with a bad subject": lambda: condition(subject="caller"),
    "condition without a path": lambda: condition(path=""),
    "condition on the name with a path": lambda: condition(subject="name"),
    "condition on a list without quantifier": lambda: condition(path="a[]"),
    "condition with a quantifier without a list": lambda: condition(quantifier="any"),
    "condition comparing text": lambda: condition(operator="lt", value="5"),
    "condition without its value": lambda: condition(value=None),
    "condition with a value it has no use for": lambda: condition(operator="present"),
    "condition with an object": lambda: condition(value={"a": 1}),
    "condition in no list": lambda: condition(operator="in", value="ab"),
    "limit of 0": lambda: limit(requests=0),
    "limit in no time": lambda: limit(window_seconds=0),
    "burst over the limit": lambda: limit(burst=2),
    "burst of 0": lambda: limit(burst=0),
    "limit per something else": lambda: limit(per=["moon"]),
    "limit of names without kind": lambda: limit(pattern="x"),
    "limit per tool without kind": lambda: limit(per=["tool"]),
    "default with a pattern": lambda: limit(kind="tool", pattern="x", is_default=True),
    "audit level of no sort": lambda: AuditLevel.objects.create(kinds=["tool"], pattern="x", level="some"),
    "audit level without kinds": lambda: AuditLevel.objects.create(kinds=[], pattern="x", level="full"),
    "version 0": lambda: PolicyVersion.objects.create(number=0, author="a", document=""),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_must_not_be_stored(what):
    from django.db import DataError

    with pytest.raises((IntegrityError, DataError)), transaction.atomic():
        BAD[what]()


def test_what_may_be_stored():
    assert key(networks=["10.0.0.0/8", "fd00::/8"], upstreams=["crm"]).prefix.startswith("mcps_live_")
    stored = ApiKey.objects.get(pk=key(networks=["10.0.0.0/8"]).pk)
    assert stored.networks == ["10.0.0.0/8"] and stored.is_live
    condition(operator="present", value=None)
    condition(operator="in", value=[1, "a"])
    condition(path="a[].b", quantifier="every", operator="matches", value="x")
    condition(subject="name", path="", operator="under", value="file:///public")
    limit(kind="tool", is_default=True, per=["key", "tool"], burst=1)


def test_a_revoked_key_stays_revoked():
    revoked = key(revoked_at=now(), revoked_by="me")
    with pytest.raises(IntegrityError, match="stays revoked"), transaction.atomic():
        ApiKey.objects.filter(pk=revoked.pk).update(revoked_at=None, revoked_by="")


def test_a_role_that_keys_hold_cannot_be_deleted():
    from django.db.models import ProtectedError

    with pytest.raises(ProtectedError):
        key().role.delete()


def revision(kind):
    return dict(Revision.objects.values_list("kind", "number")).get(kind, 0)


def test_each_transaction_counts_once_and_usage_never():
    """The test's own transaction is the one that is counted."""
    keys, policy = revision("keys"), revision("policy")
    one = key()
    secret(key=one)
    rule()
    limit()
    assert (revision("keys"), revision("policy")) == (keys + 1, policy + 1)
    KeyUsage.objects.create(key=one, last_used_at=now())
    assert (revision("keys"), revision("policy")) == (keys + 1, policy + 1)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        rule()
        raise ZeroDivisionError
    assert revision("policy") == policy + 1


def test_a_rule_narrows_when_its_role_goes():
    from policies.snapshot.loading import load_policy

    one = rule()
    doomed = Role.objects.create(name="doomed")
    one.roles.add(doomed)
    doomed.delete()
    spec = load_policy(connection.connection)
    assert next(r for r in spec.rules if r.id == one.pk).roles == frozenset()
