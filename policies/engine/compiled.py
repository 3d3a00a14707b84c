"""Rules compiled and indexed: an immutable policy that answers for a name without looking at rules for others (pure)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any
from zoneinfo import ZoneInfo

from audit.reasons import REASONS
from core.access.addresses import parse_address, within
from policies.engine import glob, satisfiability, uris
from policies.engine.conditions import ANNOTATION_DEFAULTS, ERROR, NO, YES, Check, ConditionError, compile_condition
from policies.engine.folding import fold
from policies.engine.limits import LimitIndex
from policies.engine.types import (
    ALLOWED_BY_RULE,
    AMBIGUOUS,
    DENIED_BY_RULE,
    NO_RULE,
    OPEN_METHOD,
    Context,
    Decision,
    RuleRef,
    Target,
)
from policies.specs import ALWAYS, AuditSpec, ConditionSpec, PolicySpec, RuleSpec, WindowSpec
from policies.vocabulary import ASKED, AUDIT_LEVELS, OPEN, OPEN_METHODS, TASK_METHODS, UNSEEN, WEEKDAYS

OuterCheck = Callable[[Target, Context], int]
#: of which kind rules are that speak of what is beside the kinds
_KIND_OF = {UNSEEN: "tool", ASKED: "method"}
CACHE_SIZE = 8192  # per generation; two generations are kept
CACHED_NAME = 256  # longer names are decided each time, so that they cannot fill memory


class PolicyError(ValueError):
    """A policy that cannot be compiled; the message names the rule and says why."""


def network_check(networks: Iterable[str]) -> Callable[[str | None], int]:
    """Whether an address lies in one of these networks; an unknown address is an ERROR."""
    parsed = tuple(ip_network(network) for network in networks)

    def check(text: str | None) -> int:
        address = parse_address(text) if text else None
        if address is None:
            return ERROR
        return YES if within(address, parsed) else NO

    return check


def moment(now: float | datetime) -> datetime:
    """A moment as an aware datetime."""
    return now if isinstance(now, datetime) else datetime.fromtimestamp(now, UTC)


def window_check(window: WindowSpec) -> Callable[[datetime], int]:
    """Whether a moment lies in the window; hours that end before they begin run past midnight into the next day."""
    zone = ZoneInfo(window.zone or "UTC")
    days = frozenset(WEEKDAYS.index(day) for day in window.days) or frozenset(range(7))
    start, end = window.from_time, window.to_time

    def check(now: datetime) -> int:
        if window.valid_from is not None and now < window.valid_from:
            return NO
        if window.valid_until is not None and now >= window.valid_until:
            return NO
        local = now.astimezone(zone)
        if start is None or end is None:
            return YES if local.weekday() in days else NO
        at = local.time()
        if start < end:
            return YES if start <= at < end and local.weekday() in days else NO
        if at >= start:
            return YES if local.weekday() in days else NO
        if at < end:
            return YES if (local - timedelta(days=1)).weekday() in days else NO
        return NO

    return check


def _outer_checks(spec: RuleSpec) -> tuple[OuterCheck, ...]:
    """Everything a rule asks that does not depend on the call's arguments."""
    checks: list[OuterCheck] = []
    if spec.window != ALWAYS and not spec.window.always:
        in_window = window_check(spec.window)
        checks.append(lambda target, context: in_window(moment(context.now)))
    if spec.networks:
        in_network = network_check(spec.networks)
        checks.append(lambda target, context: in_network(context.client_ip))
    for condition in spec.conditions:
        if condition.subject == "name":
            checks.append(_name_check(condition))
        elif condition.subject == "annotations":
            checks.append(_annotation_check(compile_condition(condition)))
    return tuple(checks)


def _name_check(condition: ConditionSpec) -> OuterCheck:
    """A condition on the name. Of a URI it must answer the same however a server reads it, or it is an ERROR."""
    check = compile_condition(condition)
    folded = compile_condition(replace(condition, value=_folded(condition)))

    def asked(target: Target, context: Context) -> int:
        answer = check(target.name)
        if target.kind == "resource" and folded(uris.readings(target.name)[0]) != answer:
            return ERROR
        return answer

    return asked


def _folded(condition: ConditionSpec) -> Any:
    """What a condition asks of a name that is folded."""
    value = condition.value
    if condition.operator in ("matches", "not_matches"):
        return f"(?i){value}"
    if condition.operator in ("under", "not_under", "type"):
        return value
    if isinstance(value, str):
        return fold(uris.decoded(value))
    return (
        tuple(fold(uris.decoded(v)) if isinstance(v, str) else v for v in value) if isinstance(value, tuple) else value
    )


def _annotation_check(check: Check) -> OuterCheck:
    return lambda target, context: check({**ANNOTATION_DEFAULTS, **(target.annotations or {})})


class CompiledRule:
    """One rule, ready to be asked."""

    __slots__ = ("argument_checks", "matches_folded", "matches_name", "message", "outer_checks", "ref", "spec")

    def __init__(self, spec: RuleSpec) -> None:
        self.spec = spec
        self.ref = RuleRef(spec.id, spec.name, spec.effect)
        self.message = spec.reason or REASONS[DENIED_BY_RULE].message
        self.matches_name = glob.matcher(spec.pattern)
        #: what a rule that denies asks of a name whose reader is not known, folded like this pattern
        self.matches_folded = glob.matcher(fold(uris.decoded(spec.pattern)))
        try:
            self.outer_checks = _outer_checks(spec)
            self.argument_checks: tuple[Check, ...] = tuple(
                compile_condition(c) for c in spec.conditions if c.subject == "arguments"
            )
        except (ConditionError, ValueError, KeyError, OSError) as error:
            raise PolicyError(f"rule {spec.id} ({spec.label()}): {error}") from error

    @property
    def asked(self) -> satisfiability.Asked:
        """What it asks of the arguments, each condition with its check."""
        specs = [spec for spec in self.spec.conditions if spec.subject == "arguments"]
        return list(zip(specs, self.argument_checks, strict=True))

    @property
    def names_something(self) -> bool:
        """Whether its pattern speaks of some names and not of all: what needs no rule is denied by name alone."""
        return bool(self.spec.pattern.strip("*?"))

    @property
    def unconditional(self) -> bool:
        """Whether it matches whenever its role, key, kind, upstream and name do."""
        return not self.outer_checks and not self.argument_checks

    def check_outer(self, target: Target, context: Context) -> int:
        """All but the arguments: one NO settles it, then an ERROR, else YES."""
        worst = YES
        for check in self.outer_checks:
            answer = check(target, context)
            if answer == NO:
                return NO
            if answer == ERROR:
                worst = ERROR
        return worst

    def check_arguments(self, arguments: object) -> int:
        """The arguments alone."""
        worst = YES
        for check in self.argument_checks:
            answer = check(arguments)
            if answer == NO:
                return NO
            if answer == ERROR:
                worst = ERROR
        return worst

    def check(self, target: Target, context: Context) -> int:
        outer = self.check_outer(target, context) if self.outer_checks else YES
        if outer == NO or not self.argument_checks:
            return outer
        inner = self.check_arguments(target.arguments)
        return inner if inner == NO or outer == YES else ERROR


class Candidates:
    """The rules that may concern one name for one role, and the decision itself where nothing is left to ask."""

    __slots__ = ("_reachable", "allows", "denies", "fixed", "otherwise", "shadows")

    def __init__(self, rules: Sequence[CompiledRule], otherwise: Decision, *, fixed: Decision | None = None) -> None:
        ordered = sorted(rules, key=lambda rule: (not rule.unconditional, rule.ref.id))
        self.denies = tuple(r for r in ordered if r.ref.effect == "deny" and not r.spec.observe)
        self.allows = tuple(r for r in ordered if r.ref.effect == "allow" and not r.spec.observe)
        self.shadows = tuple(r for r in ordered if r.spec.observe)
        self._reachable: dict[tuple[tuple[int, ...], tuple[int, ...]], bool] = {}
        #: the decision where none of the rules settles it
        self.otherwise = otherwise
        self.fixed = fixed or self._fix(otherwise.policy_version)

    def _fix(self, version: int) -> Decision | None:
        if any(not rule.unconditional for rule in self.shadows):
            return None
        observed = tuple(rule.ref for rule in self.shadows)
        if self.denies and self.denies[0].unconditional:
            rule = self.denies[0]
            return Decision(False, DENIED_BY_RULE, rule.ref, rule.message, version, observed)
        if self.denies:
            return None
        if self.allows:
            rule = self.allows[0]
            return Decision(True, ALLOWED_BY_RULE, rule.ref, "", version, observed) if rule.unconditional else None
        return replace(self.otherwise, observed=observed)

    def reachable(self, allows: list[CompiledRule], denies: list[CompiledRule]) -> bool:
        """Whether some arguments make one of `allows` hold and none of `denies`; remembered."""
        key = (tuple(id(r) for r in allows), tuple(id(r) for r in denies))
        known = self._reachable.get(key)
        if known is None:
            if len(self._reachable) > 64:
                self._reachable.clear()
            reach = satisfiability.some_arguments([rule.asked for rule in allows], [rule.asked for rule in denies])
            known = self._reachable[key] = reach.found is not False
        return known


class NameIndex:
    """Finds the rules whose pattern matches a name: exact names, prefixes and suffixes by lookup, the rest by asking."""

    __slots__ = ("_asked", "_exact", "_prefix_lengths", "_prefixes", "_suffix_lengths", "_suffixes")

    def __init__(self) -> None:
        self._exact: dict[str, list[CompiledRule]] = {}
        self._prefixes: dict[str, list[CompiledRule]] = {}
        self._suffixes: dict[str, list[CompiledRule]] = {}
        self._prefix_lengths: set[int] = set()
        self._suffix_lengths: set[int] = set()
        self._asked: list[CompiledRule] = []

    def add(self, rule: CompiledRule) -> None:
        """Place a rule where its names will be looked for."""
        pattern = rule.spec.pattern
        if glob.is_literal(pattern):
            self._exact.setdefault(pattern, []).append(rule)
        elif prefix := glob.literal_prefix(pattern):
            self._prefixes.setdefault(prefix, []).append(rule)
            self._prefix_lengths.add(len(prefix))
        elif suffix := glob.literal_suffix(pattern):
            self._suffixes.setdefault(suffix, []).append(rule)
            self._suffix_lengths.add(len(suffix))
        else:
            self._asked.append(rule)

    def find(self, name: str, into: list[CompiledRule]) -> None:
        """Append the rules that match this name."""
        into.extend(self._exact.get(name, ()))
        for length in self._prefix_lengths:
            into.extend(rule for rule in self._prefixes.get(name[:length], ()) if rule.matches_name(name))
        for length in self._suffix_lengths:
            into.extend(rule for rule in self._suffixes.get(name[-length:], ()) if rule.matches_name(name))
        into.extend(rule for rule in self._asked if rule.matches_name(name))


def _allows_shortened(rule: CompiledRule, uri: str) -> bool:
    """Whether a rule that matches a URI matches what is left of it where its pattern does not speak of the rest, too."""
    return all(rule.matches_name(text) for text in uris.shortened(uri, rule.spec.pattern))


class PolicySet:
    """All rules, limits and audit levels of one version. Immutable but for its caches, which only remember."""

    def __init__(self, spec: PolicySpec) -> None:
        self.spec = spec
        self.version = spec.version
        self.roles = frozenset(role.name for role in spec.roles)
        self.nothing = Decision(False, NO_RULE, None, REASONS[NO_RULE].message, spec.version)
        self.open = Decision(True, OPEN_METHOD, None, "", spec.version)
        self.rules = tuple(CompiledRule(rule) for rule in spec.rules if rule.enabled)
        self.limits = LimitIndex(spec.limits)
        self._denying = tuple(rule for rule in self.rules if rule.ref.effect == "deny")
        self._ambiguous = Decision(False, AMBIGUOUS, None, REASONS[AMBIGUOUS].message, spec.version)
        self._named_keys: set[str] = set()
        self._index: dict[tuple[str | None, str, str | None], NameIndex] = {}
        for rule in self.rules:
            self._place(rule)
        self._levels = tuple((level, uris.matcher(level.pattern)) for level in spec.audit)
        self._young: dict[tuple[str, str, str, str, str], Candidates] = {}
        self._old: dict[tuple[str, str, str, str, str], Candidates] = {}
        self._level_cache: dict[tuple[str, str, str, str], str] = {}

    def _place(self, rule: CompiledRule) -> None:
        spec = rule.spec
        if spec.keys is not None:
            self._named_keys |= spec.keys
        for role in [None] if spec.roles is None else spec.roles:
            for kind in spec.kinds:
                for upstream in spec.upstreams or [None]:
                    self._index.setdefault((role, kind, upstream), NameIndex()).add(rule)

    def candidates(self, role: str, key_prefix: str, kind: str, upstream: str, name: str) -> Candidates:
        """The rules that concern this name, remembered per role (and per key, where rules name it)."""
        named = key_prefix if key_prefix in self._named_keys else ""
        place = (role, named, kind, upstream, name)
        found = self._young.get(place)
        if found is None:
            found = self._old.get(place) or self._gather(place)
            if len(name) <= CACHED_NAME:
                if len(self._young) >= CACHE_SIZE:
                    self._old, self._young = self._young, {}
                self._young[place] = found
        return found

    def _gather(self, place: tuple[str, str, str, str, str]) -> Candidates:
        role, key_prefix, kind, upstream, name = place
        if kind == OPEN or (kind == "method" and (name in OPEN_METHODS or name in TASK_METHODS)):
            found = self._matching(role, key_prefix, "method", upstream, name)
            return Candidates([r for r in found if r.ref.effect == "deny" and r.names_something], self.open)
        rules = self._matching(role, key_prefix, _KIND_OF.get(kind, kind), upstream, name)
        if kind == UNSEEN:
            rules += self._denying_folded(role, key_prefix, "tool", upstream, (fold(name),), rules)
        elif kind == "resource":
            if uris.ambiguous(name):
                if not any(r.spec.pattern == name and r.ref.effect == "allow" and not r.spec.observe for r in rules):
                    return Candidates((), self.nothing, fixed=self._ambiguous)
                # A rule that spells the whole name, as it is, knows what this server makes of it; no other can.
                rules = [r for r in rules if r.spec.pattern == name or r.ref.effect == "deny"]
            else:
                rules = [r for r in rules if r.ref.effect == "deny" or _allows_shortened(r, name)]
            rules += self._denying_folded(role, key_prefix, kind, upstream, uris.readings(name), rules)
        return Candidates(rules, self.nothing)

    def _matching(self, role: str, key_prefix: str, kind: str, upstream: str, name: str) -> list[CompiledRule]:
        """The rules that match a name as it is spelled."""
        rules: list[CompiledRule] = []
        for spot in ((role, kind, upstream), (role, kind, None), (None, kind, upstream), (None, kind, None)):
            index = self._index.get(spot)
            if index is not None:
                index.find(name, rules)
        return [r for r in rules if r.spec.keys is None or key_prefix in r.spec.keys]

    def _denying_folded(
        self, role: str, key_prefix: str, kind: str, upstream: str, names: Sequence[str], known: list[CompiledRule]
    ) -> list[CompiledRule]:
        """The denying rules that match what a name could be read as, beside those that are known to match."""
        return [
            rule
            for rule in self._denying
            if kind in rule.spec.kinds
            and (rule.spec.roles is None or role in rule.spec.roles)
            and (rule.spec.keys is None or key_prefix in rule.spec.keys)
            and (not rule.spec.upstreams or upstream in rule.spec.upstreams)
            and any(rule.matches_folded(name) for name in names)
            and rule not in known
        ]

    def audit_level(self, role: str, kind: str, upstream: str, name: str) -> str:
        """How much of a payload an event keeps, or nothing where the upstream's own level holds."""
        if not self._levels:
            return ""
        place = (role, kind, upstream, name)
        known = self._level_cache.get(place)
        if known is None:
            known = self._least_kept(role, kind, upstream, name)
            if len(name) <= CACHED_NAME:
                if len(self._level_cache) >= CACHE_SIZE:
                    self._level_cache = {}
                self._level_cache[place] = known
        return known

    def _least_kept(self, role: str, kind: str, upstream: str, name: str) -> str:
        def concerns(level: AuditSpec) -> bool:
            return (
                level.role in (None, role)
                and level.upstream in ("", upstream)
                and (kind in level.kinds or (kind == UNSEEN and "tool" in level.kinds))
            )

        found = [level.level for level, matches in self._levels if concerns(level) and matches(kind, name)]
        return max(found, key=AUDIT_LEVELS.index) if found else ""
