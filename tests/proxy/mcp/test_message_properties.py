"""Strict reading against a plain, slow reader that knows no shortcuts."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.mcp.message import Refused, peek, read
from proxy.mcp.strict_json import MAX_DEPTH, Unreadable, parse, too_deep

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(codec="utf-8"))
    | st.sampled_from(["", ":", "\\u003a", '"', "{", "a:b", '"a":1,'])
)
names = st.text(alphabet=st.sampled_from('ab:"\\{é'), max_size=3)


def values(leaves: st.SearchStrategy[Any] = scalars) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.lists(st.tuples(names, inner), max_size=4).map(Pairs),
        max_leaves=20,
    )


class Pairs(list[tuple[str, Any]]):
    """An object whose members may repeat."""


def text(value: Any, spell: Any, space: str) -> str:
    if isinstance(value, Pairs):
        return "{" + space + ",".join(f"{spell(n)}{space}:{space}{text(v, spell, space)}" for n, v in value) + "}"
    if isinstance(value, list):
        return "[" + f"{space},".join(text(v, spell, space) for v in value) + space + "]"
    return spell(value) if isinstance(value, str) else json.dumps(value)


def plain(string: str) -> str:
    return json.dumps(string, ensure_ascii=False)


def escaped(string: str) -> str:
    units = string.encode("utf-16-be")
    return '"' + "".join(f"\\u{units[n] << 8 | units[n + 1]:04x}" for n in range(0, len(units), 2)) + '"'


def has_duplicates(value: Any) -> bool:
    if isinstance(value, Pairs):
        members = [name for name, _ in value]
        return len(set(members)) < len(members) or any(has_duplicates(v) for _, v in value)
    return isinstance(value, list) and any(has_duplicates(v) for v in value)


@given(values(), st.sampled_from([plain, escaped, json.dumps]), st.sampled_from(["", " ", "\n\t"]))
@settings(max_examples=400, deadline=None)
def test_duplicates_are_found_exactly(value: Any, spell: Any, space: str) -> None:
    body = text(value, spell, space).encode()
    try:
        found = parse(body)
    except Unreadable as bad:
        assert bad.reason == "duplicate_member"
        assert has_duplicates(value)
    else:
        assert not has_duplicates(value)
        assert found == json.loads(body)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((depth(v) for v in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((depth(v) for v in value), default=0)
    return 0


@given(st.lists(st.sampled_from(["list", "object", "wide", "string"]), min_size=110, max_size=140))
@settings(max_examples=150, deadline=None)
def test_depth_is_counted_exactly(steps: list[str]) -> None:
    value: Any = 1
    for step in steps:
        if step == "list":
            value = [value]
        elif step == "object":
            value = {"[": value}
        elif step == "wide":
            value = [[], {}, value, "]]]", [[1]]]
        else:
            value = [value, '\\"[[[[']
    assert too_deep(json.dumps(value).encode()) == (depth(value) > MAX_DEPTH)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_reading_is_total(body: bytes) -> None:
    try:
        read(body)
    except Refused as error:
        assert error.status == 400
    peek(body)


def mutate(body: bytes, draw: st.DataObject) -> bytes:
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, len(body)))
        size = draw.draw(st.integers(0, 3))
        piece = draw.draw(st.sampled_from([b"", b'"', b"{", b"}", b"[", b",", b":", b"\\", b"1", b"e9", b"\xff", b'"id":1,', b"\\ud800"]))  # fmt: skip
        body = body[:at] + piece + body[at + size :]
    return body


@given(st.data())
@settings(max_examples=500, deadline=None)
def test_what_is_read_is_what_a_plain_reader_reads(data: st.DataObject) -> None:
    body = mutate(
        b'{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"x","arguments":{"k":[1,2.5,"v"]},"_meta":{}}}',
        data,
    )
    try:
        message = read(body)
    except Refused:
        return
    value = json.loads(body.decode())  # a body that was read is JSON for everybody
    assert message.value == value
    assert message.method == value.get("method", "")
    if message.id_json is not None:
        assert message.id_json in body
        assert json.loads(message.id_json) == value["id"]


@given(st.text('[]{}"\\x,:', max_size=400), st.integers(0, 3))
def test_depth_in_one_look_is_depth_step_by_step(text: str, times: int) -> None:
    text = "[" * 100 * times + text * 3
    deepest = depth_now = 0
    quoted = escaped = False
    for char in text:
        if quoted:
            quoted, escaped = escaped or char != '"', char == "\\" and not escaped
        elif char == '"':
            quoted = True
        elif char in "[{":
            depth_now += 1
            deepest = max(deepest, depth_now)
        elif char in "]}":
            depth_now -= 1
    assert too_deep(text.encode()) == (deepest > MAX_DEPTH)


def test_depth_is_carried_on_over_a_long_body() -> None:
    for before, after, wanted in ((100, 28, False), (100, 29, True), (0, 128, False), (0, 129, True)):
        body = "[" * before + "[]," * 40_000 + "[" * after + "]" * (before + after)
        assert too_deep(body.encode()) is wanted
