from __future__ import annotations

import pytest

from proxy.http.headers import BOTH, is_json, is_plain, request_headers, response_headers
from proxy.mcp.mirrors import encode_header

TRACE = (b"traceparent", b"tracestate", b"baggage")


def names(headers):
    return [name for name, _ in headers]


@pytest.mark.parametrize("verb", ["POST", "GET", "DELETE"])
@pytest.mark.parametrize(
    "name",
    [b"authorization", b"proxy-authorization", b"cookie", b"x-api-key", b"host", b"origin", b"referer", b"connection", b"keep-alive",
     b"te", b"trailer", b"transfer-encoding", b"upgrade", b"content-length", b"content-encoding", b"accept-encoding", b"x-forwarded-for",
     b"x-real-ip", b"forwarded", b"x-user", b"x-role", b"x-allowed-tools", b"mcp-init-host", b"router-key", b"mcp-session-id",
     b"daphne-root-path", b"user-agent", b"expect", b"range", b"x-http-method-override", b"x-http-method", b"x-method-override",
     b"x-original-url", b"x-rewrite-url", b"content-type", b"content_type", b"content-language", b"accept", b"accept-charset",
     b"mcp-name", b"mcp_name", b"mcp-method", b"mcp-protocol-version", b"mcp-param-a", b"traceparent", b"tracestate", b"baggage", b"priority"],
)  # fmt: skip
def test_what_nobody_named_stays_behind(name, verb):
    assert (name, b"x") not in request_headers(verb, [(name, b"x")])


def test_what_the_protocol_needs_is_written_in_order():
    trace = [
        (b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"),
        (b"tracestate", b"a=b"),
        (b"baggage", b"k=v"),
    ]
    sent = [
        *trace,
        (b"accept", b"*/*"),
        (b"content-type", b"application/json; charset=utf-8"),
        (b"last-event-id", b"7"),
    ]
    protocol = [(b"mcp-protocol-version", b"2026-07-28"), (b"mcp-method", b"tools/call")]
    assert request_headers("POST", sent, protocol, session=b"upstream-session") == [
        (b"user-agent", b"mcp-sentinel"),
        (b"accept", b"application/json, text/event-stream"),
        (b"content-type", b"application/json"),
        *protocol,
        *trace,
        (b"mcp-session-id", b"upstream-session"),
    ]
    assert request_headers("GET", sent, last_event=b"upstream-event") == [
        (b"user-agent", b"mcp-sentinel"),
        (b"accept", b"text/event-stream"),
        *trace,
        (b"last-event-id", b"upstream-event"),
    ]


@pytest.mark.parametrize(
    "values",
    [[b"7"], [b"1", b"2"], [b"7\xe9"], [b"7\t8"], [b" 7"], [b""], [b"x" * 2000]],
)
def test_what_a_client_calls_an_event_goes_upstream_only_as_the_pipeline_opened_it(values):
    assert b"last-event-id" not in names(request_headers("GET", [(b"last-event-id", value) for value in values]))


# --- what a body is said to be


@pytest.mark.parametrize(
    "value",
    [b"application/json", b"Application/JSON", b" application/json\t", b"application/json;charset=utf-8",
     b"application/json; charset=UTF-8", b'application/json \t; charset="utf-8"', b"application/json; Charset=utf-8"],
)  # fmt: skip
def test_json_in_utf_8(value):
    assert is_json([value])


@pytest.mark.parametrize(
    "values",
    [[], [b""], [b"text/plain"], [b"*/*"], [b"application/*"], [b"application/jsonx"], [b"application/json-rpc"], [b"application/x+json"],
     [b"application/json", b"application/json"], [b"application/json", b"text/plain"], [b"application/json, application/json"],
     [b"application/json; charset=utf-7"], [b"application/json; charset=utf-7; x=utf-8"], [b"application/json; x=utf-8; charset=utf-7"],
     [b"application/json; charset=utf-8; charset=utf-7"], [b"application/json; charset=utf-16"], [b"application/json; charset=latin1"],
     [b"application/json; charset=utf8"], [b"application/json; charset=utf-8x"], [b"application/json; charset='utf-8'"],
     [b"application/json; charset=\"utf-8"], [b"application/json; charset=\"utf\\-8\""], [b"application/json; charset = utf-8"],
     [b"application/json; charset*=utf-8''utf-7"], [b"application/json; charset=utf-8;"], [b"application/json;"], [b"application/json;;"],
     [b"application/json; version=1"], [b"application/json; boundary=utf-8"], [b"application/json charset=utf-8"],
     [b"application/json; charset=utf-8, text/plain"], [b"application/json\x0b"], [b"application/json\xa0"], [b"\xefapplication/json"],
     [b"application/x-www-form-urlencoded"], [b"multipart/form-data; boundary=application/json"], [b'"application/json"']],
)  # fmt: skip
def test_everything_else_is_not(values):
    assert not is_json(values)


def test_codings():
    for values in ([], [b""], [b"identity"], [b" Identity "]):
        assert is_plain(values)
    for values in (
        [b"gzip"],
        [b"identity", b"gzip"],
        [b"identity", b"identity"],
        [b"identity, gzip"],
        [b"", b"br"],
        [b"x-gzip"],
    ):
        assert not is_plain(values)


@pytest.mark.parametrize(
    ("accept", "written"),
    [
        (b"*/*", BOTH), (b"", BOTH), (b"application/json, text/event-stream", BOTH), (b"text/event-stream;q=0.5 , Application/JSON", BOTH),
        (b"application/*, text/*", BOTH), (b"application/json", b"application/json"), (b"text/event-stream", b"text/event-stream"),
        (b"application/json;q=0, */*", b"text/event-stream"), (b"*/*;q=0.000, application/json;q=0.001", b"application/json"),
        (b"text/*;q=0, text/event-stream, application/json;charset=utf-8", BOTH), (b"text/html", BOTH), (b"application/json;q=2", BOTH),
        (b"application/json;q=0", BOTH), (b"\xff\xff;q=x,;,=", BOTH), (b"application/json-seq", BOTH),
    ],
)  # fmt: skip
def test_what_a_client_takes(accept, written):
    sent = [(b"accept", part) for part in accept.split(b",")]
    assert dict(request_headers("POST", sent))[b"accept"] == written
    assert dict(request_headers("POST", [(b"accept", accept)]))[b"accept"] == written


def test_an_accept_that_is_too_long_is_not_read():
    assert dict(request_headers("POST", [(b"accept", b"application/json," + b"x/y," * 1000)]))[b"accept"] == BOTH


# --- trace context

PARENT = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"


@pytest.mark.parametrize(
    "value",
    [b"", b"00-zz", PARENT + b"\n", b"x" * 5000, PARENT.upper(), b"ff" + PARENT[2:], PARENT + b"-x", PARENT + b"x", b"01" + PARENT[2:] + b"x",
     PARENT.replace(b"a" * 32, b"0" * 32), PARENT.replace(b"b" * 16, b"0" * 16), PARENT[:-1], PARENT + b"," + PARENT],
)  # fmt: skip
def test_a_trace_is_well_formed(value):
    assert not set(names(request_headers("POST", [(b"traceparent", value), (b"tracestate", b"a=b")]))) & set(TRACE)


def test_a_trace_has_one_parent():
    twice = [(b"traceparent", PARENT), (b"traceparent", PARENT), (b"tracestate", b"a=b")]
    assert not set(names(request_headers("POST", twice))) & set(TRACE)
    # what a later version says beyond what is known here is not passed on
    assert (b"traceparent", PARENT) in request_headers("POST", [(b"traceparent", b"cc" + PARENT[2:] + b"-more")])


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ([b"a=1, b=2 ,,\tc@d=3"], b"a=1,b=2,c@d=3"), ([b"a=1", b"b=2"], b"a=1,b=2"), ([b"a=1,a=2"], b"a=1"), ([b"a=x y"], b"a=x y"),
        ([b"A=1"], b""), ([b"a"], b""), ([b"a=1,=2"], b""), ([b"a=1=2"], b""), ([b"a=\xe9"], b""), ([b"x" * 600 + b"=1"], b""),
        ([b",".join(b"k%d=v" % n for n in range(33))], b""), ([b"a=" + b"x" * 257], b""),
    ],
)  # fmt: skip
def test_the_state_of_a_trace(values, written):
    found = dict(request_headers("POST", [(b"traceparent", PARENT), *((b"tracestate", value) for value in values)]))
    assert found.get(b"tracestate", b"") == written
    assert b"tracestate" not in names(request_headers("POST", [(b"tracestate", value) for value in values]))


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ([b"a=1 , b = 2;p;q=3"], b"a=1,b=2;p;q=3"), ([b"a=1", b"b=%20"], b"a=1,b=%20"), ([b"a=1,a=2"], b"a=1"),
        ([b"a"], b""), ([b"a=1,b"], b""), ([b'a="x"'], b""), ([b"a=x y"], b""), ([b"a=\\"], b""), ([b"a=\xc3\xa9"], b""), ([b"a=" + b"x" * 5000], b""),
        ([b",".join(b"k%d=v" % n for n in range(65))], b""), ([b"a=1;p=\x7f"], b""),
    ],
)  # fmt: skip
def test_baggage(values, written):
    found = dict(request_headers("POST", [(b"baggage", value) for value in values]))
    assert found.get(b"baggage", b"") == written


@pytest.mark.parametrize(
    "name",
    [b"set-cookie", b"connection", b"transfer-encoding", b"content-length", b"content-encoding", b"location", b"server", b"www-authenticate",
     b"access-control-allow-origin", b"strict-transport-security", b"alt-svc", b"mcp-session-id", b"x-powered-by", b"authorization", b"link"],
)  # fmt: skip
def test_upstreams_cannot_set_what_is_the_gateways(name):
    assert response_headers([(name, b"x")]) == []


def test_an_answers_own_headers_go_through():
    kept = [
        (b"cache-control", b"no-cache"),
        (b"retry-after", b"1"),
        (b"x-accel-buffering", b"no"),
    ]
    assert response_headers([*kept, (b"date", b"today"), (b"content-type", b"text/event-stream")]) == kept


def test_a_header_with_the_callers_key_in_it_stays_behind():
    protocol = [
        (b"mcp-param-token", b"sntl_key"),
        (b"mcp-param-other", encode_header("sntl_key\xe9")),
        (b"mcp-name", b"x"),
    ]
    sent = [(b"baggage", b"k=sntl_key")]
    assert names(request_headers("POST", sent, protocol, secret="sntl_key"))[3:] == [b"mcp-name"]
    assert len(request_headers("POST", sent, protocol)) == 7
