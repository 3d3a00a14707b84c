"""What is known of the tools themselves, as far as policy asks: their annotations, whether they wait for approval, and
conditions held against their input schemas: a path they do not have, a type or value they cannot take (pure).

The catalogue of tools belongs to another package, which registers providers here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from policies.engine import glob
from policies.engine.conditions import ITEMS, ConditionError, Step, compile_condition, is_number, parse_path
from policies.specs import ConditionSpec, RuleSpec

# Gives (upstream, tool, input schema) of every tool that is known.
Provider = Callable[[], Iterable[tuple[str, str, Mapping[str, Any]]]]


@dataclass(frozen=True, slots=True)
class KnownTarget:
    """What is known of one target: its annotations, whether it waits for approval, and, of a tool that calls or describes
    another by name, the argument that names it.
    """

    annotations: Mapping[str, Any] | None = None
    blocked: bool = False
    dispatches: str = ""
    upstream: bool = True  # whether there is one of that name, and enabled
    alike: tuple[str, ...] = ()  # the tools that the catalogue has of this name, or of names that fold alike


UNKNOWN = KnownTarget()
# Gives what is known of (kind, upstream, name).
Finder = Callable[[str, str, str], KnownTarget]
_provider: Provider | None = None
_finder: Finder | None = None


def register(provider: Provider | None, finder: Finder | None = None) -> None:
    """Name the catalogue that conditions are checked against, and where single targets are looked up in it."""
    global _provider, _finder
    _provider, _finder = provider, finder


def known(kind: str, upstream: str, name: str) -> KnownTarget:
    """What the gateway knows of a target when it decides about it."""
    return UNKNOWN if _finder is None else _finder(kind, upstream, name)


def complaints(rules: Iterable[RuleSpec]) -> list[str]:
    """The problems of rules, each with the rule that has it."""
    return [f"{rule.name or rule.label()}: {problem}" for rule in rules for problem in problems(rule)]


def problems(rule: RuleSpec) -> list[str]:
    """What the known tools say against this rule's conditions. A tool's word counts only if every tool it names agrees."""
    if _provider is None or "tool" not in rule.kinds:
        return []
    matches = glob.matcher(rule.pattern)
    schemas = [
        (f"{upstream}/{tool}", schema)
        for upstream, tool, schema in _provider()
        if matches(tool) and (not rule.upstreams or upstream in rule.upstreams)
    ]
    found: list[str] = []
    for condition in rule.conditions:
        if condition.subject != "arguments" or not schemas:
            continue
        against = [(tool, problem) for tool, schema in schemas if (problem := against_schema(condition, schema))]
        if len(against) == len(schemas):
            tool, problem = against[0]
            more = f" (and {len(against) - 1} more tools)" if len(against) > 1 else ""
            found.append(f"{problem}, says the schema of {tool}{more}")
    return found


def against_schema(condition: ConditionSpec, schema: Mapping[str, Any]) -> str:
    """What is wrong with a condition by one input schema; nothing where the schema leaves it open."""
    at: Any = schema
    steps = parse_path(condition.path)
    for index, step in enumerate(steps):
        if not _plain(at):
            return ""
        if step is ITEMS:
            if "type" in at and "array" not in _types(at):
                return f"{_words(steps[:index])} is no list"
            at = at.get("items", True)
            continue
        if "type" in at and "object" not in _types(at):
            return f"{_words(steps[:index]) or 'the arguments'} is no object, so it has no {step!r}"
        members = at.get("properties")
        if not isinstance(members, Mapping) or step not in members:
            if isinstance(members, Mapping) and "patternProperties" not in at and _closed(at, index, members):
                known = ", ".join(sorted(map(str, members))) or "none"
                return f"there is no argument {_words(steps[: index + 1])!r} (there are: {known})"
            return ""
        at = members[step]
    return _value_problem(condition, at, _words(steps)) if _plain(at) else ""


def _closed(at: Mapping[str, Any], depth: int, members: Mapping[str, Any]) -> bool:
    """Whether a member that is not listed is a mistake: it is forbidden, or the schema lists its members at all."""
    return at.get("additionalProperties", False) is False and bool(members)


def _plain(schema: Any) -> bool:
    return isinstance(schema, Mapping) and not any(
        word in schema for word in ("$ref", "$dynamicRef", "oneOf", "anyOf", "allOf", "if", "not")
    )


def _types(schema: Mapping[str, Any]) -> tuple[str, ...]:
    declared = schema.get("type")
    return (declared,) if isinstance(declared, str) else tuple(declared) if isinstance(declared, list) else ()


def _words(steps: tuple[Step, ...]) -> str:
    text = ""
    for step in steps:
        text += "[]" if step is ITEMS else f".{step}" if text else str(step)
    return text


_READS = {
    "lt": ("number", "integer"), "le": ("number", "integer"), "gt": ("number", "integer"), "ge": ("number", "integer"),
    "like": ("string",), "not_like": ("string",), "matches": ("string",), "not_matches": ("string",),
    "under": ("string",), "not_under": ("string",),
    "min_length": ("string", "array"), "max_length": ("string", "array"),
}  # fmt: skip


def _value_problem(condition: ConditionSpec, schema: Mapping[str, Any], name: str) -> str:
    types, operator, value = _types(schema), condition.operator, condition.value
    readable = _READS.get(operator)
    if readable and types and not set(types) & set(readable):
        return f"{name} is {' or '.join(types)}, which {operator} cannot read"
    if operator in ("eq", "ne", "in", "not_in") and types:
        wanted = value if isinstance(value, tuple | list) else (value,)
        strangers = [v for v in wanted if not set(types) & set(_json_types(v))]
        if strangers:
            return f"{name} is {' or '.join(types)}, so it is never {strangers[0]!r}"
    allowed = schema.get("enum")
    if isinstance(allowed, list) and operator not in ("present", "absent", "not_in", "ne", "not_like", "not_matches"):
        try:
            check = compile_condition(ConditionSpec(operator, value, "x"))
        except ConditionError:
            return ""
        if not any(check({"x": member}) == 1 for member in allowed):
            return f"{name} is one of {', '.join(map(str, allowed[:8]))}, none of which can meet {operator} {value!r}"
    return _bound_problem(condition, schema, name)


def _bound_problem(condition: ConditionSpec, schema: Mapping[str, Any], name: str) -> str:
    low, high, value, operator = schema.get("minimum"), schema.get("maximum"), condition.value, condition.operator
    if not is_number(value) or operator not in ("eq", "lt", "le", "gt", "ge"):
        return ""
    if is_number(low) and ((operator == "lt" and value <= low) or (operator in ("le", "eq") and value < low)):
        return f"{name} is at least {low}, so it is never {operator} {value}"
    if is_number(high) and ((operator == "gt" and value >= high) or (operator in ("ge", "eq") and value > high)):
        return f"{name} is at most {high}, so it is never {operator} {value}"
    return ""


def _json_types(value: Any) -> tuple[str, ...]:
    if isinstance(value, bool):
        return ("boolean",)
    if isinstance(value, str):
        return ("string",)
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return ("number", "integer") if whole else ("number",)
