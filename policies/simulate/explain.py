"""Why is this allowed or denied? The gateway's own decision, the rules that came close, and the limits that apply (pure).

For people who may know policy; a caller is never shown any of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import cache, partial
from typing import Any

from policies.engine import glob, satisfiability, schemas
from policies.engine.compiled import PolicySet, moment, network_check, window_check
from policies.engine.conditions import (
    ANNOTATION_DEFAULTS,
    ERROR,
    ITEMS,
    MISSING,
    NO,
    YES,
    compile_condition,
    json_type,
    parse_path,
    walk,
)
from policies.engine.decide import decide, decide_reference, decide_unseen, unless_blocked
from policies.engine.dispatchers import inner_calls, refused_within
from policies.engine.schemas import UNKNOWN, KnownTarget
from policies.engine.types import Context, Decision, Principal, RuleRef, Target
from policies.specs import ConditionSpec, LimitSpec, RuleSpec

MOST_NEAR = 20


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A rule that came close, and what kept it from matching."""

    rule: RuleRef
    label: str
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision with everything around it."""

    decision: Decision
    rule_label: str
    listed: bool
    example: Any  # arguments that would be allowed, when the arguments decide and some were found
    near: tuple[NearMiss, ...]
    observed: tuple[str, ...]
    limits: tuple[LimitSpec, ...]
    audit_level: str

    def as_dict(self) -> dict[str, Any]:
        """The form of `policy explain --json` and the API."""
        decision = self.decision
        return {
            "allowed": decision.allowed,
            "reason": decision.reason,
            "rule": None if decision.rule is None else {**decision.rule.as_dict(), "label": self.rule_label},
            "message": decision.message,
            "policy_version": decision.policy_version,
            "listed": self.listed,
            "example": self.example,
            "errors": [ref.as_dict() for ref in decision.errors],
            "observed": list(self.observed),
            "near": [{"rule": n.rule.as_dict(), "label": n.label, "why": list(n.why)} for n in self.near],
            "limits": [
                {
                    "id": limit.id,
                    "label": limit.label(),
                    "requests": limit.requests,
                    "window_seconds": limit.window_seconds,
                    "per": list(limit.per),
                }
                for limit in self.limits
            ],
            "audit_level": self.audit_level or None,
        }


def explain(
    policy: PolicySet,
    principal: Principal,
    target: Target,
    context: Context,
    *,
    known: KnownTarget = UNKNOWN,
    lookup: Callable[[str], KnownTarget] = lambda name: UNKNOWN,
) -> Explanation:
    """Decide as the gateway does, and say why; `known` is what the catalogue has of the target, `lookup` gives it of another
    tool of the same upstream, for targets that call others by name.
    """
    blocked = known.blocked
    decision = unless_blocked(decide(policy, principal, target, context), blocked)
    if decision.allowed and known.dispatches:
        lookup = cache(lookup)  # a name is looked up more than once, each time in the database

        def one(inner: Target) -> Decision:
            about = lookup(inner.name)
            seen = replace(inner, annotations=about.annotations)
            return unless_blocked(decide_unseen(policy, principal, seen, context), about.blocked)

        calls = inner_calls(target, known.dispatches, lambda name: lookup(name).alike)
        within = refused_within(
            target, known.dispatches, calls, one, policy.nothing, lambda name: bool(lookup(name).dispatches)
        )
        decision = within[1] if within is not None else decision
    labels = {rule.id: rule.label() for rule in policy.spec.rules}
    listed = decide_reference(policy, principal, target, context).allowed and not blocked
    return Explanation(
        decision=decision,
        rule_label=labels.get(decision.rule.id, "") if decision.rule else "",
        listed=listed,
        example=_example(policy, principal, target, context) if listed and not decision.allowed else None,
        near=_near(policy, principal, target, context, decision),
        observed=tuple(labels.get(ref.id, "") for ref in decision.observed),
        limits=policy.limits.find(principal.role, principal.key_prefix, target.kind, target.upstream, target.name),
        audit_level=policy.audit_level(principal.role, target.kind, target.upstream, target.name),
    )


def explain_known(
    policy: PolicySet, principal: Principal, target: Target, context: Context
) -> tuple[Explanation, KnownTarget]:
    """Explain with what the catalogue has of the target, and give that, too; annotations that are said stand above its own."""
    known = schemas.known(target.kind, target.upstream, target.name)
    if target.annotations is None:
        target = replace(target, annotations=known.annotations)
    lookup = partial(schemas.known, "tool", target.upstream)
    return explain(policy, principal, target, context, known=known, lookup=lookup), known


def _example(policy: PolicySet, principal: Principal, target: Target, context: Context) -> Any:
    found = policy.candidates(principal.role, principal.key_prefix, target.kind, target.upstream, target.name)
    denies = [r for r in found.denies if r.check_outer(target, context) != NO]
    allows = [r for r in found.allows if r.check_outer(target, context) == YES]
    return satisfiability.some_arguments([rule.asked for rule in allows], [rule.asked for rule in denies]).example


def _near(
    policy: PolicySet, principal: Principal, target: Target, context: Context, decision: Decision
) -> tuple[NearMiss, ...]:
    decided = decision.rule.id if decision.rule else None
    found: list[tuple[int, int, NearMiss]] = []
    for spec in policy.spec.rules:
        if spec.id == decided and decided is not None:
            continue
        static, why = _static(spec, principal, target)
        if static > 1 or (static == 1 and not why):
            continue
        why += _dynamic(spec, target, context)
        if not why:
            if not spec.observe:
                continue
            why = ["it only observes"]
        found.append((len(why), spec.id, NearMiss(RuleRef(spec.id, spec.name, spec.effect), spec.label(), tuple(why))))
    found.sort(key=lambda item: item[:2])
    if principal.upstreams and target.upstream not in principal.upstreams:
        reachable = ", ".join(sorted(principal.upstreams))
        note = NearMiss(RuleRef(0, "", "deny"), "the key itself", (f"it may reach only {reachable}",))
        return (note, *(item[2] for item in found[:MOST_NEAR]))
    return tuple(item[2] for item in found[:MOST_NEAR])


def _static(spec: RuleSpec, principal: Principal, target: Target) -> tuple[int, list[str]]:
    """How many of role, key, kind, upstream and name do not fit, and words where exactly one is worth telling."""
    why: list[str] = []
    misses = 0
    if not spec.enabled:
        misses += 1
        why.append("it is switched off")
    if spec.roles is not None and principal.role not in spec.roles:
        misses += 1
        why.append(f"it is for {', '.join(sorted(spec.roles)) or 'no role'}, not for {principal.role or 'no role'}")
    if spec.keys is not None and principal.key_prefix not in spec.keys:
        misses += 1
        why.append("it is for other keys")
    if target.kind not in spec.kinds:
        misses += 1
        why.append(f"it is about {', '.join(spec.kinds)}, not {target.kind}")
    if spec.upstreams and target.upstream not in spec.upstreams:
        misses += 1
        why.append(f"it is for upstream {', '.join(spec.upstreams)}, not {target.upstream or 'none'}")
    if misses <= 1 and not glob.matcher(spec.pattern)(target.name):
        misses += 1
        if _alike(spec.pattern, target.name):
            why.append(f"the name {target.name!r} does not match {spec.pattern!r}")
        elif misses == 1:
            return 1, []
    return misses, why


def _alike(pattern: str, name: str) -> bool:
    if len(name) > 200 or len(pattern) > 200:
        return False
    return glob.matcher(pattern.casefold())(name.casefold()) or SequenceMatcher(None, pattern, name).ratio() > 0.75


def _dynamic(spec: RuleSpec, target: Target, context: Context) -> list[str]:
    """What of the moment, the place and the call does not fit."""
    why: list[str] = []
    if not spec.window.always and window_check(spec.window)(moment(context.now)) != YES:
        why.append("it is not in force at this time")
    if spec.networks and network_check(spec.networks)(context.client_ip) != YES:
        why.append(f"the caller's address {context.client_ip or '(not known)'} is not in {', '.join(spec.networks)}")
    for condition in spec.conditions:
        problem = _condition(condition, target)
        if problem:
            why.append(problem)
    return why


def _condition(condition: ConditionSpec, target: Target) -> str:
    subject: Any = target.arguments
    if condition.subject == "name":
        subject = target.name
    elif condition.subject == "annotations":
        subject = {**ANNOTATION_DEFAULTS, **(target.annotations or {})}
    answer = compile_condition(condition)(subject)
    if answer == YES:
        return ""
    found = _found(condition, subject)
    return f"{condition.words()}: {found}{' (cannot be compared)' if answer == ERROR else ''}"


def _found(condition: ConditionSpec, subject: Any) -> str:
    if condition.subject == "name":
        return f"it is {subject!r:.80}"
    steps = parse_path(condition.path)
    if ITEMS in steps:
        head = steps[: steps.index(ITEMS)]
        _, value = walk(subject, head)
        return "it is missing" if value is MISSING else f"the {json_type(value)} {_brief(value)}"
    state, value = walk(subject, steps)
    if state == ERROR and isinstance(subject, Mapping):
        return "what it names cannot be told, since another member could be read as it or something else is in the way"
    return "it is missing" if value is MISSING else f"it is {_brief(value)}"


def _brief(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=True, default=str)
    except (TypeError, ValueError, RecursionError):
        text = json_type(value)
    return text if len(text) <= 80 else text[:77] + "..."
