from __future__ import annotations

import asyncio
import json

import pytest

from proxy.upstreams.transports import session_table
from proxy.upstreams.transports.base import (
    Broken,
    Redirected,
    TimedOut,
    TransportLimits,
    UpstreamError,
    UpstreamRequest,
)
from proxy.upstreams.transports.http.http_sse import OPEN, HttpSseTransport
from tests.proxy.upstream import Peer, upstream

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"


class Server:
    """An HTTP+SSE server: one stream for each GET, answers to POSTs on the stream the POST names."""

    def __init__(self, endpoint: bytes = b"/messages/?session_id=%d", *, split: int = 0) -> None:
        self.endpoint = endpoint
        self.split = split
        self.streams: dict[int, Peer] = {}
        self.posted: list[dict] = []
        self.open = 0

    async def script(self, peer: Peer) -> None:
        while (request := await peer.request()) is not None:
            line, _, body = request
            if line.startswith("GET"):
                number = len(self.streams) + 1
                self.streams[number] = peer
                endpoint = self.endpoint % number if b"%d" in self.endpoint else self.endpoint
                await self.say(number, HEAD + b": hello\n\nevent: endpoint\ndata: " + endpoint + b"\n\n")
                self.open += 1
                try:
                    await peer.reader.read()
                finally:
                    self.open -= 1
                return
            number = int(line.split("session_id=")[1].split(" ")[0])
            message = json.loads(body)
            self.posted.append(message)
            await peer.answer(b"Accepted", status="202 Accepted")
            if "id" in message and "method" in message:
                await self.react(number, message)

    async def react(self, number: int, message: dict) -> None:
        arguments = (message.get("params") or {}).get("arguments") or {}
        if arguments.get("die"):
            self.streams[number].writer.transport.abort()
            return
        if arguments.get("mute"):
            return
        if arguments.get("notify"):
            token = message["params"]["_meta"]["progressToken"]
            note = {
                "jsonrpc": "2.0",
                "method": "notifications/progress",
                "params": {"progressToken": token, "progress": 1},
            }
            await self.say(number, b"event: message\r\ndata: " + json.dumps(note).encode() + b"\r\n\r\n")
            await self.say(number, b'data: {"jsonrpc":"2.0","id":"s1","method":"roots/list"}\n\n')
        result = {"stream": number, "echo": arguments.get("echo")}
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
        await self.say(number, b"event: message\ndata: " + json.dumps(answer).encode() + b"\n\n")

    async def say(self, number: int, data: bytes) -> None:
        pieces = [data[i : i + self.split] for i in range(0, len(data), self.split)] if self.split else [data]
        await self.streams[number].say(*pieces)


def transport_of(state, **limits) -> HttpSseTransport:
    return HttpSseTransport(
        state.transport(url=state.url(path="/sse"), limits=TransportLimits(**{"first_byte": 2, "idle": 2, **limits}))
    )


def post(method="tools/call", identifier=1, session=b"", **params) -> UpstreamRequest:
    message = {
        "jsonrpc": "2.0",
        "method": method,
        "params": params,
        **({"id": identifier} if identifier is not None else {}),
    }
    return UpstreamRequest(b"POST", [(b"mcp-session-id", session)] if session else [], json.dumps(message).encode())


async def begin(transport) -> bytes:
    response = await transport.send(post("initialize", "i"))
    assert response.status == 200
    assert json.loads(await response.body(10000))["id"] == "i"
    return dict(response.headers)[b"mcp-session-id"]


@pytest.mark.parametrize("split", [0, 1, 7])
async def test_a_session_behind_the_common_seam(split):
    server = Server(split=split)
    async with upstream(server.script) as state:
        transport = transport_of(state)
        one, two = await begin(transport), await begin(transport)
        assert (await transport.send(post("notifications/initialized", None, one))).status == 202

        async def call(session, n):
            response = await transport.send(post(session=session, identifier="same", arguments={"echo": n}))
            return json.loads(await response.body(10000))

        answers = await asyncio.gather(*(call(one if n % 2 else two, n) for n in range(20)))
        assert [answer["result"]["echo"] for answer in answers] == list(range(20))
        assert {answer["result"]["stream"] for answer in answers} == {1, 2}
        assert {answer["id"] for answer in answers} == {"same"}

        response = await transport.send(
            post(session=one, identifier=7, arguments={"notify": True}, _meta={"progressToken": "p"})
        )
        assert response.streaming
        body = await response.body(10000)
        assert b'"progressToken": "p"' in body
        assert b"roots/list" in body
        assert b'"id": 7' in body

        assert (await transport.send(post())).status == 400
        assert (await transport.send(post(session=b"unknown"))).status == 404
        assert (await transport.send(UpstreamRequest(b"DELETE", [(b"mcp-session-id", one)]))).status == 200
        assert (await transport.send(post(session=one))).status == 404
        await asyncio.sleep(0.05)
        assert server.open == 1
        await transport.close()
        await asyncio.sleep(0.05)
        assert server.open == 0


async def test_the_modern_era_is_refused_in_words_that_make_clients_fall_back():
    async with upstream(Server().script) as state:
        transport = transport_of(state)
        response = await transport.send(
            post("server/discover", 1, _meta={"io.modelcontextprotocol/protocolVersion": "2026-07-28"})
        )
        assert response.status == 400
        assert json.loads(await response.body(1000))["error"]["code"] == -32600
        assert state.requests == []


async def test_a_stream_that_ends_or_says_nothing_fails_its_calls():
    server = Server()
    async with upstream(server.script) as state:
        transport = transport_of(state, first_byte=0.3)
        session = await begin(transport)
        with pytest.raises(TimedOut):
            await transport.send(post(session=session, arguments={"mute": True}))
        waiting = [
            asyncio.create_task(transport.send(post(session=session, arguments={"mute": True}))) for _ in range(5)
        ]
        await asyncio.sleep(0.05)
        with pytest.raises(UpstreamError):
            await transport.send(post(session=session, arguments={"die": True}))
        assert all(
            isinstance(result, UpstreamError) for result in await asyncio.gather(*waiting, return_exceptions=True)
        )
        assert (await transport.send(post(session=session))).status == 404
        await transport.close()


async def test_dropped_sessions_end(monkeypatch):
    monkeypatch.setattr(session_table, "ORPHAN_SECONDS", 2.0)
    server = Server()
    async with upstream(server.script) as state:
        transport = transport_of(state)
        for _ in range(2):
            for _ in range(50):
                session = await begin(transport)
                stream = await transport.send(UpstreamRequest(b"GET", [(b"mcp-session-id", session)]))
                stream.abort()
            assert server.open == 50
            for _ in range(200):
                if not server.open:
                    break
                await asyncio.sleep(0.05)
            assert server.open == 0
        await transport.close()


async def test_a_session_that_begins_with_its_stream():
    """A client that speaks the same opens its stream first; what it posts then, initialize too, is of that one session."""
    server = Server(b"messages?session_id=%d")
    async with upstream(server.script) as state:
        transport = transport_of(state)
        stream = await transport.send(UpstreamRequest(b"GET", [(OPEN, b"1"), (b"accept", b"*/*")]))
        assert stream.status == 200 and stream.streaming
        assert state.requests[0][1]["accept"] == "text/event-stream" and OPEN.decode() not in state.requests[0][1]
        session = dict(stream.headers)[b"mcp-session-id"]
        for method in ("tools/call", "initialize"):
            response = await transport.send(post(method, 5, session))
            assert json.loads(await response.body(10000))["id"] == 5
        assert server.open == 1
        stream.abort()
        await transport.send(UpstreamRequest(b"DELETE", [(b"mcp-session-id", session)]))
        await asyncio.sleep(0.05)
        assert server.open == 0
        assert (await transport.send(UpstreamRequest(b"GET"))).status == 400
        await transport.close()


@pytest.mark.parametrize(
    "endpoint",
    [b"http://other-host/x", b"//other-host/x", b"https://127.0.0.1/x", b"http://127.0.0.1:1/x", b"http://u@127.0.0.1/x",
     b"file:///etc/passwd", b"http://[::1", b"/x y", "/é".encode(), b"/" + b"x" * 3000, b"http://127.0.0.1.evil.example/"],
)  # fmt: skip
async def test_a_foreign_or_broken_endpoint_is_refused(endpoint):
    async with upstream(Server(endpoint).script) as state:
        transport = transport_of(state)
        with pytest.raises(Broken):
            await transport.open([])
        assert len(state.requests) == 1
        await transport.close()


@pytest.mark.parametrize("absolute", [True, False])
async def test_an_endpoint_on_the_same_origin_is_taken(absolute):
    server = Server()
    async with upstream(server.script) as state:
        server.endpoint = (state.url(path="").encode() if absolute else b"") + b"/m?session_id=9"
        transport = transport_of(state)
        channel = await transport.open([])
        assert channel.endpoint == b"/m?session_id=9"
        channel.abort()
        await transport.close()


async def test_what_is_no_such_server_is_told_apart():
    async def scripted(data: bytes, error: type[UpstreamError]) -> str:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.say(data)
            if error is TimedOut:
                await asyncio.sleep(1)

        async with upstream(script) as state:
            transport = transport_of(state, first_byte=0.3)
            with pytest.raises(error) as caught:
                await transport.open([])
            await transport.close()
            assert "text/" not in caught.value.detail, "a type is the server's word, so a payload"
            return f"{caught.value.detail} {caught.value.said}"

    assert "405" in await scripted(b"HTTP/1.1 405 No\r\ncontent-length: 0\r\n\r\n", Broken)
    assert "text/plain" in await scripted(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nhi", Broken
    )
    assert "endpoint" in await scripted(HEAD + b": nothing\n\n", Broken)
    await scripted(HEAD, TimedOut)
    await scripted(b"HTTP/1.1 302 Found\r\nlocation: /sse/\r\ncontent-length: 0\r\n\r\n", Redirected)
