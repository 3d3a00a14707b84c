"""A call whose answer comes on another stream: the client has it, and so has the call's own event, whatever ends between."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import clients
from tests.support.fixtures import Everything, Stage, stage
from tests.support.upstream import Exchange, FakeUpstream, event, sse
from tests.support.wire import LEGACY, Client, send

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("resumption")]

WAIT = 5
PRIMING = b"id: up-1\nretry: 50\ndata: \n\n"
TEXT = "the answer that came later"


@pytest.fixture(scope="module")
def resumable() -> Iterator[Stage]:
    """A gateway whose calls wait a few seconds for their clients to come back."""
    yield from stage(SENTINEL_RESUME_WAIT=f"{WAIT}s", SENTINEL_KEEPALIVE_INTERVAL="1s")


@pytest.fixture(scope="module")
def patient() -> Iterator[Stage]:
    """One that waits as long as it does when nobody says otherwise: starting again may take a while."""
    yield from stage()


@pytest.fixture
def polled(resumable: Stage) -> FakeUpstream:
    resumable.fake.forget()
    return resumable.fake


def answer(rpc_id: Any = 1, text: str = TEXT, event_id: str = "up-2") -> bytes:
    result = {"content": [{"type": "text", "text": text}], "isError": text == "failed"}
    return f"id: {event_id}\n".encode() + event({"jsonrpc": "2.0", "id": rpc_id, "result": result})


def ids_of(stream: bytes) -> list[str]:
    return [line[4:].decode() for line in stream.splitlines() if line.startswith(b"id: ")]


def resume(client: Client, last: str, **options: Any) -> Any:
    headers = client.headers() | {"Last-Event-ID": last}
    return send(client.url, None, headers, verb="GET", **options)


def scripted(fake: FakeUpstream, *after: bytes, name: str = "public.echo", first: bytes = PRIMING) -> None:
    """Its call ends with the priming event; the stream that takes it up goes on with `after`."""
    fake.script(sse([first]), method="tools/call", name=name)
    fake.script(sse(list(after)), verb="GET")


def whole(stage: Stage, since: Any, paused: str, gets: int = 1) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The call's one event has the answer; those of the streams name the call."""
    found = stage.gateway.events(since, 1 + gets)
    assert len(found) == 1 + gets, found
    call, streams = found[0], found[1:]
    assert (call["method"], call["outcome"], call["reason"], call["status_code"]) == (
        "tools/call",
        "allowed",
        "allowed_by_rule",
        200,
    ), call
    assert call["request_json"]["params"]["name"] == "public.echo"
    assert call["response_json"]["result"]["content"][0]["text"] == TEXT
    assert call["response_bytes"] > 0 and call["latency_ms"] > 0
    stream = call["details"]["stream"]
    assert (stream["ended"], stream["paused"]) == ("resumed", paused)
    assert stream["resumed"] == [one["id"] for one in streams]
    for one in streams:
        assert (one["method"], one["response_json"]) == ("GET", None)
        assert one["details"]["resumed"]["call"] == call["id"]
    return call, streams


def test_the_server_ends_the_stream_and_answers_on_another(resumable: Stage, polled: FakeUpstream) -> None:
    """Again and again, until it was another worker, and the same one."""
    seen: set[bool] = set()
    for turn in range(40):
        polled.forget()
        scripted(polled, answer(turn))
        since = resumable.gateway.now()
        client = resumable.client().initialize()
        polled.script(sse([answer(turn)]), verb="GET")
        since = resumable.gateway.now()
        first = client.call("public.echo", {"secret": "is out"}, turn)
        (sealed,) = ids_of(first.body)
        assert first.body == PRIMING.replace(b"up-1", sealed.encode())
        second = resume(client, sealed)
        assert second.json["id"] == turn and ids_of(second.body) != ["up-2"]
        assert [r.header("last-event-id") for r in polled.requests if r.verb == "GET"] == ["up-1"]
        call, (stream,) = whole(resumable, since, "without_answer")
        assert stream["details"]["resumed"] == {"call": call["id"], "rpc_id": str(turn), "answered": True}
        seen.add(call["writer"] == stream["writer"])
        if len(seen) == 2:
            return
    raise AssertionError("only one worker answered")


@pytest.mark.parametrize("rpc_id", [0, -1, 2**63, "0", "é ☃" * 3, "x" * 900], ids=str)
def test_ids_of_calls(resumable: Stage, polled: FakeUpstream, rpc_id: Any) -> None:
    client = resumable.client().initialize()
    scripted(polled, answer("another's", "not for this one"), answer(rpc_id), answer(rpc_id, "a second one"))
    since = resumable.gateway.now()
    (sealed,) = ids_of(client.call("public.echo", rpc_id=rpc_id).body)
    got = resume(client, sealed)
    assert [message["id"] for message in got.messages] == [rpc_id], "what is nobody's, or comes twice, is not passed on"
    _, (stream,) = whole(resumable, since, "without_answer")
    assert stream["details"]["stream"]["unasked"] == 2


@pytest.mark.parametrize("cut", ["by the client", "reset by the client", "by the upstream"])
def test_a_connection_that_breaks(resumable: Stage, polled: FakeUpstream, cut: str) -> None:
    client = resumable.client().initialize()
    note = b"id: up-1\n" + event({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info"}})

    async def broken(exchange: Exchange) -> None:
        await exchange.head(200, [("Content-Type", "text/event-stream")])
        await exchange.chunk(note)
        exchange.reset()

    polled.script(sse([answer()]), verb="GET")
    polled.script(broken if cut == "by the upstream" else sse([note], hold=60), method="tools/call")
    since = resumable.gateway.now()
    stream = client.call("public.echo", stream=True)
    stream.until(b"\n\n")
    if cut == "by the upstream":
        while stream.read():
            pass
        assert b'"error"' not in stream.received
    (stream.reset if cut.startswith("reset") else stream.close)()
    (sealed,) = ids_of(stream.received)
    if cut != "by the upstream":
        assert polled.seen("tools/call")[0].gone.wait(5)
    assert resume(client, sealed).result["content"][0]["text"] == TEXT
    whole(resumable, since, "cut" if cut == "by the upstream" else "client_gone")


def test_more_than_one_stream_is_needed(resumable: Stage, polled: FakeUpstream) -> None:
    """The server closes the second stream, too; and long after the wait the call's event is still open."""
    client = resumable.client().initialize()
    scripted(polled, b"id: up-2\ndata:\n\n")
    since = resumable.gateway.now()
    (first,) = ids_of(client.call("public.echo").body)
    (second,) = ids_of(resume(client, first).body)

    async def late(exchange: Exchange) -> None:
        await exchange.head(200, [("Content-Type", "text/event-stream")])
        await exchange.chunk(b"id: up-3\ndata:\n\n")
        await asyncio.sleep(WAIT * 2 + 6)
        await exchange.chunk(answer(event_id="up-4"))
        await exchange.end()

    polled.script(late, verb="GET")
    assert resume(client, second).result["content"][0]["text"] == TEXT
    assert [r.header("last-event-id") for r in polled.requests if r.verb == "GET"] == ["up-1", "up-2"]
    whole(resumable, since, "without_answer", gets=2)


def test_a_client_that_comes_twice(resumable: Stage, polled: FakeUpstream) -> None:
    client = resumable.client().initialize()
    scripted(polled, answer(text="failed"))
    since = resumable.gateway.now()
    (sealed,) = ids_of(client.call("public.echo").body)
    for _ in range(2):
        assert resume(client, sealed).result["isError"] is True
        time.sleep(0.7)
    call, *streams = resumable.gateway.events(since, 3)
    assert call["response_json"]["result"]["content"][0]["text"] == "failed" and call["details"]["tool_error"] is True
    assert [one["details"]["resumed"]["answered"] for one in streams] == [True, True]
    assert [one["tool_error"] for one in (call, *streams)] == [True, False, False]


def test_answers_that_differ_all_stand_in_the_log(resumable: Stage, polled: FakeUpstream) -> None:
    """Whatever a client was given stands in an event: of the call, or of its own where that has another answer."""
    client = resumable.client().initialize()
    since = resumable.gateway.now()
    polled.script(sse([PRIMING]), method="tools/call")
    (sealed,) = ids_of(client.call("public.echo").body)

    def fetch(*texts: str) -> None:
        for text in texts:
            polled.script(sse([answer(text=text)]), verb="GET")
            assert resume(client, sealed).result["content"][0]["text"] == text

    fetch("one", "one", "two", "one")
    resumable.gateway.events(since, 1, method="tools/call", reason="answered_again")
    fetch("three", "one")  # after its event was stored
    resumable.gateway.events(since, 2, method="tools/call", reason="answered_again")
    time.sleep(3)  # and there is none beside these
    call, *others = resumable.gateway.events(since, method="tools/call")
    texts = [one["response_json"]["result"]["content"][0]["text"] for one in (call, *others)]
    assert (texts[0], sorted(texts[1:])) == ("one", ["three", "two"])
    for one in others:
        assert (one["outcome"], one["details"]["call"]) == ("allowed", call["id"])
    assert len(resumable.gateway.events(since, method="GET")) == 6


def test_nobody_comes_back(resumable: Stage, polled: FakeUpstream) -> None:
    client = resumable.client().initialize()
    since = resumable.gateway.now()
    polled.script(sse([PRIMING]), method="tools/call")
    first = client.call("public.echo", rpc_id=1)
    assert ids_of(first.body)
    begun = time.monotonic()
    with client.call("public.echo", rpc_id=2, stream=True) as stream:
        stream.until(b"\n\n")
    found = resumable.gateway.events(since, 2)
    assert time.monotonic() - begun > WAIT
    assert (found[0]["outcome"], found[0]["details"]["stream"]["ended"]) == ("allowed", "without_answer")
    assert found[1]["response_json"] is None and found[1]["details"]["stream"]["ended"] != "resumed"


@pytest.mark.parametrize("how", ["stop", "kill in mid-stream"])
def test_the_gateway_is_restarted_between(patient: Stage, how: str) -> None:
    fake = patient.fake
    fake.forget()
    client = patient.client().initialize()
    scripted(fake, answer())
    if "mid" in how:
        fake.script(sse([PRIMING], hold=60), method="tools/call")
    since = patient.gateway.now()
    with client.call("public.echo", stream=True) as stream:
        stream.until(b"\n\n")
        (sealed,) = ids_of(stream.received)
        while "mid" not in how and stream.read():
            pass
        if how.startswith("kill"):
            for worker in workers_of(patient):
                os.kill(worker, signal.SIGKILL)
            time.sleep(0.5)
        patient.gateway.restart()
    assert resume(client, sealed).result["content"][0]["text"] == TEXT
    whole(patient, since, "process_died" if how.startswith("kill") else "without_answer")
    patient.gateway.manage("audit", "verify")


def workers_of(stage: Stage) -> list[int]:
    """The processes that serve: children of the one that was started."""
    assert stage.gateway.process is not None
    parent = Path(f"/proc/{stage.gateway.process.pid}")
    children = (parent / "task" / parent.name / "children").read_text().split()
    return [int(child) for child in children if "worker" in Path(f"/proc/{child}/cmdline").read_text()]


class TestSomebodyElsesId:
    """An upstream's ids are often small numbers, and one store holds everybody's events."""

    def refused(
        self, stage: Stage, fake: FakeUpstream, client: Client, last: str | None, *more: tuple[str, str]
    ) -> None:
        fake.requests.clear()
        since = stage.gateway.now()
        headers = [*client.headers().items(), *more]
        if last is not None:
            headers.append(("Last-Event-ID", last))
        answer = send(client.url, None, headers, verb="GET")
        reason = "invalid_request" if more else "unknown_event"  # two lines are read by nobody
        assert (answer.status, answer.error["data"]["reason"]) == (400, reason), (last, answer.body)
        assert not fake.requests, "nothing of it reached the upstream"
        found = stage.gateway.event(since)
        assert (found["outcome"], found["reason"], found["status_code"]) == ("invalid", reason, 400)

    def test_ids_that_were_not_given_to_this_session_of_this_key(self, resumable: Stage, polled: FakeUpstream) -> None:
        scripted(polled, answer())
        owner, other = resumable.client("admin").initialize(), resumable.client("user").initialize()
        again = resumable.client("admin").initialize()
        (sealed,) = ids_of(owner.call("public.echo").body)
        body, _, mac = sealed.partition(".")
        for last in (
            "3",
            "up-1",
            "0",
            "x" * 2000,
            "é",
            body,
            f"{body}.{mac[::-1]}",
            f"{body[:-4]}AAAA.{mac}",
            f"{sealed}.",
            sealed.swapcase(),
        ):
            self.refused(resumable, polled, owner, last)
        self.refused(resumable, polled, other, sealed)
        self.refused(resumable, polled, again, sealed)
        self.refused(resumable, polled, owner, sealed, ("Last-Event-ID", sealed))
        self.refused(resumable, polled, owner, "3", ("Last-Event-ID", sealed))
        self.refused(resumable, polled, owner, owner.session)
        owner.session, kept = None, owner.session
        self.refused(resumable, polled, owner, sealed)
        owner.session = kept
        assert resume(owner, sealed).result["content"][0]["text"] == TEXT

    def test_without_sessions(self, resumable: Stage, polled: FakeUpstream) -> None:
        scripted(polled, answer())
        (sealed,) = ids_of(resumable.client("admin").call("public.echo").body)
        self.refused(resumable, polled, resumable.client("user"), sealed)
        assert resume(resumable.client("admin"), sealed).result["content"][0]["text"] == TEXT

    def test_only_a_get_may_go_on_from_an_event(self, resumable: Stage, polled: FakeUpstream) -> None:
        client = resumable.client().initialize()
        for last in ("3", "anything"):
            assert client.call("public.echo", headers={"Last-Event-ID": last}).status == 200
        assert send(client.url, None, client.headers() | {"Last-Event-ID": "3"}, verb="DELETE").status == 200
        assert [r.header("last-event-id") for r in polled.requests if r.method != "initialize"] == [None] * len(
            polled.seen()[1:]
        )

    def test_a_stream_that_only_listens(self, resumable: Stage, polled: FakeUpstream) -> None:
        note = event({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}})
        leak = event({"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "of another"}]}})
        polled.script(sse([b"id: 7\n" + note, b"id: 8\n" + leak, b"id: 9\n" + note]), verb="GET")
        client, other = resumable.client().initialize(), resumable.client("user").initialize()
        since = resumable.gateway.now()
        got = send(client.url, None, client.headers(), verb="GET")
        assert b"of another" not in got.body and len(got.messages) == 2, "an answer that no event would hold"
        found = resumable.gateway.event(since)
        assert found["details"]["stream"]["unasked"] == 1 and "resumed" not in found["details"]
        first, second = ids_of(got.body)
        assert first != second
        self.refused(resumable, polled, other, first)
        since = resumable.gateway.now()
        assert resume(client, second).status == 200
        assert polled.requests[-1].header("last-event-id") == "9"
        assert resumable.gateway.event(since)["details"]["resumed"] == {"call": None}

    @pytest.mark.parametrize(
        "raw",
        [b"id:7\r\ndata:\r\n\r\n", b"id: 7\rdata:\r\r", b"\xef\xbb\xbfid: 7\ndata:\n\n", b"id: 1\nid: 7\ndata: \n\n", b"data:\nid: 7\nretry: 5\n\n"],
    )  # fmt: skip
    def test_however_it_is_written(self, resumable: Stage, polled: FakeUpstream, raw: bytes) -> None:
        scripted(polled, answer(), first=raw)
        client = resumable.client().initialize()
        body = client.call("public.echo").body
        (sealed,) = [
            line[3:].strip().decode() for line in body.replace(b"\r", b"\n").split(b"\n") if line.startswith(b"id:")
        ]
        assert len(sealed) > 30 and (b"retry: 5" in raw) == (b"retry: 5" in body)
        assert resume(client, sealed).result["content"][0]["text"] == TEXT
        assert [r.header("last-event-id") for r in polled.requests if r.verb == "GET"] == ["7"]

    @pytest.mark.parametrize("raw", [b"id:", b"id", b"id: " + b"7" * 600, b"id: a\x01b"])
    def test_ids_that_are_none(self, resumable: Stage, polled: FakeUpstream, raw: bytes) -> None:
        polled.script(sse([raw + b"\ndata: \n\n", answer(event_id="")[4:]]), method="tools/call")
        client = resumable.client().initialize()
        since = resumable.gateway.now()
        body = client.call("public.echo").body
        assert TEXT.encode() in body and not any(ids_of(body))
        assert resumable.gateway.event(since)["outcome"] == "allowed"


def test_what_its_level_leaves_out_stays_out(resumable: Stage, polled: FakeUpstream) -> None:
    """The answer is kept as the call's would have been, also by a stream that has no target of its own."""
    policy = resumable.gateway.home / "levels.yaml"
    policy.write_text(
        'roles: {admin: {allow: ["*"]}, user: {allow: ["public.echo"]}, readonly: {allow: []}, pager: {allow: []},'
        " getter: {allow: []}, spender: {allow: []}}\naudit: [{pattern: public.echo, level: request}]\n"
    )
    done = resumable.gateway.manage("policy", "apply", str(policy), check=False)
    if done.returncode:
        pytest.fail(done.stderr)
    time.sleep(1)
    scripted(polled, answer(text="token=ghp_0123456789abcdefghijABCDEFGHIJ012345"))
    client = resumable.client().initialize()
    since = resumable.gateway.now()
    (sealed,) = ids_of(client.call("public.echo").body)
    assert "ghp_" in resume(client, sealed).body.decode()
    found = resumable.gateway.events(since, 2)
    assert found[0]["response_json"] is None and found[0]["response_bytes"] > 0 and found[0]["response_digest"]
    assert "ghp_" not in json.dumps(found)


def test_initialize_itself(resumable: Stage, polled: FakeUpstream) -> None:
    """Its stream's ids belong to the session that it opens."""
    session = "of-this-upstream"
    polled.known_sessions.add(session)

    async def begin(exchange: Exchange) -> None:
        await exchange.head(200, [("Content-Type", "text/event-stream"), ("Mcp-Session-Id", session)])
        await exchange.chunk(PRIMING)
        await exchange.end()

    polled.script(begin, method="initialize")
    result = {"protocolVersion": LEGACY, "capabilities": {}, "serverInfo": {"name": "fake", "version": "1"}}
    polled.script(sse([b"id: up-2\n" + event({"jsonrpc": "2.0", "id": 1, "result": result})]), verb="GET")
    client = resumable.client()
    since = resumable.gateway.now()
    first = client.ask(
        "initialize", {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}}
    )
    client.session = first.header("mcp-session-id")
    assert client.session and resume(client, ids_of(first.body)[0]).result["serverInfo"]["name"] == "fake"
    call = resumable.gateway.events(since, 2)[0]
    assert call["method"] == "initialize" and call["response_json"]["result"]["serverInfo"] == {
        "name": "fake",
        "version": "1",
    }


# --- real servers and clients -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["python-1", "typescript-1", "python-2"])
def polling(request: pytest.FixtureRequest, patient: Stage) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """An official SDK's server with a store of events, behind the gateway: its slug, its tool and the arguments."""
    slug = request.param
    if slug == "python-2":
        with Everything() as server:
            patient.gateway.add_upstream(slug, server.url)
            time.sleep(1)
            yield slug, "test_reconnection", {}
        return
    port = clients.free_port()
    if slug == "python-1":
        command = [str(clients.python(clients.MCP1)), str(clients.SCRIPTS / "polling1.py")]
    else:
        command = clients.on_node(clients.SCRIPTS / "polling1.mjs")
    process = subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        patient.gateway.add_upstream(slug, f"http://127.0.0.1:{port}/mcp")
        time.sleep(1)
        yield slug, "poll", {"seconds": 0.5}
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize("kind", [kind for kind in clients.KINDS if "legacy" in kind.eras], ids=lambda kind: kind.name)
def test_real_clients_come_back_by_themselves(
    patient: Stage, polling: tuple[str, str, dict[str, Any]], kind: clients.Kind
) -> None:
    slug, tool, arguments = polling
    since = patient.gateway.now()
    headers = {"Authorization": f"Bearer {patient.keys['admin'].key}"}
    steps = [{"do": "call", "name": tool, "arguments": arguments}]
    got = clients.run(kind, f"{patient.gateway.url}/mcp/{slug}", steps, era="legacy", headers=headers)
    (step,) = got["steps"]
    text = step["ok"]["content"][0]["text"]
    assert text.startswith(("done after", "Reconnection")), got
    call = patient.gateway.event(since, method="tools/call")
    assert (call["outcome"], call["response_json"]["result"]["content"][0]["text"]) == ("allowed", text)
    stream = call["details"]["stream"]
    assert stream["ended"] == "resumed" and stream["paused"] == "without_answer"
    streams = [one for one in patient.gateway.events(since) if one["id"] in stream["resumed"]]
    assert streams[-1]["details"]["resumed"] == {
        "call": call["id"],
        "rpc_id": call["rpc_id"].strip('"'),
        "answered": True,
    }


def test_another_keys_result_is_not_read(patient: Stage, polling: tuple[str, str, dict[str, Any]]) -> None:
    """The store knows numbers, and everybody has the same ones."""
    slug, tool, arguments = polling
    owner = patient.gateway.client(patient.keys["admin"], slug).initialize()
    thief = patient.gateway.client(patient.keys["readonly"], slug).initialize()
    sealed = ids_of(owner.call(tool, arguments).body)[0]
    time.sleep(1)
    for last in (*map(str, range(12)), sealed):
        answered = resume(thief, last)
        assert (answered.status, answered.error["data"]["reason"]) == (400, "unknown_event"), last
    with resume(owner, sealed, stream=True) as stream:
        stream.until(b'"result"')


# --- the older transport ----------------------------------------------------------------------------------------------


def test_what_came_on_a_stream_of_the_older_transport_is_not_gone_on_from(resumable: Stage) -> None:
    """Such a stream is the session: the gateway hands out no ids of it, and takes none."""
    note = b"id: 7\nretry: 5\n" + event(
        {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}}
    )
    with FakeUpstream(path="/sse") as server:
        server.script(sse([b"event: endpoint\ndata: /messages/?session_id=abc\n\n", note]), verb="GET")
        resumable.gateway.add_upstream("older", server.url, "--transport", "sse")
        time.sleep(1)
        owner = {"Authorization": f"Bearer {resumable.keys['admin'].key}"}
        address = f"{resumable.gateway.url}/sse/older"
        got = send(address, None, owner, verb="GET").body
        assert b'"data":1' in got and not ids_of(got) and b"retry" not in got
        server.requests.clear()
        for place in (address, f"{resumable.gateway.url}/mcp/older"):
            refused = send(place, None, owner | {"Last-Event-ID": "7"}, verb="GET")
            assert (refused.status, refused.error["data"]["reason"]) == (400, "unknown_event")
        assert not server.requests


def test_an_answer_that_nobody_asked_for_does_not_pass(resumable: Stage) -> None:
    """No event would hold it."""
    with FakeUpstream(path="/sse") as server:
        given = [answer(turn, f"MARK{turn}X") for turn in range(3)]
        server.script(sse([b"event: endpoint\ndata: /messages/?session_id=abc\n\n", *given]), verb="GET")
        resumable.gateway.add_upstream("talker", server.url, "--transport", "sse")
        time.sleep(1)
        owner = {"Authorization": f"Bearer {resumable.keys['admin'].key}"}
        assert b"MARK" not in send(f"{resumable.gateway.url}/sse/talker", None, owner, verb="GET").body


def test_clients_of_the_older_transport_get_no_ids_of_another(resumable: Stage, polled: FakeUpstream) -> None:
    polled.script(sse([b"id: 7\ndata:\n\n", answer(5)]), method="tools/call")
    owner = {"Authorization": f"Bearer {resumable.keys['admin'].key}"}
    with send(f"{resumable.gateway.url}/sse/fake", None, owner, verb="GET", stream=True) as stream:
        told = stream.until(b"\n\n").decode().replace("\r\n", "\n")
        target = resumable.gateway.url + told.split("data: ")[1].split("\n")[0]
        body = {"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": "public.echo"}}
        since = resumable.gateway.now()
        assert send(target, body, owner).status == 202
        stream.until(b'"result"', 10)
        assert not ids_of(stream.received)
    assert resumable.gateway.events(since, 1, method="tools/call")[0]["outcome"] == "allowed"
    for last in ("7", "up-2"):
        headers = owner | {"Last-Event-ID": last}
        assert send(f"{resumable.gateway.url}/sse/fake", None, headers, verb="GET").status == 400
