"""What it takes to make one policy into another, touching nothing that stays the same (pure)."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from policies.documents.writer import audit_dict, limit_dict, render, rule_dict
from policies.specs import RATE, AuditSpec, LimitSpec, PolicySpec, RoleSpec, RuleSpec

S = TypeVar("S", bound=Any)


@dataclass(frozen=True, slots=True)
class Edit(Generic[S]):
    """One change: `before` None adds, `after` None removes, both change in place (the id stays)."""

    before: S | None
    after: S | None

    @property
    def action(self) -> str:
        """add, remove or change."""
        return "add" if self.before is None else "remove" if self.after is None else "change"


@dataclass(frozen=True, slots=True)
class PolicyDiff:
    """All changes, in the order in which they can be made."""

    roles: tuple[Edit[RoleSpec], ...] = ()
    rules: tuple[Edit[RuleSpec], ...] = ()
    limits: tuple[Edit[LimitSpec], ...] = ()
    audit: tuple[Edit[AuditSpec], ...] = ()
    diff: str = ""

    @property
    def empty(self) -> bool:
        """Whether nothing would change."""
        return not (self.roles or self.rules or self.limits or self.audit)

    def changes(self) -> list[dict[str, Any]]:
        """Every change as a mapping, for people and for JSON."""
        found: list[dict[str, Any]] = []
        groups: tuple[tuple[str, Sequence[Edit[Any]], Callable[[Any], dict[str, Any]]], ...] = (
            ("role", self.roles, role_dict),
            ("rule", self.rules, rule_dict),
            ("limit", self.limits, limit_dict),
            ("audit", self.audit, audit_dict),
        )
        for what, edits, form in groups:
            for edit in edits:
                shown = edit.after if edit.after is not None else edit.before
                found.append(
                    {
                        "change": edit.action,
                        "what": what,
                        "label": _label(shown),
                        "before": None if edit.before is None else form(edit.before),
                        "after": None if edit.after is None else form(edit.after),
                    }
                )
        return found

    def lines(self) -> list[str]:
        """Every change as a line of text."""
        signs = {"add": "+", "remove": "-", "change": "~"}
        return [
            f"{signs[c['change']]} {'' if c['what'] in ('limit', 'audit') else c['what'] + ' '}{c['label']}"
            for c in self.changes()
        ]


def role_dict(role: RoleSpec) -> dict[str, Any]:
    """A role's own members."""
    return {"name": role.name, "description": role.description}


def _label(spec: Any) -> str:
    return spec.name if isinstance(spec, RoleSpec) else spec.label()


def plan(current: PolicySpec, wanted: PolicySpec, *, by_id: bool = False) -> PolicyDiff:
    """Compare two policies; what is equal keeps its id, what has the same name or scope is changed in place.

    `by_id`: both are states of one database, so that ids say what is what.
    """
    if by_id:
        return PolicyDiff(
            roles=_same_ids(current.roles, wanted.roles),
            rules=_same_ids(current.rules, wanted.rules),
            limits=_same_ids(current.limits, wanted.limits),
            audit=_same_ids(current.audit, wanted.audit),
            diff=text_diff(current, wanted),
        )
    return PolicyDiff(
        roles=_roles(current.roles, wanted.roles),
        rules=_rules(current.rules, wanted.rules),
        limits=_match(current.limits, wanted.limits, _limit_scope),
        audit=_match(current.audit, wanted.audit, lambda a: (a.kinds, a.pattern, a.role, a.upstream)),
        diff=text_diff(current, wanted),
    )


def text_diff(current: PolicySpec, wanted: PolicySpec) -> str:
    """The difference of the two documents, line by line."""
    old, new = render(current).splitlines(), render(wanted).splitlines()
    return "\n".join(difflib.unified_diff(old, new, "before", "after", lineterm="", n=2))


def _same_ids(current: Sequence[S], wanted: Sequence[S]) -> tuple[Edit[S], ...]:
    old = {spec.id: spec for spec in current}
    new = {spec.id: spec for spec in wanted}
    edits: list[Edit[S]] = [Edit(old.get(key), spec) for key, spec in new.items() if old.get(key) != spec]
    return (*edits, *(Edit(spec, None) for key, spec in old.items() if key not in new))


def _rules(current: Sequence[RuleSpec], wanted: Sequence[RuleSpec]) -> tuple[Edit[RuleSpec], ...]:
    """Pair rules by the id that a wanted one had before, where it is known; the others by what they say, then by name."""
    known = {rule.id for rule in wanted if rule.id}
    return (
        *_same_ids([rule for rule in current if rule.id in known], [rule for rule in wanted if rule.id]),
        *_match(
            [rule for rule in current if rule.id not in known],
            [rule for rule in wanted if not rule.id],
            lambda rule: rule.name or None,
        ),
    )


def _limit_scope(limit: LimitSpec) -> Hashable:
    """All but how many: of two limits that count the same in the same time, one is the other with another number."""
    numbers: dict[str, Any] = {row.name: 1 for row in RATE if row.name != "window_seconds"}
    return replace(limit.content(), **numbers)


def _roles(current: Sequence[RoleSpec], wanted: Sequence[RoleSpec]) -> tuple[Edit[RoleSpec], ...]:
    old = {role.name: role for role in current}
    new = {role.name: role for role in wanted}
    edits = [Edit(None, role) for name, role in new.items() if name not in old]
    edits += [
        Edit(old[name], replace(role, id=old[name].id))
        for name, role in new.items()
        if name in old and old[name].description != role.description
    ]
    return (*edits, *(Edit(role, None) for name, role in old.items() if name not in new))


def _match(current: Sequence[S], wanted: Sequence[S], identity: Callable[[S], Hashable | None]) -> tuple[Edit[S], ...]:
    """Pair equal ones first, then those of one identity; what is left is added or removed."""
    same: dict[Any, list[S]] = defaultdict(list)
    for spec in current:
        same[spec.content()].append(spec)
    added: list[S] = []
    for spec in wanted:
        twins = same[spec.content()]
        if twins:
            twins.pop(0)
        else:
            added.append(spec)
    left = sorted((spec for specs in same.values() for spec in specs), key=lambda spec: spec.id)
    by_identity: dict[Hashable, list[S]] = defaultdict(list)
    for spec in left:
        by_identity[identity(spec)].append(spec)
    edits: list[Edit[S]] = []
    kept: set[int] = set()
    for spec in added:
        kin = by_identity[identity(spec)] if identity(spec) is not None else []
        if kin:
            old = kin.pop(0)
            kept.add(id(old))
            edits.append(Edit(old, replace(spec, id=old.id)))
        else:
            edits.append(Edit(None, spec))
    return (*edits, *(Edit(spec, None) for spec in left if id(spec) not in kept))
