"""The decision: held against a slow reference, against its own listing, and against what it may cost."""

import timeit
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from policies.engine.compiled import CACHE_SIZE, PolicyError, PolicySet
from policies.engine.conditions import MISSING, NO, YES
from policies.engine.decide import decide, decide_unseen, may_list
from policies.engine.satisfiability import some_arguments
from policies.engine.types import Context, Principal, Target
from policies.specs import ConditionSpec, PolicySpec, RoleSpec, RuleSpec
from policies.vocabulary import OPEN_METHODS
from tests.policies import reference
from tests.policies.world import KEYS, worlds

NOW = Context(datetime(2026, 11, 24, 12, tzinfo=UTC), "10.0.0.1")
USER = Principal(None, "k", KEYS[0], "user")


def policy(*rules):
    return PolicySet(
        PolicySpec((RoleSpec("user"),), tuple(replace(r, id=i) for i, r in enumerate(rules, 1)), version=3)
    )


def allow(pattern, *conditions, kinds=("tool",), **more):
    return RuleSpec("allow", kinds, pattern, frozenset({"user"}), conditions=conditions, **more)


def deny(pattern, *conditions, kinds=("tool",), **more):
    return RuleSpec("deny", kinds, pattern, frozenset({"user"}), conditions=conditions, **more)


@pytest.mark.parametrize("name", sorted(OPEN_METHODS))
def test_what_needs_no_rule_is_denied_by_name_alone(name):
    target = Target("method", "crm", name)
    everything = ("tool", "prompt", "resource", "method")

    def decided(*rules):
        compiled = policy(*rules)
        decision = decide(compiled, USER, target, NOW)
        assert may_list(compiled, USER, target, NOW) == decision.allowed
        return decision.reason

    assert decided() == decided(deny("*", kinds=everything)) == decided(deny("**?", kinds=("method",))) == "open_method"
    assert decided(allow(name, kinds=("method",))) == decided(deny(name)) == "open_method"
    assert decided(deny(f"{name}x", kinds=("method",))) == "open_method"
    for pattern in (name, f"{name[0]}*", f"*{name[-1]}", f"?{name[1:]}"):
        assert decided(deny(pattern, kinds=everything), allow("*", kinds=everything)) == "denied_by_rule", pattern
        assert decided(deny(pattern, kinds=everything, observe=True)) == "open_method"
    assert decided(deny(name, kinds=("method",), networks=("10.9.0.0/16",))) == "open_method"
    assert not decide(policy(), replace(USER, upstreams=frozenset({"pay"})), target, NOW).allowed


def test_decides_as_the_reference_does():
    seen = Counter()
    for world in worlds(3000):
        compiled = world.policy()
        for _ in range(3):
            principal, target, context = world.principal(), world.target(), world.context()
            allowed, reason, settling, shadows = reference.decide(compiled.spec.rules, principal, target, context)
            for _ in range(2):  # the second time from memory
                decision = decide(compiled, principal, target, context)
                assert (decision.allowed, decision.reason) == (allowed, reason), (
                    world.seed,
                    compiled.spec.rules,
                    principal,
                    target,
                    context,
                )
                assert (decision.rule.id in settling) if settling else decision.rule is None
                assert {ref.id for ref in decision.observed} == shadows
            seen[reason] += 1
    assert min(seen.values()) > 50, seen  # every way to end was really tried


def test_what_is_hidden_is_denied_for_every_argument():
    hidden = 0
    for world in worlds(2500):
        compiled, principal, target, context = world.policy(), world.principal(), world.target(), world.context()
        if may_list(compiled, principal, target, context):
            continue
        hidden += 1
        for arguments in [MISSING, {}, *(world.arguments() for _ in range(12))]:
            tried = replace(target, arguments=arguments)
            assert not decide(compiled, principal, tried, context).allowed, (world.seed, compiled.spec.rules, tried)
    assert hidden > 200


def test_what_is_allowed_unseen_is_allowed_for_every_argument():
    allowed = 0
    for world in worlds(2500):
        compiled, principal, target, context = world.policy(), world.principal(), world.target(), world.context()
        if not decide_unseen(compiled, principal, target, context).allowed:
            continue
        allowed += 1
        for arguments in [MISSING, {}, *(world.arguments() for _ in range(12))]:
            tried = replace(target, arguments=arguments)
            assert decide(compiled, principal, tried, context).allowed, (world.seed, compiled.spec.rules, tried)
    assert allowed > 50


def test_what_is_listed_is_allowed_for_some_argument():
    """For comparisons the engine can find the arguments, or prove that there are none."""
    conditional = 0
    for world in worlds(2500):
        compiled, principal, target, context = (
            world.policy(exact=True),
            world.principal(),
            world.target(),
            world.context(),
        )
        listed = may_list(compiled, principal, target, context)
        if not principal.reaches(target.upstream):
            assert not listed
            continue
        found = compiled.candidates(principal.role, principal.key_prefix, target.kind, target.upstream, target.name)
        denies = [r for r in found.denies if r.check_outer(target, context) != NO]
        allows = [r for r in found.allows if r.check_outer(target, context) == YES]
        reached = some_arguments([r.asked for r in allows], [r.asked for r in denies])
        assert reached.found is not None or not allows, (world.seed, compiled.spec.rules)
        assert listed == bool(reached.found), (world.seed, compiled.spec.rules, target)
        if reached.found:
            conditional += bool(reached.example)
            tried = replace(target, arguments=reached.example)
            assert decide(compiled, principal, tried, context).allowed, (world.seed, compiled.spec.rules, tried)
    assert conditional > 50


def test_a_condition_does_not_hide_what_arguments_may_allow():
    compiled = policy(allow("pay", ConditionSpec("lt", 100, "amount")))
    target = Target("tool", "crm", "pay")
    assert may_list(compiled, USER, target, NOW)
    assert decide(compiled, USER, replace(target, arguments={"amount": 99}), NOW).allowed
    for arguments in (MISSING, {}, {"amount": 100}, {"amount": None}):
        assert decide(compiled, USER, replace(target, arguments=arguments), NOW).reason == "no_rule"
    for arguments in ({"amount": "5"}, {"amount": True}, {"amount": [5]}, {"amount": 2**60}, []):
        assert decide(compiled, USER, replace(target, arguments=arguments), NOW).reason == "policy_error"


def test_a_denial_that_covers_every_allowed_argument_hides():
    small, large = ConditionSpec("le", 100, "amount"), ConditionSpec("le", 200, "amount")
    target = Target("tool", "crm", "pay")
    assert not may_list(policy(allow("pay", small), deny("pay", large)), USER, target, NOW)
    assert may_list(policy(allow("pay", large), deny("pay", small)), USER, target, NOW)
    assert not may_list(policy(allow("pay"), deny("pay", large), deny("pay", ConditionSpec("gt", 200, "amount")),
                               deny("pay", ConditionSpec("absent", None, "amount"))), USER, target, NOW)  # fmt: skip


def test_a_deny_rule_that_errs_denies_and_says_so():
    compiled = policy(allow("*"), deny("pay", ConditionSpec("gt", 100, "amount"), reason="Too much."))
    decision = decide(compiled, USER, Target("tool", "crm", "pay", {"amount": "1e9"}), NOW)
    assert (decision.allowed, decision.reason, decision.message) == (False, "denied_by_rule", "Too much.")
    assert [ref.id for ref in decision.errors] == [2]
    assert decide(compiled, USER, Target("tool", "crm", "pay", {}), NOW).allowed


def test_hidden_and_nonexistent_get_the_same_words():
    compiled = policy(allow("read_*", ConditionSpec("eq", True, "readOnlyHint", "annotations")))
    hidden = decide(compiled, USER, Target("tool", "crm", "read_x", {}, {"readOnlyHint": False}), NOW)
    nonexistent = decide(compiled, USER, Target("tool", "crm", "read_y", {}), NOW)
    other = decide(compiled, USER, Target("tool", "crm", "write", {}), NOW)
    assert {(d.reason, d.message) for d in (hidden, nonexistent, other)} == {("no_rule", hidden.message)}


def test_names_match_exactly():
    compiled = policy(allow("delete_user"), allow("list_*"))
    for name in ("delete_user ", "Delete_User", "delete‐user", "delete_usеr", "delete_user\n", "delete_user\0", ""):
        assert not decide(compiled, USER, Target("tool", "crm", name), NOW).allowed
    assert decide(compiled, USER, Target("tool", "crm", "list_\nx"), NOW).allowed
    assert not decide(compiled, USER, Target("prompt", "crm", "list_x"), NOW).allowed
    assert not decide(compiled, USER, Target("method", "crm", "x/unknown"), NOW).allowed


def test_a_rule_for_no_role_or_no_key_never_matches():
    nobody = RuleSpec("allow", ("tool",), "*", frozenset())
    no_key = RuleSpec("allow", ("tool",), "*", None, keys=frozenset())
    assert decide(policy(nobody, no_key), USER, Target("tool", "crm", "x"), NOW).reason == "no_rule"


def test_what_cannot_be_compiled_names_its_rule():
    with pytest.raises(PolicyError, match=r"rule 1 .*pattern"):
        policy(allow("x", ConditionSpec("matches", "(", "a")))


def test_hostile_names_do_not_fill_memory():
    compiled = policy(allow("a*"), allow("b", ConditionSpec("eq", 1, "a")))
    for at in range(3 * CACHE_SIZE):
        decide(compiled, USER, Target("tool", "crm", f"a{at}"), NOW)
    decide(compiled, USER, Target("tool", "crm", "a" * 100_000), NOW)
    assert len(compiled._young) <= CACHE_SIZE and len(compiled._old) <= CACHE_SIZE
    assert all(len(place[4]) <= 256 for place in compiled._young)


def test_rules_for_other_tools_cost_nothing():
    """Not a benchmark: a decision must not grow with the number of unrelated rules, warm or cold."""
    few = [allow(f"tool_{i}") for i in range(10)] + [allow("pay", ConditionSpec("le", 9, "amount"))]
    many = [allow(f"tool_{i}") for i in range(8000)] + [allow(f"ns{i}_*") for i in range(2000)] + few[-1:]
    target = Target("tool", "crm", "pay", {"amount": 3})

    def cost(rules, name=None):
        compiled = policy(*rules)
        at = iter(range(10**9))
        if name is None:
            return min(timeit.repeat(lambda: decide(compiled, USER, target, NOW), number=2000, repeat=5))
        return min(
            timeit.repeat(
                lambda: decide(compiled, USER, Target("tool", "crm", f"{name}{next(at)}"), NOW), number=500, repeat=5
            )
        )

    assert cost(many) < 4 * cost(few)
    assert cost(many, "unknown") < 12 * cost(few, "unknown")
