"""How refusals and failures of a call go out: each style, in and without a session, in both eras, and in a stream that has begun."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from tests.support.fixtures import Stage
from tests.support.upstream import Behaviour, FakeUpstream, broken_chunking, hang, redirect, sse, status
from tests.support.wire import Client, Response, request, send

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("stage")]

MODES = ("", "auto", "http", "in-band", "tool-result")
#: in a live legacy session, without one, and in the era that has none
PLACES = ("session", "legacy", "modern")
TEXT = {
    403: "No policy rule allows this request. (",
    429: "The rate limit is used up. Try again in ",
    502: "The upstream",
    504: "The upstream did not ",
}


def expected(mode: str, place: str, *, tool: bool = True) -> str:
    """The contract, in the test's own words."""
    if mode == "http" or (mode in ("", "auto") and place != "session"):
        return "http"
    return "tool-result" if tool and mode != "in-band" else "in-band"


@pytest.fixture(scope="module")
def styled(stage: Stage) -> Iterator[Stage]:
    """The stage with an upstream for each style; what they are and one that nobody listens for."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and never listening
        dead = f"http://127.0.0.1:{taken.getsockname()[1]}/mcp"
        stage.gateway.commands(
            *(
                [
                    "upstreams",
                    "add",
                    f"{name}{mode or 'default'}",
                    "--url",
                    url,
                    *(["--refusals", mode] if mode else []),
                ]
                for mode in MODES
                for name, url in (("s-", stage.fake.url), ("dead-", dead))
            )
        )
        time.sleep(1.0)
        yield stage
        stage.gateway.commands(
            *(["upstreams", "remove", f"{n}{m or 'default'}"] for m in MODES for n in ("s-", "dead-"))
        )


def client(stage: Stage, mode: str, place: str, role: str = "admin", upstream: str = "s-") -> Client:
    found = stage.gateway.client(
        stage.keys[role], f"{upstream}{mode or 'default'}", era="modern" if place == "modern" else "legacy"
    )
    return found.initialize() if place == "session" else found


def check(answer: Response, style: str, code: int, event: dict[str, Any], *, modern: bool = False) -> str:
    """The answer has this style, and says in it all that there is to say; gives its text."""
    value = answer.json
    assert answer.status == (code if style == "http" else 200), (style, answer.status, answer.body)
    if style == "tool-result":
        result = value["result"]
        wanted = {"content", "isError", "_meta"} | ({"resultType"} if modern else set())
        assert set(result) == wanted and result["isError"] is True
        assert result.get("resultType", "complete") == "complete"
        (content,) = result["content"]
        assert content.pop("type") == "text"
        text = content.pop("text")
        assert not content
        (data,) = result["_meta"].values()
        assert data.pop("code") == code
    else:
        assert value["error"]["code"] == code, value
        text, data = value["error"]["message"], value["error"]["data"]
    assert text.startswith(TEXT[code]) and text.endswith(f"(audit id {event['id']})"), text
    assert data["audit_id"] == event["id"] and data["reason"] == event["reason"]
    if "retry_after" in data:
        seconds = data["retry_after"]
        assert f"Try again in {seconds} second{'s' if seconds > 1 else ''}." in text
        assert style != "http" or answer.header("retry-after") == str(seconds)
    assert event["status_code"] == code
    assert not event["details"].get("tool_error"), "the tool did not run"
    return text


@pytest.mark.parametrize("mode", MODES)
def test_a_denied_call(styled: Stage, fake: FakeUpstream, mode: str) -> None:
    clients = {place: client(styled, mode, place, "user") for place in PLACES}
    for place, asking in clients.items():
        since = styled.gateway.now()
        answer = asking.call("delete_customer", {"customer_id": "7"}, rpc_id=f"x{place}")
        assert answer.json["id"] == f"x{place}"
        event = styled.gateway.event(since)
        check(answer, expected(mode, place), 403, event, modern=place == "modern")
        assert event["outcome"] == "denied"
    assert not fake.seen("tools/call")


@pytest.mark.parametrize("mode", MODES)
def test_a_call_over_its_limit(styled: Stage, fake: FakeUpstream, mode: str) -> None:
    for place in PLACES:
        asking = client(styled, mode, place)
        since = styled.gateway.now()
        answers = [asking.call("limited", rpc_id=number) for number in range(3)]
        event = styled.gateway.events(since, 3)[-1]
        check(answers[-1], expected(mode, place), 429, event, modern=place == "modern")
        assert event["outcome"] == "limited"


OTHERS = [("resources/read", {"uri": "test://one"}), ("prompts/get", {"name": "greet"}), ("odd/method", {})]


@pytest.mark.parametrize("mode", MODES)
def test_what_is_no_tools_call_is_told_as_an_error(styled: Stage, fake: FakeUpstream, mode: str) -> None:
    # a call that asks for a task would be answered with that, not with what the tool gives
    others = [*OTHERS, ("tools/call", {"name": "delete_customer", "task": {"ttl": 1000}})]
    for place in PLACES:
        asking = client(styled, mode, place, "readonly")
        for method, params in others:
            since = styled.gateway.now()
            answer = asking.ask(method, params)
            check(answer, expected(mode, place, tool=False), 403, styled.gateway.event(since))


FAILURES: dict[str, tuple[Behaviour, int]] = {
    "failed": (status(500, b"boom"), 502),
    "redirected": (redirect("http://127.0.0.1:1/"), 502),
    "broken": (broken_chunking(), 502),
    "not an answer": (status(200, b"{}", "application/json"), 502),
    "too slow": (hang(), 504),
}


@pytest.mark.parametrize("what", FAILURES)
def test_an_upstream_that_fails(styled: Stage, fake: FakeUpstream, what: str) -> None:
    behaviour, code = FAILURES[what]
    pairs = [("auto", "session"), ("tool-result", "modern")] if code == 504 else product(MODES, PLACES)
    for mode, place in pairs:
        asking = client(styled, mode, place)
        fake.script(behaviour, method="tools/call")
        fake.script(behaviour, method="resources/read")
        since = styled.gateway.now()
        called = asking.call("public.echo", {"text": "x"})
        read = asking.ask("resources/read", {"uri": "test://one"})
        first, second = styled.gateway.events(since, 2)
        assert first["outcome"] == second["outcome"] == "upstream_error"
        check(called, expected(mode, place), code, first, modern=place == "modern")
        check(read, expected(mode, place, tool=False), code, second)
        fake.forget()


@pytest.mark.parametrize("mode", MODES)
def test_an_upstream_that_is_away(styled: Stage, fake: FakeUpstream, mode: str) -> None:
    for place in ("legacy", "modern"):  # nobody there gives a session
        asking = client(styled, mode, place, upstream="dead-")
        since = styled.gateway.now()
        answer = asking.call("public.echo")
        check(answer, expected(mode, place), 502, styled.gateway.event(since), modern=place == "modern")


@pytest.mark.parametrize("mode", MODES)
def test_a_stream_that_fails_after_its_head_ends_with_the_same(styled: Stage, fake: FakeUpstream, mode: str) -> None:
    note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "working"}}
    for place in PLACES:
        asking = client(styled, mode, place)
        fake.script(sse([note, b'data: {"jsonrpc":\n\n']), method="tools/call")
        since = styled.gateway.now()
        answer = asking.call("public.echo", rpc_id="s")
        event = styled.gateway.event(since)
        assert answer.status == 200
        first, last = answer.messages
        assert first == note and last["id"] == "s"
        style = expected(mode, place)
        check(answer, "in-band" if style == "http" else style, 502, event, modern=place == "modern")
        assert event["outcome"] == "upstream_error"
        fake.forget()


@pytest.mark.parametrize("mode", MODES)
def test_a_caller_without_a_valid_key_gets_its_status(styled: Stage, fake: FakeUpstream, mode: str) -> None:
    for place in PLACES:
        asking = client(styled, mode, place)
        asking.key = "wrong"
        since = styled.gateway.now()
        answer = asking.call("public.echo")
        assert (answer.status, answer.error["code"]) == (401, 401)
        event = styled.gateway.event(since)
        assert answer.error["message"].endswith(f"(audit id {event['id']})")
        assert event["status_code"] == 401


@pytest.mark.parametrize("mode", MODES)
def test_what_is_wrong_with_session_address_or_bytes_keeps_its_status(
    styled: Stage, fake: FakeUpstream, mode: str
) -> None:
    asking = client(styled, mode, "session")
    url, headers = asking.url, asking.headers()
    call = request("tools/call", {"name": "public.echo"})
    doubled = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}'
    answers = {
        400: [send(url, doubled, headers)],
        403: [send(url, call, headers | {"Origin": "https://elsewhere.example"})],
        404: [
            send(url, call, headers | {"Mcp-Session-Id": headers["Mcp-Session-Id"] + "x"}),
            send(styled.gateway.url + "/mcp/nowhere", call, headers),
        ],
        405: [send(url, call, headers, verb="PUT")],
        413: [send(url, b" " * (5 << 20), headers)],
        415: [send(url, json.dumps(call).encode(), headers | {"Content-Type": "text/plain"})],
    }
    for code, several in answers.items():
        for answer in several:
            assert answer.status == code, (code, answer.body)
            data = answer.error["data"]
            assert answer.error["message"].endswith(f" (audit id {data['audit_id']})"), answer.body
    assert not fake.seen("tools/call")


def test_a_notification_or_an_answer_of_the_client_has_nobody_who_waits(styled: Stage, fake: FakeUpstream) -> None:
    """An error with the id of the client's own answer would be taken for one to a request of its own with that id."""
    for mode, place in product(("auto", "in-band", "tool-result"), ("session", "legacy")):
        asking = client(styled, mode, place)
        fake.script(status(500), verb="POST")
        answer = asking.ask("notifications/odd", {"name": "x"}, None)
        assert answer.status == 502 and answer.json["id"] is None, answer.body
        answer = send(asking.url, b'{"jsonrpc":"2.0","id":1,"result":{}}', asking.headers())
        assert answer.status == 502, answer.body
        fake.forget()


@pytest.mark.parametrize(
    "odd", ["18446744073709551616", "-9223372036854775809", '"\\ud800"', "7.5", "null", "[1]", '{"a":1}']
)
def test_a_cancel_of_what_no_request_can_have_as_its_id_is_passed_on(
    styled: Stage, fake: FakeUpstream, odd: str
) -> None:
    asking, since = client(styled, "auto", "session"), styled.gateway.now()
    body = b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%b}}' % odd.encode()
    answer = send(asking.url, body, asking.headers())
    assert answer.status == 202, answer.body
    event = styled.gateway.event(since)
    assert (event["outcome"], event["status_code"]) == ("allowed", 202)
    assert fake.seen("notifications/cancelled")[-1].body == body
