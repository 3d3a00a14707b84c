"""What each operator answers, case by case; the reference test covers how they combine."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.engine.conditions import (
    ERROR,
    MISSING,
    NO,
    YES,
    ConditionError,
    compile_condition,
    normal_path,
    parse_path,
)
from policies.specs import ConditionSpec


def ask(operator, wanted, value, **more):
    return compile_condition(ConditionSpec(operator, wanted, "x", **more))({"x": value})


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("amount", "amount"),
        ("filter.table", "filter|table"),
        ('["a.b"].c', "a.b|c"),
        ('a["x\\"y"]', 'a|x"y'),
        ("items[].path", "items|[]|path"),
        ("m[][]", "m|[]|[]"),
        ("über.größe", "über|größe"),
        ("a b.c-d", "a b|c-d"),
    ],
)
def test_paths(path, steps):
    assert "|".join(map(str, parse_path(path))) == steps


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", "[]", "[].a", "a.[]", "a[0]", 'a["b', "a]b", "a" * 301])
def test_paths_that_cannot_be_read(path):
    with pytest.raises(ConditionError):
        parse_path(path)


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        (100, YES), (100.0, YES), (Decimal("100.00"), YES), (100.00000001, NO), (-(2**53), YES), (2**53 + 1, ERROR),
        (-(2**53) - 1, ERROR), (1e300, ERROR), (float("nan"), ERROR), (float("-inf"), ERROR), (Decimal("1e400"), ERROR),
        (Decimal("0.1000000000000000000001"), ERROR), ("100", ERROR), (True, ERROR), ([1], ERROR), ({}, ERROR), (None, NO),
    ],
)  # fmt: skip
def test_numbers(value, answer):
    assert ask("le", 100, value) == answer


def test_missing_is_no_but_for_absent():
    for operator, wanted in (
        ("eq", 1),
        ("ne", 1),
        ("not_in", (1,)),
        ("lt", 1),
        ("not_matches", "a"),
        ("under", "/a"),
        ("present", None),
        ("type", "string"),
    ):
        check = compile_condition(ConditionSpec(operator, wanted, "a.b"))
        assert [check(v) for v in (MISSING, None, {}, {"a": None}, {"a": {}}, {"a": {"b": None}})] == [NO] * 6
    absent = compile_condition(ConditionSpec("absent", None, "a.b"))
    assert [absent(v) for v in (MISSING, {}, {"a": None}, {"a": {"b": None}}, {"a": {"b": 0}}, {"a": 5})] == [
        YES
    ] * 4 + [NO, ERROR]


@pytest.mark.parametrize(
    ("base", "value", "answer"),
    [
        ("/public", "/public", YES), ("/public", "/public/", YES), ("/public", "/public/a/../b", YES),
        ("/public", "//public//a", YES), ("/public", "/public/./a", YES), ("/public/", "/public/a", YES),
        ("/public", "/publicity", NO), ("/public", "/public/../etc/passwd", NO), ("/public", "/etc", NO),
        ("/public", "/../public", ERROR), ("/public", "public/a", ERROR), ("/public", "/public/%2e%2e/x", ERROR),
        ("/public", "/public\\..\\x", ERROR), ("/public", "/public/\0", ERROR), ("/public", "~/public", ERROR),
        ("/public", "/public/%252e", ERROR), ("/public", "", ERROR), ("/", "/anything", YES), ("docs", "docs/a", YES), ("docs", "docs/../../x", ERROR),
        ("file:///public", "file:///public/a", YES), ("file:///public", "FILE:///public/a", YES),
        ("file:///public", "file:///public/../etc", NO), ("file:///public", "file://host/public", ERROR),
        ("https://x.org/a", "https://x.org/a?b=../..", YES), ("https://x.org/a", "https://x.org.evil.net/a", NO),
        ("https://x.org/a", "/a", ERROR), ("/public", 5, ERROR),
        ("/secret", "/%73ecret/key", ERROR), ("/secret", "/Secret/key", ERROR), ("/secret", "/\u017fecret/key", ERROR), ("/secret", "/secret./key", ERROR),
        ("/secret", "/secret /key", ERROR), ("/secret", "/secret::$DATA", ERROR), ("/secret", "/SECRET~1/key", ERROR), ("/secret", "/open\uff0f..\uff0fsecret", ERROR),
        ("/a b", "/a%20b/c", ERROR), ("/a b", "/a b/c", YES), ("/a", "/a/100% done.txt", YES), ("/a", "/a/r\u00e9sum\u00e9.md", YES), ("/a", "/b/C#/x?.txt", NO),
            ("/a", "/a/..?x", ERROR), ("/a", "/a/..#/x", ERROR), ("/a", "/a/%u002e%u002e/x", ERROR), ("/a", "/a/%EF%BC%8E%EF%BC%8E/x", ERROR), ("/a", "/a/%c0%ae%c0%ae/x", ERROR),
            ("/a", "/a/%E2%80%A5/x", ERROR), ("/a", "/a/;/x", ERROR), ("/a", "/a/?x", YES), ("/a", "/a/what?", YES), ("/a", "/a/caf%C3%A9", YES),
        ("file:///secret", "file:///%73ecret/key", ERROR), ("file:///secret", "file://localhost/secret/key", ERROR), ("file:///secret", "file:/secret/key", ERROR),
        ("file:///public", "file:///public/x?/../../secret", ERROR), ("https://x.org/a", "https://u@x.org/a/b", ERROR), ("https://x.org/a", "https://x.org:443/a/b", ERROR),
        ("docs", "C:/docs/x", ERROR), ("docs", "file:/docs/x", ERROR), ("C:/data", "C:/data/x", YES), ("C:/data", "c:/data/x", ERROR),
    ],
)  # fmt: skip
def test_under(base, value, answer):
    assert ask("under", base, value) == answer
    assert ask("not_under", base, value) == (NO if answer == YES else YES if answer == NO else ERROR)


@given(st.text(alphabet="/.ab~%2e\\", max_size=20))
def test_a_normal_path_stays_below(text):
    found = normal_path(text)
    assert found is None or ".." not in found.split("/")


def test_patterns_are_linear_and_whole():
    assert ask("matches", "(a+)+", "a" * 50_000 + "b") == NO
    assert ask("matches", "a|b", "ab") == NO
    assert ask("matches", ".*", "a\nb") == YES
    assert ask("matches", "a", "\ud800") == ERROR
    assert ask("like", "a*?", "ab\n") == YES
    assert ask("like", "[a]", "[a]") == YES
    for bad in ("(", "(?=a)", r"(a)\1", "a{1001}{1000}"):
        with pytest.raises(ConditionError):
            compile_condition(ConditionSpec("matches", bad, "x"))


def test_lists():
    def items(quantifier, value, operator="eq", wanted="a"):
        return compile_condition(ConditionSpec(operator, wanted, "x[]", "arguments", quantifier))({"x": value})

    assert [items("every", v) for v in (["a", "a"], ["a", "b"], [], ["a", 5], ["b", 5], "a", None, {})] == [
        YES,
        NO,
        YES,
        ERROR,
        NO,
        ERROR,
        NO,
        ERROR,
    ]
    assert [items("any", v) for v in (["b", "a"], ["b"], [], ["a", 5], ["b", 5], [None, "a"], ["a"] * 10_001)] == [
        YES,
        NO,
        NO,
        YES,
        ERROR,
        YES,
        ERROR,
    ]
    nested = compile_condition(ConditionSpec("le", 5, "x[].y[]", "arguments", "every"))
    assert nested({"x": [{"y": [1, 2]}, {"y": [5]}]}) == YES
    assert nested({"x": [{"y": [1, 2]}, {"y": [6]}]}) == NO
    assert nested({"x": [{"y": [1]}, {}]}) == NO
    assert nested({"x": [{"y": [1] * 6000}, {"y": [1] * 6000}]}) == ERROR


def test_scalars_keep_their_types():
    assert ask("eq", "1", 1) == ERROR and ask("eq", 1, True) == ERROR and ask("eq", True, 1) == ERROR
    assert ask("in", ("a", 1), 1.0) == YES and ask("in", ("a", 1), "b") == NO and ask("in", ("a", 1), True) == ERROR
    assert ask("eq", 0.1, Decimal("0.1")) == YES and ask("ne", 0.1, Decimal("0.10000000000000001")) == ERROR
    assert ask("eq", "é", "e\u0301") == NO
    assert [ask("type", "integer", v) for v in (1, 1.0, 1.5, Decimal("1E+3"), True, "1")] == [YES, YES, NO, YES, NO, NO]


@pytest.mark.parametrize(
    "spec",
    [
        ConditionSpec("lt", "5", "x"), ConditionSpec("lt", 2**60, "x"), ConditionSpec("lt", True, "x"), ConditionSpec("eq", None, "x"),
        ConditionSpec("eq", [1], "x"), ConditionSpec("in", (), "x"), ConditionSpec("in", "ab", "x"), ConditionSpec("in", (None,), "x"),
        ConditionSpec("matches", 5, "x"), ConditionSpec("present", 1, "x"), ConditionSpec("type", "null", "x"), ConditionSpec("near", 1, "x"),
        ConditionSpec("under", "../x", "x"), ConditionSpec("under", "", "x"), ConditionSpec("eq", 1, "x[]"), ConditionSpec("eq", 1, "x", "arguments", "any"),
        ConditionSpec("eq", 1, "x[]", "arguments", "most"), ConditionSpec("eq", "a", "x", "name"), ConditionSpec("eq", 1, "x", "caller"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(spec):
    with pytest.raises(ConditionError):
        compile_condition(spec)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.decimals(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3) | st.just("x"), inner, max_size=4),
    max_leaves=12,
)


@given(json_values, st.sampled_from([("eq", "a"), ("in", (1, "b", True)), ("le", 3), ("like", "*a*"), ("not_matches", "x.*"), ("under", "/a"),
                                     ("max_length", 3), ("type", "integer"), ("present", None), ("absent", None)]),
       st.sampled_from([("x", ""), ("x.y", ""), ("x[]", "every"), ("x[].y", "any")]))  # fmt: skip
def test_no_value_breaks_a_condition(value, test, place):
    check = compile_condition(ConditionSpec(test[0], test[1], place[0], "arguments", place[1]))
    assert check({"x": value}) in (YES, NO, ERROR)
    assert check(value) in (YES, NO, ERROR)
