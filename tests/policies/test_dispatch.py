"""Names of tools within arguments: found where they were said to be, and nothing guessed."""

import pytest

from policies.dispatch import PATH, inner_names


@pytest.mark.parametrize(
    ("arguments", "path", "found"),
    [
        ({"name": "a"}, "name", ("a",)),
        ({"name": ["a"]}, "name", None),
        ({"name": ["a", "b"]}, "name.*", ("a", "b")),
        ({"call": {"tool": "a"}}, "call.tool", ("a",)),
        ({"calls": [{"tool": "a"}, {"tool": "b"}]}, "calls.*.tool", ("a", "b")),
        ({"calls": [{"tool": "a"}, {"other": "b"}]}, "calls.*.tool", None),
        ({"calls": []}, "calls.*.tool", None),
        ({"calls": [{"tool": "a"}] * 101}, "calls.*.tool", None),
        ({"name": ""}, "name", None),
        ({"name": 1}, "name", None),
        ({}, "name", None),
        (None, "name", None),
        ("name", "name", None),
    ],
)
def test_what_stands_at_a_path(arguments, path, found):
    assert inner_names(arguments, path) == found


def test_paths():
    assert all(PATH.match(path) for path in ("name", "a.b", "calls.*.tool", "x-y_z"))
    assert not any(
        PATH.match(path) for path in ("", "*", "*.a", "a..b", ".a", "a.", "a b", "a*", ".".join("abcdefghi"))
    )
