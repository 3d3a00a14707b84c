"""Policy as YAML: what is read, what is refused and where, and that writing and reading are each other's inverse."""

import re
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.documents.diff import plan
from policies.documents.reader import DocumentError, parse, parse_short
from policies.documents.writer import render, scalar
from policies.engine import glob
from policies.specs import AuditSpec, LimitSpec, PolicySpec, RoleSpec
from tests.policies.world import UPSTREAMS, worlds

ISSUE = """\
roles:
  admin:    {allow: ["*"]}
  user:     {allow: ["public.echo", "list_*"]}
  readonly: {allow: ["list_customers"]}
rate_limits:
  per_api_key: {requests: 120, window_seconds: 60}
  per_tool:
    default: {requests: 60, window_seconds: 60}
    overrides: {public.echo: {requests: 3, window_seconds: 60}}
"""


def test_the_short_form():
    spec = parse(ISSUE).spec
    assert [role.name for role in spec.roles] == ["admin", "user", "readonly"]
    assert [(r.effect, r.kinds, r.pattern, r.roles) for r in spec.rules] == [
        ("allow", ("tool", "prompt", "resource", "method"), "*", {"admin"}),
        ("allow", ("tool",), "public.echo", {"user"}),
        ("allow", ("tool",), "list_*", {"user"}),
        ("allow", ("tool",), "list_customers", {"readonly"}),
    ]
    assert spec.limits == (
        LimitSpec(120, 60, per=("key",)),
        LimitSpec(60, 60, per=("key", "upstream", "tool"), kind="tool", is_default=True),
        LimitSpec(3, 60, per=("key", "upstream", "tool"), kind="tool", pattern="public.echo"),
    )


@pytest.mark.parametrize(
    ("pattern", "meaning"),
    [
        ("*", (("tool", "prompt", "resource", "method"), (), "*")),
        ("x*", (("tool",), (), "x*")),
        ("prompt:*", (("prompt",), (), "*")),
        ("resource:file:///a/*", (("resource",), (), "file:///a/*")),
        ("method:tasks/get", (("method",), (), "tasks/get")),
        ("@crm/*", (("tool",), ("crm",), "*")),
        ("@crm/prompt:a?", (("prompt",), ("crm",), "a?")),
        ("a.b:c", (("tool",), (), "a.b:c")),
    ],
)
def test_short_patterns(pattern, meaning):
    assert parse_short(pattern) == meaning


@pytest.mark.parametrize(
    "pattern", ["", "@crm", "@/x", "@Crm/x", "@crm/", "prompt:", "tool:x", "tols:x", "@crm/@pay/x" * 60]
)
def test_short_patterns_that_are_refused(pattern):
    with pytest.raises(ValueError, match=r"."):
        parse_short(pattern)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("roles:\n  a: {alow: []}", "line 2, column 7: role a has no member 'alow'; it has description, allow, deny"),
        ("role: {}", "line 1, column 1: a policy has no member 'role'; it has version, roles, rules, rate_limits, audit"),
        ("roles: {a: {allow: [5]}}", "line 1, column 21: a pattern is text, not a whole number (5); put it in quotes"),
        ("roles: {a: {allow: x}}", "line 1, column 20: allow is a list, not text (x)"),
        ("roles: {a: {}, a: {}}", "line 1, column 16: 'a' stands here twice"),
        ("roles: {'a b': {}}", "line 1, column 9: a role's name has letters, digits and . _ - only, at most 64"),
        ("roles: {a: {allow: ['wiget:x']}}", "line 1, column 21: wiget: is no kind; prompt:, resource: and method: are, "
         "and a tool's name with a colon needs a long rule"),
        ("rate_limits: {per_api_key: {requests: 0, window_seconds: 60}}", "line 1, column 39: requests is a whole number from 1 to 1000000"),
        ("rate_limits: {per_api_key: {requests: 1}}", "line 1, column 28: a limit says its window_seconds"),
        ("rate_limits: {per_tool: {overrides: {'*': {requests: 1, window_seconds: 1}}}}", "line 1, column 38: an override names a tool; for all tools there is default"),
        ("rate_limits: {limits: [{role: b, requests: 1, window_seconds: 1}]}", "line 1, column 31: there is no role 'b' in this document"),
        ("rules: [{effect: allow, roles: [b], tool: x}]", "line 1, column 33: there is no role 'b' in this document"),
        ("rules: [{effect: allow, tool: x}]", "line 1, column 9: a rule says its roles: a list, or \"*\" for every role"),
        ("rules: [{effect: permit, roles: '*', tool: x}]", "line 1, column 18: effect is one of allow, deny, not 'permit'"),
        ("rules: [{effect: deny, roles: '*'}]", "line 1, column 9: say one of tool, prompt, resource, method (each with a pattern), or kinds and pattern"),
        ("rules: [{effect: deny, roles: '*', tool: x, when: [{argument: a, less: 5}]}]", "line 1, column 66: a condition has no member 'less'; it has argument, annotation, subject, items, eq, ne"),
        ("rules: [{effect: deny, roles: '*', tool: x, when: [{argument: a, lt: '5'}]}]", "line 1, column 52: lt takes a number within 2^53, not '5'"),
        ("rules: [{effect: allow, roles: '*', tool: x, when: [{argument: a, lt: 1}, {argument: a, gt: 2}]}]", "line 1, column 52: these conditions can never hold together"),
        ("rules: [{effect: deny, roles: '*', tool: x, hours: {from: '25:00', to: '09:00'}}]", "line 1, column 59: there is no time '25:00'"),
        ("rules: [{effect: deny, roles: '*', tool: x, hours: {zone: Mars/Base}}]", "line 1, column 59: there is no time zone 'Mars/Base'"),
        ("rules: [{effect: deny, roles: '*', tool: x, networks: [10.0.0.1/8]}]", "line 1, column 56: not an IP network: 10.0.0.1/8 has host bits set"),
        ("rules: [{effect: deny, roles: '*', tool: x, keys: [mcps_live_short]}]", "line 1, column 52: a key is named by its visible part, like mcps_live_0123456789AB, and nothing more"),
        ("audit: [{tool: x}]", "line 1, column 9: say the level: one of full, request, digest, none"),
        ("a: &x 1\nb: *x", "line 1, column 4: anchors and aliases are not used here"),
        ("roles: [", "line 2, column 1: "),
        ("--- {}\n--- {}", "line 2, column 1: "),
        ("[" * 50, "line 1, column 17: nested too deep"),
        ("- 1", "line 1, column 1: a policy is a mapping, not a list"),
        ("roles: !!python/object:os.system {}", "line 1, column 8: tags are not used here"),
        ("\0", "control characters"),
    ],
)  # fmt: skip
def test_every_mistake_has_its_place(text, problem):
    with pytest.raises(DocumentError) as refused:
        parse(text)
    assert problem in refused.value.problems[0] or any(problem in p for p in refused.value.problems)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(DocumentError) as refused:
        parse("roles:\n  a: {alow: []}\n  b: {allow: [5]}\nlimits: {}")
    assert len(refused.value.problems) == 3


def test_what_is_absent_is_none():
    assert parse("").spec == parse("{}").spec == parse("roles:\n").spec == PolicySpec()
    assert parse("roles: {a: {allow: []}, b: {}, c: }").spec.rules == ()


def test_words_that_yaml_1_1_takes_for_something_else_stay_text():
    spec = parse("roles: {on: {allow: [no, yes, 1_000, 17:30]}}").spec
    assert [rule.pattern for rule in spec.rules] == ["no", "yes", "1_000", "17:30"]
    assert parse(render(spec)).spec == spec


def _stored(spec: PolicySpec) -> PolicySpec:
    """As a database would give it back: roles by name."""
    return replace(spec, roles=tuple(sorted(spec.roles, key=lambda role: role.name)))


def test_writing_and_reading_are_inverse():
    for world in worlds(400):
        rules = []
        for at in range(world.random.randint(0, 6)):
            rule = world.rule()
            if any(c.value == "\ud800" for c in rule.conditions):
                continue
            name = world.pick(["", "", f'rule {at}: "x" é\u200b'])
            rules.append(replace(rule, name=name, note=world.pick(["", "why: # not", "- a\nb"])))
        roles = tuple(RoleSpec(name, world.pick(["", "Some: text"])) for name in ("admin", "guest", "user"))
        limits = tuple(_limit(world) for _ in range(world.random.randint(0, 4)))
        audit = tuple(
            AuditSpec(world.pick(["full", "none"]), ("tool",), "x*", upstream=world.pick(["", "crm"]))
            for _ in range(world.random.randint(0, 2))
        )
        spec = PolicySpec(roles, tuple(rules), limits, audit)
        text = render(spec)
        try:
            again = parse(text).spec
        except DocumentError as error:
            assert all("never hold together" in problem for problem in error.problems), (text, error)
            continue
        assert plan(spec, again).empty, (world.seed, text)
        assert render(again) == text or plan(again, parse(render(again)).spec).empty
        assert render(parse(render(again)).spec) == render(again), world.seed


def _limit(world):
    kind = world.pick(["", "tool", "prompt"])
    pattern = world.pick(["", "a*"]) if kind else ""
    per = tuple(w for w in ("key", "role", "upstream", *(["tool"] if kind else [])) if world.random.random() < 0.6)
    return LimitSpec(
        world.random.randint(1, 100),
        world.random.randint(1, 100),
        per=per,
        role=world.pick([None, "user"]),
        upstream=world.pick(["", UPSTREAMS[0]]),
        kind=kind,
        pattern=pattern,
        is_default=bool(kind and not pattern and world.random.random() < 0.5),
        burst=world.pick([None, 1]),
        enabled=world.random.random() < 0.8,
        name=world.pick(["", "n"]),
    )


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40))
def test_any_text_survives_as_a_scalar(text):
    spec = parse(f"roles: {{a: {{description: {scalar(text)}}}}}").spec
    assert spec.roles[0].description == text


def test_a_plan_keeps_what_is_equal_and_changes_in_place_what_is_akin():
    def stored(spec):
        return replace(
            spec,
            roles=tuple(replace(r, id=i) for i, r in enumerate(spec.roles, 10)),
            rules=tuple(replace(r, id=i) for i, r in enumerate(spec.rules, 20)),
            limits=tuple(replace(r, id=i) for i, r in enumerate(spec.limits, 30)),
        )

    old = stored(parse(ISSUE).spec)
    assert plan(old, parse(ISSUE).spec).empty
    changed = (
        ISSUE.replace("list_customers", "list_orders")
        .replace("requests: 3,", "requests: 5,")
        .replace('  admin:    {allow: ["*"]}\n', "")
    )
    steps = plan(old, parse(changed).spec)
    assert sorted(steps.lines()) == [
        "+ rule allow readonly: tool list_orders",
        "- role admin",
        "- rule allow admin: everything",
        "- rule allow readonly: tool list_customers",
        "~ limit 5 in 60 s per key and upstream and tool for tool public.echo",
    ]
    assert steps.limits[0].after.id == 32


def test_time_grows_with_the_number_of_rules_and_not_with_its_square():
    def seconds(rules: int) -> float:
        one = "  - {{name: rule {0}, effect: allow, roles: [r], tool: tool_{0}, when: [{{argument: a, ge: 1}}, {{argument: a, le: {0}}}]}}"
        text = "roles: {r: {}}\nrules:\n" + "\n".join(one.format(at) for at in range(1, rules + 1))
        begun = time.process_time()
        assert len(parse(text).spec.rules) == rules
        return time.process_time() - begun

    few = min(seconds(250) for _ in range(3))
    assert seconds(4000) < 16 * few * 4


ROLE = "roles: {a: {allow: []}}\nrules:\n  - {name: r, effect: allow, roles: [a], tool: t, when: ["


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("roles: {a: {allow: [" + "b*c*d," * 150_000 + "]}}", "at most 20000 rules"),
        ("roles:\n" + "".join(f"  r{n}: {{allow: [a]}}\n" for n in range(25_000)), "at most 20000 rules"),
        (ROLE + ",".join(f"{{argument: x, ne: {n}}}" for n in range(20_000)) + "]}\n", "at most 100 conditions"),
        (ROLE + ",".join(f"{{argument: x{n}, ne: {n}}}" for n in range(20_000)) + "]}\n", "at most 100 conditions"),
        ("roles: [" + "a," * 850_000 + "]", "at most 400000 names"),
        (
            "roles: {a: {allow: []}}\nrules:\n"
            + "".join(
                f"  - {{effect: allow, roles: [a], tool: t{n}, when: [{{argument: x, matches: '(a{{1,50}}){{1,9}}{n}'}}]}}\n"
                for n in range(1100)
            ),
            "at most 1000 regular expressions",
        ),
    ],
    ids=["patterns", "roles", "conditions-on-one", "conditions-on-many", "nodes", "expressions"],
)
def test_what_would_take_long_is_refused_soon(text: str, said: str) -> None:
    since = time.process_time()
    with pytest.raises(DocumentError, match=said):
        parse(text)
    assert time.process_time() - since < 15, "of a second or two"


def test_impossible_conditions_are_looked_for_within_bounds() -> None:
    """Rules whose conditions cut one argument into very many regions, as many as there may be."""
    conditions = ",".join(
        f"{{argument: x.y{m % 9}, not_in: [{','.join(map(str, range(m, m + 90)))}]}}" for m in range(100)
    )
    text = "roles: {a: {allow: []}}\nrules:\n" + "".join(
        f"  - {{effect: allow, roles: [a], tool: t{n}, when: [{conditions}]}}\n" for n in range(35)
    )
    since = time.process_time()
    assert len(parse(text).spec.rules) == 35
    assert time.process_time() - since < 15, "of a second or two"


@given(st.text("ab*", min_size=1, max_size=12), st.text("ab", max_size=12))
def test_a_pattern_of_stars_matches_as_its_expression_does(pattern: str, name: str) -> None:
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None
    assert glob.matcher(pattern)(name) is expected
