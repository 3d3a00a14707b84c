from __future__ import annotations

import pytest

from proxy.credentials import SCOPE_KEY, presented, take_query_credentials

KEY = "mcps_live_abcdefghijkl_" + "s" * 49


@pytest.mark.parametrize(
    ("query", "left", "taken"),
    [
        (f"api_key={KEY}", "", [KEY]),
        (f"a=1&api_key={KEY}&b=2", "a=1&b=2", [KEY]),
        (f"api_key={KEY}&api_key={KEY}", "", [KEY, KEY]),
        ("a=1&b=2", "a=1&b=2", None),
        # Other spellings are taken out all the same, and accepted by nobody.
        (f"API_KEY={KEY}", "", []),
        (f"api%5Fkey={KEY}", "", []),
        (f"api-key={KEY};x=1", "x=1", []),
        (f"apikey={KEY}", "", []),
        ("api_key=", "", [""]),
        ("", "", None),
    ],
)
def test_keys_leave_the_url_before_anything_sees_it(query, left, taken):
    scope = {"query_string": query.encode(), "raw_path": b"/mcp/x?" + query.encode()}
    take_query_credentials(scope)
    assert scope["query_string"].decode() == left
    assert scope.get(SCOPE_KEY) == taken
    assert taken is None or KEY.encode() not in scope["raw_path"]


def test_each_place_is_read():
    assert presented([(b"authorization", b"Bearer abc")]).value == "abc"
    assert presented([(b"authorization", b"bearer  abc ")]).value == "abc"
    assert presented([(b"x-api-key", b"abc")]).via == "header"
    assert presented([], ["abc"]).via == "query"
    assert presented([]).via == "none"


@pytest.mark.parametrize("value", [b"Basic dXNlcjpwYXNz", b"abc", b"", b"Token abc"])
def test_another_scheme_is_a_credential_that_is_not_valid(value):
    found = presented([(b"authorization", value)])
    assert (found.via, found.value, found.ambiguous) == ("bearer", "", False)


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ([(b"authorization", b"Bearer a"), (b"authorization", b"Bearer a")], []),
        ([(b"authorization", b"Bearer a"), (b"x-api-key", b"a")], []),
        ([(b"authorization", b"Basic a"), (b"x-api-key", b"a")], []),
        ([(b"x-api-key", b"a")], ["a"]),
        ([], ["a", "a"]),
    ],
)
def test_more_than_one_is_ambiguous_however_equal(headers, query):
    assert presented(headers, query).ambiguous
