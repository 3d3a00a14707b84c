"""Eras told apart, headers held against bodies, each disagreement with the code of its revision."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.mcp import era
from proxy.mcp.era import LEGACY_VERSIONS, Era
from proxy.mcp.message import CLIENT_CAPABILITIES, PROTOCOL_VERSION, Message, Readable, Refused, read
from proxy.mcp.mirrors import ParamHeader, Sent, decode_header, encode_header, param_headers, protocol_headers

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


def classify(verb: str, sent: Headers, what: Message | None) -> Era:
    return era.classify(verb, Sent(sent, what.known if what is not None else Readable()), what)


def written(sent: Headers, what: Message, expected: Any = ()) -> Headers:
    return protocol_headers(Sent(sent, what.known), what, MODERN, expected)


def refused(sent: Headers, what: Message | None, verb: str = "POST") -> Refused:
    with pytest.raises(Refused) as caught:
        if classify(verb, sent, what).modern and what is not None:
            written(sent, what)
    if what is not None:
        assert caught.value.known == what.known
    return caught.value


def refused_in(sent: Headers, what: Message) -> Refused:
    with pytest.raises(Refused) as caught:
        written(sent, what, param_headers(SCHEMA))
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


@pytest.mark.parametrize(
    "also",
    [
        [(b"mcp_name", b"other")],
        [(b"mcp-name", b"echo"), (b"MCP.NAME", b"echo")],
        [(b"mcp_method", b"tools/call")],
        [(b"mcp_protocol_version", b"2025-11-25")],
        [(b"mcp-param-a-b", b"1"), (b"mcp-param-a_b", b"2")],
        [(b"mcp-param-a.b", b"1"), (b"mcp-param-A_B", b"1")],
    ],
)
def test_names_that_some_servers_fold_into_one_are_one_sent_twice(also: Headers) -> None:
    assert codes(refused(headers(MODERN, "tools/call", "echo", *also), message())) == MISMATCH


@pytest.mark.parametrize(
    "also",
    [
        (b"mcp-param-x", b"\xe9"),
        (b"mcp-param-x", b"=?base64?!!!!?="),
        (b"mcp-param-x", b"=?base64?ZWNobx==?="),
        (b"mcp-param-x", b"y" * 10_000),
        (b"mcp-param-", b"x"),
        (b"mcp-param-a b", b"x"),
    ],
)
def test_parameters_nobody_can_read_are_refused(also: tuple[bytes, bytes]) -> None:
    assert codes(refused(headers(MODERN, "tools/call", "echo", also), message())) == MISMATCH


def test_more_parameters_than_anyone_mirrors() -> None:
    many = [(b"mcp-param-%d" % n, b"x") for n in range(65)]
    assert codes(refused(headers(MODERN, "tools/call", "echo", *many), message())) == MISMATCH
    assert len(written(headers(MODERN, "tools/call", "echo", *many[1:]), message())) == 3 + 64


def test_a_method_is_compared_in_plain_characters() -> None:
    # as latin-1 the header says the same; a server that takes it for UTF-8 reads another
    sent, what = headers(MODERN, "tools/caf\xe9", None), message("tools/caf\xe9")
    assert codes(refused(sent, what)) == MISMATCH


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


@pytest.mark.parametrize("version", [None, *LEGACY_VERSIONS])
@pytest.mark.parametrize(
    "left_over",
    [
        [(b"mcp-method", b"initialize"), (b"mcp-name", b"other")],
        [(b"mcp-method", b"\xff"), (b"mcp-name", b"=?base64?!?="), (b"mcp-name", b"x"), (b"mcp_name", b"y")],
        [(b"mcp-param-a", b"1"), (b"mcp-param-a", b"2"), (b"mcp-param-\xe9", b"\xe9")],
    ],
)
def test_headers_of_the_modern_era_are_not_judged_in_the_other(version: str | None, left_over: Headers) -> None:
    for what in (message(modern=False), message("initialize", modern=False), message("ping", modern=False)):
        assert classify("POST", headers(version, None, None, *left_over), what).name == "legacy"
    assert classify("GET", headers(version, None, None, *left_over), None).name == "legacy"


def test_a_session_is_not_judged_in_the_modern_era() -> None:
    twice = [(b"mcp-session-id", b"a"), (b"mcp-session-id", b"b"), (b"mcp_session_id", b"c")]
    sent = headers(MODERN, "tools/call", "echo", *twice)
    assert classify("POST", sent, message()).modern
    assert written(sent, message()) == headers()[2:]


# --- what goes upstream of them


@pytest.mark.parametrize(
    ("sent", "what", "expected"),
    [
        (headers(name="=?base64?ZWNobw==?="), message(), [(b"mcp-name", b"echo")]),
        (headers(name="\t echo "), message(), [(b"mcp-name", b"echo")]),
        (headers(name="=?BASE64?x?="), message(name="=?BASE64?x?="), [(b"mcp-name", b"=?base64?PT9CQVNFNjQ/eD89?=")]),
        (
            headers(MODERN, "tools/call", "echo", (b"mcp-param-x", b"\ta\tb ")),
            message(),
            [(b"mcp-name", b"echo"), (b"mcp-param-x", b"=?base64?YQli?=")],
        ),
        (
            headers(MODERN, "tools/call", "echo", (b"mcp-param-x", b"")),
            message(),
            [(b"mcp-name", b"echo"), (b"mcp-param-x", b"")],
        ),
        (headers(MODERN, "tools/list", "danger"), message("tools/list"), []),  # nothing there is named
        (headers(MODERN, "x/own", "=?base64?b3du?="), message("x/own"), [(b"mcp-name", b"own")]),  # an extension's
        (headers(MODERN, None, "x"), message("notifications/progress", rpc_id=None), []),
    ],
)
def test_they_are_written_anew(sent: Headers, what: Message, expected: Headers) -> None:
    classify("POST", sent, what)
    assert [line for line in written(sent, what) if line[0] not in (b"mcp-protocol-version", b"mcp-method")] == expected


def test_a_mirrored_argument_is_written_from_the_body() -> None:
    what = message(arguments={"count": 8, "region": "\u00e9", "dry": True})
    sent = [(b"mcp-param-count", b"010.0"), (b"mcp-param-region", b"=?base64?w6k=?="), (b"mcp-param-dry", b"true")]
    assert codes(refused_in(sent, what)) == MISMATCH
    sent[0] = (b"mcp-param-count", b"08.0")
    assert set(written(sent, what, param_headers(SCHEMA))[1:]) == {(b"mcp-param-count", b"8"), *sent[1:]}


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
        written(lines, what, param_headers(SCHEMA))
    else:
        with pytest.raises(Refused) as caught:
            written(lines, what, param_headers(SCHEMA))
        assert codes(caught.value) == MISMATCH


def test_no_arguments_at_all() -> None:
    written([], message(), param_headers(SCHEMA))
    assert (b"mcp-param-region", b"x") in written([(b"mcp-param-region", b"x")], message())
