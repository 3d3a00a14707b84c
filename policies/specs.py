"""Policy as plain values: what the database, a document and the engine all mean by a rule (pure).

Members that are text, a number, a flag or words of a list stand in a table (`RULE`, `LIMIT`), a row each, and whoever reads,
writes, stores or shows a rule or a limit goes by the rows. What else it has is said in a language of its own, by each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import datetime, time
from typing import Any, Final

from policies import vocabulary
from policies.members import REQUIRED, Flag, Member, TextMember, WholeMember, Word, Words


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


# -- the tables of plain members


def _table(spec: type[RuleSpec] | type[LimitSpec], **rows: Member) -> tuple[Member, ...]:
    defaults = {one.name: REQUIRED if one.default is MISSING else one.default for one in fields(spec)}
    return tuple(
        replace(row, name=name, called=row.called or name, default=defaults[name]) for name, row in rows.items()
    )


_OBSERVE = "Decides nothing; what it would do stands in the event."
RULE: Final = _table(
    RuleSpec,
    name=TextMember(
        100, about="Shown in events; unique when given.", described="Shown in events; unique.", hint="Shown in events.",
    ),
    effect=Word(vocabulary.EFFECTS),
    reason=TextMember(
        vocabulary.MAX_REASON, about="Told to a refused caller.", described="Told to the caller who is refused.",
        label="What a refused caller is told", hint="Of rules that deny; one that allows refuses nobody.",
    ),
    note=TextMember(
        1000, about="Never told to a caller.", described="Never told to a caller.",
        hint="For colleagues; no caller ever sees it.",
    ),
    enabled=Flag(label="Switched on"),
    observe=Flag(
        about=_OBSERVE, described=_OBSERVE, label="Only observe", hint=_OBSERVE,
        says="; only observed, it decides nothing",
    ),
)  # fmt: skip
LIMIT: Final = _table(
    LimitSpec,
    name=TextMember(100),
    requests=WholeMember(1_000_000, label="At most … requests", start=60),
    window_seconds=WholeMember(31 * 86400, label="In any … seconds", start=60),
    burst=WholeMember(
        1_000_000, within="requests", about="How many may come at once; null: all.", label="At once at most",
        hint="Empty: all may come at once.", says=", {} at once",
    ),
    per=Words(
        vocabulary.LIMIT_IDENTITIES, about="One count for each of these; none: one for all.", label="Counted for each",
        hint="None chosen: one count for all.",
    ),
    is_default=Flag(
        called="default", about="Gives way to a limit that names the tool.",
        label="Gives way to a limit that names the tool", says="; gives way to a limit that names the tool",
    ),
    enabled=Flag(label="Switched on"),
)  # fmt: skip
#: those that say how much: what a limit in its short form has
RATE: Final = tuple(row for row in LIMIT if isinstance(row, WholeMember))


def exceeding(given: Mapping[str, Any]) -> list[WholeMember]:
    """The members of a limit that are more than what they are held within."""
    return [row for row in RATE if row.within and (given.get(row.name) or 0) > (given.get(row.within) or row.most)]


def plain(spec: RuleSpec | LimitSpec) -> dict[str, Any]:
    """What the plain members hold, by name; lists as lists."""
    table = RULE if isinstance(spec, RuleSpec) else LIMIT
    return {row.name: listed(getattr(spec, row.name)) for row in table}


def listed(value: Any) -> Any:
    """A tuple as a list; anything else as it is."""
    return list(value) if isinstance(value, tuple) else value
