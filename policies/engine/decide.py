"""The one decision: may this principal do this to that target, now? (pure)

`decide` serves calls, `may_list` lists; both walk the same compiled rules. Deny overrides allow, nothing matching is a
denial. A denying rule that errs denies; an allowing rule that errs grants nothing, and if nothing else allows the
reason is `policy_error`. What a role's rules say of one name is gathered once and kept (policies.engine.compiled), so that a
decision costs a lookup and the checks of the few rules that concern this target.
"""

from __future__ import annotations

from dataclasses import replace

from audit.reasons import REASONS
from policies.engine.compiled import Candidates, CompiledRule, PolicySet
from policies.engine.conditions import ERROR, NO, YES
from policies.engine.types import (
    ALLOWED_BY_RULE,
    DEFINITION_CHANGED,
    DENIED_BY_RULE,
    NO_RULE,
    POLICY_ERROR,
    Context,
    Decision,
    Principal,
    RuleRef,
    Target,
)
from policies.vocabulary import UNSEEN


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
