"""Policy as plain values: what the database, a document and the engine all mean by a rule (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, time
from typing import Any

Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class ConditionSpec:
    """One thing that must hold of a call; see policies.engine.conditions for what each operator means."""

    operator: str
    value: Any = None
    path: str = ""
    subject: str = "arguments"
    quantifier: str = ""

    def words(self) -> str:
        """The condition as a person would say it."""
        place = {"name": "the name", "annotations": f"annotation {self.path}"}.get(self.subject, self.path)
        quantified = f"{self.quantifier} " if self.quantifier else ""
        value = "" if self.value is None else f" {self.value!r}"
        return f"{quantified}{place} {self.operator.replace('_', ' ')}{value}"


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """When a rule is in force: hours of chosen days in a time zone, and a first and a last moment."""

    days: tuple[str, ...] = ()
    from_time: time | None = None
    to_time: time | None = None
    zone: str = "UTC"
    valid_from: datetime | None = None
    valid_until: datetime | None = None

    @property
    def always(self) -> bool:
        """Whether this says nothing."""
        return not self.days and self.from_time is None and self.valid_from is None and self.valid_until is None


ALWAYS = WindowSpec()


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """A rule. `roles` and `keys` None mean any; an empty set means none, so the rule never matches.

    `keys` holds key prefixes (`mcps_live_...`). `upstreams` empty means every upstream.
    """

    effect: str
    kinds: tuple[str, ...]
    pattern: str
    roles: frozenset[str] | None
    id: int = 0
    name: str = ""
    keys: frozenset[str] | None = None
    upstreams: tuple[str, ...] = ()
    conditions: tuple[ConditionSpec, ...] = ()
    window: WindowSpec = ALWAYS
    networks: tuple[str, ...] = ()
    reason: str = ""
    note: str = ""
    enabled: bool = True
    observe: bool = False

    def content(self) -> RuleSpec:
        """The rule without its id: two rules of the same content are the same rule."""
        return replace(self, id=0)

    def label(self) -> str:
        """How a person would point at it."""
        reach = "every role" if self.roles is None else ", ".join(sorted(self.roles)) or "no role"
        target = (
            "everything" if len(self.kinds) == 4 and self.pattern == "*" else "/".join(self.kinds) + " " + self.pattern
        )
        where = f" on {', '.join(self.upstreams)}" if self.upstreams else ""
        when = " when " + " and ".join(c.words() for c in self.conditions) if self.conditions else ""
        named = f"{self.name}: " if self.name else ""
        return f"{named}{self.effect} {reach}: {target}{where}{when}"


@dataclass(frozen=True, slots=True)
class LimitSpec:
    """At most `requests` in any `window_seconds`, one bucket per combination of the identities in `per`.

    `key` is a key prefix. `kind` empty: calls of tools, prompts and resources count. `is_default`: gives way to a limit that names the tool.
    """

    requests: int
    window_seconds: int
    per: tuple[str, ...] = ()
    id: int = 0
    name: str = ""
    key: str | None = None
    role: str | None = None
    upstream: str = ""
    kind: str = ""
    pattern: str = ""
    is_default: bool = False
    burst: int | None = None
    enabled: bool = True

    def content(self) -> LimitSpec:
        """The limit without its id."""
        return replace(self, id=0)

    def label(self) -> str:
        """How a person would point at it."""
        scope = [
            *([f"key {self.key}"] if self.key else []),
            *([f"role {self.role}"] if self.role else []),
            *([f"upstream {self.upstream}"] if self.upstream else []),
            *([f"{self.kind} {self.pattern or '*'}"] if self.kind else []),
        ]
        per = f" per {' and '.join(self.per)}" if self.per else ""
        burst = f", {self.burst} at once" if self.burst else ""
        what = f" for {', '.join(scope)}" if scope else ""
        return f"limit {self.requests} in {self.window_seconds} s{per}{what}{burst}{' (default)' if self.is_default else ''}"


@dataclass(frozen=True, slots=True)
class AuditSpec:
    """How much of a payload the events of these targets keep."""

    level: str
    kinds: tuple[str, ...]
    pattern: str
    id: int = 0
    role: str | None = None
    upstream: str = ""

    def content(self) -> AuditSpec:
        """The level without its id."""
        return replace(self, id=0)

    def label(self) -> str:
        """How a person would point at it."""
        where = f" on {self.upstream}" if self.upstream else ""
        who = f" for role {self.role}" if self.role else ""
        return f"audit {self.level}: {'/'.join(self.kinds)} {self.pattern}{where}{who}"


@dataclass(frozen=True, slots=True)
class RoleSpec:
    """A role's name and what it is for."""

    name: str
    description: str = ""
    id: int = 0


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """The whole of roles, rules, limits and audit levels."""

    roles: tuple[RoleSpec, ...] = ()
    rules: tuple[RuleSpec, ...] = ()
    limits: tuple[LimitSpec, ...] = ()
    audit: tuple[AuditSpec, ...] = ()
    version: int = field(default=0, compare=False)


def numbered(spec: PolicySpec) -> PolicySpec:
    """A policy from a document with ids of its own, so that its rules can be told apart before they are stored."""
    return replace(
        spec,
        rules=tuple(replace(rule, id=at) for at, rule in enumerate(spec.rules, 1)),
        limits=tuple(replace(limit, id=at) for at, limit in enumerate(spec.limits, 1)),
    )
