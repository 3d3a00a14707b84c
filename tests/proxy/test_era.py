"""Eras told apart, headers held against bodies, each disagreement with the code of its revision."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.era import (
    LEGACY_VERSIONS,
    Era,
    ParamHeader,
    check_param_headers,
    classify,
    decode_header,
    encode_header,
    param_headers,
)
from proxy.message import CLIENT_CAPABILITIES, PROTOCOL_VERSION, Message, Refused, read

MODERN = "2026-07-28"
Headers = list[tuple[bytes, bytes]]


def message(method: str = "tools/call", *, modern: bool = True, rpc_id: Any = 1, **params: Any) -> Message:
    if method == "tools/call":
        params.setdefault("name", "echo")
    if modern:
        params.setdefault("_meta", {PROTOCOL_VERSION: MODERN, CLIENT_CAPABILITIES: {}})
    body: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    if rpc_id is not None:
        body["id"] = rpc_id
    return read(json.dumps(body).encode())


def headers(
    version: str | None = MODERN, method: str | None = "tools/call", name: str | None = "echo", *more: Any
) -> Headers:
    found: Headers = [(b"host", b"x"), (b"content-type", b"application/json")]
    for header, value in ((b"mcp-protocol-version", version), (b"mcp-method", method), (b"mcp-name", name)):
        if value is not None:
            found.append((header, value.encode("latin-1")))
    return [*found, *more]


def refused(sent: Headers, what: Message | None, verb: str = "POST") -> Refused:
    with pytest.raises(Refused) as caught:
        classify(verb, sent, what)
    if what is not None:
        assert caught.value.known == what.known
    return caught.value


def codes(error: Refused) -> tuple[int, int, str]:
    return error.status, error.code, error.reason


MISMATCH = (400, -32020, "header_mismatch")


# --- the modern ladder


@pytest.mark.parametrize(
    "sent",
    [
        headers(),
        headers(name="=?base64?ZWNobw==?="),  # of the same name: equal after decoding
        headers(name=" \techo \t"),
        [(n.title(), v) for n, v in headers()],
        [(n.upper(), v) for n, v in headers()],
        headers(MODERN, "tools/call", "echo", (b"mcp-param-unknown", b"x")),
        headers(MODERN, "tools/call", "echo", (b"mcp-session-id", b"ignored")),
    ],
)
def test_modern(sent: Headers) -> None:
    assert classify("POST", sent, message()) == Era("modern", MODERN)


@pytest.mark.parametrize(
    "meta",
    [
        None,
        {},
        {PROTOCOL_VERSION: MODERN},
        {CLIENT_CAPABILITIES: {}},
        {PROTOCOL_VERSION: None, CLIENT_CAPABILITIES: {}},
        {PROTOCOL_VERSION: 7, CLIENT_CAPABILITIES: {}},
        {PROTOCOL_VERSION: MODERN, CLIENT_CAPABILITIES: []},
    ],
)
def test_missing_meta_comes_first(meta: Any) -> None:
    what = message(modern=False, **({} if meta is None else {"_meta": meta}))
    assert codes(refused(headers(), what)) == (400, -32602, "invalid_params")
    assert codes(refused(headers(method=None, name="other"), what)) == (400, -32602, "invalid_params")


@pytest.mark.parametrize(
    "sent",
    [
        headers(version=None),
        headers(version="2025-11-25"),
        headers(version="2099-01-01"),
        headers(version=""),
        headers(method=None),
        headers(method="tools/list"),
        headers(method="Tools/Call"),
        headers(method=""),
        headers(name=None),
        headers(name="safe"),
        headers(name="Echo"),
        headers(name="=?base64?b3RoZXI=?="),
        headers(name="=?base64?ZWNobw?="),
        headers(name="=?base64?ZWNobx==?="),
        headers(name="=?base64?ZWN obw==?="),
        headers(name="=?base64?!!!!?="),
        headers(name="=?base64?/w==?="),
        headers(name="=?BASE64?ZWNobw==?="),
        headers(name="ech\xf6"),
        headers(name="x" * 10000),
        headers(MODERN, "tools/call", "echo", (b"mcp-name", b"echo")),
        headers(MODERN, "tools/call", "echo", (b"Mcp-Name", b"other")),
        headers(MODERN, "tools/call", "echo", (b"MCP-METHOD", b"tools/call")),
        headers(MODERN, "tools/call", "echo", (b"mcp-protocol-version", MODERN.encode())),
        headers(MODERN, "tools/call", "echo", (b"mcp-param-a", b"1"), (b"Mcp-Param-A", b"2")),
    ],
)
def test_headers_that_disagree_with_the_body(sent: Headers) -> None:
    assert codes(refused(sent, message())) == MISMATCH


def test_an_underscore_makes_another_header() -> None:
    assert codes(refused(headers(MODERN, "tools/call", None, (b"mcp_name", b"echo")), message())) == MISMATCH


def test_both_values_are_told() -> None:
    text = refused(headers(name="safe"), message(name="d\u00e4nger")).message
    assert "'safe'" in text and "'d\\xe4nger'" in text


@pytest.mark.parametrize("version", ["2027-01-01", "1999-01-01", "DRAFT-2026-v1", "x"])
def test_versions_nobody_serves(version: str) -> None:
    agreed = message(_meta={PROTOCOL_VERSION: version, CLIENT_CAPABILITIES: {}})
    error = refused(headers(version), agreed)
    assert codes(error) == (400, -32022, "unsupported_version")
    # What `server/discover` would name, since an envelope is of the modern era alone.
    assert error.data == {"supported": [MODERN], "requested": version}
    # a body that says nothing: an old client with a version that never was
    assert codes(refused(headers(version), message(modern=False)))[1] == -32022
    assert codes(refused(headers(version, None, None), message("initialize", modern=False)))[1] == -32022


@pytest.mark.parametrize(
    "method", ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "tasks/list"]
)
def test_removed_methods(method: str) -> None:
    what = message(method, uri="f://x") if method.startswith("resources") else message(method)
    error = refused(headers(MODERN, method, None), what)
    assert codes(error) == (404, -32601, "method_not_found")
    assert MODERN in error.message and "2025-11-25" in error.message
    # header and body come first
    assert codes(refused(headers(MODERN, "tools/call", None), what)) == MISMATCH


def test_methods_of_extensions_are_not_ours_to_judge() -> None:
    assert classify("POST", headers(MODERN, "x/unknown", None), message("x/unknown")).modern


@pytest.mark.parametrize(
    ("method", "params", "name"),
    [
        (
            "resources/read",
            {"uri": "f://\u00e9"},
            "=?base64?" + base64.b64encode("f://\u00e9".encode()).decode() + "?=",
        ),
        ("prompts/get", {"name": "p"}, "p"),
        ("tasks/get", {"taskId": "t"}, "t"),
    ],
)
def test_what_mcp_name_mirrors(method: str, params: dict[str, Any], name: str) -> None:
    what = message(method, **params)
    assert classify("POST", headers(MODERN, method, name), what).modern
    assert codes(refused(headers(MODERN, method, "other"), what)) == MISMATCH
    assert codes(refused(headers(MODERN, method, None), what)) == MISMATCH


def test_modern_notifications_and_responses() -> None:
    note = message("notifications/cancelled", modern=False, rpc_id=None, requestId=1)
    assert classify("POST", headers(MODERN, None, None), note) == Era("modern", MODERN)
    assert codes(refused(headers(MODERN, "ping", None), note)) == MISMATCH
    assert codes(refused(headers("2027-01-01", None, None), note))[1] == -32022
    response = read(b'{"jsonrpc":"2.0","id":1,"result":{}}')
    assert codes(refused(headers(MODERN, None, None), response)) == (400, -32600, "invalid_request")


# --- the legacy family


@pytest.mark.parametrize("version", [*LEGACY_VERSIONS, None])
def test_legacy(version: str | None) -> None:
    assert classify("POST", headers(version, None, None), message(modern=False)) == Era(
        "legacy", version or "2025-03-26"
    )


@pytest.mark.parametrize("asked", [*LEGACY_VERSIONS, MODERN, "x"])
def test_initialize_without_an_envelope_is_legacy(asked: str) -> None:
    what = message("initialize", modern=False, protocolVersion=asked)
    assert classify("POST", headers(None, None, None), what) == Era("legacy", asked)
    assert classify("POST", headers("2025-11-25", None, None), what) == Era("legacy", asked)


def test_initialize_with_a_modern_header_alone() -> None:
    what = message("initialize", modern=False, protocolVersion=MODERN)
    assert codes(refused(headers(MODERN, "initialize", None), what)) == (400, -32602, "invalid_params")


def test_a_legacy_request_need_not_mirror_but_may_not_lie() -> None:
    what = message(modern=False)
    assert classify("POST", headers("2025-11-25"), what).name == "legacy"
    for sent in (headers("2025-11-25", name="other"), headers(None, "tools/list", None)):
        assert codes(refused(sent, what)) == MISMATCH


def test_two_session_ids() -> None:
    sent = headers("2025-11-25", None, None, (b"mcp-session-id", b"a"), (b"Mcp-Session-Id", b"a"))
    assert codes(refused(sent, message(modern=False))) == (400, -32600, "header_mismatch")


def test_a_legacy_response_may_be_posted() -> None:
    response = read(b'{"jsonrpc":"2.0","id":1,"result":{}}')
    assert classify("POST", headers("2025-06-18", None, None), response).name == "legacy"


# --- other verbs


@pytest.mark.parametrize("verb", ["GET", "DELETE"])
def test_get_and_delete(verb: str) -> None:
    assert classify(verb, headers(None, None, None), None) == Era("legacy", "")
    assert classify(verb, headers("2025-11-25", None, None), None) == Era("legacy", "2025-11-25")
    error = refused(headers(MODERN, None, None), None, verb)
    assert codes(error) == (405, 405, "method_not_allowed")
    assert error.headers == ((b"allow", b"POST"),)
    assert codes(refused(headers("1999-01-01", None, None), None, verb))[:2] == (400, -32022)


@pytest.mark.parametrize("verb", ["PUT", "HEAD", "OPTIONS", "PATCH", "post"])
def test_other_verbs(verb: str) -> None:
    error = refused(headers(None, None, None), None, verb)
    assert error.status == 405 and error.headers == ((b"allow", b"GET, POST, DELETE"),)


# --- the header codec


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_header_values_survive(value: str) -> None:
    encoded = encode_header(value)
    assert all(0x20 <= byte < 0x7F for byte in encoded)
    assert decode_header(encoded) == value
    assert decode_header(b" \t" + encoded + b"\t ") == value


@pytest.mark.parametrize("literal", [b"=?base64?x", b"x?=", b"=?base64?=", b"=?utf-8?x?="])
def test_what_only_looks_like_the_sentinel_is_literal(literal: bytes) -> None:
    assert decode_header(literal) == literal.decode()


# --- mirrored arguments

SCHEMA = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "count": {"type": "integer", "x-mcp-header": "Count"},
        "dry": {"type": "boolean", "x-mcp-header": "Dry"},
        "deep": {"type": "object", "properties": {"name": {"type": "string", "x-mcp-header": "Deep-Name"}}},
        "properties": {"type": "string"},
    },
}


def test_which_arguments_are_mirrored() -> None:
    assert set(param_headers(SCHEMA)) == {
        ParamHeader(("region",), b"mcp-param-region", "string"),
        ParamHeader(("count",), b"mcp-param-count", "integer"),
        ParamHeader(("dry",), b"mcp-param-dry", "boolean"),
        ParamHeader(("deep", "name"), b"mcp-param-deep-name", "string"),
    }


@pytest.mark.parametrize(
    "schema",
    [
        {"x-mcp-header": "A", "type": "string"},
        {"properties": {"a": {"type": "number", "x-mcp-header": "A"}}},
        {"properties": {"a": {"x-mcp-header": "A"}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": "A B"}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": ""}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": 7}}},
        {"properties": {n: {"type": "string", "x-mcp-header": h} for n, h in (("a", "X"), ("b", "x"))}},
        {"properties": {"a": {"type": "array", "items": {"type": "string", "x-mcp-header": "A"}}}},
        {"anyOf": [{"properties": {"a": {"type": "string", "x-mcp-header": "A"}}}]},
        {"$defs": {"a": {"type": "string", "x-mcp-header": "A"}}},
        None,
        7,
        {},
    ],
)
def test_an_invalid_annotation_voids_all(schema: Any) -> None:
    assert param_headers(schema) == ()


def test_data_is_not_mistaken_for_annotations() -> None:
    schema = {
        "properties": {"a": {"type": "object", "default": {"x-mcp-header": "A"}, "enum": [{"x-mcp-header": "B"}]}}
    }
    assert param_headers(schema) == ()
    named = {"properties": {"x-mcp-header": {"type": "string", "x-mcp-header": "A"}}}
    assert param_headers(named) == (ParamHeader(("x-mcp-header",), b"mcp-param-a", "string"),)


@pytest.mark.parametrize(
    ("arguments", "sent", "fits"),
    [
        ({}, {}, True),
        ({"region": "eu"}, {"region": "eu"}, True),
        ({"region": "eu"}, {"region": "=?base64?ZXU=?="}, True),
        ({"region": "\u00e9"}, {"region": "=?base64?w6k=?="}, True),
        ({"region": "eu"}, {}, False),
        ({"region": "eu"}, {"region": "us"}, False),
        ({"region": "eu"}, {"region": "EU"}, False),
        ({"region": "eu"}, {"region": "=?base64?ZXU?="}, False),
        ({"region": None}, {}, True),
        ({"region": None}, {"region": ""}, False),
        ({}, {"region": "eu"}, False),
        ({"count": 42}, {"count": "42"}, True),
        ({"count": 42}, {"count": "42.0"}, True),
        ({"count": 42.0}, {"count": "42"}, True),
        ({"count": 42}, {"count": "042"}, True),
        ({"count": 42}, {"count": "43"}, False),
        ({"count": 42}, {"count": "4.2e1"}, False),
        ({"count": 9007199254740993}, {"count": "9007199254740992"}, False),
        ({"dry": True}, {"dry": "true"}, True),
        ({"dry": True}, {"dry": "1"}, False),
        ({"count": True}, {"count": "1"}, False),
        ({"deep": {"name": "x"}}, {"deep-name": "x"}, True),
        ({"deep": {"name": "x"}}, {}, False),
        ({"deep": 7}, {}, True),
        ({"region": {"a": 1}}, {}, True),
        ({"region": "eu"}, {"region": "eu", "other": "1"}, True),
    ],
)
def test_mirrored_arguments(arguments: dict[str, Any], sent: dict[str, str], fits: bool) -> None:
    lines = [(b"Mcp-Param-" + name.encode(), value.encode()) for name, value in sent.items()]
    what = message(arguments=arguments)
    if fits:
        check_param_headers(lines, what, param_headers(SCHEMA))
    else:
        with pytest.raises(Refused) as caught:
            check_param_headers(lines, what, param_headers(SCHEMA))
        assert codes(caught.value) == MISMATCH


def test_no_arguments_at_all() -> None:
    check_param_headers([], message(), param_headers(SCHEMA))
    check_param_headers([(b"mcp-param-region", b"x")], message(), ())
