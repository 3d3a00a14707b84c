"""A policy as YAML, read: the short form and the long form, strictly (pure). docs/policy.md describes the language.

roles:        name -> {description, allow: [short pattern], deny: [short pattern]}
rules:        [what a short pattern cannot say]
rate_limits:  {per_api_key, per_tool: {default, overrides}, limits: [what these cannot say]}
audit:        [how much of a payload the events of some targets keep]
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import time
from ipaddress import ip_network
from typing import Any, Final
from zoneinfo import ZoneInfo

from policies import vocabulary
from policies.documents.strict_yaml import (
    DocumentError,
    Node,
    Reader,
    Scalar,
    Sequence,
    compose,
    place,
    without_collector,
)
from policies.engine.compiled import CompiledRule, PolicyError
from policies.engine.conditions import ConditionError, compile_condition, parse_path
from policies.engine.satisfiability import some_arguments
from policies.keys.credentials import PREFIX, PUBLIC_ID_REGEX
from policies.members import REQUIRED, Member
from policies.specs import (
    ALWAYS,
    LIMIT,
    RATE,
    RULE,
    AuditSpec,
    ConditionSpec,
    LimitSpec,
    PolicySpec,
    RoleSpec,
    RuleSpec,
    WindowSpec,
)

__all__ = ["Document", "DocumentError", "parse", "parse_short"]

#: rules, short ones included, and what one of them may ask
MOST_RULES: Final = 20_000
MOST_CONDITIONS: Final = 100
MOST_EXPRESSIONS: Final = 1_000
#: looks at a condition that may be spent on finding rules that cannot match; what is left unasked is taken as it is
WORK: Final = 1_000_000
PER_TOOL: Final = ("key", "upstream", "tool")
_SECTIONS: Final = ("version", "roles", "rules", "rate_limits", "audit")
_TARGET: Final = (*vocabulary.KINDS, "kinds", "pattern")
_RULE: Final = tuple(dict.fromkeys((
    "name", "effect", "roles", "keys", *_TARGET, "upstreams", "when", "hours", "valid", "networks",
    *(row.called for row in RULE),
)))  # fmt: skip
_LIMIT: Final = tuple(dict.fromkeys((
    "name", "key", "role", "upstream", *vocabulary.KINDS, "kind", "per", *(row.called for row in LIMIT),
)))  # fmt: skip
_RATE: Final = tuple(row.called for row in RATE)
_KEY_REFERENCE: Final = re.compile(PREFIX + PUBLIC_ID_REGEX)


@dataclass(frozen=True, slots=True)
class Document:
    """A policy that was read, and where it names keys (whether they exist, only a database knows)."""

    spec: PolicySpec
    key_places: dict[str, str] = field(default_factory=dict)


def parse_short(pattern: str) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """Read a short pattern: its kinds, upstreams and name pattern. ValueError says what cannot be read."""
    if pattern == "*":
        return vocabulary.KINDS, (), "*"
    upstreams: tuple[str, ...] = ()
    rest = pattern
    if pattern.startswith("@"):
        slug, slash, rest = pattern[1:].partition("/")
        if not slash or not re.fullmatch(vocabulary.SLUG, slug):
            raise ValueError(f"{pattern!r} is not @UPSTREAM/PATTERN; for a name that begins with @ use a long rule")
        upstreams = (slug,)
    prefix, colon, name = rest.partition(":")
    kind = "tool"
    if colon and prefix in ("prompt", "resource", "method"):
        kind, rest = prefix, name
    elif colon and re.fullmatch(r"[A-Za-z]+", prefix):
        raise ValueError(
            f"{prefix}: is no kind; prompt:, resource: and method: are, and a tool's name with a colon needs a long rule"
        )
    if not rest or len(rest) > vocabulary.MAX_PATTERN:
        raise ValueError(f"a pattern has 1 to {vocabulary.MAX_PATTERN} characters")
    return (kind,), upstreams, rest


def parse(text: str) -> Document:
    """Read a document; DocumentError tells every mistake with its line and column."""
    with without_collector():
        return _DocumentWalk().document(compose(text))


class _DocumentWalk:
    """One walk over one document."""

    def __init__(self) -> None:
        self.read = Reader()
        self.roles: dict[str, RoleSpec] = {}
        self.rules: list[RuleSpec] = []
        self.names: set[str] = set()
        self.key_places: dict[str, str] = {}
        self.work = [WORK]
        self.expressions = 0

    def document(self, root: Node | None) -> Document:
        if root is None:
            return Document(PolicySpec())
        read = self.read
        sections = read.members(root, "a policy", _SECTIONS)
        if "version" in sections and read.number(sections["version"], "version", 1, 1) != 1:
            read.finish()
        if "roles" in sections:
            for name, name_node, node in read.entries(sections["roles"], "roles"):
                self.role(name, name_node, node)
        for node in read.items(sections.get("rules"), "rules"):
            self.rule(node)
        limits = self.rate_limits(sections["rate_limits"]) if "rate_limits" in sections else []
        audit = [a for node in read.items(sections.get("audit"), "audit") if (a := self.audit(node))]
        read.finish()
        spec = PolicySpec(tuple(self.roles.values()), tuple(self.rules), tuple(limits), tuple(audit))
        return Document(spec, self.key_places)

    # -- roles and rules

    def role(self, name: str, name_node: Node, node: Node) -> None:
        if not re.fullmatch(vocabulary.ROLE_NAME, name):
            self.read.wrong(name_node, "a role's name has letters, digits and . _ - only, at most 64")
        members = self.read.members(node, f"role {name}", ("description", "allow", "deny"))
        self.roles[name] = RoleSpec(name, self.read.text(members.get("description"), "description"))
        for effect in ("deny", "allow"):
            for item in self.read.items(members.get(effect), effect):
                pattern = self.read.text(item, "a pattern", most=700)
                if item.tag == "str":
                    self.short_rule(item, effect, name, pattern)

    def short_rule(self, node: Node, effect: str, role: str, pattern: str) -> None:
        """One pattern in a role's list."""
        try:
            kinds, upstreams, name = parse_short(pattern)
        except ValueError as error:
            self.read.wrong(node, str(error))
            return
        self.add(node, RuleSpec(effect, kinds, name, frozenset((role,)), upstreams=upstreams))

    def add(self, node: Node, spec: RuleSpec) -> None:
        """Take a rule, as long as there are not too many: each costs every worker time and memory."""
        if len(self.rules) >= MOST_RULES:
            self.read.wrong(node, f"a policy has at most {MOST_RULES} rules, short ones included")
            self.read.finish()
        self.rules.append(spec)

    def rule(self, node: Node) -> None:
        read = self.read
        members = read.members(node, "a rule", _RULE)
        if "effect" not in members:
            read.wrong(node, "a rule says its effect: allow or deny")
        if "roles" not in members:
            read.wrong(node, 'a rule says its roles: a list, or "*" for every role')
        plain = {"effect": "allow", **read.plain(members, RULE)}
        name = plain.get("name", "")
        if name and name in self.names:
            read.wrong(members["name"], f"another rule is named {name!r}")
        self.names.add(name)
        kinds, pattern = self.target(node, members)
        spec = RuleSpec(
            **plain,
            kinds=kinds,
            pattern=pattern,
            roles=self.some_roles(members.get("roles")),
            keys=self.some_keys(members.get("keys")),
            upstreams=tuple(sorted({self.slug(item) for item in read.items(members.get("upstreams"), "upstreams")})),
            conditions=self.conditions(members.get("when")),
            window=self.window(members.get("hours"), members.get("valid")),
            networks=self.networks(members.get("networks")),
        )
        self.add(node, spec)
        self.possible(node, members, spec)

    def possible(self, node: Node, members: dict[str, Node], spec: RuleSpec) -> None:
        """Refuse conditions that no arguments can meet together; of different arguments, each is met by itself."""
        asked = [parse_path(c.path)[0] for c in spec.conditions if c.subject == "arguments"]
        if len(set(asked)) < len(asked) and spec.pattern:
            try:
                never = some_arguments([CompiledRule(spec).asked], [], self.work).found is False
            except PolicyError as error:
                self.read.wrong(node, str(error))
            else:
                if never:
                    self.read.wrong(members.get("when", node), "these conditions can never hold together")

    def target(self, node: Node, members: dict[str, Node]) -> tuple[tuple[str, ...], str]:
        """What a long rule is about: `tool: PATTERN` and the like, or kinds and pattern."""
        read, said = self.read, [kind for kind in vocabulary.KINDS if kind in members]
        if len(said) + ("pattern" in members or "kinds" in members) != 1:
            read.wrong(node, "say one of tool, prompt, resource, method (each with a pattern), or kinds and pattern")
            return ("tool",), "*"
        if said:
            return (said[0],), self.pattern(members[said[0]], said[0])
        kinds = read.words(members.get("kinds"), "kinds", vocabulary.KINDS) if "kinds" in members else vocabulary.KINDS
        if not kinds:
            read.wrong(members["kinds"], "name at least one kind")
        return kinds or ("tool",), self.pattern(members["pattern"], "pattern") if "pattern" in members else "*"

    def pattern(self, node: Node, what: str) -> str:
        """A name pattern, as it is."""
        value = self.read.text(node, what, most=vocabulary.MAX_PATTERN)
        if not value:
            self.read.wrong(node, f"{what} has at least one character")
        return value

    def some_roles(self, node: Node | None) -> frozenset[str] | None:
        """A list of roles of this document, or "*"."""
        if isinstance(node, Scalar) and node.value == "*":
            return None
        return frozenset(self.known_role(item) for item in self.read.items(node, "roles"))

    def known_role(self, node: Node) -> str:
        name = self.read.text(node, "a role")
        if name not in self.roles:
            self.read.wrong(node, f"there is no role {name!r} in this document")
        return name

    def some_keys(self, node: Node | None) -> frozenset[str] | None:
        """Keys by their visible part, or None for any."""
        if node is None:
            return None
        return frozenset(self.key(item) for item in self.read.items(node, "keys"))

    def key(self, node: Node) -> str:
        """A key by its visible part."""
        value = self.read.text(node, "a key")
        if not _KEY_REFERENCE.fullmatch(value):
            self.read.wrong(node, f"a key is named by its visible part, like {PREFIX}0123456789AB, and nothing more")
            return ""
        self.key_places.setdefault(value, place(node))
        return value

    def slug(self, node: Node | None) -> str:
        """An upstream's short name."""
        value = self.read.text(node, "an upstream")
        if node is not None and not re.fullmatch(vocabulary.SLUG, value):
            self.read.wrong(node, f"{value!r} is not an upstream's name")
        return value

    # -- conditions, times, places

    def conditions(self, node: Node | None) -> tuple[ConditionSpec, ...]:
        items = self.read.items(node, "when")
        if len(items) > MOST_CONDITIONS:
            self.read.wrong(items[MOST_CONDITIONS], f"a rule has at most {MOST_CONDITIONS} conditions")
            return ()
        return tuple(c for item in items if (c := self.condition(item)))

    def condition(self, node: Node) -> ConditionSpec | None:
        """One condition: a subject, an operator with its value, and for paths with [] which items."""
        read = self.read
        members = read.members(
            node, "a condition", ("argument", "annotation", "subject", "items", *vocabulary.OPERATORS)
        )
        subjects = [s for s in ("argument", "annotation", "subject") if s in members]
        operators = [o for o in vocabulary.OPERATORS if o in members]
        if len(subjects) != 1 or len(operators) != 1:
            read.wrong(node, "a condition has one of argument, annotation or subject: name, and exactly one operator")
            return None
        operator = operators[0]
        self.expressions += operator in ("matches", "not_matches")
        if self.expressions > MOST_EXPRESSIONS:
            read.wrong(node, f"a policy has at most {MOST_EXPRESSIONS} regular expressions")
            read.finish()
        if vocabulary.OPERATORS[operator] is None:
            if read.flag(members[operator], operator, default=True) is not True:
                read.wrong(members[operator], f"{operator} is true; the opposite has a name of its own")
            value: Any = None
        else:
            value = read.value(members[operator], operator)
        subject, path = {"argument": "arguments", "annotation": "annotations", "subject": "name"}[subjects[0]], ""
        if subject == "name":
            read.word(members["subject"], "subject", ("name",))
        else:
            path = read.text(members[subjects[0]], subjects[0], most=300)
        quantifier = read.word(members.get("items"), "items", vocabulary.QUANTIFIERS)
        spec = ConditionSpec(operator, value, path, subject, quantifier)
        try:
            compile_condition(spec)
        except ConditionError as error:
            read.wrong(node, str(error))
            return None
        return spec

    def window(self, hours: Node | None, valid: Node | None) -> WindowSpec:
        """When a rule is in force."""
        read = self.read
        if hours is None and valid is None:
            return ALWAYS
        at = read.members(hours, "hours", ("days", "from", "to", "zone")) if hours is not None else {}
        span = read.members(valid, "valid", ("from", "until")) if valid is not None else {}
        zone = read.text(at.get("zone"), "zone", default="UTC")
        try:
            ZoneInfo(zone)
        except (ValueError, OSError, KeyError):
            read.wrong(at.get("zone"), f"there is no time zone {zone!r}")
        start, end = self.clock(at.get("from")), self.clock(at.get("to"))
        if (start is None) != (end is None) or (start is not None and start == end):
            read.wrong(hours, "give both from and to, and let them differ")
        since, until = read.moment(span.get("from"), "a moment"), read.moment(span.get("until"), "a moment")
        if since is not None and until is not None and since >= until:
            read.wrong(valid, "until is later than from")
        return WindowSpec(read.words(at.get("days"), "days", vocabulary.WEEKDAYS), start, end, zone, since, until)

    def clock(self, node: Node | None) -> time | None:
        """A time of day such as 09:30."""
        if node is None:
            return None
        text = self.read.text(node, "a time")
        if not re.fullmatch(r"\d\d:\d\d(:\d\d)?", text):
            self.read.wrong(node, f"a time is like 09:30, not {text!r}")
            return None
        try:
            return time.fromisoformat(text)
        except ValueError:
            self.read.wrong(node, f"there is no time {text!r}")
            return None

    def networks(self, node: Node | None) -> tuple[str, ...]:
        found = []
        for item in self.read.items(node, "networks"):
            text = self.read.text(item, "a network")
            try:
                found.append(str(ip_network(text)))
            except ValueError as error:
                self.read.wrong(item, f"not an IP network: {error}")
        return tuple(found)

    # -- limits and audit levels

    def rate_limits(self, node: Node) -> list[LimitSpec]:
        """All limits."""
        read = self.read
        members = read.members(node, "rate_limits", ("per_api_key", "per_tool", "limits"))
        found: list[LimitSpec] = []
        if "per_api_key" in members:
            found += [LimitSpec(**rate, per=("key",)) for rate in self.rates(members["per_api_key"])]
        if "per_tool" in members:
            per_tool = read.members(members["per_tool"], "per_tool", ("default", "overrides"))
            if "default" in per_tool:
                found += [
                    LimitSpec(**rate, per=PER_TOOL, kind="tool", is_default=True)
                    for rate in self.rates(per_tool["default"])
                ]
            if "overrides" in per_tool:
                for pattern, key_node, value in read.entries(per_tool["overrides"], "overrides"):
                    found += self.override(pattern, key_node, value)
        found += [limit for item in read.items(members.get("limits"), "limits") if (limit := self.limit(item))]
        return found

    def override(self, pattern: str, key_node: Node, node: Node) -> list[LimitSpec]:
        """The limits that a tool has in place of the default."""
        try:
            kinds, upstreams, name = parse_short(pattern)
            if kinds != ("tool",):
                raise ValueError("an override names a tool; for all tools there is default")
        except ValueError as error:
            self.read.wrong(key_node, str(error))
            return []
        upstream = upstreams[0] if upstreams else ""
        return [
            LimitSpec(**rate, per=PER_TOOL, kind="tool", pattern=name, upstream=upstream) for rate in self.rates(node)
        ]

    def rates(self, node: Node) -> list[dict[str, Any]]:
        items = node.value if isinstance(node, Sequence) else [node]
        return [self.rate(item, self.read.members(item, "a limit", _RATE), RATE) for item in items]

    def rate(self, node: Node, members: dict[str, Node], table: tuple[Member, ...]) -> dict[str, Any]:
        """The plain members of a limit, none of what it needs missing."""
        for row in RATE:
            if row.default is REQUIRED and row.called not in members:
                self.read.wrong(node, f"a limit says its {row.called}")
        return {"requests": 1, "window_seconds": 1, **self.read.plain(members, table)}

    def limit(self, node: Node) -> LimitSpec | None:
        read = self.read
        members = read.members(node, "a limit", _LIMIT)
        said = [kind for kind in vocabulary.KINDS if kind in members]
        if len(said) + ("kind" in members) > 1:
            read.wrong(node, "say at most one of tool, prompt, resource, method (each with a pattern) and kind")
            return None
        kind = said[0] if said else read.word(members.get("kind"), "kind", vocabulary.KINDS)
        spec = LimitSpec(
            **self.rate(node, members, LIMIT),
            key=self.key(members["key"]) if "key" in members else None,
            role=self.known_role(members["role"]) if "role" in members else None,
            upstream=self.slug(members.get("upstream")),
            kind=kind,
            pattern=self.pattern(members[said[0]], said[0]) if said else "",
        )
        if not spec.kind and ("tool" in spec.per or spec.is_default):
            read.wrong(node, "a limit that tells names apart says of which kind they are")
        if spec.is_default and spec.pattern:
            read.wrong(node, "a default names no pattern")
        return spec

    def audit(self, node: Node) -> AuditSpec | None:
        read = self.read
        members = read.members(node, "an audit level", ("level", "role", "upstream", *_TARGET))
        if "level" not in members:
            read.wrong(node, f"say the level: one of {', '.join(vocabulary.AUDIT_LEVELS)}")
        kinds, pattern = self.target(node, members)
        return AuditSpec(
            read.word(members.get("level"), "level", vocabulary.AUDIT_LEVELS, "full"),
            kinds,
            pattern,
            role=self.known_role(members["role"]) if "role" in members else None,
            upstream=self.slug(members.get("upstream")),
        )
