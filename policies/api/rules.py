"""Rules, one by one; each change is a new version of the policy."""

from __future__ import annotations

from dataclasses import replace
from datetime import time
from typing import Any
from zoneinfo import available_timezones

from django.db import transaction
from rest_framework.request import Request
from rest_framework.response import Response

from core.api.fields import read
from core.api.problems import Problem, invalid, wrong
from core.api.views import ApiView, Parameter, actor_of
from policies import vocabulary
from policies.api.idempotency import once
from policies.api.parts import operations, pick, strangers
from policies.api.serializers import rules as forms
from policies.api.serializers.parts import shown
from policies.documents.sentences import rule_sentence
from policies.engine.compiled import CompiledRule, PolicyError
from policies.services import policy as policy_acts
from policies.specs import RULE, ConditionSpec, PolicySpec, RuleSpec, WindowSpec

__all__ = ["OneRule", "Rules"]

MAX_EXACT = 2**53

_RULES, _RULE = operations(
    "Rule", "Rules", "a rule", forms.RuleChangeSerializer, forms.RuleSerializer,
    Parameter(name="effect", description="Only rules with this effect.", choices=vocabulary.EFFECTS),
    Parameter(name="role", description="Only rules that hold for this role.", longest=64),
    model="rule",
)  # fmt: skip


def rule_form(rule: RuleSpec) -> dict[str, Any]:
    """Return a rule as it is answered."""
    return {"id": rule.id, **shown(rule, forms.RuleChangeSerializer), "sentence": rule_sentence(rule)}


def read_rule(asked: dict[str, Any], before: RuleSpec | None, policy: PolicySpec) -> RuleSpec:
    """Make a rule of what was asked for, on top of what it was; refuse what could not be stored or would not compile."""
    spec = before or RuleSpec("", ("tool",), "", None)
    plain: dict[str, Any] = {name: asked[name] for name in (*(row.name for row in RULE), "pattern") if name in asked}
    for name in ("roles", "keys"):
        if name in asked:
            plain[name] = None if asked[name] is None else frozenset(asked[name])
    if "kinds" in asked:
        plain["kinds"] = tuple(kind for kind in vocabulary.KINDS if kind in asked["kinds"])
    if "upstreams" in asked:
        plain["upstreams"] = tuple(sorted(set(asked["upstreams"])))
    if "networks" in asked:
        plain["networks"] = tuple(asked["networks"])
    if "conditions" in asked:
        plain["conditions"] = tuple(_condition(one, at) for at, one in enumerate(asked["conditions"]))
    if "window" in asked:
        plain["window"] = _window(asked["window"])
    spec = replace(spec, **plain)
    errors = [*strangers(spec.roles, spec.keys, policy)]
    if spec.name and any(other.name == spec.name and other.id != spec.id for other in policy.rules):
        errors.append(wrong("name", "Another rule has this name."))
    if errors:
        raise invalid(*errors)
    try:
        CompiledRule(spec)
    except PolicyError as error:
        raise Problem("refused", str(error)) from None
    return spec


def _condition(asked: dict[str, Any], at: int) -> ConditionSpec:
    field, value = f"conditions[{at}].value", asked["value"]
    if isinstance(value, list):
        value = tuple(value)
    many = value if isinstance(value, tuple) else (value,)
    if len(many) > 1000 or any(isinstance(one, dict | list) for one in many):
        raise invalid(wrong(field, "Text, a number, true, false, or a list of at most 1,000 of them."))
    if any(isinstance(one, int | float) and abs(one) > MAX_EXACT for one in many):
        raise invalid(wrong(field, "Numbers lie within 2 to the 53rd."))
    if any(isinstance(one, str) and len(one) > 4000 for one in many) or (isinstance(value, tuple) and None in value):
        raise invalid(wrong(field, "Texts have at most 4,000 characters, and a list has no null."))
    return ConditionSpec(asked["operator"], value, asked["path"], asked["subject"], asked["quantifier"])


def _window(asked: dict[str, Any]) -> WindowSpec:
    start, end = (time.fromisoformat(asked[name]) if asked[name] else None for name in ("from_time", "to_time"))
    errors = []
    if (start is None) != (end is None) or (start is not None and start == end):
        errors.append(wrong("window.to_time", "Give both ends, and let them differ."))
    if asked["zone"] not in available_timezones():
        errors.append(wrong("window.zone", "There is no such time zone."))
    since, until = asked["valid_from"], asked["valid_until"]
    if since is not None and until is not None and since >= until:
        errors.append(wrong("window.valid_until", "It is later than valid_from."))
    if errors:
        raise invalid(*errors)
    days = tuple(day for day in vocabulary.WEEKDAYS if day in asked["days"])
    return WindowSpec(days, start, end, asked["zone"], since, until)


def rule_of(pk: int) -> RuleSpec:
    """Return a stored rule, or say that there is none."""
    spec: RuleSpec = pick(policy_acts.current_spec().rules, pk, "rule")
    return spec


class Rules(ApiView):
    """All rules."""

    operations = _RULES

    def get(self, request: Request) -> Response:
        """Return one page."""
        effect, role = self.query.get("effect"), self.query.get("role")
        spec = policy_acts.current_spec()
        there = role is None or any(one.name == role for one in spec.roles)
        found = [
            rule
            for rule in spec.rules
            if there
            and (effect is None or rule.effect == effect)
            and (role is None or rule.roles is None or role in rule.roles)
        ]
        return self.page_of(found, rule_form)

    def post(self, request: Request) -> Response:
        """Add one."""
        asked = read(forms.RuleChangeSerializer, request.data)

        def act() -> Response:
            policy_acts.lock_policy()
            made = policy_acts.create_rule(read_rule(asked, None, policy_acts.current_spec()), actor=actor_of(request))
            return self.made(rule_form(rule_of(made)), made)

        return once(request, act)


class OneRule(ApiView):
    """One rule."""

    operations = _RULE

    def get(self, request: Request, pk: int) -> Response:
        """Return it."""
        return self.one(rule_form(rule_of(pk)))

    @transaction.atomic
    def patch(self, request: Request, pk: int) -> Response:
        """Change it in place; its id stays."""
        asked = read(forms.RuleChangeSerializer, request.data, partial=True)
        policy_acts.lock_policy()
        policy = policy_acts.current_spec()
        before: RuleSpec = pick(policy.rules, pk, "rule")
        self.check_match(rule_form(before))
        policy_acts.update_rule(pk, read_rule(asked, before, policy), actor=actor_of(request))
        return self.one(rule_form(rule_of(pk)))

    @transaction.atomic
    def delete(self, request: Request, pk: int) -> Response:
        """Remove it."""
        policy_acts.lock_policy()
        self.check_match(rule_form(rule_of(pk)))
        policy_acts.delete_rule(pk, actor=actor_of(request))
        return Response(status=204)
