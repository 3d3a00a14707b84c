"""What an upstream reads of a request is what was decided: servers of the official SDKs, and one that takes headers at their word.

A role that may call `public.echo` alone sends bodies that are another call to who believes a header.
"""

from __future__ import annotations

import gzip
import http.client
import json
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import readers
from tests.support.fixtures import Stage
from tests.support.upstream import FakeUpstream
from tests.support.wire import MODERN, encoded, send

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("stage")]

SERVERS = (
    readers.CREDULOUS,
    "typescript-old",
    "typescript-1",
    "typescript-1-express",
    "typescript-2",
    "python-1",
    "python-2",
)
#: one call in UTF-8, the other in UTF-7
POLYGLOT = (
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"public.echo","arguments":{"a":'
    b'"+ACI-},+ACI-name+ACI-:+ACI-delete_customer+ACI-,+ACI-z+ACI-:{+ACI-z+ACI-:+ACI-"}}}'
)
CALL = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"delete_customer","arguments":{}}}'
GOOD = CALL.replace("delete_customer", "public.echo").encode()
TYPES = [
    "application/json; charset=utf-7; x=utf-8",
    "application/json; x=utf-8; charset=utf-7",
    "application/json; charset=utf-7",
    'application/json; charset="utf-7"; note="utf-8"',
    "application/json; charset=utf-8; charset=utf-7",
    "application/json; charset=unicode-1-1-utf-7; utf-8",
]
ENCODED = ["utf-7", "utf-16", "utf-16le", "utf-32", "cp037", "iso2022_jp", "hz"]


@pytest.fixture(scope="module")
def ports(stage: Stage) -> Iterator[dict[str, int]]:
    with readers.servers(SERVERS) as found:
        stage.gateway.commands(
            *(["upstreams", "add", name, "--url", f"http://127.0.0.1:{port}/mcp"] for name, port in found.items())
        )
        time.sleep(1.2)
        yield found


def executed(ports: dict[str, int]) -> list[Any]:
    return [(name, *entry[1:3]) for name, port in ports.items() for entry in readers.executed(port)]


def refused(stage: Stage, ports: dict[str, int], body: bytes, lines: list[tuple[str, str]], reason: str) -> None:
    """The request is refused before every server, with an event each, and nothing runs."""
    before, since = executed(ports), stage.gateway.now()
    for name in ports:
        headers = [
            ("Authorization", f"Bearer {stage.keys['user'].key}"),
            ("traceparent", f"00-{'a' * 32}-{'b' * 16}-01"),
        ]
        answer = send(f"{stage.gateway.url}/mcp/{name}", body, [*headers, *lines])
        assert answer.status == 415, (name, lines, answer.body)
        assert answer.error["data"]["reason"] == reason
    assert executed(ports) == before
    events = stage.gateway.events(since, len(ports))
    assert [(event["outcome"], event["reason"], event["status_code"]) for event in events] == [
        ("invalid", reason, 415)
    ] * len(ports)


def test_every_server_runs_what_is_good(stage: Stage, ports: dict[str, int]) -> None:
    for name in ports:
        headers = {"Authorization": f"Bearer {stage.keys['user'].key}", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
        answer = send(
            f"{stage.gateway.url}/mcp/{name}", GOOD, headers | {"Content-Type": "application/json; charset=UTF-8"}
        )
        assert answer.status == 200, (name, answer.body)
    assert {name for name, *ran in executed(ports) if ran == ["tools/call", "public.echo"]} == set(SERVERS)


@pytest.mark.parametrize("kind", TYPES)
def test_one_call_in_two_charsets(stage: Stage, ports: dict[str, int], kind: str) -> None:
    refused(stage, ports, POLYGLOT, [("Content-Type", kind)], "unsupported_media_type")


@pytest.mark.parametrize("kind", TYPES[2:4])
@pytest.mark.parametrize("first", [True, False])
def test_a_second_line(stage: Stage, ports: dict[str, int], kind: str, first: bool) -> None:
    lines = [("Content-Type", "application/json"), ("Content-Type", kind)]
    refused(stage, ports, POLYGLOT, lines if first else lines[::-1], "unsupported_media_type")


@pytest.mark.parametrize("charset", ENCODED)
def test_other_charsets(stage: Stage, ports: dict[str, int], charset: str) -> None:
    lines = [("Content-Type", f"application/json; charset={charset}; x=utf-8")]
    refused(stage, ports, CALL.encode(charset), lines, "unsupported_media_type")


@pytest.mark.parametrize(
    ("lines", "squeeze"),
    [
        ([("Content-Encoding", "gzip")], gzip.compress),
        ([("Content-Encoding", "identity"), ("Content-Encoding", "gzip")], gzip.compress),
        ([("Content-Encoding", ""), ("Content-Encoding", "deflate")], zlib.compress),
        ([("Content-Encoding", "identity, gzip")], gzip.compress),
        ([("Content-Encoding", "identity"), ("Content-Encoding", "br")], bytes),
    ],
)
def test_codings(stage: Stage, ports: dict[str, int], lines: list[tuple[str, str]], squeeze: Any) -> None:
    refused(stage, ports, squeeze(CALL.encode()), lines, "unsupported_encoding")


# --- headers of the other era (C11), and what is left of all others ----------------------------------------------------

LEFT_OVER = {"Mcp-Method": "tools/list", "Mcp-Name": "danger", "Mcp-Param-A": "1", "mcp_name": "danger"}


@pytest.mark.parametrize("method", ["initialize", "tools/list", "tools/call", "notifications/initialized"])
def test_left_over_headers_of_the_modern_era(stage: Stage, fake: FakeUpstream, method: str) -> None:
    client = stage.client()
    params = {
        "initialize": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "a", "version": "1"},
        },
        "tools/call": {"name": "public.echo", "arguments": {}},
    }.get(method, {})
    rpc_id = None if method.startswith("notifications/") else 1
    answer = send(client.address, client.body(method, params, rpc_id), client.headers() | LEFT_OVER)
    assert answer.status == (202 if rpc_id is None else 200), answer.body
    (seen,) = fake.seen(method)
    assert not [name for name, _ in seen.headers if name.startswith("mcp")]


def test_a_left_over_session_in_the_modern_era(stage: Stage, fake: FakeUpstream) -> None:
    client = stage.client(era="modern")
    lines = [
        *client.headers("tools/call", "public.echo").items(),
        ("Mcp-Session-Id", "a"),
        ("Mcp-Session-Id", "b"),
        ("Last-Event-ID", "7"),
    ]
    answer = send(client.address, client.body("tools/call", {"name": "public.echo", "arguments": {}}), lines)
    assert answer.status == 200, answer.body
    (seen,) = fake.seen("tools/call")
    assert seen.header("mcp-session-id") is None and seen.header("last-event-id") is None
    assert seen.header("mcp-protocol-version") == MODERN


def test_the_head_an_upstream_gets(stage: Stage, fake: FakeUpstream) -> None:
    client = stage.client(era="modern")
    name, trace = "public.echo", f"00-{'a' * 32}-{'b' * 16}-01"
    lines = [
        *client.headers("tools/call").items(),
        ("Mcp-Name", "=?base64?cHVibGljLmVjaG8=?="),
        ("Mcp-Param-Region", encoded("é")),
        ("traceparent", trace),
        ("tracestate", "a=1 , b=2"),
        ("tracestate", "c=3"),
        ("Content-Type", "Application/JSON ; charset=UTF-8"),
        ("Accept", "*/*;q=0.5"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("Content_Type", "text/plain"),
        ("Cookie", "a=b"),
        ("X-Original-URL", "/danger"),
    ]
    target = client.address + "?name=danger&_method=DELETE"
    assert send(target, client.body("tools/call", {"name": name, "arguments": {}}), lines).status == 200
    (seen,) = fake.seen("tools/call")
    assert (seen.verb, seen.target) == ("POST", "/mcp")
    assert sorted(seen.headers) == sorted(
        [
            ("host", f"127.0.0.1:{fake.port}"),
            ("accept-encoding", "identity"),
            ("user-agent", "mcp-sentinel"),
            ("accept", "application/json, text/event-stream"),
            ("content-type", "application/json"),
            ("content-length", str(len(seen.body))),
            ("mcp-protocol-version", MODERN),
            ("mcp-method", "tools/call"),
            ("mcp-name", name),
            ("mcp-param-region", "=?base64?w6k=?="),
            ("traceparent", trace),
            ("tracestate", "a=1,b=2,c=3"),
        ]
    )


def test_two_ids_to_resume_from(stage: Stage, fake: FakeUpstream) -> None:
    client, since = stage.client(), stage.gateway.now()
    lines = [*client.headers().items(), ("Last-Event-ID", "1"), ("Last-Event-ID", "2")]
    answer = send(client.address, None, lines, verb="GET")
    assert answer.status == 400
    assert stage.gateway.event(since)["outcome"] == "invalid"
    assert not fake.requests


def test_a_body_of_no_said_type_is_refused(stage: Stage, fake: FakeUpstream) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", stage.gateway.port, timeout=20)
    since = stage.gateway.now()
    connection.request("POST", "/mcp/fake", GOOD, {"Authorization": f"Bearer {stage.keys['user'].key}"})
    answer = connection.getresponse()
    assert answer.status == 415
    assert json.loads(answer.read())["error"]["data"]["reason"] == "unsupported_media_type"
    connection.close()
    assert stage.gateway.event(since)["reason"] == "unsupported_media_type"
    assert not fake.requests
