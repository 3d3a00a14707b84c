"""A policy as YAML, written: short where the short form can say it, long where not, and always the same (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, time
from typing import Any

from policies import vocabulary
from policies.documents.reader import PER_TOOL, parse_short
from policies.members import Member
from policies.specs import (
    ALWAYS,
    LIMIT,
    RATE,
    RULE,
    AuditSpec,
    ConditionSpec,
    LimitSpec,
    PolicySpec,
    RuleSpec,
    WindowSpec,
    listed,
)

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_RESERVED = frozenset(("true", "false", "null", "yes", "no", "on", "off", "y", "n"))
_WIDTH = 100


def render(spec: PolicySpec) -> str:
    """The whole policy as text. Reading it back gives the same roles, rules, limits and audit levels."""
    whole = as_dict(spec)
    lines: list[str] = []
    for section, value in whole.items():
        lines += [f"{section}:"] if value else [f"{section}: {{}}"]
        if value:
            lines += _block(value, 1)
    return "\n".join(lines) + "\n"


def as_dict(spec: PolicySpec) -> dict[str, Any]:
    """The whole policy as plain lists and mappings, in the members of the document."""
    short, long = _split(spec.rules)
    roles = {
        role.name: _present(
            description=role.description,
            allow=[p for effect, name, p in short if name == role.name and effect == "allow"],
            deny=[p for effect, name, p in short if name == role.name and effect == "deny"],
        )
        for role in sorted(spec.roles, key=lambda role: role.name)
    }
    for members in roles.values():
        if not members:
            members["allow"] = []
    whole: dict[str, Any] = {"roles": roles}
    if long:
        whole["rules"] = [rule_dict(rule) for rule in long]
    if spec.limits:
        whole["rate_limits"] = _limits(spec.limits)
    if spec.audit:
        whole["audit"] = [audit_dict(level) for level in spec.audit]
    return whole


def _present(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value not in ("", None, [], (), {})}


def _split(rules: Iterable[RuleSpec]) -> tuple[list[tuple[str, str, str]], list[RuleSpec]]:
    """Rules that a role's list can say as (effect, role, pattern), and the others."""
    short: list[tuple[str, str, str]] = []
    long: list[RuleSpec] = []
    for rule in rules:
        pattern = short_pattern(rule)
        if pattern is None or rule.roles is None:
            long.append(rule)
        else:
            short.append((rule.effect, next(iter(rule.roles)), pattern))
    return short, long


def short_pattern(rule: RuleSpec) -> str | None:
    """The short pattern that says all of this rule, or None."""
    if rule.roles is None or len(rule.roles) != 1 or len(rule.upstreams) > 1:
        return None
    plain = RuleSpec(rule.effect, rule.kinds, rule.pattern, rule.roles, upstreams=rule.upstreams)
    if rule.content() != plain:
        return None
    return _short(rule.kinds, rule.upstreams, rule.pattern)


def _short(kinds: tuple[str, ...], upstreams: tuple[str, ...], pattern: str) -> str | None:
    prefix = "" if kinds == ("tool",) or len(kinds) > 1 else kinds[0] + ":"
    text = f"@{upstreams[0]}/{prefix}{pattern}" if upstreams else prefix + pattern
    try:
        return text if parse_short(text) == (kinds, upstreams, pattern) else None
    except ValueError:
        return None


def _target(kinds: tuple[str, ...], pattern: str) -> dict[str, Any]:
    if len(kinds) == 1:
        return {kinds[0]: pattern}
    return {"kinds": list(kinds), "pattern": pattern}


def rule_dict(rule: RuleSpec) -> dict[str, Any]:
    window, said = rule.window, _said(rule, RULE)
    return {
        **_take(said, "name", "effect"),
        "roles": "*" if rule.roles is None else sorted(rule.roles),
        **({} if rule.keys is None else {"keys": sorted(rule.keys)}),
        **_target(rule.kinds, rule.pattern),
        **_present(
            upstreams=list(rule.upstreams),
            when=[condition_dict(c) for c in rule.conditions],
            hours=_hours(window),
            valid=_present(**{"from": _moment(window.valid_from), "until": _moment(window.valid_until)}),
            networks=list(rule.networks),
        ),
        **said,
    }


def _said(spec: RuleSpec | LimitSpec, table: Iterable[Member]) -> dict[str, Any]:
    """The plain members that are not as they are where nothing is said."""
    found = ((row.called, getattr(spec, row.name), row.default) for row in table)
    return {called: listed(value) for called, value, default in found if value != default}


def _take(said: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: said.pop(name) for name in names if name in said}


def condition_dict(condition: ConditionSpec) -> dict[str, Any]:
    subject = {
        "arguments": {"argument": condition.path},
        "annotations": {"annotation": condition.path},
        "name": {"subject": "name"},
    }[condition.subject]
    value: Any = condition.value
    if vocabulary.OPERATORS[condition.operator] is None:
        value = True
    return {**subject, **_present(items=condition.quantifier), condition.operator: listed(value)}


def _hours(window: WindowSpec) -> dict[str, Any]:
    if window == ALWAYS or (not window.days and window.from_time is None and window.zone == "UTC"):
        return {}
    ends = {} if window.from_time is None else {"from": _clock(window.from_time), "to": _clock(window.to_time)}
    return {**_present(days=list(window.days)), **ends, "zone": window.zone}


def _clock(at: time | None) -> str:
    return "" if at is None else at.isoformat("minutes" if not at.second else "seconds")


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def audit_dict(level: AuditSpec) -> dict[str, Any]:
    return {
        "level": level.level,
        **_present(role=level.role, upstream=level.upstream),
        **_target(level.kinds, level.pattern),
    }


def limit_dict(limit: LimitSpec) -> dict[str, Any]:
    target = {limit.kind: limit.pattern} if limit.pattern else _present(kind=limit.kind)
    said = _said(limit, LIMIT)
    return {
        **_take(said, "name"),
        **_present(key=limit.key, role=limit.role, upstream=limit.upstream, **target),
        **_take(said, "per"),
        **said,
    }


def _one_or_many(rates: list[dict[str, Any]]) -> Any:
    return rates[0] if len(rates) == 1 else rates


def _limits(limits: Iterable[LimitSpec]) -> dict[str, Any]:
    per_key: list[dict[str, Any]] = []
    default: list[dict[str, Any]] = []
    overrides: dict[str, list[dict[str, Any]]] = {}
    long: list[dict[str, Any]] = []
    for limit in limits:
        said, content = _said(limit, RATE), limit.content()
        rate = {row.name: getattr(limit, row.name) for row in RATE}
        pattern = _short(("tool",), (limit.upstream,) if limit.upstream else (), limit.pattern)
        if content == LimitSpec(**rate, per=("key",)):
            per_key.append(said)
        elif content == LimitSpec(**rate, per=PER_TOOL, kind="tool", is_default=True):
            default.append(said)
        elif pattern and content == LimitSpec(
            **rate, per=PER_TOOL, kind="tool", pattern=limit.pattern, upstream=limit.upstream
        ):
            overrides.setdefault(pattern, []).append(said)
        else:
            long.append(limit_dict(limit))
    per_tool = _present(
        default=_one_or_many(default) if default else None,
        overrides={pattern: _one_or_many(rates) for pattern, rates in overrides.items()},
    )
    return _present(per_api_key=_one_or_many(per_key) if per_key else None, per_tool=per_tool, limits=long)


# -- YAML


def scalar(value: Any) -> str:
    """One scalar, quoted wherever any YAML reader could take it for something else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _RESERVED:
        return text
    return '"' + "".join(_character(c) for c in text) + '"'


def _character(c: str) -> str:
    if c in '"\\':
        return "\\" + c
    if c.isprintable():
        return c
    code = ord(c)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    return scalar(value)


def _fits(value: Any, indent: int) -> bool:
    """Whether a value goes on one line: scalars, and small collections of scalars or of one such level."""
    if not isinstance(value, Mapping | list) or not value:
        return True
    return _depth(value) <= 2 and len(_flow(value)) + 2 * indent <= _WIDTH


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max((_depth(item) for item in inner), default=0)


def _block(value: Any, indent: int) -> list[str]:
    pad, lines = "  " * indent, []
    if isinstance(value, Mapping):
        for key, item in value.items():
            if _fits(item, indent + 8) and not (isinstance(item, list) and item and isinstance(item[0], Mapping)):
                lines.append(f"{pad}{scalar(key)}: {_flow(item)}")
            else:
                lines.append(f"{pad}{scalar(key)}:")
                lines += _block(item, indent + 1)
        return lines
    for item in value:
        if isinstance(item, Mapping) and (_depth(item) > 1 or not _fits(item, indent + 1) or len(item) > 4):
            first, *rest = _block(item, indent + 1)
            lines += [f"{pad}- {first.strip()}", *rest]
        else:
            lines.append(f"{pad}- {_flow(item)}")
    return lines
