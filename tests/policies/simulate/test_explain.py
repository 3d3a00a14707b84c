"""Explain says what the gateway does, and what came close."""

from dataclasses import replace
from datetime import UTC, datetime

from policies.engine.decide import decide
from policies.engine.schemas import KnownTarget
from policies.engine.types import Context, Principal, Target
from policies.simulate.explain import explain
from policies.specs import ConditionSpec, LimitSpec, PolicySpec, RuleSpec
from tests.policies.world import KEYS, compiled, worlds

NOW = Context(datetime(2026, 11, 24, 12, tzinfo=UTC), "10.0.0.1")
USER = Principal(None, "k", KEYS[0], "user")


def test_it_is_the_same_decision_and_every_near_miss_has_a_cause():
    for world in worlds(600):
        policy, principal, target, context = world.policy(), world.principal(), world.target(), world.context()
        told = explain(policy, principal, target, context)
        assert told.decision == decide(policy, principal, target, context)
        assert all(near.why for near in told.near)
        if told.example is not None:
            assert (
                decide(policy, principal, replace(target, arguments=told.example), context).allowed or not told.listed
            )
        told.as_dict()


def test_it_says_what_kept_a_rule_from_matching():
    spec = RuleSpec(
        "allow",
        ("tool",),
        "pay",
        frozenset({"user"}),
        conditions=(ConditionSpec("le", 100, "amount"),),
        networks=("10.0.0.0/8",),
    )
    policy = compiled([spec, replace(spec, roles=frozenset({"admin"})), replace(spec, enabled=False, conditions=()), replace(spec, kinds=("prompt",)),
                       replace(spec, pattern="Pay"), replace(spec, pattern="unrelated"), replace(spec, upstreams=("other",))])  # fmt: skip
    told = explain(policy, USER, Target("tool", "crm", "pay", {"amount": 250}), Context(NOW.now, "11.0.0.1"))
    why = {near.rule.id: near.why for near in told.near}
    assert why[1] == ("the caller's address 11.0.0.1 is not in 10.0.0.0/8", "amount le 100: it is 250")
    assert why[2][0] == "it is for admin, not for user"
    assert why[3][0] == "it is switched off"
    assert why[4][0] == "it is about prompt, not tool"
    assert why[5][0] == "the name 'pay' does not match 'Pay'"
    assert why[7][0] == "it is for upstream other, not crm"
    assert 6 not in why
    assert told.listed is False and told.decision.reason == "no_rule"


def test_it_finds_arguments_that_would_do():
    rule = RuleSpec(
        "allow",
        ("tool",),
        "pay",
        None,
        conditions=(ConditionSpec("le", 100, "amount"), ConditionSpec("in", ("EUR",), "cur")),
    )
    told = explain(compiled([rule]), USER, Target("tool", "crm", "pay", {}), NOW)
    assert told.listed and not told.decision.allowed and told.example["cur"] == "EUR" and told.example["amount"] <= 100
    assert [near.why for near in told.near] == [("amount le 100: it is missing", "cur in ('EUR',): it is missing")]
    wrong = explain(compiled([rule]), USER, Target("tool", "crm", "pay", {"amount": "9", "cur": "EUR"}), NOW)
    assert wrong.near[0].why == ('amount le 100: it is "9" (cannot be compared)',)


def test_limits_and_levels_are_told():
    from policies.engine.compiled import PolicySet
    from policies.specs import AuditSpec

    policy = PolicySet(
        PolicySpec(
            limits=(LimitSpec(5, 60, per=("key",), id=1),),
            audit=(AuditSpec("digest", ("tool",), "p*"), AuditSpec("full", ("tool",), "*")),
        )
    )
    told = explain(policy, USER, Target("tool", "crm", "pay"), NOW).as_dict()
    assert [limit["label"] for limit in told["limits"]] == ["limit 5 in 60 s per key"] and told[
        "audit_level"
    ] == "digest"


def test_ten_thousand_rules_are_explained_in_bounded_words():
    rules = [RuleSpec("allow", ("tool",), f"tool_{i}", frozenset({"user"})) for i in range(10_000)]
    told = explain(compiled(rules), USER, Target("tool", "crm", "tool_5", {}), NOW)
    assert told.decision.allowed and len(told.near) <= 20


def test_a_tool_that_calls_others_is_explained_with_what_it_names():
    policy = compiled(
        [
            RuleSpec("allow", ("tool",), "call_*", frozenset({"user"})),
            RuleSpec("allow", ("tool",), "list", frozenset({"user"})),
        ]
    )
    held = {"list": KnownTarget(), "held": KnownTarget(blocked=True)}

    def told(arguments, **more):
        target = Target("tool", "crm", "call_tool", arguments)
        return explain(
            policy, USER, target, NOW, known=KnownTarget(dispatches="name"), lookup=held.__getitem__, **more
        ).decision

    assert told({"name": "list"}).allowed
    held["list"] = KnownTarget(blocked=True)
    assert told({"name": "list"}).reason == "tool_definition_changed"
    assert told({"name": "held"}).reason == "no_rule"
    assert not told({}).allowed
    assert explain(policy, USER, Target("tool", "crm", "call_tool", {}), NOW).decision.allowed
