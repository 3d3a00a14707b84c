"""Rules, one by one; each change is a new version of the policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import time
from typing import Any
from zoneinfo import available_timezones

from core.access.actors import Actor
from core.api.problems import Problem, invalid, wrong
from core.api.resources import Resource
from core.api.views import Parameter
from policies import vocabulary
from policies.api.parts import pick, strangers
from policies.api.serializers import rules as forms
from policies.api.serializers.parts import shown
from policies.documents.sentences import rule_sentence
from policies.engine.compiled import CompiledRule, PolicyError
from policies.services import policy as policy_acts
from policies.specs import RULE, ConditionSpec, PolicySpec, RuleSpec, WindowSpec

__all__ = ["RuleResource"]

MAX_EXACT = 2**53


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


class RuleResource(Resource):
    """Rules: changed in place, so that an id goes on meaning the same rule."""

    name, names, words, plural, tag = "Rule", "Rules", "a rule", "rules", "rules"
    model = "policies.rule"
    change, answer = forms.RuleChangeSerializer, forms.RuleSerializer
    query = (
        Parameter(name="effect", description="Only rules with this effect.", choices=vocabulary.EFFECTS),
        Parameter(name="role", description="Only rules that hold for this role.", longest=64),
    )

    def all(self, query: Mapping[str, Any]) -> Any:
        effect, role = query.get("effect"), query.get("role")
        spec = policy_acts.current_spec()
        there = role is None or any(one.name == role for one in spec.roles)
        return [
            rule
            for rule in spec.rules
            if there
            and (effect is None or rule.effect == effect)
            and (role is None or rule.roles is None or role in rule.roles)
        ]

    def find(self, pk: int, *, lock: bool = False) -> RuleSpec:
        """Return a stored rule, or say that there is none."""
        if lock:
            policy_acts.lock_policy()
        found: RuleSpec = pick(policy_acts.current_spec().rules, pk, "rule")
        return found

    def shown(self, thing: RuleSpec) -> dict[str, Any]:
        """Return a rule as it is answered."""
        return rule_form(thing)

    def add(self, asked: dict[str, Any], actor: Actor) -> int:
        policy_acts.lock_policy()
        return policy_acts.create_rule(read_rule(asked, None, policy_acts.current_spec()), actor=actor)

    def update(self, thing: RuleSpec, asked: dict[str, Any], actor: Actor) -> None:
        policy_acts.update_rule(thing.id, read_rule(asked, thing, policy_acts.current_spec()), actor=actor)

    def remove(self, thing: RuleSpec, actor: Actor) -> None:
        policy_acts.delete_rule(thing.id, actor=actor)
