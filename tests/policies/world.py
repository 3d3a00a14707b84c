"""Random policies and calls over a small world, so that rules meet. A failing test names the seed that shows it again."""

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, time

from policies.engine.compiled import PolicySet
from policies.engine.types import Context, Principal, Target
from policies.specs import ConditionSpec, PolicySpec, RoleSpec, RuleSpec, WindowSpec

ROLES = ["admin", "user", "guest"]
KEYS = ["mcps_live_AAAAAAAAAAAA", "mcps_live_BBBBBBBBBBBB"]
UPSTREAMS = ["crm", "pay"]
NAMES = ["get", "get_all", "set", "Get", "a.b", "x*y", "del"]
PATTERNS = [*NAMES, "*", "get*", "*et", "?et", "g*t*l", "*a*", "s??", "**", "*.*"]
ADDRESSES = [None, "10.1.2.3", "192.168.0.1", "::1", "::ffff:10.1.2.3"]
MOMENTS = [datetime(2026, 11, day, hour, 30, tzinfo=UTC) for day in (20, 21, 23) for hour in (2, 10, 23)]
SCALARS = [-3, -1, 0, 1, 2, 3, 0.5, 1.5, 2.0, 2**53 + 1, 1e300, "", "a", "main", "x", "/public/a", "/etc",
           "/public/../etc", "rel/a", "\ud800", "~x", True, False]  # fmt: skip
CLEAN = [-2, -1, 0, 1, 2, 0.5, 1.5, "a", "main", "x", True, False]
CLEAN_NUMBERS = [-2, -1, 0, 1, 2, 0.5, 1.5]
TEXT_TESTS = [("like", "m*n"), ("not_like", "*a"), ("matches", "[am].*"), ("not_matches", "x+"), ("under", "/public"),
              ("not_under", "/etc"), ("eq", "a"), ("gt", 0)]  # fmt: skip


class World:
    """A source of random things."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.pick = self.random.choice

    def some(self, things, most):
        return [self.pick(things) for _ in range(self.random.randint(0, most))]

    # -- calls

    def value(self):
        return self.pick(
            [lambda: self.pick(SCALARS)] * 4
            + [lambda: None, lambda: self.some(SCALARS, 3), lambda: {"f": self.pick(SCALARS)}]
        )()

    def arguments(self):
        found = {}
        for name in ("a", "b"):
            if self.random.random() < 0.8:
                found[name] = self.value()
        if self.random.random() < 0.6:
            found["c"] = self.pick([{}, {"f": self.value()}, self.value()])
        if self.random.random() < 0.6:
            items = [
                self.pick([self.pick(SCALARS), {"p": self.pick(SCALARS)}, {}, None])
                for _ in range(self.random.randint(0, 3))
            ]
            found["l"] = self.pick([items, items, self.value()])
        return found

    def principal(self):
        upstreams = self.pick([frozenset(), frozenset(), frozenset({"crm"})])
        return Principal(None, "k", self.pick(KEYS), self.pick([*ROLES, "nobody"]), upstreams)

    def target(self):
        notes = self.pick([None, {"destructiveHint": False}, {"readOnlyHint": True, "title": True}])
        kind = self.pick(["tool", "tool", "prompt", "method"])
        return Target(kind, self.pick(UPSTREAMS), self.pick(NAMES), self.arguments(), notes)

    def context(self):
        return Context(self.pick(MOMENTS), self.pick(ADDRESSES))

    # -- rules

    def exact_condition(self):
        """A condition of the sort whose reach is decided exactly."""
        operator = self.pick(["eq", "ne", "in", "not_in", "lt", "le", "gt", "ge", "present", "absent", "type"])
        path, value = self.pick(["a", "b", "c.f"]), None
        if operator in ("eq", "ne"):
            value = self.pick(CLEAN)
        elif operator in ("in", "not_in"):
            value = (self.pick(CLEAN), *self.some(CLEAN, 2))
        elif operator == "type":
            value = self.pick(["string", "number", "integer", "boolean", "array", "object"])
        elif operator in ("lt", "le", "gt", "ge"):
            value = self.pick(CLEAN_NUMBERS)
        return ConditionSpec(operator, value, path)

    def condition(self):
        sort = self.pick(["exact", "exact", "text", "list", "length", "note", "name"])
        if sort == "exact":
            return self.exact_condition()
        if sort == "length":
            return ConditionSpec(self.pick(["min_length", "max_length"]), self.random.randint(0, 4), "a")
        if sort == "note":
            return ConditionSpec(
                "eq", self.pick([True, False]), self.pick(["destructiveHint", "readOnlyHint", "title"]), "annotations"
            )
        if sort == "name":
            return ConditionSpec(self.pick(["like", "not_like"]), self.pick(PATTERNS), "", "name")
        operator, value = self.pick(TEXT_TESTS)
        if sort == "list":
            return ConditionSpec(operator, value, self.pick(["l[]", "l[].p"]), "arguments", self.pick(["every", "any"]))
        return ConditionSpec(operator, value, "a")

    def window(self):
        days = self.pick([(), ("fri",), ("mon", "sat")])
        night = WindowSpec(days, time(22), time(3), self.pick(["UTC", "Asia/Tokyo"]))
        return self.pick([WindowSpec()] * 3 + [night, WindowSpec(days), WindowSpec(valid_from=MOMENTS[3])])

    def rule(self, exact=False):
        condition = self.exact_condition if exact else self.condition
        return RuleSpec(
            effect=self.pick(["allow", "allow", "deny"]),
            kinds=self.pick([("tool",), ("tool",), ("tool", "prompt"), ("tool", "prompt", "resource", "method")]),
            pattern=self.pick(PATTERNS),
            roles=self.pick([None, None, frozenset(self.some(ROLES, 2)), frozenset(ROLES)]),
            keys=self.pick([None, None, None, frozenset(self.some(KEYS, 1))]),
            upstreams=self.pick([(), (), ("crm",), ("crm", "pay")]),
            conditions=tuple(condition() for _ in range(self.pick([0, 0, 1, 1, 2, 3]))),
            window=self.window(),
            networks=self.pick([(), (), (), ("10.0.0.0/8",), ("::1/128",)]),
            enabled=self.random.random() < 0.9,
            observe=self.random.random() < 0.15,
            reason=self.pick(["", "ask the owner"]),
        )

    def policy(self, exact=False, most=7):
        return compiled([self.rule(exact) for _ in range(self.random.randint(0, most))])


def compiled(rules):
    """A compiled policy of these rules, with ids in order."""
    numbered = tuple(replace(rule, id=at) for at, rule in enumerate(rules, 1))
    return PolicySet(PolicySpec(tuple(RoleSpec(r) for r in ROLES), numbered, version=7))


def worlds(number: int) -> Iterator[World]:
    """So many worlds, other ones in each run."""
    first = random.SystemRandom().randrange(10**9)
    for seed in range(first, first + number):
        yield World(seed)
