"""Each role x tool x era x place of the key: the right status, nothing refused reaches the upstream, one event each."""

from __future__ import annotations

import itertools
import json

import pytest

from tests.support.fixtures import Stage
from tests.support.upstream import FakeUpstream
from tests.support.wire import Client

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("stage")]

TOOLS = ("list_customers", "get_customer", "delete_customer", "public.echo")
MAY = {"admin": set(TOOLS), "user": {"list_customers", "public.echo"}, "readonly": {"list_customers"}, None: set()}
PLACES = {"bearer": "bearer", "header": "header", "query": "query"}
STYLES = ("modern", "legacy", "session")  # "session" is legacy inside a live session


def test_every_combination(stage: Stage, fake: FakeUpstream) -> None:
    since = stage.gateway.now()
    sent = []
    clients = {}
    for role, style, place in itertools.product(MAY, STYLES, PLACES):
        if role is None and (style == "session" or place != "bearer"):
            continue
        client = stage.client(role, era="modern" if style == "modern" else "legacy", place=place)
        clients[role, style, place] = client.initialize() if style == "session" else client
    since = stage.gateway.now()
    fake.requests.clear()
    for (role, style, place), client in clients.items():
        for tool in TOOLS:
            marker = f"{role}/{style}/{place}"
            answer = client.call(tool, {"text": marker}, rpc_id=marker)
            value = answer.json
            if role is None:
                wanted = code = 401
            elif tool in MAY[role]:
                wanted = code = 200
            else:
                wanted, code = 403, 200 if style == "session" else 403
            assert answer.status == code, (marker, tool, answer.status, answer.body)
            assert value["id"] == marker
            if wanted == 200:
                assert "isError" not in value["result"], (marker, tool, value)
            else:
                assert ("result" in value) == (style == "session"), (marker, tool, value)
                assert answer.refusal["code"] == wanted, (marker, tool, value)
                assert answer.refusal["text"] and answer.refusal["audit_id"], value
            sent.append((marker, tool, wanted, answer))
    reached = [(r.id, r.name) for r in fake.requests]
    assert reached == [(marker, tool) for marker, tool, wanted, _ in sent if wanted == 200]
    assert all(r.header("authorization") is None and r.header("x-api-key") is None for r in fake.requests)
    assert all("api_key" not in r.target for r in fake.requests)

    events = stage.gateway.events(since, len(sent))
    assert len(events) == len(sent)
    methods = {"bearer": "bearer", "header": "header", "query": "query"}
    for event, (marker, tool, wanted, answer) in zip(events, sent, strict=True):
        role, style, place = marker.split("/")
        assert event["tool_name"] == tool
        assert event["method"] == "tools/call"
        assert event["upstream"] == "fake"
        assert event["status_code"] == wanted, (marker, event)
        assert event["outcome"] == {200: "allowed", 401: "unauthenticated", 403: "denied"}[wanted]
        assert event["role"] == ("" if role == "None" else role), event
        assert event["auth_method"] == ("none" if role == "None" else methods[place]), event
        assert (event["api_key_id"] is None) == (role == "None")
        assert event["client_ip"] == "127.0.0.1"
        if wanted != 200:
            assert answer.refusal["audit_id"] == event["id"]
            assert event["upstream_ms"] is None
        else:
            assert event["upstream_ms"] > 0
            assert event["latency_ms"] >= event["upstream_ms"]
        if role == "None":
            assert event["reason"] == "missing_credential"


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("role", ["admin", "user", "readonly"])
def test_lists_show_what_may_be_called(stage: Stage, fake: FakeUpstream, role: str, era: str) -> None:
    assert set(stage.client(role, era=era).tools()) == MAY[role]


def test_two_credentials_are_refused_even_when_equal(stage: Stage, fake: FakeUpstream) -> None:
    since = stage.gateway.now()
    key = stage.keys["admin"].key
    answer = stage.client("admin").call("get_customer", {}, headers={"X-API-Key": key})
    assert answer.status == 400
    assert answer.error["data"]["reason"] == "credential_ambiguous"
    assert not fake.requests
    assert stage.gateway.event(since)["reason"] == "credential_ambiguous"


@pytest.mark.parametrize("query", ["apikey={}", "API_KEY={}", "api%5Fkey={}", "access_token={}", "x=1;api_key={}"])
@pytest.mark.parametrize("beside", ["", "header", "query"])
def test_a_credential_under_another_name_is_refused_and_kept_nowhere(
    stage: Stage, fake: FakeUpstream, query: str, beside: str
) -> None:
    since = stage.gateway.now()
    key = stage.keys["admin"].key
    query = query.format(key + "x") + (f"&api_key={key}" if beside == "query" else "")
    client = Client(f"{stage.gateway.url}/mcp/fake?{query}", key if beside == "header" else None)
    answer = client.call("get_customer", {})
    reason = "credential_ambiguous" if beside else "credential_misplaced"
    assert (answer.status, answer.error["data"]["reason"]) == (400, reason)
    assert not fake.requests
    event = stage.gateway.event(since)
    assert (event["reason"], event["api_key_id"]) == (reason, None)
    assert key + "x" not in json.dumps(event) + stage.gateway.output()


@pytest.mark.parametrize("wrong", ["nonsense", "mcps_live_AAAAAAAAAAAA_" + "A" * 43, "é" * 40])
def test_a_bad_key_is_told_nothing(stage: Stage, fake: FakeUpstream, wrong: str) -> None:
    since = stage.gateway.now()
    answer = stage.gateway.client(wrong).call("get_customer", {})
    assert answer.status == 401
    assert answer.error["code"] == 401
    assert answer.error["data"]["reason"] == "invalid_credential"
    assert (answer.header("www-authenticate") or "").startswith("Bearer")
    assert not fake.requests
    event = stage.gateway.event(since)
    assert event["outcome"] == "unauthenticated"
    assert event["api_key_id"] is None


@pytest.mark.parametrize(
    ("path", "verb", "status"),
    [("/mcp/nowhere", "POST", 404), ("/mcp/fake", "PUT", 405), ("/mcp/fake", "PATCH", 405), ("/mcp/a/b", "POST", 404)],
)
def test_wrong_places_and_verbs(stage: Stage, fake: FakeUpstream, path: str, verb: str, status: int) -> None:
    from tests.support.wire import request, send

    since = stage.gateway.now()
    url = stage.gateway.url + path
    body = request("tools/call", {"name": "get_customer"})
    key = {"Authorization": f"Bearer {stage.keys['admin'].key}"}
    without = send(url, body, verb=verb)
    assert without.status == 401, without.body
    answer = send(url, body, key, verb=verb)
    assert answer.status == status, answer.body
    assert answer.json["error"]["data"]["audit_id"]
    if status == 405:
        assert "POST" in (answer.header("allow") or "")
    assert not fake.requests
    events = stage.gateway.events(since, 2)
    assert [event["status_code"] for event in events] == [401, status]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, -32700),
        (b"\xff\xfe", 400, -32700),
        (b"\xef\xbb\xbf" + b'{"jsonrpc":"2.0","id":1,"method":"ping"}', 400, None),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', 400, -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}', 400, None),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_customer","Name":"x"}}', 400, None),
        (b"[" * 100_000, 400, None),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"' + b"a" * (5 * 1024**2) + b'"}}', 413, -32600),
        (b"", 400, None),
    ],
    ids=["cut", "not-utf8", "bom", "batch", "duplicate", "case-variant", "deep", "large", "empty"],
)
def test_bad_bodies(stage: Stage, fake: FakeUpstream, body: bytes, status: int, code: int | None) -> None:
    from tests.support.wire import send

    since = stage.gateway.now()
    answer = send(f"{stage.gateway.url}/mcp/fake", body, {"Authorization": f"Bearer {stage.keys['admin'].key}"})
    assert answer.status == status, answer.body
    assert answer.json["error"]["data"]["audit_id"]
    if code is not None:
        assert answer.error["code"] == code
    assert not fake.requests
    event = stage.gateway.event(since)
    assert event["outcome"] == "invalid"
    assert event["status_code"] == status
