"""Lists with items taken out, and every other byte as it came."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.mcp.listing import MOST_ITEMS, Unfilterable, filter_result, holds_list

SCHEMA = (
    '{"$schema":"x", "oneOf":[{"$ref":"https://remote/x"}] ,"$defs":{"a":{"$anchor":"b"}},"patternProperties":{"^x":{}},'
    '"x-vendor":1.50,"big":123456789012345678901234567890,"huge":1e999,"esc":"\\u00e9\\/é\\ud800","x-mcp-header":"A"}'
)
TOOL = '{"name":%s,  "inputSchema":' + SCHEMA + ',"outputSchema":{}}'


def tools(*names: str) -> str:
    return ", \n".join(TOOL % json.dumps(name) for name in names)


def answer(items: str, more: str = "") -> bytes:
    return ('{"jsonrpc":"2.0" ,"id":"\\u0031", "result":{"tools":[ ' + items + " ]" + more + "}}").encode()


def allow(*names: str) -> Any:
    return lambda kind, name, item: name in names


def test_nothing_hidden_nothing_changed() -> None:
    raw = answer(tools("a", "b"), ',"nextCursor":"c"')
    found = filter_result(raw, allow("a", "b"))
    assert found.raw is raw and (found.kept, found.hidden, found.changed) == (2, 0, False)


def test_kept_items_are_byte_identical() -> None:
    raw = answer(tools("a", "secret", "b"), ' ,"nextCursor":"c\\u0061", "other": 1.10')
    found = filter_result(raw, allow("a", "b"))
    kept = (TOOL % '"a"' + "," + TOOL % '"b"').encode()
    assert found.raw == raw[: raw.index(b"[ ")] + b"[" + kept + b"]" + raw[raw.index(b' ,"nextCursor"') :]
    assert (found.kept, found.hidden, found.changed) == (2, 1, True)


def test_all_hidden_keeps_the_cursor() -> None:
    found = filter_result(answer(tools("a", "b"), ',"nextCursor":"page2"'), allow())
    assert json.loads(found.raw)["result"] == {"tools": [], "nextCursor": "page2"}
    assert (found.kept, found.hidden) == (0, 2)


@pytest.mark.parametrize(
    ("member", "naming", "kind"),
    [
        ("tools", "name", "tool"),
        ("prompts", "name", "prompt"),
        ("resources", "uri", "resource"),
        ("resourceTemplates", "uriTemplate", "resource"),
    ],
)
def test_every_kind_of_list(member: str, naming: str, kind: str) -> None:
    seen: list[tuple[str, str]] = []

    def keep(found: str, name: str, item: dict[str, Any]) -> bool:
        seen.append((found, name))
        assert item[naming] == name
        return name == "a"

    raw = json.dumps({"id": 1, "result": {member: [{naming: "a"}, {naming: "b"}]}}).encode()
    assert json.loads(filter_result(raw, keep).raw)["result"][member] == [{naming: "a"}]
    assert seen == [(kind, "a"), (kind, "b")]


@pytest.mark.parametrize("item", ["1", "null", "{}", '{"name":7}', '["name"]', '{"Name":"a"}'])
def test_what_has_no_name_is_not_shown(item: str) -> None:
    found = filter_result(answer(item + "," + tools("a")), lambda *_: True)
    assert (found.kept, found.hidden) == (1, 1)


def test_lists_said_twice_or_in_another_case_are_filtered_too() -> None:
    raw = b'{"result":{"tools":[{"name":"x"}],"tools":[{"name":"y"}],"Tools":[{"name":"z"}]},"result":{"tools":[{"name":"w"}]}}'
    found = filter_result(raw, allow())
    assert found.raw == b'{"result":{"tools":[],"tools":[],"Tools":[]},"result":{"tools":[]}}'


@pytest.mark.parametrize(
    ("scope", "out"),
    [
        (', "cacheScope" : "public"', ', "cacheScope" : "private"'),
        (',"cacheScope":"private"', ',"cacheScope":"private"'),
        (',"cacheScope":7', ',"cacheScope":"private"'),
        ("", ""),
    ],
)
def test_what_is_filtered_per_caller_is_never_shared(scope: str, out: str) -> None:
    raw = answer(tools("a"), scope)
    assert filter_result(raw, allow("a")).raw == raw.replace(scope.encode(), out.encode())


@pytest.mark.parametrize(
    "raw",
    [
        b'{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"x","data":{"tools":[{"name":"a"}]}}}',
        b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"tools":[{"name":"a"}]}}',
        b'{"jsonrpc":"2.0","id":1,"result":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"tools":null}}',
        b'{"jsonrpc":"2.0","id":1,"result":null}',
        b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"tools":[{"name":"a"}]}]}}',
    ],
)
def test_what_is_no_list_stays(raw: bytes) -> None:
    assert filter_result(raw, allow()).raw is raw


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<html>",
        b'{"result":{"tools":[{"name":"a"}]}',
        b'{"result":{"tools":[{"name":"a"},]}}',
        b'{"result":{"tools":[{"name":"a"}]}} x',
        b'{"result":{"tools":[{"name":"a"}]}}{}',
        b'{"result":{"tools":[{"name":"\xff"}]}}',
        b'{"result":{"tools":[{"name":"a","n":' + b"9" * 5000 + b"}]}}",
        b'{"result":{"tools":[' + b"[" * 100_000 + b"]" * 100_000 + b"]}}",
        b"[" * 100_000,
        b"{result:1}",
        b'{"result":{"tools":{"0":{"name":"a"}}}}',
        b'{"result":{"tools":[],"Tools":{"0":{"name":"a"}}}}',
        b'{"result":{"resources":"a"}}',
        b'{"result":{"__proto__":{"tools":[{"name":"a"}]}}}',
        b'{"result":{"tools\\u0000":{"0":{"name":"a"}}}}',
        b'{"result":{"re\\u0073ourceTemplates":{"0":{}}}}',
        b'{"result":{"tools":[' + b",".join([b'{"name":"a"}'] * (MOST_ITEMS + 1)) + b"]}}",
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_cannot_be_read_never_goes_out(raw: bytes) -> None:
    with pytest.raises(Unfilterable):
        filter_result(raw, lambda *_: True)


@pytest.mark.parametrize(
    "item",
    ['{"name":"a","Name":"x"}', '{"NAME":"x","name":"a"}', '{"Name":"a"}', '{"name":["a"]}', '"a"', '{"name":"a","\\u004eame":"x"}',
     '{"name":"a","name\\u0000":"x"}', '{"name":"a","\\uff4eame":"x"}', '{"name":"a","na\\u200bme":"x"}', '{"name":"a","__proto__":{"name":"x"}}'],
)  # fmt: skip
def test_an_item_that_some_reader_calls_otherwise_is_hidden(item: str) -> None:
    found = filter_result(answer(tools("a") + "," + item), lambda *_: True)
    assert (found.kept, found.hidden) == (1, 1)


def test_where_a_reader_would_find_a_list() -> None:
    for name in (
        "tools",
        "Tools",
        "tool\u017f",
        "resourcetemplates",
        "PROMPTS",
        "resource\u017f",
        "tools\0x",
        "to\u200bols",
        "\uff54ools",
        "resource_templates",
        "__proto__",
    ):
        assert holds_list({"content": [], name: None})
    assert not holds_list({"content": [], "structuredContent": {"tools": []}, "tool": []})


values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
spaces = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t: ")])


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), values), max_size=6),
    st.sets(st.sampled_from("abcd")),
    spaces,
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_filtering_equals_filtering_the_value(
    items: Any, allowed: set[str], space: tuple[str, str], ascii_only: bool
) -> None:
    listed = [{"name": name, "v": value} for name, value in items]
    whole = {"jsonrpc": "2.0", "id": 1, "result": {"nextCursor": "é", "tools": listed, "cacheScope": "public"}}
    raw = json.dumps(whole, separators=space, ensure_ascii=ascii_only).encode()
    found = filter_result(raw, lambda kind, name, item: name in allowed)
    whole["result"] = {"nextCursor": "é", "tools": [t for t in listed if t["name"] in allowed], "cacheScope": "private"}
    assert json.loads(found.raw) == whole
    for item in listed:
        piece = json.dumps(item, separators=space, ensure_ascii=ascii_only).encode()
        assert (piece in found.raw) == (item["name"] in allowed)
