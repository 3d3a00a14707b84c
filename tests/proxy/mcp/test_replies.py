"""One message of an upstream: understood by every reader alike, or refused."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.mcp.replies import MOST_VALUES, Unreadable, crowded, read, same_id

GOOD = [
    ('{"jsonrpc":"2.0","id":1,"result":{}}', "response", 1),
    (' {"jsonrpc" : "2.0",\n"id":"x","error":{"code":1,"message":"method"}} ', "response", "x"),
    ('{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}', "response", None),
    ('{"jsonrpc":"2.0","error":{"code":1,"message":""}}', "response", None),
    ('{"jsonrpc":"2.0","\\u0069d":1,"result":{}}', "response", 1),
    ('{"jsonrpc":"2.0","id":1,"result":{"t":"\\ud800"}}', "response", 1),
    ('{"jsonrpc":"2.0","id":1,"result":{"n":1e999,"m":1.10,"i":123456789012345678901234567890}}', "response", 1),
    ('{"jsonrpc":"2.0","id":1,"result":{"a":"\\u003a:","b":{"a":1}}}', "response", 1),
    ('{"jsonrpc":"2.0","id":9,"method":"sampling/createMessage","params":{}}', "request", 9),
    ('{"jsonrpc":"2.0","method":"notifications/progress","params":{"id":1,"result":2}}', "notification", None),
    ('{"jsonrpc":"2.0","id":1,"result":{},"more":[]}', "response", 1),
]


@pytest.mark.parametrize(("data", "kind", "rpc_id"), GOOD, ids=lambda value: repr(value)[:60])
def test_what_a_message_is(data: str, kind: str, rpc_id: object) -> None:
    reply = read(data.encode())
    assert (reply.kind, reply.id) == (kind, rpc_id)
    assert (reply.method != "") == (kind != "response")


BAD = {
    "": "not_json",
    "not json": "not_json",
    '{"jsonrpc":"2.0","id":1,"result":{}': "not_json",
    '{"jsonrpc":"2.0","id":1,"result":{}} x': "not_json",
    '{"jsonrpc":"2.0","id":1,"result":{}}{}': "not_json",
    '{"jsonrpc":"2.0","id":1,"result":{}}\n{"jsonrpc":"2.0","id":1,"result":{}}': "not_json",
    '{"jsonrpc":"2.0","id":1,"result":{"a":NaN}}': "not_json",
    '{"jsonrpc":"2.0","id":1,"result":{"a":-Infinity,"b":"\\ud800"}}': "not_json",
    "{'jsonrpc':'2.0','id':1,'result':{}}": "not_json",
    '{"jsonrpc":"2.0","id":1,"result":{},}': "not_json",
    '{"jsonrpc":"2.0","id":1,/**/"result":{}}': "not_json",
    '\ufeff{"jsonrpc":"2.0","id":1,"result":{}}': "not_json",
    '{"jsonrpc":"2.0","id":1,"result":{"a":"\n"}}': "not_json",
    '[{"jsonrpc":"2.0","id":1,"result":{}}]': "batch",
    "[]": "batch",
    '"x"': "invalid_request",
    "null": "invalid_request",
    "{}": "invalid_request",
    '{"jsonrpc":"2.0"}': "invalid_request",
    '{"id":1,"result":{}}': "invalid_request",
    '{"jsonrpc":"1.0","id":1,"result":{}}': "invalid_request",
    '{"jsonrpc":2.0,"id":1,"result":{}}': "invalid_request",
    '{"jsonrpc":"2.0","result":{}}': "invalid_request",
    '{"jsonrpc":"2.0","id":null,"result":{}}': "invalid_request",
    '{"jsonrpc":"2.0","id":1.0,"result":{}}': "invalid_request",
    '{"jsonrpc":"2.0","id":true,"result":{}}': "invalid_request",
    '{"jsonrpc":"2.0","id":[1],"result":{}}': "invalid_request",
    '{"jsonrpc":"2.0","id":null,"method":"x"}': "invalid_request",
    '{"jsonrpc":"2.0","id":1,"method":""}': "invalid_request",
    '{"jsonrpc":"2.0","id":1,"method":7}': "invalid_request",
    '{"jsonrpc":"2.0","id":1,"method":"x","params":"y"}': "invalid_request",
    '{"jsonrpc":"2.0","id":1,"method":"x","result":{}}': "invalid_request",
    '{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}': "invalid_request",
    '{"jsonrpc":"2.0","id":1,"result":null}': "invalid_request",
    '{"jsonrpc":"2.0","id":1,"result":[{"name":"x"}]}': "invalid_request",
    '{"jsonrpc":"2.0","id":1,"error":"x"}': "invalid_request",
    '{"jsonrpc":"2.0","id":1,"result":{},"Result":{}}': "reserved_member",
    '{"jsonrpc":"2.0","id":1,"result":{},"__proto__":{"result":{}}}': "reserved_member",
    '{"jsonrpc":"2.0","ID":1,"id":2,"result":{}}': "reserved_member",
    '{"jsonrpc":"2.0","id":1,"result":{},"re\\u017fult":{}}': "reserved_member",
    '{"jsonrpc":"2.0","id":1,"result":{},"result":{}}': "duplicate_member",
    '{"jsonrpc":"2.0","id":1,"result":{},"resul\\u0074":{}}': "duplicate_member",
    '{"jsonrpc":"2.0","id":1,"result":{"tools":[],"tools":[{}]}}': "duplicate_member",
    '{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a","name":"b"}]}}': "duplicate_member",
    '{"jsonrpc":"2.0","id":1,"result":{"a":"\\u003a","b":1,"b":2}}': "duplicate_member",
    '{"jsonrpc":"2.0","id":1,"result":{"a":"\\ud800","b":1,"b":2}}': "duplicate_member",
    '{"jsonrpc":"2.0","id":1,"result":{"\\ud800":1}}': "lone_surrogate",
    '{"jsonrpc":"2.0","id":1,"result":{"a":' + "[" * 5000 + "]" * 5000 + "}}": "too_deep",
    '{"jsonrpc":"2.0","id":1,"result":{"a":' + "[" * 400 + "]" * 400 + "}}": "too_deep",
}


@pytest.mark.parametrize("data", BAD, ids=lambda value: repr(value)[:60])
def test_what_is_none(data: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read(data.encode())
    assert caught.value.reason == BAD[data]


@pytest.mark.parametrize(
    "data", [b'{"jsonrpc":"2.0","id":1,"result":{"a":"\xff"}}', '{"a":"é"}'.encode("utf-16"), b"\x80"]
)
def test_what_is_no_text(data: bytes) -> None:
    with pytest.raises(Unreadable):
        read(data)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='a,[{"\\:\n', max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet='a,[{"\\', max_size=4), inner, max_size=4),
)  # fmt: skip


def separators(value: object) -> int:
    """What `crowded` counts, counted in the value."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return max(len(value), 1) + sum(map(separators, inner))
    return 0


@given(values)
def test_values_are_counted_outside_strings(value: object) -> None:
    data = json.dumps(value).encode()
    with pytest.MonkeyPatch.context() as patch:
        for most in range(max(separators(value) - 2, 0), separators(value) + 3):
            patch.setattr("proxy.mcp.replies.MOST_VALUES", most)
            assert crowded(data) == (separators(value) > most)


@pytest.mark.parametrize(
    "part", [b"{},", b'"a",', b"1,", b"[[]],", b'{"a":1},', b'"\\"",', b'"a,b",'], ids=lambda part: part.decode()
)
def test_too_many_values_are_refused_at_once(part: bytes) -> None:
    data = b'{"jsonrpc":"2.0","id":1,"result":{"a":[' + part * 4_000_000 + b"1]}}"
    since = time.monotonic()
    with pytest.raises(Unreadable, match=str(MOST_VALUES)):
        read(data)
    assert time.monotonic() - since < 3


def test_a_text_may_have_any_number_of_commas() -> None:
    text = json.dumps('a,b,[{\\"' * 1_000_000)
    assert read(b'{"jsonrpc":"2.0","id":1,"result":{"a":%b}}' % text.encode()).id == 1


def test_ids_that_some_client_takes_for_one() -> None:
    assert same_id(1, 1) and same_id("1", 1) and same_id(1.0, 1) and same_id("a", "a")
    assert not same_id(True, 1) and not same_id(None, None) and not same_id("a", "b") and not same_id(1.5, 1)
