from __future__ import annotations

import pytest

from proxy.http.credentials import SCOPE_KEY, presented, take_query_credentials

KEY = "mcps_live_abcdefghijkl_" + "s" * 49


@pytest.mark.parametrize(
    ("query", "left", "taken"),
    [
        (f"api_key={KEY}", "", [KEY]),
        (f"a=1&api_key={KEY}&b=2", "a=1&b=2", [KEY]),
        (f"api_key={KEY}&api_key={KEY}", "", [KEY, KEY]),
        ("a=1&b=2", "a=1&b=2", None),
        # Other spellings are taken out all the same, and accepted by nobody.
        (f"API_KEY={KEY}", "", [None]),
        (f"api%5Fkey={KEY}", "", [None]),
        (f"api-key={KEY};x=1", "", [None]),
        (f"api_key={KEY};x=1", "", [None]),
        (f"x=1;api_key={KEY}&y=2", "y=2", [None]),
        (f"apikey={KEY}&api_key={KEY}", "", [None, KEY]),
        (f"api_key[]={KEY}", "", [None]),
        (f"api_key%5B0%5D={KEY}", "", [None]),
        (f"a[api_key]={KEY}", "", [None]),
        (f"auth.token={KEY}", "", [None]),
        (f"api%255Fkey={KEY}", "", [None]),
        (f"%EF%BD%81pi_key={KEY}", "", [None]),
        (f"x-api-key={KEY}", "", [None]),
        (f"+api_key={KEY}", "", [None]),
        (f"access_token={KEY}", "", [None]),
        (f"Token={KEY}&key={KEY}", "", [None, None]),
        (f"%61uthorization=Bearer+{KEY}", "", [None]),
        ("session_id=abc&monkey=1&keys=2&tokens=3", "session_id=abc&monkey=1&keys=2&tokens=3", None),
        ("api_key", "", [""]),
        ("api_key=", "", [""]),
        ("", "", None),
    ],
)
def test_keys_leave_the_url_before_anything_sees_it(query, left, taken):
    scope = {"path": "/mcp/x", "query_string": query.encode(), "raw_path": b"/mcp/x?" + query.encode()}
    take_query_credentials(scope)
    assert scope["query_string"].decode() == left
    assert scope.get(SCOPE_KEY) == taken
    assert taken is None or KEY.encode() not in scope["raw_path"]


def test_what_is_a_filter_elsewhere_stays_there():
    scope = {"path": "/admin/audit/auditevent/", "query_string": b"key=support&token=x&apikey=y"}
    take_query_credentials(scope)
    assert scope["query_string"] == b"key=support&token=x"
    assert scope[SCOPE_KEY] == [None]


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
        ([], ["a", None]),
        ([(b"authorization", b"Bearer a")], [None]),
    ],
)
def test_more_than_one_is_ambiguous_however_equal(headers, query):
    assert presented(headers, query).ambiguous


def test_a_credential_where_none_is_read_is_told_as_such():
    assert presented([], [None]).misplaced
    assert not presented([], ["a"]).misplaced
