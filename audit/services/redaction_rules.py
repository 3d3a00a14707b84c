"""Acts on what is redacted: each in one transaction with its event; used by admin, API and commands alike.

Refusals are `RuleRefused`, Django's ValidationError, with words for people. A change is known to every worker within a second.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db import connection, transaction

from audit.models import RedactionRule
from audit.redaction.rules import PatternError, RedactionRuleSet
from audit.services.acts import record_act
from core.access.actors import Actor

__all__ = ["MOST_RULES", "RuleRefused", "change_rule", "create_rule", "delete_rule", "shown"]

# Each pattern is looked for in every payload.
MOST_RULES = 200
FIELDS = ("kind", "value", "label", "note", "enabled")


class RuleRefused(ValidationError):
    """A rule that cannot be kept; `messages` say why, one a line."""


def shown(rule: RedactionRule) -> dict[str, Any]:
    return {name: getattr(rule, name) for name in FIELDS}


@transaction.atomic
def create_rule(
    *, kind: str, value: str, actor: Actor, label: str = "", note: str = "", enabled: bool = True
) -> RedactionRule:
    """Have something more redacted from now on; what is stored already stays as it is."""
    rule = RedactionRule(kind=kind, value=value, label=label, note=note, enabled=enabled)
    _keep(rule)
    record_act(method="admin.redaction.created", actor=actor, target=_target(rule), after=shown(rule))
    return rule


@transaction.atomic
def change_rule(pk: int, *, actor: Actor, **fields: Any) -> RedactionRule:
    """Change a rule's fields."""
    rule = _locked(pk)
    before = shown(rule)
    for name, value in fields.items():
        if name not in FIELDS:
            raise TypeError(f"a rule has no field {name!r}")
        setattr(rule, name, value)
    if shown(rule) == before:
        return rule
    _keep(rule)
    record_act(method="admin.redaction.changed", actor=actor, target=_target(rule), before=before, after=shown(rule))
    return rule


@transaction.atomic
def delete_rule(pk: int, *, actor: Actor) -> RedactionRule:
    """Have something redacted no longer."""
    rule = _locked(pk)
    record_act(method="admin.redaction.deleted", actor=actor, target=_target(rule), before=shown(rule))
    rule.delete()
    return rule


def _target(rule: RedactionRule) -> str:
    return f"{rule.kind} {rule.value}"[:200]


def _locked(pk: int) -> RedactionRule:
    rule = RedactionRule.objects.select_for_update().filter(pk=pk).first()
    if rule is None:
        raise RuleRefused(f"There is no rule {pk}.")
    return rule


def _keep(rule: RedactionRule) -> None:
    """Save a rule that can be used together with all others, or refuse it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('sentinel.redaction'))")
    try:
        rule.full_clean()
    except ValidationError as error:
        raise RuleRefused(error) from None
    others = RedactionRule.objects.exclude(pk=rule.pk).filter(enabled=True)
    rows = list(others.order_by("id").values_list("kind", "value", "label"))
    if rule.enabled and len(rows) >= MOST_RULES:
        raise RuleRefused(f"There are {MOST_RULES} rules already; more would make every payload slow.")
    try:
        RedactionRuleSet.of([*rows, (rule.kind, rule.value, rule.label)])
    except PatternError as error:
        raise RuleRefused(str(error)) from None
    rule.save()
