"""What a server asks of a client on a call's stream: kept, redacted, joined to the call and to the client's answer, bounded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.relay import RECORDED_REQUESTS, SERVER_REQUESTS
from tests.e2e.conftest import Pipes
from tests.support.upstream import FakeUpstream, sse
from tests.support.wire import send

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("pipes")]

RESULT = {"content": [{"type": "text", "text": "done"}]}


def question(rpc_id: Any, method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": rpc_id, "method": method, "params": params}


ASKED = [
    question("s-1", "sampling/createMessage", messages=[{"role": "user", "content": {"type": "text", "text": "password=abcdefghijklmnop9"}}]),
    question(2, "elicitation/create", message="Which account?", requestedSchema={"type": "object"}, password="hunter2-hunter2"),
    question("s-3", "roots/list"),
]  # fmt: skip


def test_each_is_kept_and_joined(pipes: Pipes, silent: FakeUpstream) -> None:
    client = pipes.client("silent").initialize()
    silent.script(sse(ASKED, answer=RESULT), method="tools/call")
    since = pipes.gateway.now()
    client.call("public.echo")
    events = pipes.gateway.events(since, 4)
    call = next(event for event in events if event["method"] == "tools/call")
    asked = [event for event in events if event is not call]
    assert [(event["method"], event["rpc_id"]) for event in asked] == [
        (one["method"], json.dumps(one["id"])) for one in ASKED
    ]
    for event, one in zip(asked, ASKED, strict=True):
        assert event["outcome"] == "allowed" and event["details"]["asked_on"] == call["id"]
        assert event["session"] == call["session"] and event["api_key_id"] == call["api_key_id"]
        assert event["request_json"]["method"] == one["method"] and event["request_bytes"] == len(
            json.dumps(one, separators=(",", ":")).encode()
        )
        assert event["tool_error"] is False and event["response_json"] is None
    text = json.dumps(asked)
    assert "Which account?" in text and "hunter2" not in text and "abcdefghijklmnop" not in text
    named = call["details"]["stream"]["server_requests"]
    assert [one["event"] for one in named] == [event["id"] for event in asked]
    # The answer is a request of the client's: same session, same id.
    since = pipes.gateway.now()
    answer = {
        "jsonrpc": "2.0",
        "id": 2,
        "result": {"action": "accept", "content": {"account": "A-7", "password": "hunter2-hunter2"}},
    }
    send(client.address, answer, client.headers())
    (told,) = pipes.gateway.events(since, 1)
    assert (told["session"], told["rpc_id"]) == (asked[1]["session"], asked[1]["rpc_id"])
    assert told["request_json"]["result"]["content"]["account"] == "A-7" and "hunter2" not in json.dumps(told)


def test_their_number_is_bounded(pipes: Pipes, silent: FakeUpstream) -> None:
    client = pipes.client("silent").initialize()
    many = RECORDED_REQUESTS + 30
    silent.script(sse([question(n, "roots/list") for n in range(many)], answer=RESULT), method="tools/call")
    since = pipes.gateway.now()
    client.call("public.echo")
    (call,) = pipes.gateway.events(since, 1, method="tools/call")
    stream = call["details"]["stream"]
    assert len(stream["server_requests"]) == SERVER_REQUESTS and stream["server_requests_in_all"] == many
    assert len(pipes.gateway.events(since, RECORDED_REQUESTS, method="roots/list")) == RECORDED_REQUESTS
