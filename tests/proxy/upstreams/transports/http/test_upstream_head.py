"""Whatever headers a client sends, an upstream gets a head of a small closed grammar, and each header of it once."""

from __future__ import annotations

import json
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.types import Headers
from proxy.http.headers import is_json, is_plain, request_headers
from proxy.mcp import era
from proxy.mcp.message import Readable, Refused, read
from proxy.mcp.mirrors import VERSION, Sent, decode_header, protocol_headers
from proxy.upstreams.egress import parse_url
from proxy.upstreams.transports.base import UpstreamRequest
from proxy.upstreams.transports.http.streamable_http import StreamableHttpTransport

MODERN = "2026-07-28"
ENVELOPE = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}
VISIBLE = rb"[!-~]([ -~]*[!-~])?"
GRAMMAR = {
    b"host": rb"upstream\.example:8443",
    b"accept-encoding": rb"identity",
    b"user-agent": rb"mcp-sentinel",
    b"accept": rb"application/json|text/event-stream|application/json, text/event-stream",
    b"content-type": rb"application/json",
    b"content-length": rb"0|[1-9][0-9]*",
    b"mcp-protocol-version": rb"2026-07-28|2025-11-25|2025-06-18|2025-03-26|2024-11-05",
    b"mcp-method": VISIBLE,
    b"mcp-name": rb"|" + VISIBLE,
    b"mcp-session-id": rb"of-the-upstream",
    b"last-event-id": VISIBLE,
    b"traceparent": rb"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}",
    b"tracestate": rb"[!-+\--~ ]+(,[!-+\--~ ]+)*",
    b"baggage": rb"[!-~]+",
}
PARAM = re.compile(rb"mcp-param-[!#$%&'*+\-.^_`|~0-9a-z]+")

NAMES = [name for name in GRAMMAR if name != b"host"]
OTHERS = [b"mcp-param-a", b"mcp-param-a_b", b"mcp-param-a-b", b"mcp-param-\xe9", b"mcp_name", b"mcp_protocol_version", b"content_type", b"content-encoding",
          b"x-http-method-override", b"transfer-encoding", b"connection", b"x-forwarded-host", b"cookie", b"authorization", b"mcp-other", b"accept-charset"]  # fmt: skip
VALUES = [b"", b"x", b"danger", b"echo", b" echo\t", b"tools/call", b"=?base64?ZWNobw==?=", b"=?base64?DQpYOiBZ?=", b"=?BASE64?ZWNobw==?=", MODERN.encode(), b"2025-11-25", b"identity", b"gzip",
          b"application/json", b"application/json; charset=utf-8", b"application/json; charset=utf-7; x=utf-8", b"*/*", b"text/event-stream;q=0", b"a=b", b"a=b,a=c;d", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",
          b"\xe9", b"\t\x00", b"a\r\nX: y", b"x" * 9000]  # fmt: skip
line = st.tuples(
    st.sampled_from([*NAMES, *OTHERS]) | st.binary(min_size=1, max_size=12).map(bytes.lower),
    st.sampled_from(VALUES) | st.binary(max_size=20),
)
bodies = st.sampled_from(
    [
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        for params in (
            {"name": "echo"},
            {"name": "echo", "_meta": ENVELOPE},
            {"name": "=?base64?ZWNobw==?=", "_meta": ENVELOPE},
        )
    ]
    + [
        {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": ENVELOPE}},
        {"jsonrpc": "2.0", "id": 1, "method": "x/own", "params": {"_meta": ENVELOPE}},
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": MODERN}},
        {"jsonrpc": "2.0", "method": "notifications/x"},
    ]
)
GOOD = [(b"mcp-protocol-version", MODERN.encode()), (b"mcp-method", b"tools/call"), (b"mcp-name", b"echo")]


def head(verb: str, headers: Headers, body: bytes) -> bytes:
    """The head that goes upstream, as the pipeline has it made; raises Refused."""
    message = read(body) if verb == "POST" else None
    sent = Sent(headers, message.known if message is not None else Readable())
    spoken = era.classify(verb, sent, message)
    if message is not None and spoken.modern:
        protocol = protocol_headers(sent, message, spoken.version)
    else:
        version = sent.get(VERSION)
        protocol = [(VERSION, version)] if version is not None else []
    written = request_headers(verb, headers, protocol, session=b"of-the-upstream")
    transport = StreamableHttpTransport(parse_url("https://upstream.example:8443/mcp"), None)
    wire = transport.render(UpstreamRequest(verb.encode(), written, body if verb == "POST" else b""))
    made, end, rest = wire.partition(b"\r\n\r\n")
    assert end and rest == (body if verb == "POST" else b"")
    return made


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(["POST", "GET", "DELETE"]), st.lists(line, max_size=8), st.booleans(), bodies)
@example("POST", [(b"mcp-param-a", b"\xe9")], True, {"jsonrpc": "2.0", "id": 1, "method": "ping"})
def test_a_closed_grammar(verb: str, lines: Headers, modern: bool, body: dict) -> None:
    try:
        made = head(verb, [*(GOOD if modern else []), *lines], json.dumps(body).encode())
    except Refused as refused:
        assert 400 <= refused.status < 500
        return
    first, *rest = made.split(b"\r\n")
    assert first == verb.encode() + b" /mcp HTTP/1.1"
    seen = [tuple(item.split(b": ", 1)) for item in rest]
    assert len({re.sub(rb"[^a-z0-9]", b"-", name) for name, _ in seen}) == len(seen)
    for name, value in seen:
        if name in GRAMMAR:
            assert re.fullmatch(GRAMMAR[name], value), (name, value)
        else:
            assert PARAM.fullmatch(name), name
            assert re.fullmatch(rb"|" + VISIBLE, value), (name, value)
    found = dict(seen)
    assert (b"content-type" in found) == (b"content-length" in found) == (verb == "POST")
    if verb != "POST" or "_meta" not in body.get("params", {}):
        assert b"mcp-name" not in found and not [name for name in found if name.startswith(b"mcp-param")]
    if b"mcp-name" in found and body["method"] == "tools/call":
        assert decode_header(found[b"mcp-name"]) == body["params"]["name"]
    if b"mcp-method" in found:
        assert found[b"mcp-method"].decode() == body["method"]


@given(st.lists(st.sampled_from(VALUES) | st.binary(max_size=40), max_size=3))
def test_what_is_taken_for_json_says_so_once(values: list[bytes]) -> None:
    if is_json(values):
        assert re.fullmatch(rb'(?i)[ \t]*application/json[ \t]*(;[ \t]*charset="?utf-8"?[ \t]*)?', values[0])
    if is_plain(values):
        assert b"".join(values).strip(b" \t").lower() in (b"", b"identity")
