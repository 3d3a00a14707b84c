"""Test cases of a policy as YAML: who, what, expected (pure). A team runs them in its CI.

policy: policy.yaml            # beside this file; without it, the stored policy
cases:
  - {role: readonly, tool: delete_customer, expect: denied, reason: no_rule}
  - {role: user, upstream: pay, tool: refund, arguments: {amount: 250}, expect: denied}
  - {role: user, upstream: pay, tool: refund, expect: listed}
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from policies import vocabulary
from policies.documents.strict_yaml import Mapping, Node, Reader, Sequence, compose, place
from policies.engine.compiled import PolicySet
from policies.engine.decide import decide, decide_reference
from policies.engine.types import ABSENT, Context, Principal, Target

EXPECTATIONS: Final = ("allowed", "denied", "listed", "hidden")
_MEMBERS: Final = (
    "name", "role", "key", *vocabulary.KINDS, "upstream", "arguments", "annotations", "at", "ip", "expect", "reason",
    "rule",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """One case."""

    where: str
    name: str
    role: str
    key: str
    target: Target
    context: Context
    expect: str
    reason: str
    rule: str


@dataclass(frozen=True, slots=True)
class CaseOutcome:
    """How one case went; `problem` is empty when it passed."""

    case: Case
    problem: str


def parse_cases(text: str) -> tuple[str, list[Case]]:
    """Read a file of cases: the policy it names (or nothing), and the cases."""
    read, root = Reader(), compose(text)
    if root is None:
        return "", []
    members = read.members(root, "a test file", ("policy", "cases"))
    policy = read.text(members.get("policy"), "policy", most=1000)
    cases = [case for node in read.items(members.get("cases"), "cases") if (case := _case(read, node))]
    read.finish()
    return policy, cases


def _case(read: Reader, node: Node) -> Case | None:
    members = read.members(node, "a case", _MEMBERS)
    kinds = [kind for kind in vocabulary.KINDS if kind in members]
    if len(kinds) != 1:
        read.wrong(node, "a case names one of tool, prompt, resource, method")
        return None
    if "role" not in members and "key" not in members:
        read.wrong(node, "a case says who: role, or key, or both")
    if "expect" not in members:
        read.wrong(node, f"a case says what it expects: one of {', '.join(EXPECTATIONS)}")
    name = read.text(members[kinds[0]], kinds[0], most=10_000)
    target = Target(
        kinds[0],
        read.text(members.get("upstream"), "upstream"),
        name,
        _plain(members["arguments"]) if "arguments" in members else ABSENT,
        _plain(members["annotations"]) if "annotations" in members else None,
    )
    return Case(
        where=place(node),
        name=read.text(members.get("name"), "name") or f"{kinds[0]} {name}",
        role=read.text(members.get("role"), "role"),
        key=read.text(members.get("key"), "key"),
        target=target,
        context=Context(
            read.moment(members.get("at"), "at") or time.time(), read.text(members.get("ip"), "ip") or None
        ),
        expect=read.word(members.get("expect"), "expect", EXPECTATIONS, "allowed"),
        reason=read.text(members.get("reason"), "reason"),
        rule=read.text(members.get("rule"), "rule"),
    )


def _plain(node: Node) -> Any:
    """A node as JSON values."""
    if isinstance(node, Mapping):
        return {str(key.value): _plain(value) for key, value in node.value}
    if isinstance(node, Sequence):
        return [_plain(item) for item in node.value]
    tag, text = node.tag, str(node.value)
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() == "true"
    return int(text) if tag == "int" else float(text) if tag == "float" else text


def run(policy: PolicySet, case: Case) -> CaseOutcome:
    principal = Principal(None, case.key, case.key, case.role)
    if case.expect in ("listed", "hidden"):
        decision = decide_reference(policy, principal, case.target, case.context)
        got = "listed" if decision.allowed else "hidden"
    else:
        decision = decide(policy, principal, case.target, case.context)
        got = "allowed" if decision.allowed else "denied"
    rule = decision.rule.name if decision.rule else ""
    if got != case.expect:
        by = f" by rule {rule or decision.rule.id}" if decision.rule else ""
        return CaseOutcome(case, f"expected {case.expect}, got {got} ({decision.reason}{by})")
    if case.reason and decision.reason != case.reason:
        return CaseOutcome(case, f"expected reason {case.reason}, got {decision.reason}")
    if case.rule and rule != case.rule:
        return CaseOutcome(case, f"expected rule {case.rule}, got {rule or 'none of a name'}")
    return CaseOutcome(case, "")
