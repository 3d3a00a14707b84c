"""What a rule may ask of a call's arguments, compiled to closures (pure).

A check answers NO, YES or ERROR. These rules hold for every operator:

- A member that is missing, or null, is missing: every operator but `absent` answers NO.
- A value of another JSON type than the operator reads is an ERROR, as are a number that does not survive a round trip
  (an integer beyond 2^53, a decimal that a double cannot hold), a list of more than 10,000 items, and a path that
  cannot be normalised without guessing, or is of another form (absolute, relative, URI) than the rule's. An allowing rule
  that errs grants nothing, a denying rule that errs denies.
- Where a path takes a step, another member that some server reads as the same (policies.engine.folding) is an ERROR, and so is an
  object of more than 1,000 members.
- Text is compared exactly: case, form and every code point count. Patterns match the whole value, in linear time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Any, Final

import re2

from policies import vocabulary
from policies.engine import glob, uris
from policies.engine.folding import fold, varied
from policies.specs import ConditionSpec

NO: Final = 0
YES: Final = 1
ERROR: Final = 2

MAX_EXACT: Final = 2**53
MAX_ITEMS: Final = 10_000
MAX_MEMBERS: Final = 1000
MAX_PATH: Final = 300

# The defaults that the protocol gives to a tool's hints; they are the cautious ones.
ANNOTATION_DEFAULTS: Final[Mapping[str, bool]] = {
    "readOnlyHint": False,
    "destructiveHint": True,
    "idempotentHint": False,
    "openWorldHint": True,
}


class ConditionError(ValueError):
    """A condition that cannot be compiled; the message says why."""


class _Missing:
    """The absence of a value."""

    def __repr__(self) -> str:
        return "MISSING"


class _Items:
    """A step of a path: each item of the list."""

    def __repr__(self) -> str:
        return "[]"


MISSING: Final = _Missing()
ITEMS: Final = _Items()
Step = str | _Items
Test = Callable[[Any], int]
Check = Callable[[Any], int]  # from the arguments (any JSON value, or MISSING) to NO, YES or ERROR

_STEP = re.compile(r'\.?(?:(?P<items>\[\])|\["(?P<quoted>(?:[^"\\]|\\["\\])*)"\]|(?P<plain>[^.\[\]"\s][^.\[\]"]*))')


def parse_path(path: str) -> tuple[Step, ...]:
    """Read a path such as `amount`, `filter.table`, `items[].path` or `["a.b"].c`."""
    if not path or len(path) > MAX_PATH:
        raise ConditionError(f"a path has 1 to {MAX_PATH} characters")
    steps: list[Step] = []
    at = 0
    while at < len(path):
        found = _STEP.match(path, at)
        dotted = path[at] == "."
        bracketed = found is not None and found["plain"] is None
        if found is None or (bracketed and dotted) or (not bracketed and dotted != bool(steps)):
            raise ConditionError(f"the path {path!r} cannot be read at character {at + 1}")
        if found["items"]:
            steps.append(ITEMS)
        elif found["quoted"] is not None:
            steps.append(re.sub(r"\\(.)", r"\1", found["quoted"]))
        else:
            steps.append(found["plain"])
        at = found.end()
    if steps[0] is ITEMS:
        raise ConditionError(f"the path {path!r} starts with a member's name")
    return tuple(steps)


def exact_number(value: Any) -> int | float | None:
    """The number a condition may compare, or None when it is none or was altered by being read."""
    if type(value) is int:
        return value if -MAX_EXACT <= value <= MAX_EXACT else None
    if type(value) is float:
        return value if isfinite(value) and (-MAX_EXACT <= value <= MAX_EXACT or not value.is_integer()) else None
    if isinstance(value, Decimal):
        try:
            near = float(value)
            if not isfinite(near) or Decimal(repr(near)) != value:
                return None
        except (InvalidOperation, OverflowError, ValueError):
            return None
        return exact_number(near)
    return None


def is_number(value: Any) -> bool:
    """Whether this is a JSON number (true and false are not)."""
    return type(value) in (int, float) or isinstance(value, Decimal)


def json_type(value: Any) -> str:
    if value is None or value is MISSING:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if is_number(value):
        return "number"
    return "array" if isinstance(value, list | tuple) else "object"


def normal_path(text: str, *, own: bool = False) -> str | None:
    """A path or URI with `.` and `..` resolved; None where servers could disagree on what it means.

    `own`: it is a rule's, whose author says how it is spelled.
    """
    if (
        len(text) > uris.LONGEST
        or any(ord(c) < 32 or c == "\\" or c == "\x7f" for c in text)
        or re.search(r"%(2e|2f|5c|00|25)", text, re.I)
    ):
        return None
    root, rest = "", text
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*", text)
    if scheme:
        root, rest = scheme[0].lower(), re.split(r"[?#]", text[scheme.end() :], maxsplit=1)[0]
        if (rest and not rest.startswith("/")) or (root.startswith("file:") and scheme.end() + len(rest) < len(text)):
            return None
    elif text.startswith("~") or re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        return None
    absolute = rest.startswith("/")
    parts: list[str] = []
    for part in rest.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    found = root + ("/" if absolute or (scheme and parts) else "") + "/".join(parts)
    if own:
        return found
    return None if (uris.ambiguous(found) if scheme else uris.odd_path(found)) else found


def _scalar_test(values: tuple[Any, ...]) -> Test:
    """Whether a value is one of these; a value of none of their types is an error."""
    strings = frozenset(v for v in values if isinstance(v, str))
    booleans = frozenset(v for v in values if isinstance(v, bool))
    numbers = frozenset(v for v in values if is_number(v))
    has_strings, has_booleans, has_numbers = bool(strings), bool(booleans), bool(numbers)

    def test(value: Any) -> int:
        if isinstance(value, str):
            return (YES if value in strings else NO) if has_strings else ERROR
        if isinstance(value, bool):
            return (YES if value in booleans else NO) if has_booleans else ERROR
        if has_numbers:
            number = exact_number(value)
            if number is not None:
                return YES if number in numbers else NO
        return ERROR

    return test


def _negated(test: Test) -> Test:
    flipped = (YES, NO, ERROR)
    return lambda value: flipped[test(value)]


def _order_test(operator: str, bound: int | float) -> Test:
    def test(value: Any) -> int:
        number = exact_number(value)
        if number is None:
            return ERROR
        if operator == "lt":
            return YES if number < bound else NO
        if operator == "le":
            return YES if number <= bound else NO
        if operator == "gt":
            return YES if number > bound else NO
        return YES if number >= bound else NO

    return test


def _pattern_test(regex: str) -> Test:
    try:
        compiled = re2.compile(regex, glob.options())
    except re2.error as error:
        text = error.args[0] if error.args else error
        raise ConditionError(
            f"the pattern cannot be compiled: {text.decode() if isinstance(text, bytes) else text}"
        ) from None

    def test(value: Any) -> int:
        if not isinstance(value, str):
            return ERROR
        try:
            return YES if compiled.fullmatch(value) is not None else NO
        except UnicodeEncodeError:
            return ERROR

    return test


def _path_form(path: str) -> str:
    if re.match(r"[A-Za-z]:", path):
        return "drive"
    return "uri" if "://" in path else "absolute" if path.startswith("/") else "relative"


def _under_test(base: str) -> Test:
    """Whether a path lies below another; an error where it does to some servers only, since they fold case or read escapes."""
    root = normal_path(base, own=True)
    if not root:
        raise ConditionError(f"{base!r} is not a path that can be normalised")
    form = _path_form(root)
    folded = fold(uris.decoded(root))

    def lies(path: str, root: str) -> bool:
        return path == root or path.startswith(root if root.endswith("/") else root + "/")

    def test(value: Any) -> int:
        if not isinstance(value, str):
            return ERROR
        path = normal_path(value)
        if path is None or _path_form(path) != form:
            return ERROR
        below = lies(path, root)
        if below != lies(fold(uris.decoded(path)), folded):
            return ERROR
        return YES if below else NO

    return test


def _length_test(operator: str, bound: int | float) -> Test:
    def test(value: Any) -> int:
        if not isinstance(value, str | list | tuple):
            return ERROR
        return YES if (len(value) >= bound if operator == "min_length" else len(value) <= bound) else NO

    return test


def _type_test(wanted: str) -> Test:
    def test(value: Any) -> int:
        if wanted == "integer":
            whole = type(value) is int or (isinstance(value, float) and value.is_integer())
            return (
                YES
                if whole or (isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value())
                else NO
            )
        return YES if json_type(value) == wanted else NO

    return test


def check_value(spec: ConditionSpec) -> None:
    """Refuse a value that does not fit its operator, in words that name both."""
    wanted = vocabulary.OPERATORS.get(spec.operator, "")
    value, word = spec.value, spec.operator
    if wanted == "":
        raise ConditionError(f"there is no operator {word!r}; there are {', '.join(vocabulary.OPERATORS)}")
    if wanted is None:
        if value is not None:
            raise ConditionError(f"{word} takes no value")
    elif wanted == "number":
        if exact_number(value) is None:
            raise ConditionError(f"{word} takes a number within 2^53, not {value!r:.60}")
    elif wanted == "string":
        if not isinstance(value, str):
            raise ConditionError(f"{word} takes text, not {value!r:.60}")
    elif wanted == "array":
        if not isinstance(value, list | tuple) or not value or len(value) > 1000:
            raise ConditionError(f"{word} takes a list of 1 to 1000 values")
        for item in value:
            _check_scalar(word, item)
    else:
        _check_scalar(word, value)
    if word == "type" and value not in vocabulary.JSON_TYPES:
        raise ConditionError(f"type is one of {', '.join(vocabulary.JSON_TYPES)}")


def _check_scalar(word: str, value: Any) -> None:
    if not isinstance(value, str | bool) and exact_number(value) is None:
        raise ConditionError(f"{word} takes text, a number within 2^53, true or false, not {value!r:.60}")


def value_test(spec: ConditionSpec) -> Test:
    """Compile the operator and its value to a test of one present value."""
    check_value(spec)
    operator, value = spec.operator, spec.value
    if operator in ("eq", "ne", "in", "not_in"):
        test = _scalar_test(tuple(value) if operator in ("in", "not_in") else (value,))
        return _negated(test) if operator in ("ne", "not_in") else test
    if operator in ("lt", "le", "gt", "ge"):
        return _order_test(operator, value)
    if operator in ("like", "not_like"):
        test = _pattern_test(glob.to_regex(value))
        return _negated(test) if operator == "not_like" else test
    if operator in ("matches", "not_matches"):
        test = _pattern_test(value)
        return _negated(test) if operator == "not_matches" else test
    if operator in ("under", "not_under"):
        test = _under_test(value)
        return _negated(test) if operator == "not_under" else test
    if operator in ("min_length", "max_length"):
        return _length_test(operator, value)
    if operator == "type":
        return _type_test(value)
    return lambda present: YES if operator == "present" else NO


def walk(value: Any, steps: tuple[Step, ...]) -> tuple[int, Any]:
    """Follow members down; (YES, value), (NO, MISSING), or (ERROR, MISSING) where a scalar or list is in the way, or a
    member that could be taken for the one that is meant.
    """
    for step in steps:
        if value is None or value is MISSING:
            return NO, MISSING
        if not isinstance(value, Mapping) or len(value) > MAX_MEMBERS or varied(value, step):  # type: ignore[arg-type]
            return ERROR, MISSING
        value = value.get(step, MISSING)
    return (NO, MISSING) if value is None or value is MISSING else (YES, value)


def _spread(value: Any, steps: tuple[Step, ...], budget: list[int]) -> tuple[int, list[Any]]:
    """The values a path with [] names, MISSING among them; ERROR for what is no list, or too long a one.

    `budget`: how many items and how many members may still be looked at.
    """
    for at, step in enumerate(steps):
        if step is ITEMS:
            if value is None or value is MISSING:
                return NO, []
            if not isinstance(value, list | tuple) or len(value) > budget[0]:
                return ERROR, []
            budget[0] -= len(value)
            found: list[Any] = []
            for item in value:
                state, below = _spread(item, steps[at + 1 :], budget)
                if state == ERROR:
                    return ERROR, []
                found.extend(below if state == YES else [MISSING])
            return YES, found
        if isinstance(value, Mapping):
            budget[1] -= len(value)
            if budget[1] < 0:
                return ERROR, []
        state, value = walk(value, (step,))
        if state == ERROR:
            return ERROR, []
    return YES, [MISSING if value is None else value]


def compile_condition(spec: ConditionSpec) -> Check:
    """Compile a condition to a check of its subject: the arguments, the annotations, or the name."""
    if spec.subject not in vocabulary.SUBJECTS:
        raise ConditionError(f"there is no subject {spec.subject!r}")
    test = value_test(spec)
    missing = YES if spec.operator == "absent" else NO
    if spec.subject == "name":
        if spec.path or spec.quantifier:
            raise ConditionError("a condition on the name has neither path nor quantifier")
        return test
    steps = parse_path(spec.path)
    if ITEMS not in steps:
        if spec.quantifier:
            raise ConditionError("every and any need a path with []")
        return _path_check(steps, test, missing)
    if spec.quantifier not in vocabulary.QUANTIFIERS:
        raise ConditionError("a path with [] needs every or any")
    return _items_check(steps, test, missing, every=spec.quantifier == "every")


def _path_check(steps: tuple[Step, ...], test: Test, missing: int) -> Check:
    def check(value: Any) -> int:
        state, found = walk(value, steps)
        return test(found) if state == YES else missing if state == NO else ERROR

    return check


def _items_check(steps: tuple[Step, ...], test: Test, missing: int, *, every: bool) -> Check:
    """`every`: one NO settles it, then an ERROR, else YES. `any`: one YES settles it, then an ERROR, else NO."""
    settles, otherwise = (NO, YES) if every else (YES, NO)

    def check(value: Any) -> int:
        state, found = _spread(value, steps, [MAX_ITEMS, MAX_ITEMS * 10])
        if state != YES:
            return missing if state == NO else ERROR
        erred = False
        for item in found:
            answer = missing if item is MISSING else test(item)
            if answer == settles:
                return settles
            erred = erred or answer == ERROR
        return ERROR if erred else otherwise

    return check
