"""Nothing unread passes back: what any reader would take for an answer or a list was judged, and stands in the log.

`SENTINEL_TEST_ANSWERS=20000` tries so many.
"""

from __future__ import annotations

import json
import os
import random
from typing import Any

import pytest

from proxy.mcp.listing import MOST_LIST_BYTES
from tests.support.fixtures import Stage
from tests.support.lax import Answer, listed, marks, taken
from tests.support.upstream import Behaviour, Exchange, FakeUpstream, raw, result, sse, status
from tests.support.wire import Response, send

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("stage")]
COUNT = int(os.environ.get("SENTINEL_TEST_ANSWERS", "400"))
EVENTS = {"Accept": "text/event-stream"}


def given(answer: Answer) -> Behaviour:
    async def behave(exchange: Exchange) -> None:
        headers = [("Content-Type", answer.content_type)] if answer.content_type else []
        if answer.status == 204:
            return await exchange.head(204, headers, chunked=False)
        if answer.size >= len(answer.body):
            return await exchange.answer(answer.status, answer.body, headers)
        await exchange.head(answer.status, headers)
        for at in range(0, len(answer.body), answer.size):
            await exchange.chunk(answer.body[at : at + answer.size])
        await exchange.end()

    return behave


def test_what_any_reader_takes_was_judged_and_recorded(stage: Stage, fake: FakeUpstream) -> None:
    seed = int(os.environ.get("SENTINEL_TEST_SEED", "2026"))
    since = stage.gateway.now()
    got: dict[str, tuple[Answer, Response, str]] = {}
    clients = [stage.client("readonly", era="legacy"), stage.client("readonly", era="modern")]
    for number in range(COUNT):
        r = random.Random(seed * 1_000_000 + number)
        method = r.choice(("tools/list", "tools/call"))
        rpc_id = f"n{number}" if r.random() < 0.5 else 1_000_000 + number
        answer = Answer(r, rpc_id, method, f"MARK{number}X")
        fake.forget()
        fake.script(given(answer), method=method)
        client = clients[number % 2]
        if method == "tools/list":
            response = client.ask("tools/list", {}, rpc_id)
        else:
            response = client.call("list_customers", {}, rpc_id)
        got[str(rpc_id)] = answer, response, method
    events = {event["rpc_id"].strip('"'): event for event in stage.gateway.events(since, COUNT)}
    passed = refused = 0
    for rpc_id, (answer, response, _) in got.items():
        what = (answer.status, answer.content_type, answer.body, response.status, response.body)
        event = events[rpc_id]
        kept = json.dumps(event["response_json"])
        found = list(taken(response.header("content-type") or "", response.body))
        for message in found:
            assert "delete_customer" not in set(listed(message)), what
            for mark in marks(message):
                assert mark in kept, (what, event["response_json"])
        passed += any(marks(message) for message in found)
        refused += event["outcome"] == "upstream_error"
        lost = event["details"].get("stream", {}).get("dropped", 1)
        if event["outcome"] == "upstream_error" and answer.body.strip() and answer.status != 204 and lost:
            assert event["response_json"] is not None or event["details"].get("error"), (what, event)
    print(f"{COUNT} answers: {passed} passed with what they said, {refused} refused")
    assert passed > COUNT / 20 and refused > COUNT / 5


LIST = '{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"delete_customer","inputSchema":{}}]}}'
CALL = '{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"MARK1X"}]}}'
REFUSED: dict[str, tuple[str, str]] = {
    "broken line before it": ("text/event-stream", "data: {broken\ndata: %s\n\n"),
    "broken line behind it": ("text/event-stream", "data: %s\ndata: }\n\n"),
    "cut end": ("text/event-stream", "data: %s\n"),
    "cut without a line end": ("text/event-stream", ": fine\n\ndata: %s"),
    "a batch": ("text/event-stream", "data: [%s]\n\n"),
    "a batch in JSON": ("application/json", "[%s]"),
    "two values": ("application/json", "%s %s"),
    "lines of JSON": ("application/json", "%s\n%s"),
    "an event stream called JSON": ("application/json", "data: %s\n\n"),
    "JSON called text": ("text/plain", "%s"),
    "no type": ("", "%s"),
    "invalid UTF-8": ("text/event-stream", "data: %s\xff\n\n"),
    "a byte order mark": ("application/json", "\ufeff%s"),
    "in another event": ("text/event-stream", "event: endpoint\ndata: %s\n\n"),
    "another request's": ("text/event-stream", "data: %s\n\n".replace("%s", "{OTHER}")),
    "another request's in JSON": ("application/json", "{OTHER}"),
    "another request's error": (
        "application/json",
        '{"jsonrpc":"2.0","id":2,"error":{"code":-1,"message":"MARK1X delete_customer"}}',
    ),
    "a prototype": ("application/json", '{"__proto__":%s,"jsonrpc":"2.0","id":1,"result":{"tools":[]}}'),
}


@pytest.mark.parametrize("method", ["tools/list", "tools/call"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_whole_is_refused(stage: Stage, fake: FakeUpstream, name: str, method: str) -> None:
    content_type, form = REFUSED[name]
    value = LIST if method == "tools/list" else CALL
    text = form.replace("%s", value).replace("{OTHER}", value.replace('"id":1', '"id":2'))
    fake.script(status(200, text.encode("latin-1" if "\xff" in text else "utf-8"), content_type), method=method)
    since = stage.gateway.now()
    client = stage.client("readonly")
    answer = client.ask("tools/list") if method == "tools/list" else client.call("list_customers")
    assert b"delete_customer" not in answer.body and b"MARK1X" not in answer.body
    assert answer.error["data"]["reason"] == "upstream_broken", answer.body
    assert answer.json["id"] == 1
    event = stage.gateway.event(since)
    assert (event["outcome"], event["reason"]) == ("upstream_error", "upstream_broken")
    assert ("delete_customer" if method == "tools/list" else "MARK1X") in json.dumps(event["response_json"])


@pytest.mark.parametrize("code", [400, 403, 404, 405, 409, 422, 429])
@pytest.mark.parametrize(
    ("content_type", "form"),
    [
        ("application/json", "%s"),
        ("application/json", "[%s]"),
        ("text/event-stream", "data: %s\n\n"),
        ("text/html", "%s"),
    ],
)
def test_with_an_error_status_only_an_error_passes(
    stage: Stage, fake: FakeUpstream, code: int, content_type: str, form: str
) -> None:
    client = stage.client("readonly").initialize()
    fake.script(status(code, (form % LIST).encode(), content_type), method="tools/list")
    since = stage.gateway.now()
    answer = client.ask("tools/list")
    assert (answer.status, answer.error["code"], answer.json["id"]) == (code, code, 1)
    assert b"delete_customer" not in answer.body
    event = stage.gateway.event(since)
    assert event["status_code"] == code and "delete_customer" in json.dumps(event["response_json"])
    assert answer.error["data"]["audit_id"] == event["id"]


def test_an_upstreams_own_error_passes_with_its_status(stage: Stage, fake: FakeUpstream) -> None:
    client = stage.client("readonly").initialize()
    body = b'{"jsonrpc": "2.0","id":1,"error":{"code":-32600,"message":"MARK1X","data":{"tools":[{"name":"x"}]}}}'
    fake.script(status(400, body, "application/json; charset=utf-8"), method="tools/list")
    since = stage.gateway.now()
    answer = client.ask("tools/list")
    assert (answer.status, answer.body) == (400, body)
    assert answer.header("content-type") == "application/json"
    assert "MARK1X" in json.dumps(stage.gateway.event(since)["response_json"])


@pytest.mark.parametrize("code", [200, 202, 204])
def test_nothing_answers_a_notification(stage: Stage, fake: FakeUpstream, code: int) -> None:
    head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    fake.script(raw(head % (code, len(LIST)) + LIST.encode()), method="notifications/initialized")
    since = stage.gateway.now()
    answer = stage.client("readonly").ask("notifications/initialized", None, None)
    assert (answer.status, answer.body) == (code, b"")
    stage.gateway.event(since)


def test_a_stream_that_listens_is_judged_and_recorded_too(stage: Stage, fake: FakeUpstream) -> None:
    client = stage.client("readonly").initialize()
    note = b'data: {"jsonrpc":"2.0","method":"notifications/message","params":{"data":"fine"}}\n\n'
    replayed = LIST.replace("[{", '[{"name":"list_customers","description":"MARK2X"},{')
    fake.script(sse([note, f"id: 4\ndata: {replayed}\n\n".encode(), b"data: [" + LIST.encode() + b"]\n\n"]), verb="GET")
    since = stage.gateway.now()
    answer = client.ask("", verb="GET", headers=EVENTS)
    assert note in answer.body and b"MARK2X" not in answer.body and b"delete_customer" not in answer.body
    event = stage.gateway.event(since)
    assert event["reason"] == "upstream_broken" and "delete_customer" in json.dumps(event["response_json"])
    fake.script(sse([note, f"id: 4\ndata: {replayed}\n\n".encode()]), verb="GET")
    since = stage.gateway.now()
    assert b"MARK2X" not in client.ask("", verb="GET", headers=EVENTS).body
    event = stage.gateway.event(since)
    assert (event["outcome"], event["details"]["stream"]["unasked"]) == ("allowed", 1)


def test_a_second_answer_does_not_pass(stage: Stage, fake: FakeUpstream) -> None:
    second = CALL.replace("MARK1X", "MARK3X")
    fake.script(
        sse([f"data: {CALL}\n\n".encode(), f"data: {second}\n\n".encode(), b"data: {broken\n\n"]), method="tools/call"
    )
    since = stage.gateway.now()
    answer = stage.client("readonly").call("list_customers")
    assert b"MARK1X" in answer.body and b"MARK3X" not in answer.body and b"broken" not in answer.body
    event = stage.gateway.event(since)
    assert (event["outcome"], event["details"]["stream"]["dropped"]) == ("allowed", 2)


def test_a_servers_request_in_a_batch_does_not_pass_policy(stage: Stage, fake: FakeUpstream) -> None:
    asks = '{"jsonrpc":"2.0","id":9,"method":"sampling/createMessage","params":{}}'
    for form in (f"[{asks}]", f"[{asks},{CALL}]", f"[[{asks}]]", f'{{"jsonrpc":"2.0","id":[{asks}],"result":{{}}}}'):
        fake.forget()
        fake.script(sse([f"data: {form}\n\n".encode(), f"data: {CALL}\n\n".encode()]), method="tools/call")
        answer = stage.client("readonly").call("list_customers")
        assert b"sampling" not in answer.body, form
        assert answer.error["data"]["reason"] == "upstream_broken"


def test_text_that_readers_cut_elsewhere_stays(stage: Stage, fake: FakeUpstream) -> None:
    text = 'line\u2028separator \x85 {"a":1} data: {x}'
    data = json.dumps(
        {"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": text}]}}, ensure_ascii=False
    )
    for body in (f"data: {data}\n\n", f"event: message\r\nretry: 1\r\ndata: {data}\r\n\r\n"):
        fake.script(sse([body.encode()]), method="tools/call")
        answer: Any = stage.client("readonly").call("list_customers")
        assert answer.body == body.encode()


@pytest.mark.parametrize("form", [" \n%s", "\r\n\t%s\n", "%s"])
def test_an_answer_of_several_lines_is_one_line_of_a_stream(stage: Stage, fake: FakeUpstream, form: str) -> None:
    """What goes out on the older transport is one line, of which no reader takes a part for the whole."""
    nested = CALL.replace('"content"', f'"structuredContent":\n{LIST}\r,"content"')
    fake.script(status(200, (form % nested).encode(), "application/json"), method="tools/call")
    owner = {"Authorization": f"Bearer {stage.keys['admin'].key}"}
    with send(f"{stage.gateway.url}/sse/fake", None, owner, verb="GET", stream=True) as stream:
        told = stream.until(b"\n\n").decode()
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "public.echo"}}
        since = stage.gateway.now()
        assert send(stage.gateway.url + told.split("data: ")[1].split("\n")[0], body, owner).status == 202
        stream.until(b"MARK1X")
        (line,) = [line for line in stream.received.split(b"\n") if b"delete_customer" in line]
    assert json.loads(line.removeprefix(b"data: ")) == json.loads(nested)
    assert "MARK1X" in json.dumps(stage.gateway.events(since, 1, method="tools/call")[0]["response_json"])


@pytest.mark.parametrize("code", [200, 202, 401, 403, 500])
def test_a_failure_is_one_event_of_a_stream(stage: Stage, fake: FakeUpstream, code: int) -> None:
    fake.script(status(code, b""), method="tools/call")
    owner = {"Authorization": f"Bearer {stage.keys['admin'].key}"}
    with send(f"{stage.gateway.url}/sse/fake", None, owner, verb="GET", stream=True) as stream:
        told = stream.until(b"\n\n").decode()
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "public.echo"}}
        since = stage.gateway.now()
        assert send(stage.gateway.url + told.split("data: ")[1].split("\n")[0], body, owner).status == 202
        stream.until(b"audit_id")
        events = [block for block in stream.received.split(b"\n\n")[1:] if block and block[:1] != b":"]
    assert len(events) == 1 and (b'"error":' if code == 403 else b'"isError":true') in events[0], events
    assert stage.gateway.events(since, 1, method="tools/call")[0]["outcome"] == "upstream_error"


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
@pytest.mark.parametrize("method", ["tools/list", "resources/list", "resources/templates/list", "prompts/list"])
def test_a_list_may_not_be_as_large_as_an_answer(
    stage: Stage, fake: FakeUpstream, method: str, content_type: str
) -> None:
    tool = {"name": "list_customers", "description": "x" * MOST_LIST_BYTES, "inputSchema": {"type": "object"}}
    listed = {"tools": [tool]}
    fake.script(sse([], answer=listed) if "event" in content_type else result(listed), method=method)
    since = stage.gateway.now()
    answer = stage.client("readonly").ask(method)
    assert answer.error["data"]["reason"] == "upstream_too_large", answer.body[:200]
    event = stage.gateway.event(since)
    assert (event["outcome"], event["status_code"]) == ("upstream_error", 502)
    assert answer.status == (200 if "event" in content_type else 502)  # a stream had begun
    fake.script(result({"content": [], **listed}), method="tools/call", name="list_customers")
    assert stage.client("readonly").call("list_customers").status == 200
