"""The one decision: may this principal do this to that target, now? (pure)

`decide` serves calls, `may_list` lists; both walk the same compiled rules. Deny overrides allow, nothing matching is a
denial. A denying rule that errs denies; an allowing rule that errs grants nothing, and if nothing else allows the
reason is `policy_error`. What a role's rules say of one name is gathered once and kept (policies.engine.compiled), so that a
decision costs a lookup and the checks of the few rules that concern this target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from audit.reasons import REASONS
from policies.engine.conditions import ERROR, MISSING, NO, YES
from policies.vocabulary import UNSEEN

if TYPE_CHECKING:
    from policies.engine.compiled import Candidates, CompiledRule, PolicySet

ABSENT = MISSING

ALLOWED_BY_RULE = "allowed_by_rule"
OPEN_METHOD = "open_method"
DEFINITION_CHANGED = "tool_definition_changed"
NO_RULE = "no_rule"
DENIED_BY_RULE = "denied_by_rule"
POLICY_ERROR = "policy_error"
AMBIGUOUS = "ambiguous_target"
NESTED = "nested_call"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who the key stands for."""

    key_id: UUID | None
    key_name: str
    key_prefix: str
    role: str
    upstreams: frozenset[str] = frozenset()

    def reaches(self, upstream: str) -> bool:
        """Whether the key may speak with this upstream at all."""
        return not self.upstreams or upstream in self.upstreams


@dataclass(frozen=True, slots=True)
class Target:
    """What a message names: its kind, the upstream, the name as sent, and the call's arguments if it is a call.

    `annotations` are the tool's own, from the catalogue or the list item; None when the tool is not known, which reads
    as the protocol's cautious defaults.
    """

    kind: str
    upstream: str
    name: str
    arguments: Any = ABSENT
    annotations: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """The clock and the place of one decision."""

    now: float | datetime  # seconds since 1970, or an aware moment
    client_ip: str | None = None


@dataclass(frozen=True, slots=True)
class RuleRef:
    """A rule as events name it."""

    id: int
    name: str
    effect: str

    def as_dict(self) -> dict[str, Any]:
        """The form that events and JSON answers carry."""
        return {"id": self.id, "name": self.name, "effect": self.effect}


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer that explains itself. `errors` are rules that could not be decided; `observed` shadow rules that match."""

    allowed: bool
    reason: str
    rule: RuleRef | None
    message: str
    policy_version: int
    observed: tuple[RuleRef, ...] = ()
    errors: tuple[RuleRef, ...] = ()


def decide(policy: PolicySet, principal: Principal, target: Target, context: Context) -> Decision:
    """Decide one call. The arguments must be what is going to run."""
    if principal.upstreams and target.upstream not in principal.upstreams:
        return policy.nothing
    candidates = policy.candidates(principal.role, principal.key_prefix, target.kind, target.upstream, target.name)
    fixed = candidates.fixed
    if fixed is not None:
        return fixed
    return _decide(policy, candidates, target, context)


def _decide(policy: PolicySet, candidates: Candidates, target: Target, context: Context) -> Decision:
    observed = _observed(candidates, target, context)
    errors: list[RuleRef] = []
    for rule in candidates.denies:
        answer = rule.check(target, context)
        if answer != NO:
            erred = (rule.ref,) if answer == ERROR else ()
            return Decision(False, DENIED_BY_RULE, rule.ref, rule.message, policy.version, observed, erred)
    for rule in candidates.allows:
        answer = rule.check(target, context)
        if answer == YES:
            return Decision(True, ALLOWED_BY_RULE, rule.ref, "", policy.version, observed, tuple(errors))
        if answer == ERROR:
            errors.append(rule.ref)
    if errors:
        return Decision(
            False, POLICY_ERROR, None, REASONS[POLICY_ERROR].message, policy.version, observed, tuple(errors)
        )
    return replace(candidates.otherwise, observed=observed)


def _observed(candidates: Candidates, target: Target, context: Context) -> tuple[RuleRef, ...]:
    found = []
    for rule in candidates.shadows:
        answer = rule.check(target, context)
        if answer == YES or (answer == ERROR and rule.ref.effect == "deny"):
            found.append(rule.ref)
    return tuple(found)


def decide_reference(policy: PolicySet, principal: Principal, target: Target, context: Context) -> Decision:
    """Decide a message that refers to a target without calling it (a list, a completion): is it anything but denied
    whatever the arguments?
    """
    if principal.upstreams and target.upstream not in principal.upstreams:
        return policy.nothing
    candidates = policy.candidates(principal.role, principal.key_prefix, target.kind, target.upstream, target.name)
    if candidates.fixed is not None:
        return candidates.fixed
    if candidates.otherwise.allowed:
        return _decide(policy, candidates, target, context)
    denies: list[CompiledRule] = []
    for rule in candidates.denies:
        answer = rule.check_outer(target, context)
        if answer != NO:
            if not rule.argument_checks:
                erred = (rule.ref,) if answer == ERROR else ()
                return Decision(False, DENIED_BY_RULE, rule.ref, rule.message, policy.version, (), erred)
            denies.append(rule)
    allows: list[CompiledRule] = []
    errors: list[RuleRef] = []
    for rule in candidates.allows:
        answer = rule.check_outer(target, context)
        if answer == YES:
            allows.append(rule)
        elif answer == ERROR:
            errors.append(rule.ref)
    if not allows:
        reason = POLICY_ERROR if errors else NO_RULE
        return Decision(False, reason, None, REASONS[reason].message, policy.version, (), tuple(errors))
    if not candidates.reachable(allows, denies):
        if denies:
            return Decision(False, DENIED_BY_RULE, denies[0].ref, denies[0].message, policy.version)
        return policy.nothing
    return Decision(True, ALLOWED_BY_RULE, allows[0].ref, "", policy.version)


def decide_unseen(policy: PolicySet, principal: Principal, target: Target, context: Context) -> Decision:
    """Decide a call whose arguments cannot be read: it is allowed only if it were whatever they are. Nor can it be known how
    its name is read by the tool that makes the call, so what denies a variant of the name denies it.
    """
    if principal.upstreams and target.upstream not in principal.upstreams:
        return policy.nothing
    kind = UNSEEN if target.kind == "tool" else target.kind
    candidates = policy.candidates(principal.role, principal.key_prefix, kind, target.upstream, target.name)
    if candidates.fixed is not None:
        return candidates.fixed
    for rule in candidates.denies:
        if rule.check_outer(target, context) != NO:
            return Decision(False, DENIED_BY_RULE, rule.ref, rule.message, policy.version)
    for rule in candidates.allows:
        if not rule.argument_checks and rule.check_outer(target, context) == YES:
            return Decision(True, ALLOWED_BY_RULE, rule.ref, "", policy.version)
    return policy.nothing


def unless_blocked(decision: Decision, blocked: bool) -> Decision:
    """Refuse what rules allow while its definition waits for approval; what they deny stays as it is, and so looks the same."""
    if not (blocked and decision.allowed):
        return decision
    return Decision(
        False,
        DEFINITION_CHANGED,
        decision.rule,
        REASONS[DEFINITION_CHANGED].message,
        decision.policy_version,
        decision.observed,
    )


def may_list(policy: PolicySet, principal: Principal, target: Target, context: Context) -> bool:
    """Whether a list may show this target: unless it is denied whatever the arguments."""
    return decide_reference(policy, principal, target, context).allowed
