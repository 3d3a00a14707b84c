"""Faults that other gateways had in public, each tried here (the names in brackets say where they were seen)."""

from __future__ import annotations

import base64
import gc
import http.client
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_streams import memory, tree
from tests.support.fixtures import Stage
from tests.support.gateway import Event
from tests.support.upstream import Exchange, FakeUpstream, error, hang, redirect, result, slow, sse, status
from tests.support.wire import MODERN, Client, send

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("stage")]

ERAS = ["legacy", "modern"]
SSE = {"Accept": "text/event-stream"}


def one(stage: Stage, since: Any, **match: Any) -> Event:
    return stage.gateway.event(since, **match)


# --- 1 Protocol and sessions ------------------------------------------------------------------------------------------


class TestGetWithoutAStream:
    """P2 (agentgateway#1582, malloyyo PR 134)."""

    def test_the_upstream_has_none(self, stage: Stage, fake: FakeUpstream) -> None:
        since = stage.gateway.now()
        answer = stage.client().ask("", verb="GET", headers=SSE)
        assert answer.status == 405
        assert answer.header("allow")
        assert one(stage, since)["status_code"] == 405

    def test_the_upstream_answers_with_a_text(self, stage: Stage, fake: FakeUpstream) -> None:
        fake.script(status(200, b"hello"), verb="GET")
        since = stage.gateway.now()
        answer = stage.client().ask("", verb="GET", headers=SSE)
        assert answer.status in (405, 502)
        assert one(stage, since)["status_code"] == answer.status

    def test_the_modern_era_has_none(self, stage: Stage, fake: FakeUpstream) -> None:
        since = stage.gateway.now()
        answer = send(
            f"{stage.gateway.url}/mcp/fake",
            None,
            {"MCP-Protocol-Version": MODERN, "Authorization": f"Bearer {stage.keys['admin'].key}"},
            verb="GET",
        )
        assert answer.status == 405
        assert "POST" in (answer.header("allow") or "")
        assert not fake.requests
        assert one(stage, since)["status_code"] == 405

    def test_without_a_key(self, stage: Stage, fake: FakeUpstream) -> None:
        since = stage.gateway.now()
        answer = send(f"{stage.gateway.url}/mcp/fake", None, SSE, verb="GET")
        assert answer.status == 401
        assert not fake.requests
        assert one(stage, since)["outcome"] == "unauthenticated"

    def test_an_unknown_session(self, stage: Stage, fake: FakeUpstream) -> None:
        client = stage.client()
        client.session = "0" * 32
        assert client.ask("", verb="GET", headers=SSE).status == 404

    def test_a_refused_session_leaves_a_trace(self, stage: Stage, fake: FakeUpstream) -> None:
        """An id that is unknown is named alike each time; another's by the name that its own events have; neither itself."""
        since = stage.gateway.now()
        owner = stage.client("admin").initialize()
        assert owner.call("get_customer", {}).status == 200
        thief = stage.client("user")
        sent = [owner.session, owner.session[:-1] + "~", "0" * 32, "0" * 32]
        for thief.session in sent:
            assert thief.call("list_customers", {}).status == 404
        told = stage.gateway.events(since, 6)
        mine = next(event["session"] for event in told if event["method"] == "tools/call" and event["role"] == "admin")
        named = [event["session"] for event in told if event["reason"] == "unknown_session"]
        assert named[0] == mine != ""
        assert named[2] == named[3] != ""
        assert len({*named}) == 3 and all(named)
        assert not any(session in json.dumps(told) for session in sent)


IDS = ["1", 0, "é", -7, 2**53 + 1]


class TestUpstreamFailures:
    """P3 (agentgateway#2082, litellm PR 29699, metamcp PR 329, aisix#1181, python-sdk#961)."""

    @pytest.mark.parametrize("era", ERAS)
    def test_errors_of_tools_pass_unchanged(self, stage: Stage, fake: FakeUpstream, era: str) -> None:
        for behaviour in (error(-32603, "boom"), result({"content": [], "isError": True, "resultType": "complete"})):
            fake.forget()
            fake.script(behaviour, method="tools/call")
            for rpc_id in IDS:
                answer = stage.client(era=era).call("get_customer", {}, rpc_id)
                assert answer.status == 200
                value = answer.json
                assert value["id"] == rpc_id
                assert type(value["id"]) is type(rpc_id)
                assert value.get("error", {}).get("code") == -32603 or value["result"]["isError"] is True

    @pytest.mark.parametrize("era", ERAS)
    def test_failures_of_the_upstream_are_failures(self, stage: Stage, fake: FakeUpstream, era: str) -> None:
        since = stage.gateway.now()
        client = stage.client(era=era)
        if era == "legacy":
            client.initialize()
        since = stage.gateway.now()
        fake.script(status(500, b"oh no"))
        for rpc_id in IDS:
            for answer in (client.call("get_customer", {}, rpc_id), client.ask("tools/list", None, rpc_id)):
                assert answer.status == (200 if era == "legacy" else 502), answer.body  # a live session goes on
                assert answer.refusal["code"] == 502
                assert answer.json["id"] == rpc_id
                assert type(answer.json["id"]) is type(rpc_id)
                assert b'"tools"' not in answer.body
        fake.forget()
        fake.script(hang(), method="tools/list")
        answer = client.ask("tools/list", None, "slow")
        assert (answer.status, answer.error["code"]) == (200 if era == "legacy" else 504, 504)
        assert answer.json["id"] == "slow"
        # The session goes on.
        fake.forget()
        assert client.call("get_customer", {}).status == 200
        found = stage.gateway.events(since, 2 * len(IDS) + 2)
        assert [e["status_code"] for e in found] == [502] * 10 + [504, 200]
        assert {e["outcome"] for e in found[:-1]} == {"upstream_error"}

    def test_a_denial_keeps_the_id(self, stage: Stage, fake: FakeUpstream) -> None:
        for rpc_id in IDS:
            answer = stage.client("readonly").call("delete_customer", {}, rpc_id)
            assert answer.status == 403
            assert answer.json["id"] == rpc_id
            assert type(answer.json["id"]) is type(rpc_id)

    def test_an_upstream_that_is_down(self, stage: Stage, fake: FakeUpstream) -> None:
        with FakeUpstream() as other:
            stage.gateway.add_upstream("down", other.url)
        time.sleep(1.0)
        since = stage.gateway.now()
        answer = stage.client(upstream="down").call("get_customer")
        assert answer.status == 502
        assert answer.error["data"]["reason"] == "upstream_unreachable"
        assert one(stage, since)["reason"] == "upstream_unreachable"

    def test_lists_that_are_filtered_failed_and_empty_differ(self, stage: Stage, fake: FakeUpstream) -> None:
        since = stage.gateway.now()
        client = stage.client("getter")
        fake.tools = [tool for tool in fake.tools if tool["name"] != "get_customer"]
        assert client.tools() == []
        fake.tools = []
        assert client.tools() == []
        fake.script(status(500), method="tools/list")
        assert client.ask("tools/list").status == 502
        filtered, empty, failed = stage.gateway.events(since, 3)
        assert failed["outcome"] == "upstream_error"

        def told(event: Event) -> str:
            changing = ("id", "ts", "seq", "latency_ms", "upstream_ms", "trace_id", "response_bytes", "decision")
            kept = {name: value for name, value in event.items() if name not in changing and "digest" not in name}
            return json.dumps(kept, sort_keys=True)

        assert told(filtered) != told(empty)


class TestPages:
    """P4 (agentgateway#3476, litellm PR 32244)."""

    @pytest.mark.parametrize("era", ERAS)
    def test_the_cursor_goes_through(self, stage: Stage, fake: FakeUpstream, era: str) -> None:
        names = [[f"page_{page}_{letter}" for letter in "ab"] for page in (1, 2, 3)]

        async def pages(exchange: Exchange) -> None:
            cursor = exchange.request.params.get("cursor")
            number = {None: 0, "eins≠": 1, "zwei": 2}[cursor]
            tools = [{"name": name, "inputSchema": {"type": "object"}} for name in names[number]]
            more = [{"nextCursor": "eins≠"}, {"nextCursor": "zwei"}, {}][number]
            await exchange.result({"tools": tools, "ttlMs": 1000, "cacheScope": "public"} | more)

        fake.script(pages, method="tools/list")
        client = stage.client("pager", era=era)
        found: list[list[str]] = []
        cursor: dict[str, Any] = {}
        for _ in range(3):
            page = client.ask("tools/list", dict(cursor)).result
            found.append([tool["name"] for tool in page["tools"]])
            assert page["cacheScope"] == "private"
            cursor = {"cursor": page["nextCursor"]} if "nextCursor" in page else {}
        assert found == [[], names[1], names[2]]
        assert not cursor
        callable_ = [n for page in names for n in page if stage.client("pager", era=era).call(n).status == 200]
        assert callable_ == names[1] + names[2]


class TestRedirects:
    """P7 (litellm#23688, mcp-gateway-registry#1606, mcp-auth-proxy#115)."""

    def test_either_spelling_is_served(self, stage: Stage, fake: FakeUpstream) -> None:
        for path in ("/mcp/fake", "/mcp/fake/"):
            client = Client(stage.gateway.url + path, stage.keys["admin"].key)
            answer = client.call("get_customer", {}, headers={"X-Forwarded-Proto": "https"})
            assert answer.status == 200, (path, answer.status, answer.body)

    def test_no_redirect_is_followed_or_passed_on(self, stage: Stage, fake: FakeUpstream) -> None:
        with FakeUpstream() as other:
            for location in (fake.url + "/", other.url):
                fake.forget()
                fake.script(redirect(location), method="tools/call", times=1)
                since = stage.gateway.now()
                answer = stage.client().call("get_customer", {})
                assert answer.status == 502
                assert answer.error["data"]["reason"] == "upstream_redirect"
                assert "url" in answer.error["message"].lower()
                assert answer.header("location") is None
                assert one(stage, since)["reason"] == "upstream_redirect"
                assert len(fake.seen("tools/call")) == 1  # what the gateway itself asks is another matter
            assert not other.requests


# --- 2 Streaming and disconnects --------------------------------------------------------------------------------------

NOTE = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "working"}}


class TestCancellation:
    """S2 (fastmcp#4124, context-forge#1983, XcodeMCPKit#210)."""

    def test_a_cancel_reaches_the_upstream_while_the_call_runs(self, stage: Stage, fake: FakeUpstream) -> None:
        fake.script(sse([NOTE], hold=30), method="tools/call")
        client = stage.client().initialize()
        with client.call("public.echo", rpc_id="long", stream=True) as running:
            running.until(b"working")
            # Another key can neither use the session nor stop the call.
            stranger = stage.client("user")
            stranger.session = client.session
            cancel = {"requestId": "long", "reason": "enough"}
            assert stranger.ask("notifications/cancelled", cancel, None).status == 404
            own = stage.client("user").initialize()
            assert own.ask("notifications/cancelled", cancel, None).status == 202
            call = fake.seen("tools/call")[0]
            assert fake.wait_for("notifications/cancelled")[0].header("mcp-session-id") != call.header("mcp-session-id")
            assert client.ask("notifications/cancelled", cancel, None).status == 202
            last = fake.wait_for("notifications/cancelled", count=2, timeout=1)[-1]
            assert last.header("mcp-session-id") == call.header("mcp-session-id")
            assert last.json["params"] == cancel
            assert not fake.seen("tools/call")[0].gone.is_set()

    def test_a_legacy_client_that_drops_cancels_nothing_by_itself(self, stage: Stage, fake: FakeUpstream) -> None:
        fake.script(sse([NOTE], hold=2, answer={"content": []}), method="tools/call")
        client = stage.client().initialize()
        since = stage.gateway.now()
        with client.call("public.echo", stream=True) as running:
            running.until(b"working")
        event = one(stage, since, method="tools/call")
        assert event["outcome"] == "cancelled"
        assert not fake.count("notifications/cancelled")

    def test_a_modern_client_that_drops_closes_the_stream(self, stage: Stage, fake: FakeUpstream) -> None:
        fake.script(sse([NOTE], hold=30), method="tools/call")
        since = stage.gateway.now()
        with stage.client(era="modern").call("public.echo", stream=True) as running:
            running.until(b"working")
        assert fake.seen("tools/call")[0].gone.wait(1)
        assert one(stage, since)["outcome"] == "cancelled"

    def test_a_client_that_drops_before_the_first_byte(self, stage: Stage, fake: FakeUpstream) -> None:
        fake.script(slow(2.5), method="tools/call")
        since = stage.gateway.now()
        client = stage.client(era="modern")
        body = json.dumps(client.body("tools/call", {"name": "public.echo"})).encode()
        connection = http.client.HTTPConnection("127.0.0.1", stage.gateway.port, timeout=5)
        headers = client.headers("tools/call", "public.echo") | {"Content-Type": "application/json"}
        connection.request("POST", "/mcp/fake", body, headers)
        request = fake.wait_for("tools/call")[0]
        connection.close()
        assert request.gone.wait(1)
        assert one(stage, since)["outcome"] == "cancelled"


def descriptors(stage: Stage) -> int:
    """Open files of the gateway's processes together."""
    assert stage.gateway.process is not None
    total = 0
    for process in tree(stage.gateway.process.pid):
        try:
            if b"manage.py" in Path(f"/proc/{process}/cmdline").read_bytes():
                total += len(os.listdir(f"/proc/{process}/fd"))
        except OSError:
            continue
    return total


@pytest.mark.slow
def test_clients_that_vanish(stage: Stage, fake: FakeUpstream) -> None:
    """S3 (agentgateway#1536, java-sdk#1021, executor#1684)."""
    fake.script(sse([NOTE], hold=600), verb="GET")

    def round_of(number: int) -> None:
        for _ in range(number):
            client = stage.client().initialize()
            stream = client.ask("", verb="GET", headers=SSE, stream=True)
            assert stream.status == 200
            stream.until(b"working")
            stream.reset()

    def settled() -> tuple[int, int]:
        until = time.monotonic() + 20
        while fake_open := len([c for c in fake.open if c.request and c.request.verb == "GET"]):
            if time.monotonic() > until:
                raise AssertionError(f"{fake_open} streams upstream are still open")
            time.sleep(0.1)
        time.sleep(2)
        gc.collect()
        return descriptors(stage), memory(stage)

    round_of(100)
    first = settled()
    round_of(400)
    second = settled()
    assert second[0] <= first[0] + 20, (first, second)
    assert second[1] <= first[1] + 16 * 1024**2, (first, second)


class TestLongLines:
    """S5 (teleport PR 67931, mcp-go#61, mcpproxy-go#368)."""

    @staticmethod
    def framed(data: bytes, size: int) -> bytes:
        return b"".join(
            b"%x\r\n%s\r\n" % (len(data[i : i + size]), data[i : i + size]) for i in range(0, len(data), size)
        )

    def test_eight_megabytes_in_one_line_in_pieces_of_seven_bytes(self, stage: Stage, fake: FakeUpstream) -> None:
        image = base64.b64encode(os.urandom(6 * 1024**2)).decode()
        blocks = [
            {"type": "text", "text": "first"},
            {"type": "image", "data": image, "mimeType": "image/png"},
            {"type": "audio", "data": base64.b64encode(os.urandom(3000)).decode(), "mimeType": "audio/wav"},
            {"type": "resource_link", "uri": "test://x", "name": "x"},
        ]
        message = {"jsonrpc": "2.0", "id": "img", "result": {"content": blocks}}
        line = b"event: message\ndata: " + json.dumps(message).encode() + b"\n\n"
        wire = self.framed(line, 7) + b"0\r\n\r\n"

        async def behave(exchange: Exchange) -> None:
            await exchange.head(200, [("Content-Type", "text/event-stream")])
            for at in range(0, len(wire), 1 << 18):
                await exchange.write(wire[at : at + (1 << 18)])

        fake.script(behave, method="tools/call")
        before = memory(stage)
        since = stage.gateway.now()
        answer = stage.client().call("get_customer", {}, "img", timeout=90)
        assert answer.body == line
        assert memory(stage) - before < 120 * 1024**2
        event = one(stage, since)
        image_kept = event["response_json"]["result"]["content"][1]["data"]
        assert image_kept.startswith("[BLOB:image/png:"), "the image by its size and digest, the rest as it came"
        assert len(json.dumps(event["response_json"], separators=(",", ":"), ensure_ascii=False).encode()) <= 8192
        assert event["response_bytes"] >= len(image)

    @pytest.mark.parametrize("how", ["stream", "length", "chunks"])
    def test_above_the_limit_is_a_clear_error(self, stage: Stage, fake: FakeUpstream, how: str) -> None:
        message = {"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "y" * (18 * 1024**2)}]}}
        data = json.dumps(message).encode()

        async def behave(exchange: Exchange) -> None:
            if how == "length":
                return await exchange.answer(200, data, [("Content-Type", "application/json")])
            line = b"data: " + data + b"\n\n" if how == "stream" else data
            kind = "text/event-stream" if how == "stream" else "application/json"
            await exchange.head(200, [("Content-Type", kind)])
            for at in range(0, len(line), 1 << 16):
                await exchange.chunk(line[at : at + (1 << 16)])
            await exchange.end()

        fake.script(behave, method="tools/call")
        since = stage.gateway.now()
        begun = time.monotonic()
        answer = stage.client().call("get_customer", {})
        assert answer.error["code"] == 502, answer.body[:200]
        assert answer.error["data"]["reason"] == "upstream_too_large"
        assert b"yyyy" not in answer.body
        assert time.monotonic() - begun < 15
        event = one(stage, since)
        assert event["reason"] == "upstream_too_large"
        assert event["outcome"] == "upstream_error"


class TestOlderTransport:
    """S6 (toolhive#3071, typescript-sdk#583, python-sdk PR 2243)."""

    @pytest.fixture
    def old(self, stage: Stage) -> Any:
        streams: list[Exchange] = []
        with FakeUpstream(path="/sse") as server:
            endpoint = {"value": "/messages/?session_id=abc"}

            async def stream(exchange: Exchange) -> None:
                streams.append(exchange)
                await exchange.head(200, [("Content-Type", "text/event-stream")])
                await exchange.chunk(f"event: endpoint\ndata: {endpoint['value']}\n\n".encode())
                import asyncio

                await asyncio.sleep(60)

            async def post(exchange: Exchange) -> None:
                await exchange.answer(202, b"Accepted")
                if exchange.request.id is not None:
                    outcome = server.result_for(exchange.request)
                    message = {"jsonrpc": "2.0", "id": exchange.request.id, "result": outcome}
                    await streams[-1].chunk(b"event: message\ndata: " + json.dumps(message).encode() + b"\n\n")

            server.script(post, verb="POST")
            server.script(stream, verb="GET")
            slug = f"old-{server.port}"
            stage.gateway.add_upstream(slug, server.url, "--transport", "sse")
            time.sleep(1.0)
            yield server, slug, endpoint

    @staticmethod
    def told(stream: Any) -> str:
        text = stream.until(b"\n\n").decode().replace("\r\n", "\n")
        assert text.startswith("event: endpoint\n"), text
        return text.split("data: ")[1].split("\n")[0]

    def test_a_whole_exchange(self, stage: Stage, old: Any) -> None:
        server, slug, _ = old
        key = {"Authorization": f"Bearer {stage.keys['admin'].key}"}
        with send(f"{stage.gateway.url}/sse/{slug}", None, key | SSE, verb="GET", stream=True) as stream:
            assert stream.status == 200
            endpoint = self.told(stream)
            assert endpoint.startswith((f"/messages/{slug}", f"{stage.gateway.url}/messages/{slug}")), endpoint
            target = endpoint if endpoint.startswith("http") else stage.gateway.url + endpoint
            body = {"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": "get_customer"}}
            stranger = {"Authorization": f"Bearer {stage.keys['user'].key}"}
            assert send(target, body, stranger).status == 404
            assert not server.seen("tools/call")
            assert send(target, body, key).status == 202
            stream.until(b'"id":5' if b'"id":5' in stream.received else b'"id": 5')
            assert server.seen("tools/call")[0].target == "/messages/?session_id=abc"
            denied = dict(body, id=6, params={"name": "delete_customer"})
            assert send(target, denied, stranger).status == 404

    def test_a_foreign_endpoint_is_refused(self, stage: Stage, old: Any) -> None:
        _, slug, endpoint = old
        endpoint["value"] = "http://other-host/x"
        key = {"Authorization": f"Bearer {stage.keys['admin'].key}"}
        with send(f"{stage.gateway.url}/sse/{slug}", None, key | SSE, verb="GET", stream=True, timeout=10) as stream:
            body = stream.received
            try:
                while data := stream.read():
                    body += data
            except OSError:
                pass
            assert stream.status == 502 or b"endpoint" not in body
            assert b"other-host" not in body


# --- 3 Keys and policy ------------------------------------------------------------------------------------------------


class TestPolicyBeyondTools:
    """A3 (nanobot PR 4436, pinvou-agent#513, toolhive#4374)."""

    @pytest.mark.parametrize("era", ERAS)
    def test_everything_else_is_denied_by_default(self, stage: Stage, fake: FakeUpstream, era: str) -> None:
        client = stage.client("getter", era=era)
        asked: list[tuple[str, dict[str, Any]]] = [
            ("resources/read", {"uri": "test://one"}),
            ("prompts/get", {"name": "greet"}),
            (
                "completion/complete",
                {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "a", "value": ""}},
            ),
            ("x/unknown", {}),
        ]
        if era == "legacy":
            asked += [("resources/subscribe", {"uri": "test://one"}), ("resources/unsubscribe", {"uri": "test://one"})]
        else:
            asked += [("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["test://one"]}})]
        for method, params in asked:
            answer = client.ask(method, params)
            assert answer.status == 403, (method, answer.status, answer.body)
        assert not fake.requests
        assert client.ask("resources/list").result["resources"] == []
        assert client.ask("prompts/list").result["prompts"] == []
        assert client.tools() == ["get_customer"]
        assert client.call("get_customer").status == 200

    def test_a_tool_that_calls_others_is_ruled_by_their_names_too(self, stage: Stage, fake: FakeUpstream) -> None:
        options = ["--dispatcher", "public.echo=name", "--dispatcher", "list_many=calls.*.tool"]
        stage.gateway.manage("upstreams", "add", "finder", "--url", fake.url, *options)
        time.sleep(1.5)
        user = stage.gateway.client(stage.keys["user"], "finder")
        since = stage.gateway.now()
        answers = [
            user.call(name, arguments).status
            for name, arguments in (
                ("public.echo", {"name": "list_customers"}),
                ("public.echo", {"name": "delete_customer", "arguments": {"id": 1}}),
                ("public.echo", {"text": "no name"}),
                ("public.echo", None),
                ("list_many", {"calls": [{"tool": "list_customers"}, {"tool": "public.echo"}]}),
                ("list_many", {"calls": [{"tool": "list_customers"}, {"tool": "delete_customer"}]}),
                ("list_many", {"calls": []}),
                ("list_customers", {"name": "delete_customer"}),
            )
        ]
        assert answers == [200, 403, 403, 403, 200, 403, 403, 200]
        assert fake.count("tools/call") == 3
        events = [
            e for e in stage.gateway.events(since, 8) if e["upstream"] == "finder" and e["method"] == "tools/call"
        ]
        assert (events[1]["tool_name"], events[1]["details"]["inner"]) == ("delete_customer", ["delete_customer"])
        assert events[4]["tool_name"] == "list_many"
        told = stage.gateway.manage(
            *(
                "policy",
                "explain",
                "--role",
                "user",
                "--upstream",
                "finder",
                "--tool",
                "public.echo",
                "--json",
                "--args",
            ),
            '{"name": "delete_customer"}',
        ).stdout
        assert json.loads(told)["allowed"] is False and "by name (name)" in json.loads(told)["notes"][0]
        # What is allowed under conditions only cannot be decided without its arguments.
        assert (
            stage.gateway.client(stage.keys["admin"], "finder").call("public.echo", {"name": "page_1_a"}).status == 200
        )
        assert (
            stage.gateway.client(stage.keys["pager"], "finder").call("public.echo", {"name": "page_1_a"}).status == 403
        )

    def test_protocol_traffic_is_open(self, stage: Stage, fake: FakeUpstream) -> None:
        client = stage.client("getter").initialize()
        assert client.ask("ping").result == {}
        assert client.ask("notifications/progress", {"progressToken": 1, "progress": 1}, None).status == 202
        assert stage.client("getter", era="modern").ask("server/discover").status == 200


@pytest.mark.parametrize(
    ("path", "verb"),
    [
        ("/.well-known/oauth-protected-resource", "GET"),
        ("/.well-known/oauth-protected-resource/mcp/fake", "GET"),
        ("/.well-known/oauth-authorization-server", "GET"),
        ("/.well-known/oauth-authorization-server/mcp/fake", "GET"),
        ("/.well-known/openid-configuration", "GET"),
        ("/mcp/fake/.well-known/openid-configuration", "GET"),
        ("/register", "POST"),
    ],
)
def test_oauth_probes_get_a_plain_no(stage: Stage, path: str, verb: str) -> None:
    """A5 (claude-code#80785 and #38972, google_workspace_mcp#382)."""
    body = {"redirect_uris": []} if verb == "POST" else None
    answer = send(stage.gateway.url + path, body, {"Accept": "application/json"}, verb=verb)
    if path.startswith("/mcp/") and answer.status == 401:
        return  # below /mcp the key comes first
    assert answer.status == 404, answer.body
    assert (answer.header("content-type") or "").startswith("application/json")
    assert isinstance(answer.json, dict)


def test_a_missing_key_names_no_oauth_server(stage: Stage, fake: FakeUpstream) -> None:
    answer = stage.client(None).call("get_customer")
    assert answer.status == 401
    challenge = answer.header("www-authenticate") or ""
    assert challenge.startswith("Bearer")
    assert "resource_metadata" not in challenge


class TestRulesOverArguments:
    """A6 (agentgateway#3092, agentgateway/website#523), and the part of T2 about rules."""

    @pytest.mark.parametrize("era", ERAS)
    def test_the_tool_is_listed_and_each_call_decided(self, stage: Stage, fake: FakeUpstream, era: str) -> None:
        fake.tools = [*fake.tools, {"name": "pay", "inputSchema": {"type": "object"}}]
        client = stage.client("spender", era=era)
        assert client.tools() == ["pay"]
        since = stage.gateway.now()
        tried = [{"amount": 99}, {"amount": 100}, {}, {"amount": None}, {"amount": "1"}, {"amount": 2**60}, None]
        assert [client.call("pay", arguments).status for arguments in tried] == [200] + [403] * 6
        assert len(fake.seen("tools/call")) == 1
        found = stage.gateway.events(since, len(tried))
        assert found[0]["decision"]["rule"]["name"] == "small sums"

    def test_explain_says_which_rule_decides(self, stage: Stage) -> None:
        asked = ("policy", "explain", "--role", "spender", "--tool", "pay", "--upstream", "fake", "--json", "--args")
        allowed = json.loads(stage.gateway.manage(*asked, '{"amount": 5}').stdout)
        refused = json.loads(stage.gateway.manage(*asked, '{"amount": 500}', check=False).stdout)
        assert allowed["allowed"] is True
        assert allowed["rule"]["name"] == "small sums"
        assert refused["allowed"] is False

    def test_a_misspelt_field_is_refused_with_its_name(self, stage: Stage) -> None:
        path = stage.gateway.home / "misspelt.yaml"
        path.write_text("roles: {a: {allow: []}}\nrules:\n  - {effect: allow, roles: [a], tool: t, whne: []}\n")
        done = stage.gateway.manage("policy", "apply", str(path), check=False)
        assert done.returncode != 0
        assert "whne" in done.stderr
        assert stage.gateway.manage("policy", "check", str(path), check=False).returncode != 0


# --- 4 Audit: see test_canary.py --------------------------------------------------------------------------------------
# --- 5 Rate limits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["legacy", "modern", "session"])
def test_a_limit_an_agent_can_read(stage: Stage, fake: FakeUpstream, style: str) -> None:
    """R1 (agentgateway#3129, basic-memory#1378)."""
    key = stage.gateway.create_key(f"limited-{style}", "admin")
    time.sleep(1.0)
    client = stage.gateway.client(key, era="modern" if style == "modern" else "legacy")
    if style == "session":
        client.initialize()
    since = stage.gateway.now()
    answers = [client.call("limited", {}, f"r{n}") for n in (1, 2, 3)]
    refused = answers[2]
    assert [answer.status for answer in answers] == [200, 200, 200 if style == "session" else 429]
    assert refused.json["id"] == "r3"
    assert refused.refusal["code"] == 429
    wait = refused.refusal["retry_after"]
    assert 0 < wait <= 4  # whole seconds, and a place may come free a little late
    assert int(refused.header("retry-after") or 0) >= 1
    assert fake.count(name="limited") == 2
    time.sleep(wait + 0.1)
    assert "result" in client.call("limited", {}, "r4").json
    found = stage.gateway.events(since, 4)
    assert [e["outcome"] for e in found] == ["allowed", "allowed", "limited", "allowed"]
    assert found[2]["status_code"] == 429
    assert refused.refusal["audit_id"] == found[2]["id"]


def test_a_limit_is_exact_under_concurrency(stage: Stage, fake: FakeUpstream) -> None:
    key = stage.gateway.create_key("stampede", "admin")
    time.sleep(1.0)
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(stage.gateway.client(key).call("limited").status)

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] * 2 + [429] * 18
    assert fake.count(name="limited") == 2


# --- 6 Set-up ---------------------------------------------------------------------------------------------------------


def test_each_bad_upstream_fails_within_seconds_with_its_own_cause(stage: Stage, fake: FakeUpstream) -> None:
    """U2 (context-forge#4771, #4736, #2539, metamcp#241), the part about upstreams."""
    from tests.support.clients import free_port

    stage.gateway.add_upstream("wrong-port", f"http://127.0.0.1:{free_port()}/mcp")
    stage.gateway.add_upstream("wrong-path", fake.url + "/elsewhere")
    fake.script(status(404, b"no such page"), name="wrong-path")
    time.sleep(1.0)
    begun = time.monotonic()
    port = stage.client(upstream="wrong-port").call("wrong-port")
    path = stage.client(upstream="wrong-path").call("wrong-path")
    assert time.monotonic() - begun < 5
    assert (port.status, port.error["data"]["reason"]) == (502, "upstream_unreachable")
    assert path.status in (404, 502), path.body
    assert path.json["error"]["message"] != port.error["message"]


# --- 7 Odd but legal --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("fragment", "passes"),
    [
        ("", True),
        (',"arguments":{}', True),
        (',"arguments":null', None),
        (',"arguments":[]', None),
        (',"arguments":{"x":null}', True),
    ],
    ids=["absent", "empty", "null", "list", "null inside"],
)
def test_missing_and_null_arguments(
    stage: Stage, fake: FakeUpstream, era: str, fragment: str, passes: bool | None
) -> None:
    """T2 (apify-mcp-server#1360, github-mcp-server PR 3099, pipelock PR 1318)."""
    client = stage.client(era=era)
    meta = json.dumps(client.body("x")["params"]["_meta"]) if era == "modern" else "{}"
    params = '{"_meta":' + meta + ',"name":"get_customer"' + fragment + "}"
    body = ('{"jsonrpc": "2.0","id":1, "method":"tools/call","params":' + params + "}").encode()
    answer = send(client.address, body, client.headers("tools/call", "get_customer"))
    if passes or (passes is None and answer.status == 200):
        assert answer.status == 200, answer.body
        (seen,) = fake.seen("tools/call")
        assert seen.body == body
        assert not [name for name, _ in seen.headers if name.startswith("mcp-param")]
    else:
        assert answer.status == 400
        assert answer.error["code"] == -32602
        assert not fake.seen("tools/call")


def test_numbers_escapes_and_order_arrive_as_sent(stage: Stage, fake: FakeUpstream) -> None:
    body = (
        b'{"params":{"arguments":{"z":12345678901234567890,"a":1.10,"e":1E5,"u":"\\u00e9\\/","n":-0},"name":"get_customer"},'
        b'\n"method":"tools/call","id":1,"jsonrpc":"2.0"}\n'
    )
    assert send(f"{stage.gateway.url}/mcp/fake", body, stage.client().headers()).status == 200
    assert fake.requests[0].body == body


@pytest.mark.parametrize("era", ERAS)
def test_schemas_survive(stage: Stage, fake: FakeUpstream, era: str) -> None:
    """T3 (toolhive#5976, #5770, PR 2456)."""
    with FakeUpstream() as elsewhere:
        fake.tools = [
            {"name": "page_1_hidden", "inputSchema": {"type": "object"}},
            {"name": "one_of", "inputSchema": {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}},
            {
                "name": "defs",
                "inputSchema": {
                    "type": "object",
                    "$defs": {"d": {"$anchor": "x"}},
                    "properties": {"p": {"$ref": "#/$defs/d"}},
                },
            },
            {"name": "remote", "inputSchema": {"type": "object", "properties": {"p": {"$ref": elsewhere.url}}}},
            {"name": "typeless", "inputSchema": {"properties": {}}},
            {
                "name": "patterns",
                "inputSchema": {"type": "object", "patternProperties": {"^x-": {}}, "x-vendor": [1.10, 2**60]},
            },
            {
                "name": "mirrored",
                "inputSchema": {"type": "object", "properties": {"r": {"type": "string", "x-mcp-header": "R"}}},
            },
            {
                "name": "output",
                "inputSchema": {"type": "object"},
                "outputSchema": {"type": "array", "items": {}},
                "extra": None,
            },
        ]
        listed = stage.client("pager", era=era).ask("tools/list").result["tools"]
        assert listed == fake.tools[1:]
        assert [list(tool) for tool in listed] == [list(tool) for tool in fake.tools[1:]]
        assert not elsewhere.requests
