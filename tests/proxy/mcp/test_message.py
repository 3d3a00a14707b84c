"""One message, strictly read: the malformed and the ambiguous of every kind, and what stays known of them."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from typing import Any

import pytest

from proxy.mcp.message import ABSENT, Readable, Refused, TargetName, peek, read


def call(params: str = '{"name":"echo"}', rpc_id: str = "1", method: str = "tools/call", extra: str = "") -> bytes:
    return f'{{"jsonrpc":"2.0","id":{rpc_id},"method":"{method}","params":{params}{extra}}}'.encode()


def refused(body: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        read(body)
    assert caught.value.status == 400
    return caught.value


# reason, code, body
REFUSED: list[tuple[str, int, bytes]] = [
    # T1 duplicates, at every level
    ("duplicate_member", -32600, call('{"name":"ok","name":"bad"}')),
    ("duplicate_member", -32600, call('{"name":"bad","name":"bad"}')),
    ("duplicate_member", -32600, b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}'),
    ("duplicate_member", -32600, b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}'),
    ("duplicate_member", -32600, call('{"name":"a"}', extra=',"params":{"name":"b"}')),
    ("duplicate_member", -32600, call('{"name":"a","arguments":{"x":{"y":1,"y":2}}}')),
    ("duplicate_member", -32600, call('{"name":"a","arguments":{"l":[{"y":1,"y":1}]}}')),
    ("duplicate_member", -32600, call('{"name":"a","n\\u0061me":"b"}')),
    ("duplicate_member", -32600, call('{"name":"a","arguments":{"x":"\\u003a","y":1,"y":2}}')),
    ("duplicate_member", -32600, call('{"name":"a","arguments":{"x":"\\u003A","y":1,"y":2}}')),
    ("duplicate_member", -32600, call('{"name":"a","arguments":{"":1,"":2}}')),
    # T2 variants of reserved members
    *[
        ("reserved_member", -32600, call(f'{{"name":"a",{json.dumps(name, ensure_ascii=escaped)}:1}}'))
        for name in ("Name", "NAME", "name\u0000", "\u0000name", "ｎame", "na\u200bme", "argumentſ", "Arguments", "name ", "URI", "_Meta")
        for escaped in (True, False)
        if escaped or name.isprintable()
    ],
    ("reserved_member", -32600, b'{"jsonrpc":"2.0","id":1,"method":"ping","Params":{}}'),
    *[
        ("reserved_member", -32600, call(f'{{"name":"a","arguments":{arguments}}}'))
        for arguments in (
            '{"__proto__":{"force":true}}',
            '{"a":[{"b":{"__proto__":1}}]}',
            r'{"\u005f_proto__":1}',
            r'{"__pr\u006Fto__":1}',
            r'{"a":"\ud800","b":{"__proto__":1}}',
        )
    ],
    ("reserved_member", -32600, b'{"jsonrpc":"2.0","id":1,"method":"ping","__proto__":{}}'),
    ("reserved_member", -32600, b'{"jsonrpc":"2.0","id":1,"method":"ping","param\xc5\xbf":{}}'),
    ("reserved_member", -32600, b'{"jsonrpc":"2.0","id":1,"method":"ping","METHOD":"tools/call"}'),
    ("reserved_member", -32600, b'{"jsonrpc":"2.0","id":1,"method":"ping","ID":2}'),
    ("reserved_member", -32600, call('{"ta\u212aId":"x"}'.replace("ta\u212a", "tas\u212a"), method="tasks/get")),
    ("reserved_member", -32600, call('{"_meta":{"IO.modelcontextprotocol/protocolVersion":"1"}}', method="ping")),
    ("reserved_member", -32600, call('{"ref":{"Type":"x","type":"ref/prompt","name":"a"}}', method="completion/complete")),
    # T3 encodings
    ("byte_order_mark", -32700, b"\xef\xbb\xbf" + call()),
    ("not_utf8", -32700, call().decode().encode("utf-16")),
    ("not_json", -32700, call().decode().encode("utf-16-be")),
    ("not_utf8", -32700, call('{"name":"a\xff"}').replace("ÿ".encode(), b"\xff")),
    ("not_utf8", -32700, call('{"name":"ab"}').replace(b'"ab"', b'"\xed\xa0\x80"')),
    # T4 batches and more than one value
    ("batch", -32600, b"[" + call() + b"," + call('{"name":"denied"}') + b"]"),
    ("batch", -32600, b"[]"),
    ("batch", -32600, b" [[" + call() + b"]]"),
    ("not_json", -32700, call() + b"\n" + call()),
    ("not_json", -32700, call() + call()),
    ("not_json", -32700, b""),
    ("not_json", -32700, b" "),
    ("not_json", -32700, b"{"),
    ("not_json", -32700, call() + b"\x00"),
    ("not_json", -32700, b'{"jsonrpc":"2.0","id":1,"method":"ping",}'),
    ("not_json", -32700, b"{'jsonrpc':'2.0'}"),
    ("not_json", -32700, call('{"name":"a\nb"}')),
    ("not_json", -32700, call('{"name":"a","arguments":{"x":NaN}}')),
    ("not_json", -32700, call('{"name":"a","arguments":{"x":-Infinity}}')),
    ("not_json", -32700, call('{"name":"a","arguments":{"x":01}}')),
    ("invalid_request", -32600, b"1"),
    ("invalid_request", -32600, b"null"),
    ("invalid_request", -32600, b'"x"'),
    # the envelope
    ("invalid_request", -32600, b"{}"),
    ("invalid_request", -32600, b'{"id":1,"method":"ping"}'),
    ("invalid_request", -32600, b'{"jsonrpc":"1.0","id":1,"method":"ping"}'),
    ("invalid_request", -32600, b'{"jsonrpc":2.0,"id":1,"method":"ping"}'),
    ("invalid_request", -32600, b'{"jsonrpc":"2.0","id":1,"method":""}'),
    ("invalid_request", -32600, b'{"jsonrpc":"2.0","id":1,"method":7}'),
    ("invalid_request", -32600, b'{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}'),
    ("invalid_request", -32600, b'{"jsonrpc":"2.0","id":1}'),
    ("invalid_request", -32600, b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}'),
    ("invalid_request", -32600, b'{"jsonrpc":"2.0","id":1,"error":"x"}'),
    ("invalid_request", -32600, b'{"jsonrpc":"2.0","result":{}}'),
    ("invalid_request", -32600, b'{"jsonrpc":"2.0","method":"tools/call","params":{"name":"a"}}'),
    ("invalid_request", -32600, b'{"jsonrpc":"2.0","method":"initialize"}'),
    # T19 ids
    *[
        ("invalid_request", -32600, call(rpc_id=rpc_id))
        for rpc_id in ("1.0", "1e0", "null", "true", "false", "{}", "[]", "[1]", "1" + "0" * 30, "1" + "0" * 4000, "1e999")
    ],
    ("invalid_request", -32600, call(rpc_id='"' + "x" * 1025 + '"')),
    ("lone_surrogate", -32600, call(rpc_id='"\\ud800"')),
    # names
    ("lone_surrogate", -32600, call('{"name":"\\udc00"}')),
    ("lone_surrogate", -32600, call("{}", method="\\ud800")),
    ("lone_surrogate", -32600, call('{"name":"a","arguments":{"\\ud800":1}}')),
    ("lone_surrogate", -32600, call('{"uri":"x\\ud800y"}', method="resources/read")),
    ("invalid_params", -32602, call('{"name":""}')),
    ("invalid_params", -32602, call("{}")),
    ("invalid_params", -32602, call('{"name":null}')),
    ("invalid_params", -32602, call('{"name":["a"]}')),
    ("invalid_params", -32602, call("[]")),
    ("invalid_params", -32602, call("null")),
    ("invalid_params", -32602, call('"x"')),
    ("invalid_params", -32602, call('{"name":"a","_meta":[]}')),
    # CASES T2
    ("invalid_params", -32602, call('{"name":"a","arguments":null}')),
    ("invalid_params", -32602, call('{"name":"a","arguments":[]}')),
    ("invalid_params", -32602, call('{"name":"a","arguments":"{}"}')),
    # the other targets
    ("invalid_params", -32602, call("{}", method="prompts/get")),
    ("invalid_params", -32602, call("{}", method="resources/read")),
    ("invalid_params", -32602, call('{"uri":7}', method="resources/subscribe")),
    ("invalid_params", -32602, call("{}", method="completion/complete")),
    ("invalid_params", -32602, call('{"ref":{"type":"ref/other","name":"a"}}', method="completion/complete")),
    ("invalid_params", -32602, call('{"ref":{"type":"ref/prompt","uri":"a"}}', method="completion/complete")),
    ("invalid_params", -32602, call('{"notifications":[]}', method="subscriptions/listen")),
    ("invalid_params", -32602, call('{"notifications":{"resourceSubscriptions":"a"}}', method="subscriptions/listen")),
    ("invalid_params", -32602, call('{"notifications":{"resourceSubscriptions":[1]}}', method="subscriptions/listen")),
    # T22 bombs
    ("too_deep", -32600, call('{"name":"a","arguments":{"x":' + "[" * 127 + "]" * 127 + "}}")),
    ("too_deep", -32600, call('{"name":"a","arguments":{"x":' + "[" * 100_000 + "]" * 100_000 + "}}")),
    ("too_deep", -32600, call('{"name":"a","arguments":' + '{"x":' * 100_000 + "1" + "}" * 100_000 + "}")),
    ("too_deep", -32600, b"[" * 1_000_000),
    ("invalid_request", -32600, call('{"name":"a","arguments":{"x":' + "9" * 5000 + "}}")),
    ("invalid_request", -32600, call('{"name":"a","arguments":{"x":' + "9" * 350 + "}}")),
    ("invalid_request", -32600, call('{"name":"a","arguments":{"x":1e999}}')),
    ("invalid_request", -32600, call('{"name":"a","arguments":{"x":-1E+400}}')),
    ("invalid_request", -32600, call('{"name":"a","arguments":{"x":1e-99999999999999999999}}')),
    ("invalid_request", -32600, call('{"name":"a","arguments":{"x":0.' + "1" * 1000 + "}}")),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "code", "body"), REFUSED, ids=lambda value: repr(value)[:60])
def test_refused(reason: str, code: int, body: bytes) -> None:
    since = time.perf_counter()
    error = refused(body)
    assert (error.reason, error.code) == (reason, code)
    assert error.message
    assert time.perf_counter() - since < 2  # and never a traceback


def tool(arguments: Any = ABSENT) -> TargetName:
    return TargetName("tool", "echo", arguments)


@pytest.mark.parametrize(
    ("body", "targets"),
    [
        (call('{"name":"echo"}'), (tool(),)),
        (call('{"name":"echo","arguments":{}}'), (tool({}),)),
        (call('{"name":"echo","arguments":{"x":null}}'), (tool({"x": None}),)),
        (call('{"n\\u0061me":"\\u0065cho"}'), (tool(),)),
        (call(' { "name" : "echo" , "arguments" : { "a:b" : ": {[" } } '), (tool({"a:b": ": {["}),)),
        (call('{"name":"echo","other":1,"Vendor":2}'), (tool(),)),
        (call('{"name":"Echo "}'), (TargetName("tool", "Echo "),)),
        (call('{"name":"pr","arguments":{"a":"b"}}', method="prompts/get"), (TargetName("prompt", "pr", {"a": "b"}),)),
        (call('{"uri":"f://x"}', method="resources/read"), (TargetName("resource", "f://x"),)),
        (call('{"uri":"f://x"}', method="resources/subscribe"), (TargetName("resource", "f://x"),)),
        (call('{"uri":"f://x"}', method="resources/unsubscribe"), (TargetName("resource", "f://x"),)),
        (
            call('{"ref":{"type":"ref/prompt","name":"p"},"argument":{"name":"a","value":"b"}}', method="completion/complete"),
            (TargetName("prompt", "p"),),
        ),
        (
            call('{"ref":{"type":"ref/resource","uri":"f://{x}"}}', method="completion/complete"),
            (TargetName("resource", "f://{x}"),),
        ),
        (
            call('{"notifications":{"toolsListChanged":true,"resourceSubscriptions":["a","b"]}}', method="subscriptions/listen"),
            (TargetName("resource", "a"), TargetName("resource", "b")),
        ),
        (call('{"notifications":{"toolsListChanged":true}}', method="subscriptions/listen"), ()),
        (
            call('{"notifications":{"taskIds":["t"]}}', method="subscriptions/listen"),
            (TargetName("method", "tasks/get"),),
        ),
        (
            call('{"notifications":{"vendor/x":true}}', method="subscriptions/listen"),
            (TargetName("method", "subscriptions/listen"),),
        ),
        *[
            (call('{"taskId":"t"}', method=f"tasks/{what}"), (TargetName("method", f"tasks/{what}"),))
            for what in ("get", "result", "cancel", "update")
        ],
        (call("{}", method="x/unknown"), (TargetName("method", "x/unknown"),)),
        (call("{}", method="Tools/Call"), (TargetName("method", "Tools/Call"),)),
        (call("{}", method="notifications/own"), (TargetName("method", "notifications/own"),)),
        *[
            (call("{}", method=method), ())
            for method in (
                "initialize",
                "ping",
                "server/discover",
                "logging/setLevel",
                "tasks/list",
                "tools/list",
                "prompts/list",
                "resources/list",
                "resources/templates/list",
            )
        ],
        *[
            (b'{"jsonrpc":"2.0","method":"notifications/%b","params":{"requestId":1}}' % name, ())
            for name in (b"cancelled", b"initialized", b"progress", b"roots/list_changed", b"tasks/status")
        ],
        (b'{"jsonrpc":"2.0","method":"notifications/own"}', (TargetName("method", "notifications/own"),)),
        (b'{"jsonrpc":"2.0","method":"x/unknown"}', (TargetName("method", "x/unknown"),)),
        (b'{"jsonrpc":"2.0","id":1,"result":{}}', ()),
        (b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}', ()),
    ],
    ids=lambda value: repr(value)[:60],
)  # fmt: skip
def test_targets(body: bytes, targets: tuple[TargetName, ...]) -> None:
    message = read(body)
    assert message.targets == targets
    assert message.open == (not targets)


@pytest.mark.parametrize(
    "rpc_id",
    ["1", "0", "-1", "-0", "9007199254740993", "18446744073709551615", '"1"', '"é"', '"\\u00e9"', '"\\u0031"', '"a\\/b"', '""', '"\\\\"', '"\\ud83d\\ude00"'],
)  # fmt: skip
@pytest.mark.parametrize("arguments", ["{}", '{"id":7}', '{"x":"\\\\","id":"z"}', '{"x":"{\\"id\\":1}"}'])
def test_the_id_is_echoed_by_its_own_bytes(rpc_id: str, arguments: str) -> None:
    for body in (
        call('{"name":"a","arguments":' + arguments + "}", rpc_id=rpc_id),
        ('{"params":{"name":"a","arguments":' + arguments + '},"method":"tools/call","id" : ' + rpc_id + ' ,"jsonrpc":"2.0"}').encode(),
    ):  # fmt: skip
        message = read(body)
        assert message.id_json == rpc_id.encode()
        assert message.id == json.loads(rpc_id)
        assert type(message.id) in (int, str)


def test_kinds() -> None:
    assert read(call()).kind == "request"
    assert read(b'{"jsonrpc":"2.0","method":"notifications/initialized"}').kind == "notification"
    response = read(b'{"jsonrpc":"2.0","id":"x","result":{}}')
    assert (response.kind, response.id, response.method) == ("response", "x", "")


def test_depth_128_is_read_and_129_is_not() -> None:
    # the envelope, params and arguments are three levels
    def nested(levels: int) -> bytes:
        return call('{"name":"a","arguments":{"x":' + "[" * (levels - 3) + "]" * (levels - 3) + "}}")

    assert read(nested(128)).targets
    assert refused(nested(129)).reason == "too_deep"
    wide = call('{"name":"a","arguments":{"x":[' + ",".join(["[[[]]]", "{}", '"[[[["'] * 5000) + "]}}")
    assert read(wide).targets


def test_numbers_are_what_was_written_or_say_so() -> None:
    text = '{"i":9007199254740993,"h":123456789012345678901234567890,"f":0.1,"z":1.50,"o":0.1000000000000000055511151231257827,"u":1e-400,"b":9007199254740993.0}'
    arguments = read(call('{"name":"echo","arguments":' + text + "}")).targets[0].arguments
    assert arguments["i"] == 9007199254740993 and arguments["h"] == 123456789012345678901234567890
    assert (arguments["f"], arguments["z"]) == (0.1, 1.5)
    assert all(isinstance(arguments[name], float) for name in "fz")
    assert all(isinstance(arguments[name], Decimal) for name in "oub")


def test_half_a_surrogate_pair_in_a_value_is_no_reason_to_refuse() -> None:
    assert read(call('{"name":"echo","arguments":{"x":"\\ud83d"}}')).targets == (tool({"x": "\ud83d"}),)


def test_what_is_known_of_a_refused_message() -> None:
    assert peek(call('{"name":"echo","arguments":null}', rpc_id='"r"')) == Readable(
        "request", b'"r"', "tools/call", (tool({}),)
    )
    assert peek(call('{"name":"echo","Name":"x"}')).targets == (tool(),)
    assert peek(b'{"jsonrpc":"2.0","id":5,"method":"m","params":' + b"[" * 5000) == Readable("request", b"5", "m", ())
    # which id was meant cannot be known; after a parse error JSON-RPC wants none
    assert peek(b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}').id_json is None
    assert peek(b'{"jsonrpc":"2.0","id":1,"method":"ping",}') == Readable("request", None, "ping", ())
    assert peek(b"\x00") == Readable()
    assert peek(call()) == read(call()).known


def test_client_info() -> None:
    info = {"name": "c", "version": "1"}
    modern = json.dumps({"_meta": {"io.modelcontextprotocol/clientInfo": info}})
    assert read(call(modern, method="ping")).client_info == info
    assert read(call(json.dumps({"clientInfo": info}), method="initialize")).client_info == info
    assert read(call('{"clientInfo":7}', method="initialize")).client_info is None
    assert read(call(json.dumps({"name": "a", "clientInfo": info}))).client_info is None


def test_large_bodies_are_read_in_bounded_time() -> None:
    since = time.perf_counter()
    read(call('{"name":"a","arguments":{"x":[' + ",".join(["[1]"] * 1_000_000) + "]}}"))
    read(call('{"name":"a","arguments":{' + ",".join(f'"k{n}":{n}' for n in range(300_000)) + "}}"))
    assert (
        refused(call('{"name":"a","arguments":{' + ",".join(['"k":1'] * 300_000) + "}}")).reason == "duplicate_member"
    )
    assert time.perf_counter() - since < 20


def test_a_prototype_is_a_matter_of_members() -> None:
    message = read(call(r'{"name":"a","arguments":{"text":"__proto__","proto":1,"constructor":{"x":"\u0000\u005f"}}}'))
    assert message.params is not None and message.params["arguments"]["text"] == "__proto__"
