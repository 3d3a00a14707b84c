"""A member that some server reads as another decides nothing by itself: conditions err where there is one beside theirs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.engine.conditions import ERROR, MAX_MEMBERS, MISSING, NO, YES, compile_condition
from policies.engine.folding import fold, loose, varied
from policies.specs import ConditionSpec


def ask(path, arguments, operator="le", wanted=100, quantifier=""):
    return compile_condition(ConditionSpec(operator, wanted, path, "arguments", quantifier))(arguments)


VARIANTS = [
    "Amount", "AMOUNT", "amOunt", "amount ", " amount", "am\u200bount", "amount\u200d", "\ufeffamount", "a_mount", "am-ount", "_amount", "\uff41mount", "amount\0", "amount\0x",
    "amount\u0301", "amoun\u1d57",
]  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_makes_every_operator_err_whether_the_member_is_there_or_not(variant):
    assert varied({variant: 1}, "amount")
    for arguments in ({"amount": 50, variant: 99_999}, {variant: 99_999, "amount": 50}, {variant: 99_999}):
        for operator, wanted in (
            ("le", 100),
            ("gt", 100),
            ("absent", None),
            ("present", None),
            ("ne", 5),
            ("type", "number"),
        ):
            assert ask("amount", arguments, operator, wanted) == ERROR


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("customer_id", "cu\u017ftomer_id"), ("customer_id", "CUSTOMER_ID"), ("customer_id", "customerId"), ("customer_id", "customer-id"), ("token", "to\u212aen"), ("key", "\u212aEY"),
        ("stra\u00dfe", "STRASSE"), ("stra\u00dfe", "STRA\u1e9eE"), ("id", "\u0131d"), ("id", "\u0130D"), ("\u03c3", "\u03c2"), ("\u00b5", "\u03bc"), ("file", "\ufb01le"), ("caf\u00e9", "CAFE\u0301"), ("x.y", "X.Y"),
    ],
)  # fmt: skip
def test_names_that_fold_alike(name, variant):
    assert loose(name) == loose(variant)
    assert varied({name: 1, variant: 2}, name) and varied({variant: 2}, name)


@pytest.mark.parametrize("other", ["amounts", "amoun", "a.mount", "total", "", "am0unt", "amount2", "\u0430mount"])
def test_other_members_are_no_variants(other):
    assert ask("amount", {"amount": 50, other: 1}) == YES
    assert ask("amount", {other: 1}) == NO


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("filter.table", {"filter": {"table": 1}, "Filter": {}}), ("filter.table", {"filter": {"table": 1, "TABLE": 2}}), ("filter.table", {"Filter": {"table": 1}}),
        ("lines[].sku", {"lines": [{"sku": 1}, {"sku": 1, "Sku": 2}]}), ("lines[].sku", {"lines": [{"sku": 1}], "Lines": []}), ("m[][].x", {"m": [[{"x": 1, "X": 1}]]}),
        ('["a.b"].c', {"a.b": {"c": 1}, "A.B": {"c": 2}}), ("x", {f"y{n}": 1 for n in range(MAX_MEMBERS + 1)}),
    ],
)  # fmt: skip
def test_every_step_of_every_form_of_path(path, arguments):
    for quantifier in ("every", "any") if "[]" in path else ("",):
        assert ask(path, arguments, "le", 5, quantifier) == ERROR


def test_many_members_in_many_items_are_bounded():
    items = [{f"y{n}_{m}": 1 for m in range(900)} for n in range(200)]
    assert ask("x[].sku", {"x": items}, "absent", None, "every") == ERROR


def test_what_is_not_an_object_stays_as_it_was():
    assert (ask("a.b", {"a": 5}), ask("a", 5), ask("a", MISSING), ask("a", None)) == (ERROR, ERROR, NO, NO)


def go_equal(name, other):
    """Go's `bytes.EqualFold`: simple folding, rune by rune."""
    return len(name) == len(other) and all(
        a == b or a.lower() == b.lower() or a.upper() == b.upper() or {a, b} <= set("sS\u017f") or {a, b} <= set("kK\u212a")
        for a, b in zip(name, other, strict=True)
    )  # fmt: skip


def last_of(arguments, name, same):
    found = MISSING
    for other, value in arguments.items():
        if same(other, name):
            found = value
    return found


READERS = [
    go_equal,
    lambda a, b: a.upper() == b.upper(),  # .NET's OrdinalIgnoreCase, Java's equalsIgnoreCase
    lambda a, b: a.casefold() == b.casefold(),
    lambda a, b: a.replace("_", "").lower() == b.replace("_", "").lower(),  # protobuf's JSON
    lambda a, b: a.partition("\0")[0] == b,
]
NAMES = st.text(st.sampled_from("aAkK\u212asS\u017fiI\u0131\u0130_\0\u00df"), min_size=1, max_size=4)


@given(st.dictionaries(NAMES, st.integers(0, 9), max_size=5), NAMES.filter(lambda name: "\0" not in name))
def test_a_reader_that_folds_sees_what_the_condition_saw_or_the_condition_errs(arguments, name):
    quoted = f'["{name}"]'
    answer = ask(quoted, arguments, "le", 4)
    if answer == ERROR:
        return
    for same in READERS:
        seen = last_of(arguments, name, same)
        assert (YES if seen is not MISSING and seen <= 4 else NO) == answer


@given(st.text(max_size=40))
def test_folding_is_settled_after_once(text):
    assert fold(fold(text)) == fold(text)
