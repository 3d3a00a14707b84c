from __future__ import annotations

import pytest

from proxy.headers import request_headers, response_headers


def names(headers):
    return [name for name, _ in headers]


@pytest.mark.parametrize(
    "name",
    [b"authorization", b"proxy-authorization", b"cookie", b"x-api-key", b"host", b"origin", b"referer", b"connection", b"keep-alive",
     b"te", b"trailer", b"transfer-encoding", b"upgrade", b"content-length", b"content-encoding", b"accept-encoding", b"x-forwarded-for",
     b"x-real-ip", b"forwarded", b"x-user", b"x-role", b"x-allowed-tools", b"mcp-init-host", b"router-key", b"mcp-session-id", b"last-event-id",
     b"daphne-root-path", b"user-agent", b"expect", b"range"],
)  # fmt: skip
def test_what_nobody_named_stays_behind(name):
    assert (name, b"x") not in request_headers([(name, b"x")])


def test_what_the_protocol_needs_goes_through_in_order():
    sent = [
        (b"accept", b"application/json, text/event-stream"), (b"content-type", b"application/json"), (b"mcp-protocol-version", b"2026-07-28"),
        (b"mcp-method", b"tools/call"), (b"mcp-name", b"=?base64?w6k=?="), (b"mcp-param-region", b"eu"), (b"mcp-param-unknown", b"\xe9"),
        (b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"), (b"tracestate", b"a=b"), (b"baggage", b"k=v"),
    ]  # fmt: skip
    ours = [(b"mcp-session-id", b"upstream-session"), (b"last-event-id", b"7")]
    chosen = request_headers([*sent, (b"last-event-id", b"the client's")], b"upstream-session", last_event=b"7")
    assert chosen == [(b"user-agent", b"mcp-sentinel"), *sent, *ours]


def test_trace_context_is_bounded_and_well_formed():
    for value in (b"", b"00-zz", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01\n", b"x" * 5000):
        assert names(request_headers([(b"traceparent", value)])) == [b"user-agent"]
    assert names(request_headers([(b"baggage", b"x" * 5000), (b"tracestate", b"x" * 600)])) == [b"user-agent"]
    assert len(request_headers([(b"mcp-param-%d" % n, b"x") for n in range(500)])) == 65


@pytest.mark.parametrize(
    "name",
    [b"set-cookie", b"connection", b"transfer-encoding", b"content-length", b"content-encoding", b"location", b"server", b"www-authenticate",
     b"access-control-allow-origin", b"strict-transport-security", b"alt-svc", b"mcp-session-id", b"x-powered-by", b"authorization", b"link"],
)  # fmt: skip
def test_upstreams_cannot_set_what_is_the_gateways(name):
    assert response_headers([(name, b"x")]) == []


def test_an_answers_own_headers_go_through():
    kept = [
        (b"content-type", b"text/event-stream"),
        (b"cache-control", b"no-cache"),
        (b"retry-after", b"1"),
        (b"x-accel-buffering", b"no"),
    ]
    assert response_headers([*kept, (b"date", b"today")]) == kept


def test_a_header_with_the_callers_key_in_it_stays_behind():
    sent = [
        (b"accept", b"application/json"),
        (b"baggage", b"k=sntl_key"),
        (b"mcp-param-token", b"sntl_key"),
        (b"mcp-name", b"x"),
    ]
    assert names(request_headers(sent, secret="sntl_key")) == [b"user-agent", b"accept", b"mcp-name"]
    assert len(request_headers(sent)) == 5
