"""Rules and limits read back as sentences (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from policies.members import Member
from policies.specs import LIMIT, RULE, ConditionSpec, LimitSpec, RuleSpec

__all__ = ["condition_sentence", "limit_sentence", "rule_sentence"]

OPERATORS = {
    "eq": "is", "ne": "is not", "in": "is one of", "not_in": "is none of", "lt": "is less than", "le": "is at most",
    "gt": "is greater than", "ge": "is at least", "like": "looks like", "not_like": "does not look like",
    "matches": "matches", "not_matches": "does not match", "under": "lies under", "not_under": "does not lie under",
    "min_length": "is at least this long:", "max_length": "is at most this long:", "type": "is of type",
    "present": "is given", "absent": "is not given",
}  # fmt: skip
DAYS = {
    "mon": "Mondays", "tue": "Tuesdays", "wed": "Wednesdays", "thu": "Thursdays", "fri": "Fridays", "sat": "Saturdays",
    "sun": "Sundays",
}  # fmt: skip


def _list(names: Iterable[str], last: str = "and") -> str:
    found = list(names)
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} {last} {found[-1]}" if found else ""


def condition_sentence(condition: ConditionSpec) -> str:
    if condition.subject == "name":
        place = "the name"
    elif condition.subject == "annotations":
        place = f"the tool's annotation {condition.path}"
    else:
        place = condition.path
        if condition.quantifier:
            place = f"{'every' if condition.quantifier == 'every' else 'any'} {place}"
    value = condition.value
    if isinstance(value, list | tuple):
        shown = _list((str(item) for item in value), "or")
    elif isinstance(value, bool):
        shown = "true" if value else "false"
    else:
        shown = "" if value is None else f"“{value}”" if isinstance(value, str) else str(value)
    return f"{place} {OPERATORS.get(condition.operator, condition.operator)}{f' {shown}' if shown else ''}"


def rule_sentence(rule: RuleSpec) -> str:
    if rule.roles is None:
        who = "every role"
    elif not rule.roles:
        who = "no role"
    else:
        who = f"{'role' if len(rule.roles) == 1 else 'roles'} {_list(sorted(rule.roles))}"
    if rule.keys is not None:
        who += f" with {'key' if len(rule.keys) == 1 else 'keys'} {_list(sorted(rule.keys)) or 'none'}"
    if len(rule.kinds) == 4 and rule.pattern == "*":
        what = "everything"
    else:
        kinds = _list(
            (f"{kind}s" if rule.pattern == "*" or any(c in rule.pattern for c in "*?") else kind) for kind in rule.kinds
        )
        what = f"all {kinds}" if rule.pattern == "*" else f"{kinds} {rule.pattern}"
    text = f"{'Allows' if rule.effect == 'allow' else 'Denies'} {who} {what}"
    text += f" on {_list(rule.upstreams, 'or')}" if rule.upstreams else " on every upstream"
    if rule.conditions:
        text += " when " + _list(condition_sentence(condition) for condition in rule.conditions)
    window = rule.window
    if window.days:
        text += f", on {_list(DAYS[day] for day in window.days)}"
    if window.from_time and window.to_time:
        text += f", from {window.from_time:%H:%M} to {window.to_time:%H:%M} ({window.zone})"
    elif window.days:
        text += f" ({window.zone})"
    if window.valid_from:
        text += f", from {_moment(window.valid_from)}"
    if window.valid_until:
        text += f", until {_moment(window.valid_until)}"
    if rule.networks:
        text += f", from {_list(rule.networks, 'or')}"
    return text + _rest(rule, RULE)


def _rest(spec: RuleSpec | LimitSpec, table: Iterable[Member]) -> str:
    """What the rows of a table say, and whether it is in force."""
    found = [(row, getattr(spec, row.name)) for row in table if row.says]
    return "".join(row.says.format(value) for row, value in found if value != row.default) + (
        "." if spec.enabled else "; switched off."
    )


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M %Z}".strip()


def _span(seconds: int) -> str:
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds % size == 0:
            number = seconds // size
            return f"any {word}" if number == 1 else f"any {number} {word}s"
    return f"any {seconds} seconds"


def limit_sentence(limit: LimitSpec) -> str:
    if limit.kind:
        what = f"calls of {limit.kind} {limit.pattern}" if limit.pattern else f"{limit.kind} calls"
    else:
        what = "calls"
    text = f"At most {limit.requests} {what} in {_span(limit.window_seconds)}"
    if limit.upstream:
        text += f" to {limit.upstream}"
    if limit.key:
        text += f" for key {limit.key}"
    elif limit.role:
        text += f" for role {limit.role}"
    if limit.per:
        text += f", for each {_list(limit.per)} on its own"
    elif not limit.key:
        text += ", for all together"
    return text + _rest(limit, LIMIT)
