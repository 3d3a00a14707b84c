"""Acts on roles, rules, limits and audit levels: each in one transaction with its event and a new policy version.

Whatever changes the policy does it inside `editing_policy`, which takes the one lock, refuses what would not compile,
and writes down version, author and difference. Forms may save rows inside it as they like.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone

from audit.services.acts import record_act
from core.access.actors import Actor
from policies.documents.diff import Edit, PolicyDiff, plan
from policies.documents.reader import Document, parse
from policies.documents.writer import render, rule_dict
from policies.engine import schemas
from policies.engine.compiled import PolicyError, PolicySet
from policies.keys.credentials import PREFIX
from policies.models import (
    ApiKey,
    AuditLevel,
    PolicyVersion,
    RateLimit,
    Revision,
    Role,
    Rule,
    RuleCondition,
)
from policies.snapshot import loading
from policies.specs import AuditSpec, LimitSpec, PolicySpec, RuleSpec, listed, plain

MOST_LINES = 200


class PolicyRefused(ValidationError):
    """A change that cannot be made; `messages` say why, one a line."""


@dataclass(slots=True)
class Editing:
    """What an edit turned out to be, filled in when it is over."""

    plan: PolicyDiff = field(default_factory=PolicyDiff)
    version: int = 0


def current_spec() -> PolicySpec:
    """The policy as stored, as this transaction sees it."""
    connection.ensure_connection()
    raw = connection.connection
    number = Revision.objects.filter(kind="policy").values_list("number", flat=True).first() or 0
    return loading.load_policy(raw, number)


def export() -> str:
    """The stored policy as a document."""
    return render(current_spec())


@contextmanager
def editing_policy(
    actor: Actor, *, method: str, target: str = "", origin: str = "admin", details: dict[str, Any] | None = None
) -> Iterator[Editing]:
    """Change the policy inside this: one lock, one transaction, refused whole when the result would not compile."""
    editing = Editing()
    with transaction.atomic():
        lock_policy()
        before = current_spec()
        yield editing
        after = current_spec()
        editing.plan, editing.version = plan(before, after, by_id=True), after.version
        if not editing.plan.empty:
            check(after, known=before)
            PolicyVersion.objects.update_or_create(
                number=after.version,
                defaults={
                    "at": timezone.now(),
                    "author": actor.name[:150],
                    "origin": origin,
                    "document": render(after),
                    "diff": editing.plan.diff,
                    "rules": rule_ids(after),
                },
            )
            _record(editing, actor, method, target, details)


def _record(editing: Editing, actor: Actor, method: str, target: str, details: dict[str, Any] | None) -> None:
    changes = editing.plan.changes()
    about: dict[str, Any] = {**(details or {}), "policy_version": editing.version}
    if len(changes) == 1:
        before, after = changes[0]["before"], changes[0]["after"]
        target = target or changes[0]["label"]
    else:
        before = after = None
        lines = editing.plan.lines()
        about |= {"changes": lines[:MOST_LINES], "changes_count": len(lines)}
    record_act(method=method, actor=actor, target=target, before=before, after=after, details=about)


def lock_policy() -> None:
    """Let one change of policy happen at a time, so that versions form one line."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('sentinel.policy'))")


def check(spec: PolicySpec, known: PolicySpec | None = None) -> None:
    """Refuse a policy that does not compile, or whose new rules a tool's schema says can never match."""
    try:
        PolicySet(spec)
    except PolicyError as error:
        raise PolicyRefused(str(error)) from error
    old = {rule.content() for rule in known.rules} if known else set()
    problems = schemas.complaints(rule for rule in spec.rules if rule.conditions and rule.content() not in old)
    if problems:
        raise PolicyRefused(problems)


# -- the whole document


@dataclass(frozen=True, slots=True)
class Applied:
    """What applying a document changed, or would change."""

    plan: PolicyDiff
    version: int
    dry_run: bool


class _DryRun(Exception):
    """Ends a dry run's transaction."""


def apply_document(document: Document, *, actor: Actor, dry_run: bool = False, origin: str = "apply") -> Applied:
    """Make the document the whole of roles, rules, limits and audit levels; all of it, or nothing when refused."""
    editing = Editing()
    try:
        with editing_policy(actor, method="admin.policy.applied", origin=origin) as editing:
            steps = plan(current_spec(), document.spec)
            _check_keys(document)
            _check_dropped(steps)
            check(document.spec, known=current_spec())
            if dry_run:
                editing.plan = steps
                raise _DryRun
            _carry_out(steps, actor)
    except _DryRun:
        version = Revision.objects.filter(kind="policy").values_list("number", flat=True).first() or 0
        return Applied(editing.plan, version, True)
    return Applied(editing.plan, editing.version, False)


def roll_back(number: int, *, actor: Actor) -> Applied:
    """Make an earlier version the policy again, as a new version."""
    version = PolicyVersion.objects.filter(number=number).first()
    if version is None:
        raise PolicyRefused(f"There is no version {number}.")
    document = parse(version.document)
    rules = as_numbered(document.spec.rules, version.rules)
    document = replace(document, spec=replace(document.spec, rules=rules))
    return apply_document(document, actor=actor, origin=f"back to {number}")


def rule_ids(spec: PolicySpec) -> dict[str, list[int]]:
    """Return the ids of rules by a digest of what they say, so that going back makes the same rules and not others like them."""
    found: dict[str, list[int]] = {}
    for rule in spec.rules:
        found.setdefault(_said(rule), []).append(rule.id)
    return found


def as_numbered(rules: Iterable[RuleSpec], ids: Mapping[str, list[int]]) -> tuple[RuleSpec, ...]:
    """Give rules the ids that they had; 0 where that is not known."""
    left = {said: list(known) for said, known in ids.items()}
    return tuple(replace(rule, id=known.pop(0) if (known := left.get(_said(rule))) else 0) for rule in rules)


def _said(rule: RuleSpec) -> str:
    text = json.dumps(rule_dict(rule), sort_keys=True, default=str)
    return sha256(text.encode()).hexdigest()[:24]


def _check_keys(document: Document) -> None:
    named = {prefix.removeprefix(PREFIX): place for prefix, place in document.key_places.items()}
    known = set(ApiKey.objects.filter(public_id__in=named).values_list("public_id", flat=True))
    missing = [f"{place}: there is no key {PREFIX}{key}" for key, place in named.items() if key not in known]
    if missing:
        raise PolicyRefused(missing)


def _check_dropped(steps: PolicyDiff) -> None:
    dropped = [edit.before.name for edit in steps.roles if edit.after is None and edit.before is not None]
    held = holders(dropped)
    if held:
        raise PolicyRefused(
            [f"role {role} is held by live keys, so it cannot be dropped: {', '.join(keys)}" for role, keys in held]
        )


def holders(roles: Iterable[str]) -> list[tuple[str, list[str]]]:
    """The live keys of these roles, by role."""
    live = (
        ApiKey.objects.filter(role__name__in=list(roles), revoked_at__isnull=True)
        .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=timezone.now()))
        .select_related("role")
        .order_by("role__name", "name")
    )
    found: dict[str, list[str]] = {}
    for key in live:
        if key.role is not None:
            found.setdefault(key.role.name, []).append(str(key))
    return list(found.items())


def _carry_out(steps: PolicyDiff, actor: Actor) -> None:
    for role_edit in steps.roles:
        if role_edit.after is not None:
            Role.objects.update_or_create(
                name=role_edit.after.name, defaults={"description": role_edit.after.description}
            )
    _carry_out_rules(steps.rules)
    names = _Names.read()
    for limit in steps.limits:
        _edit_row(RateLimit, limit, names.limit_row)
    for level in steps.audit:
        _edit_row(AuditLevel, level, names.audit_row)
    for role_edit in steps.roles:
        if role_edit.after is None and role_edit.before is not None:
            _drop_role(Role.objects.get(name=role_edit.before.name), actor)


def _edit_row(model: Any, edit: Edit[Any], row: Any) -> None:
    if edit.after is None and edit.before is not None:
        model.objects.filter(pk=edit.before.id).delete()
    elif edit.before is None and edit.after is not None:
        model.objects.create(**row(edit.after))
    elif edit.before is not None and edit.after is not None:
        model.objects.filter(pk=edit.before.id).update(**row(edit.after))


def _drop_role(role: Role, actor: Actor) -> None:
    """Drop a role that no live key holds; keys that had it keep its name and are revoked where they only expired."""
    now = timezone.now()
    dead = ApiKey.objects.filter(role=role)
    dead.filter(revoked_at__isnull=True).update(
        revoked_at=now, revoked_by=actor.name[:150], revoked_reason="expired; its role was dropped"
    )
    dead.update(role=None, former_role=role.name)
    role.delete()


@dataclass(frozen=True, slots=True)
class _Names:
    """Ids of what specs name."""

    roles: dict[str, int]
    keys: dict[str, Any]

    @classmethod
    def read(cls) -> _Names:
        return cls(
            dict(Role.objects.values_list("name", "pk")),
            {PREFIX + public: pk for public, pk in ApiKey.objects.values_list("public_id", "pk")},
        )

    def limit_row(self, spec: LimitSpec) -> dict[str, Any]:
        return {
            **plain(spec),
            "key_id": self.keys[spec.key] if spec.key else None,
            "role_id": self.roles[spec.role] if spec.role else None,
            "upstream": spec.upstream,
            "kind": spec.kind,
            "pattern": spec.pattern,
        }

    def audit_row(self, spec: AuditSpec) -> dict[str, Any]:
        return {
            "role_id": self.roles[spec.role] if spec.role else None,
            "upstream": spec.upstream,
            "kinds": list(spec.kinds),
            "pattern": spec.pattern,
            "level": spec.level,
        }


def _rule_row(spec: RuleSpec) -> dict[str, Any]:
    window = spec.window
    return {
        **plain(spec),
        "any_role": spec.roles is None,
        "any_key": spec.keys is None,
        "kinds": list(spec.kinds),
        "upstreams": list(spec.upstreams),
        "pattern": spec.pattern,
        "days": list(window.days),
        "from_time": window.from_time,
        "to_time": window.to_time,
        "time_zone": window.zone,
        "valid_from": window.valid_from,
        "valid_until": window.valid_until,
        "networks": list(spec.networks),
    }


def _carry_out_rules(edits: Sequence[Edit[RuleSpec]]) -> None:
    """Make all changes of rules, in bulk: a policy of ten thousand rules is applied in seconds."""
    removed = [edit.before.id for edit in edits if edit.after is None and edit.before is not None]
    for start in range(0, len(removed), 1000):
        Rule.objects.filter(pk__in=removed[start : start + 1000]).delete()
    written: list[tuple[Rule, RuleSpec]] = []
    for edit in edits:
        if edit.after is not None and edit.before is not None:
            rule = Rule(pk=edit.before.id, **_rule_row(edit.after))
            rule.save(force_update=True)
            rule.conditions.all().delete()
            rule.roles.clear()
            rule.keys.clear()
            written.append((rule, edit.after))
    # Some had an id before; new ones get the next, which is beyond any that was ever given.
    added = [
        (Rule(pk=edit.after.id or None, **_rule_row(edit.after)), edit.after)
        for edit in edits
        if edit.before is None and edit.after
    ]
    Rule.objects.bulk_create([rule for rule, _ in added], batch_size=1000)
    _write_parts([*written, *added])


def _write_parts(written: Sequence[tuple[Rule, RuleSpec]]) -> None:
    names = _Names.read()
    of_role, of_key = Rule.roles.through, Rule.keys.through
    of_role.objects.bulk_create(
        [of_role(rule_id=rule.pk, role_id=names.roles[r]) for rule, spec in written for r in sorted(spec.roles or ())],
        batch_size=5000,
    )
    of_key.objects.bulk_create(
        [of_key(rule_id=rule.pk, apikey_id=names.keys[k]) for rule, spec in written for k in sorted(spec.keys or ())],
        batch_size=5000,
    )
    RuleCondition.objects.bulk_create(
        [
            RuleCondition(
                rule_id=rule.pk,
                subject=c.subject,
                path=c.path,
                quantifier=c.quantifier,
                operator=c.operator,
                value=listed(c.value),
            )
            for rule, spec in written
            for c in spec.conditions
        ],
        batch_size=5000,
    )


# -- one thing at a time


def _made(editing: Editing, kind: str) -> int:
    edits: Any = getattr(editing.plan, kind)
    return int(edits[0].after.id)


def create_role(*, name: str, actor: Actor, description: str = "") -> Role:
    with editing_policy(actor, method="admin.role.created", target=name):
        role = Role(name=name, description=description)
        role.full_clean()
        role.save()
    return role


def update_role(role_id: int, *, actor: Actor, name: str | None = None, description: str | None = None) -> Role:
    """Rename or describe a role; its keys and rules stay its own."""
    with editing_policy(actor, method="admin.role.changed"):
        role = Role.objects.get(pk=role_id)
        role.name = role.name if name is None else name
        role.description = role.description if description is None else description
        role.full_clean()
        role.save()
    return role


def delete_role(role_id: int, *, actor: Actor) -> None:
    """Drop a role, and the rules that were for it alone. Refused while live keys hold it."""
    role = Role.objects.get(pk=role_id)
    with editing_policy(actor, method="admin.role.deleted", target=role.name):
        held = holders([role.name])
        if held:
            raise PolicyRefused(f"Role {role.name} is held by live keys: {', '.join(held[0][1])}.")
        for rule in Rule.objects.filter(roles=role, any_role=False):
            if rule.roles.count() == 1:
                rule.delete()
        _drop_role(role, actor)


def create_rule(spec: RuleSpec, *, actor: Actor) -> int:
    """Add a rule; returns its id."""
    with editing_policy(actor, method="admin.rule.created") as editing:
        _carry_out_rules([Edit(None, spec.content())])
    return _made(editing, "rules")


def update_rule(rule_id: int, spec: RuleSpec, *, actor: Actor) -> None:
    """Change a rule in place; its id stays."""
    with editing_policy(actor, method="admin.rule.changed"):
        row = Rule.objects.get(pk=rule_id)
        before = RuleSpec(row.effect, tuple(row.kinds), row.pattern, None, id=row.pk)
        _carry_out_rules([Edit(before, spec)])


def delete_rule(rule_id: int, *, actor: Actor) -> None:
    with editing_policy(actor, method="admin.rule.deleted"):
        Rule.objects.get(pk=rule_id).delete()


def create_limit(spec: LimitSpec, *, actor: Actor) -> int:
    """Add a limit; returns its id."""
    with editing_policy(actor, method="admin.limit.created") as editing:
        RateLimit.objects.create(**_Names.read().limit_row(spec))
    return _made(editing, "limits")


def update_limit(limit_id: int, spec: LimitSpec, *, actor: Actor) -> None:
    """Change a limit in place; what it has counted stays."""
    with editing_policy(actor, method="admin.limit.changed"):
        if not RateLimit.objects.filter(pk=limit_id).update(**_Names.read().limit_row(spec)):
            raise PolicyRefused(f"There is no limit {limit_id}.")


def delete_limit(limit_id: int, *, actor: Actor) -> None:
    with editing_policy(actor, method="admin.limit.deleted"):
        RateLimit.objects.get(pk=limit_id).delete()


def create_audit_level(spec: AuditSpec, *, actor: Actor) -> int:
    """Add an audit level; returns its id."""
    with editing_policy(actor, method="admin.audit_level.created") as editing:
        AuditLevel.objects.create(**_Names.read().audit_row(spec))
    return _made(editing, "audit")


def delete_audit_level(level_id: int, *, actor: Actor) -> None:
    with editing_policy(actor, method="admin.audit_level.deleted"):
        AuditLevel.objects.get(pk=level_id).delete()
