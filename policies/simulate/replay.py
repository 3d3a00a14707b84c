"""What would a draft policy have decided about what really happened? (pure)

Events come in two forms: groups that share everything a rule without conditions can ask (thousands of events decided
at once), and single events for those whose decision hangs on arguments, time or place. An event whose payload was not
kept, or was altered where a condition looks, cannot be decided, and is counted as such.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson

from policies.engine import json_decimals
from policies.engine.compiled import Candidates, PolicySet
from policies.engine.conditions import ITEMS, MISSING, NO, YES, parse_path
from policies.engine.decide import decide
from policies.engine.folding import varied
from policies.engine.types import (
    ALLOWED_BY_RULE,
    AMBIGUOUS,
    DENIED_BY_RULE,
    NO_RULE,
    POLICY_ERROR,
    Context,
    Decision,
    Principal,
    Target,
)

REPLAYED_REASONS = (ALLOWED_BY_RULE, NO_RULE, DENIED_BY_RULE, POLICY_ERROR, AMBIGUOUS)
MOST_EXAMPLES = 5
MOST_REMEMBERED = 4096  # decisions of one group by the values of its arguments
_PLAIN = frozenset((str, int, bool, type(None)))  # floats may not be what was written

Values = tuple[Any, ...]

NOT_KEPT = "payload not kept"
NOT_SEEN = "it hangs on arguments, which you may not see"
TRUNCATED = "payload truncated"
ALTERED = "payload redacted where a condition looks"
ANNOTATIONS = "the tool's annotations at that time are not known"


@dataclass(frozen=True, slots=True)
class CallGroup:
    """Events that share everything but arguments, time and place."""

    key_prefix: str
    key_name: str
    role: str
    upstream: str
    kind: str
    name: str
    allowed: bool
    reason: str


@dataclass(slots=True)
class Single:
    """What else one event has."""

    id: UUID | str
    at: float
    client_ip: str | None
    request: str | None  # the sanitised JSON-RPC message as stored
    count: int = 1


@dataclass(slots=True)
class GroupPlan:
    """What the events of a group have in common: who, the rules that concern them, and what those look at."""

    group: CallGroup
    principal: Principal
    candidates: Candidates
    paths: tuple[tuple[Any, ...], ...]
    annotations: bool
    #: where the decision hangs on these arguments alone, their names; their values then tell what was decided before
    members: tuple[str, ...] = ()
    decided: dict[Values, Decision] = field(default_factory=dict)
    #: what has changed so far, by reason, rule and what the present policy says
    changes: dict[tuple[str, int, bool | None], DecisionChange] = field(default_factory=dict)
    #: the same of the present policy, where a draft is compared with that too
    present: GroupPlan | None = None

    @property
    def asks(self) -> bool:
        return bool(self.paths) or (self.present is not None and bool(self.present.paths))


@dataclass(slots=True)
class DecisionChange:
    """Events of one group that a draft would decide otherwise than then or than now, and why."""

    group: CallGroup
    allowed: bool
    reason: str
    rule: str
    #: what the present policy says; None where that is not known
    now: bool | None = None
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "key_prefix": self.group.key_prefix,
            "key_name": self.group.key_name,
            "role": self.group.role,
            "upstream": self.group.upstream,
            "kind": self.group.kind,
            "name": self.group.name,
            "from": "allowed" if self.group.allowed else "denied",
            "now": None if self.now is None else "allowed" if self.now else "denied",
            "to": "allowed" if self.allowed else "denied",
            "reason": self.reason,
            "rule": self.rule,
            "count": self.count,
            "examples": self.examples,
        }


@dataclass(slots=True)
class ReplayReport:
    """What a replay found."""

    decided: int = 0
    changed: int = 0
    newly_denied: int = 0
    newly_allowed: int = 0
    #: what the draft would decide otherwise than the present policy, whatever was decided then
    by_draft: int = 0
    #: what the present policy would decide otherwise than was decided then, whatever the draft says
    since: int = 0
    #: what the present policy cannot decide, where the draft can
    present_undecidable: int = 0
    undecidable: int = 0
    because: Counter[str] = field(default_factory=Counter)
    changes: dict[tuple[CallGroup, bool, str, str, bool | None], DecisionChange] = field(default_factory=dict)

    @property
    def groups(self) -> list[dict[str, Any]]:
        """What the draft would decide otherwise than was decided then, the most frequent first."""
        return self._sorted(undone=False)

    @property
    def undone(self) -> list[dict[str, Any]]:
        """What the present policy decides otherwise by now, and the draft would decide as then again."""
        return self._sorted(undone=True)

    def _sorted(self, *, undone: bool) -> list[dict[str, Any]]:
        found = [change for change in self.changes.values() if (change.allowed == change.group.allowed) is undone]
        return [change.as_dict() for change in sorted(found, key=lambda change: -change.count)]

    @property
    def undecidable_because(self) -> dict[str, int]:
        """How many events could not be decided, by why."""
        return dict(self.because.most_common())

    def as_dict(self) -> dict[str, Any]:
        """The form of `policy replay --json` and the API."""
        return {
            "decided": self.decided,
            "changed": self.changed,
            "undecidable": self.undecidable,
            "newly_denied": self.newly_denied,
            "newly_allowed": self.newly_allowed,
            "changed_by_draft": self.by_draft,
            "changed_since": self.since,
            "present_undecidable": self.present_undecidable,
            "undecidable_because": self.undecidable_because,
            "groups": self.groups,
            "undone": self.undone,
        }


class Replay:
    """Decides recorded events again under a draft. `upstreams` says which upstreams a key (by prefix) is limited to.

    With `present` each is decided under the present policy as well, so that what the draft changes is told apart from what
    has been changed since.

    Without `payloads` no condition on arguments is asked: whoever may not read arguments must not learn them from what a
    condition answers, draft by draft. What hangs on them is then undecidable, whether they were kept or not.
    """

    def __init__(
        self,
        draft: PolicySet,
        upstreams: Mapping[str, frozenset[str]] | None = None,
        *,
        payloads: bool = True,
        present: PolicySet | None = None,
    ) -> None:
        self.draft = draft
        self.present = present
        self.payloads = payloads
        self.report = ReplayReport()
        self._upstreams = upstreams or {}
        self._labels = {rule.id: rule.label() for rule in draft.spec.rules}
        self._principals: dict[tuple[str, str], Principal] = {}

    def principal(self, group: CallGroup) -> Principal:
        """Who acted, as far as rules can ask."""
        place = (group.key_prefix, group.role)
        found = self._principals.get(place)
        if found is None:
            allowed = self._upstreams.get(group.key_prefix, frozenset())
            found = Principal(None, group.key_name, group.key_prefix, group.role, allowed)
            self._principals[place] = found
        return found

    def settle(self, group: CallGroup, count: int, examples: list[str]) -> bool:
        """Decide a whole group at once; False when its events must be looked at one by one."""
        decision = self._fixed(self.draft, group)
        now = self._fixed(self.present, group) if self.present is not None else None
        if decision is None or (self.present is not None and now is None):
            return False
        self.report.decided += count
        if self._differs(group, decision, now, count):
            self._changed(self._change(group, decision, now), count, examples)
        return True

    def _fixed(self, policy: PolicySet, group: CallGroup) -> Decision | None:
        if not self.principal(group).reaches(group.upstream):
            return policy.nothing
        return self._candidates(policy, group).fixed

    def plan(self, group: CallGroup) -> GroupPlan:
        """What the events of a group have in common, looked up once."""
        plan = self._plan(self.draft, group)
        if self.present is not None:
            plan.present = self._plan(self.present, group)
        return plan

    def _plan(self, policy: PolicySet, group: CallGroup) -> GroupPlan:
        candidates = self._candidates(policy, group)
        conditions = [c for rule in (*candidates.denies, *candidates.allows) for c in rule.spec.conditions]
        paths = tuple(dict.fromkeys(parse_path(c.path) for c in conditions if c.subject == "arguments"))
        annotations = any(c.subject == "annotations" for c in conditions)
        members: tuple[str, ...] = ()
        if not any(rule.outer_checks for rule in (*candidates.denies, *candidates.allows)):
            members = tuple(step for path in paths if len(path) == 1 and isinstance(step := path[0], str))
        if len(members) < len(paths):
            members = ()
        return GroupPlan(group, self.principal(group), candidates, paths, annotations, members)

    def decide_one(self, plan: GroupPlan, event: Single) -> None:
        """Decide one event by what was kept of it."""
        group = plan.group
        decision = self._decision(self.draft, plan, event)
        if isinstance(decision, str):
            self.report.undecidable += event.count
            self.report.because[decision] += event.count
            return
        self.report.decided += event.count
        now: Decision | None = None
        if plan.present is not None and self.present is not None:
            found = self._decision(self.present, plan.present, event)
            if isinstance(found, str):
                self.report.present_undecidable += event.count
            else:
                now = found
        if self._differs(group, decision, now, event.count):
            place = (
                decision.reason,
                decision.rule.id if decision.rule else 0,
                now.allowed if now is not None else None,
            )
            change = plan.changes.get(place)
            if change is None:
                change = plan.changes[place] = self._change(group, decision, now)
            self._changed(change, event.count, (str(event.id),))

    def _decision(self, policy: PolicySet, plan: GroupPlan, event: Single) -> Decision | str:
        """What a policy decides about one event, or why that cannot be told."""
        group = plan.group
        if not plan.principal.reaches(group.upstream):
            return policy.nothing
        arguments, lacking = _arguments(plan, event) if self.payloads or not plan.paths else (MISSING, NOT_SEEN)
        values = _values(plan, arguments) if plan.members and not lacking else None
        decision = plan.decided.get(values) if values is not None else None
        if decision is None:
            if self.payloads and event.request is not None and json_decimals.doubtful(event.request):
                arguments, lacking = _arguments(plan, event, json_decimals.loads)
            lacking = lacking or _altered_in(plan, arguments) or (ANNOTATIONS if plan.annotations else "")
            context = Context(event.at, event.client_ip)
            target = Target(group.kind, group.upstream, group.name, arguments)
            if lacking and not _settled_without(plan.candidates, target, context, annotations=not plan.annotations):
                return lacking
            decision = decide(policy, plan.principal, target, context)
            if values is not None and not lacking:
                if len(plan.decided) >= MOST_REMEMBERED:
                    plan.decided.clear()
                plan.decided[values] = decision
        return decision

    def _differs(self, group: CallGroup, decision: Decision, now: Decision | None, count: int) -> bool:
        """Count how a decision differs from what was decided then and from the present policy's."""
        if now is not None:
            self.report.by_draft += count * (decision.allowed != now.allowed)
            self.report.since += count * (now.allowed != group.allowed)
        return decision.allowed != group.allowed or (now is not None and decision.allowed != now.allowed)

    def _candidates(self, policy: PolicySet, group: CallGroup) -> Candidates:
        return policy.candidates(group.role, group.key_prefix, group.kind, group.upstream, group.name)

    def _change(self, group: CallGroup, decision: Decision, now: Decision | None) -> DecisionChange:
        """The change that events of this group come under, so decided."""
        said = now.allowed if now is not None else None
        rule = self._labels.get(decision.rule.id, "") if decision.rule else ""
        place = (group, decision.allowed, decision.reason, rule, said)
        change = self.report.changes.get(place)
        if change is None:
            change = self.report.changes[place] = DecisionChange(group, decision.allowed, decision.reason, rule, said)
        return change

    def _changed(self, change: DecisionChange, count: int, examples: Sequence[str]) -> None:
        report = self.report
        if change.allowed != change.group.allowed:
            report.changed += count
            if change.allowed:
                report.newly_allowed += count
            else:
                report.newly_denied += count
        change.count += count
        if len(change.examples) < MOST_EXAMPLES:
            change.examples += examples[: MOST_EXAMPLES - len(change.examples)]


def _arguments(plan: GroupPlan, event: Single, loads: Callable[[str], Any] = orjson.loads) -> tuple[Any, str]:
    """The call's arguments as kept, and what is lacking of them for these rules."""
    if not plan.paths:
        return MISSING, ""
    if event.request is None:
        return MISSING, NOT_KEPT
    message: Any = loads(event.request)
    if not isinstance(message, dict):
        return MISSING, NOT_KEPT
    if message.get("_truncated") is True:
        return MISSING, TRUNCATED
    params = message.get("params")
    arguments = params.get("arguments", MISSING) if isinstance(params, dict) else MISSING
    if arguments is MISSING or plan.group.kind not in ("tool", "prompt"):
        return MISSING, ""
    return arguments, ""


def _values(plan: GroupPlan, arguments: Any) -> Values | None:
    """What these arguments have where the plan looks, by type since 1 is not true; None for what is not plain and short."""
    if not isinstance(arguments, dict):
        return None
    found: list[Any] = []
    for name in plan.members:
        if varied(arguments, name):
            return None
        value = arguments.get(name)
        kind = type(value)
        if kind not in _PLAIN or (isinstance(value, str) and len(value) > 100):
            return None
        found += (kind, value)
    return tuple(found)


def _altered_in(plan: GroupPlan, arguments: Any) -> str:
    """Say so when the sanitizer changed what one of the paths leads to."""
    return ALTERED if any(_altered(arguments, steps) for steps in plan.paths) else ""


def _altered(value: Any, steps: tuple[Any, ...]) -> bool:
    """Whether what a path leads to was replaced or escaped by the sanitizer."""
    for at, step in enumerate(steps):
        if step is ITEMS:
            if not isinstance(value, list):
                return _marked(value)
            return any(_altered(item, steps[at + 1 :]) for item in value) or any(_marked(item) for item in value)
        if not isinstance(value, dict):
            return _marked(value)
        value = value.get(step)
    return _marked(value) or (isinstance(value, dict) and value.get("_truncated") is True)


def altered_anywhere(value: Any) -> bool:
    """Whether the sanitizer replaced, escaped or shortened anything in a value that was kept."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if one.get("_truncated") is True or any(_marked(name) for name in one):
                return True
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
        elif _marked(one):
            return True
    return False


def _marked(value: Any) -> bool:
    return isinstance(value, str) and ("[REDACTED:" in value or "\\u{" in value or value.startswith("[TRUNCATED"))


def _settled_without(candidates: Candidates, target: Target, context: Context, *, annotations: bool) -> bool:
    """Whether the decision is the same whatever the lacking parts are."""

    def sure(rule: Any) -> int | None:
        """The rule's answer if it does not hang on what is lacking, None if it may."""
        if not annotations and any(c.subject == "annotations" for c in rule.spec.conditions):
            return None
        outer = int(rule.check_outer(target, context))
        if outer == NO:
            return NO
        return None if rule.argument_checks else outer

    denies = [sure(rule) for rule in candidates.denies]
    allows = [sure(rule) for rule in candidates.allows]
    if any(answer not in (None, NO) for answer in denies):
        return True
    if any(answer is None for answer in denies):
        return all(answer not in (None, YES) for answer in allows)
    return any(answer == YES for answer in allows) or all(answer is not None for answer in allows)
