"""A scripted MCP server on a real socket: it records every request byte for byte and misbehaves on command.

It runs in a thread with a loop of its own, so that synchronous and asynchronous tests can use it alike. Left alone it is a
decent server in both eras; `script(behaviour, method=..., name=..., verb=...)` changes what matching requests get:

    with FakeUpstream() as fake:
        fake.script(status(500), method="tools/list", times=1)
        ...
        assert fake.count("tools/call") == 0
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

LEGACY = "2025-11-25"
MODERN = "2026-07-28"
VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
REASONS = {200: "OK", 202: "Accepted", 204: "No Content", 307: "Temporary Redirect", 404: "Not Found", 405: "No"}


class Request:
    """One recorded request."""

    def __init__(self, raw_head: bytes, body: bytes, connection: int) -> None:
        self.raw_head = raw_head
        self.body = body
        self.connection = connection
        self.at = time.monotonic()
        self.gone = threading.Event()  # set when the peer closed the connection before the answer was complete
        self.done = threading.Event()  # set when the answer was complete
        lines = raw_head.decode("latin-1").split("\r\n")
        self.verb, self.target, _ = lines[0].split(" ", 2)
        self.headers = [(n.lower(), v.strip()) for n, _, v in (line.partition(":") for line in lines[1:] if line)]
        try:
            self.json: Any = json.loads(body) if body else None
        except ValueError:
            self.json = None

    def header(self, name: str) -> str | None:
        """The value of a header, or None."""
        return next((value for n, value in self.headers if n == name), None)

    @property
    def method(self) -> str | None:
        """The JSON-RPC method, or None."""
        return self.json.get("method") if isinstance(self.json, dict) else None

    @property
    def params(self) -> dict[str, Any]:
        """The params, or an empty dict."""
        params = self.json.get("params") if isinstance(self.json, dict) else None
        return params if isinstance(params, dict) else {}

    @property
    def name(self) -> str | None:
        """The tool's, prompt's or resource's name, or None."""
        return self.params.get("name", self.params.get("uri"))

    @property
    def id(self) -> Any:
        """The JSON-RPC id."""
        return self.json.get("id") if isinstance(self.json, dict) else None

    @property
    def modern(self) -> bool:
        """Whether the request is of the stateless era."""
        return VERSION_KEY in (self.params.get("_meta") or {})


class Exchange:
    """A request being answered: what a behaviour writes with."""

    def __init__(self, upstream: FakeUpstream, connection: _Connection, request: Request) -> None:
        self.upstream = upstream
        self.request = request
        self._connection = connection
        self.close_after = False

    async def write(self, data: bytes) -> None:
        """Write raw bytes, waiting while the peer does not read."""
        self._connection.transport.write(data)
        await self._connection.writable.wait()

    async def head(self, status: int = 200, headers: Iterable[tuple[str, str]] = (), chunked: bool = True) -> None:
        """Write a status line and headers."""
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'X')}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if chunked:
            lines.append("Transfer-Encoding: chunked")
        await self.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    async def chunk(self, data: bytes) -> None:
        """Write one chunk."""
        await self.write(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self) -> None:
        """Write the last chunk."""
        await self.write(b"0\r\n\r\n")

    async def answer(self, status: int, body: bytes = b"", headers: Iterable[tuple[str, str]] = ()) -> None:
        """Write a whole answer with a length."""
        await self.head(status, [*headers, ("Content-Length", str(len(body)))], chunked=False)
        await self.write(body)

    async def json(self, value: Any, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Write a JSON answer."""
        body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        await self.answer(status, body, [("Content-Type", "application/json"), *headers])

    async def result(self, result: Any, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Write a JSON-RPC result for the request's id."""
        await self.json({"jsonrpc": "2.0", "id": self.request.id, "result": result}, headers=headers)

    def reset(self) -> None:
        """Cut the connection with a TCP reset."""
        sock = self._connection.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.transport.abort()


Behaviour = Callable[[Exchange], Awaitable[None]]


class _Connection(asyncio.Protocol):
    """One connection: requests are taken from it one at a time."""

    def __init__(self, upstream: FakeUpstream) -> None:
        self.upstream = upstream
        self.buffer = bytearray()
        self.request: Request | None = None
        self.task: asyncio.Task[None] | None = None
        self.writable = asyncio.Event()
        self.writable.set()
        self.number = 0
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.upstream.connections_total += 1
        self.number = self.upstream.connections_total
        self.upstream.open.add(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self._pump()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.upstream.open.discard(self)
        self.writable.set()
        if self.request is not None and not self.request.done.is_set():
            self.request.gone.set()
        if self.task is not None:
            self.task.cancel()

    def _pump(self) -> None:
        if self.task is not None:
            return
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.buffer[: end + 4])
        fields = {n.strip().lower(): v.strip() for n, _, v in (x.partition(b":") for x in head.split(b"\r\n")[1:])}
        if fields.get(b"transfer-encoding", b"").lower() == b"chunked":
            decoded = _dechunk(self.buffer, end + 4)
            if decoded is None:
                return
            body, used = decoded
        else:
            used = end + 4 + int(fields.get(b"content-length", b"0"))
            if len(self.buffer) < used:
                return
            body = bytes(self.buffer[end + 4 : used])
        del self.buffer[:used]
        self.request = Request(head, body, self.number)
        self.upstream.requests.append(self.request)
        self.task = asyncio.get_running_loop().create_task(self._answer(self.request))

    async def _answer(self, request: Request) -> None:
        exchange = Exchange(self.upstream, self, request)
        try:
            await self.upstream.behaviour_for(request)(exchange)
        except asyncio.CancelledError:
            return
        request.done.set()
        self.task = None
        if exchange.close_after:
            self.transport.close()
        else:
            self._pump()


def _dechunk(buffer: bytearray, at: int) -> tuple[bytes, int] | None:
    body = b""
    while True:
        line = buffer.find(b"\r\n", at)
        if line < 0:
            return None
        size = int(bytes(buffer[at:line]).split(b";")[0], 16)
        if len(buffer) < line + 2 + size + 2:
            return None
        body += bytes(buffer[line + 2 : line + 2 + size])
        at = line + 2 + size + 2
        if size == 0:
            return body, at


TOOLS = [
    {"name": name, "description": f"The tool {name}", "inputSchema": {"type": "object"}}
    for name in ("list_customers", "get_customer", "delete_customer", "public.echo")
]


class FakeUpstream:
    """The server: `url` to point at, `requests` that came, `script(...)` to misbehave."""

    def __init__(self, *, sessions: bool = True, path: str = "/mcp", host: str = "127.0.0.1", port: int = 0) -> None:
        self.requests: list[Request] = []
        self.connections_total = 0
        self.open: set[_Connection] = set()
        self.tools: list[dict[str, Any]] = list(TOOLS)
        self.sessions = sessions
        self.known_sessions: set[str] = set()
        self.path = path
        self._rules: list[list[Any]] = []
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, name="fake-upstream", daemon=True)
        self._started = threading.Event()
        self.host = host
        self.port = port

    # --- Life -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> FakeUpstream:
        self._thread.start()
        if not self._started.wait(10):
            raise RuntimeError("the fake upstream did not start")
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await self._loop.create_server(lambda: _Connection(self), self.host, self.port)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        for connection in list(self.open):
            connection.transport.abort()
        await asyncio.sleep(0)

    def stop(self) -> None:
        """Stop listening and cut every connection; `start()` brings it back on the same port."""
        self.__exit__()

    def start(self) -> None:
        """Listen again, on the same port."""
        self._started.clear()
        self._thread = threading.Thread(target=self._run, name="fake-upstream", daemon=True)
        self.__enter__()

    # --- What came --------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{self.host}:{self.port}{self.path}"

    def seen(self, method: str | None = None, name: str | None = None) -> list[Request]:
        """Requests that came, by method and name."""
        return [
            r
            for r in list(self.requests)
            if (method is None or r.method == method) and (name is None or r.name == name)
        ]

    def count(self, method: str | None = None, name: str | None = None) -> int:
        """How many requests came, by method and name."""
        return len(self.seen(method, name))

    def wait_for(self, method: str | None = None, *, count: int = 1, timeout: float = 5) -> list[Request]:
        """Wait until so many requests came."""
        until = time.monotonic() + timeout
        while len(found := self.seen(method)) < count:
            if time.monotonic() > until:
                raise AssertionError(f"{len(found)} of {count} requests {method or ''} came within {timeout} s")
            time.sleep(0.01)
        return found

    def forget(self) -> None:
        """Forget requests and scripts."""
        self.requests.clear()
        self._rules.clear()
        self.tools = list(TOOLS)

    # --- What they get ----------------------------------------------------------------------------------------------

    def script(
        self,
        behaviour: Behaviour,
        *,
        method: str | None = None,
        name: str | None = None,
        verb: str | None = None,
        times: int = -1,
    ) -> None:
        """Give matching requests this behaviour (the latest script that matches wins), at most `times` times."""
        self._rules.insert(0, [method, name, verb, times, behaviour])

    def behaviour_for(self, request: Request) -> Behaviour:
        """The behaviour that answers a request."""
        for rule in self._rules:
            method, name, verb, times, behaviour = rule
            if times == 0 or (verb or request.verb) != request.verb:
                continue
            if (method or request.method) == request.method and (name or request.name) == request.name:
                rule[3] -= 1
                return behaviour
        return self.decent

    async def decent(self, exchange: Exchange) -> None:
        """What a well-behaved server would answer."""
        request = exchange.request
        session = request.header("mcp-session-id")
        if request.verb == "DELETE":
            known = session in self.known_sessions
            self.known_sessions.discard(session or "")
            return await exchange.answer(200 if known else 404)
        if request.verb != "POST":
            return await exchange.answer(405, headers=[("Allow", "POST, DELETE")])
        if not request.modern and request.method != "initialize" and session and session not in self.known_sessions:
            return await exchange.json(failure(request.id, -32600, "Session not found"), 404)
        if request.id is None or request.method is None:
            return await exchange.answer(202)
        headers = []
        if request.method == "initialize" and self.sessions:
            session = secrets.token_hex(16)
            self.known_sessions.add(session)
            headers = [("Mcp-Session-Id", session)]
        result = self.result_for(request)
        if result is None:
            error = failure(request.id, -32601, f"Method not found: {request.method}")
            return await exchange.json(error, 404 if request.modern else 200)
        if request.modern:
            result = {"resultType": "complete"} | result
            if request.method.endswith("/list") or request.method == "server/discover":
                result = result | {"ttlMs": 1000, "cacheScope": "public"}
        return await exchange.result(result, headers)

    def result_for(self, request: Request) -> dict[str, Any] | None:
        """The result of a request, or None for an unknown method."""
        capabilities = {"tools": {}, "resources": {}, "prompts": {}}
        match request.method:
            case "initialize":
                info = {"name": "fake", "version": "1"}
                version = request.params.get("protocolVersion", LEGACY)
                return {"protocolVersion": version, "capabilities": capabilities, "serverInfo": info}
            case "server/discover":
                return {"supportedVersions": [MODERN], "capabilities": capabilities}
            case "ping":
                return {}
            case "tools/list":
                return {"tools": self.tools}
            case "resources/list":
                return {"resources": [{"uri": "test://one", "name": "one"}]}
            case "prompts/list":
                return {"prompts": [{"name": "greet"}]}
            case "tools/call":
                text = json.dumps(request.params.get("arguments"), ensure_ascii=False)
                return {"content": [{"type": "text", "text": text}]}
            case "resources/read":
                return {"contents": [{"uri": request.name, "text": "content"}]}
            case "prompts/get":
                return {"messages": [{"role": "user", "content": {"type": "text", "text": "hello"}}]}
        return None


def failure(rpc_id: Any, code: int, message: str) -> dict[str, Any]:
    """A JSON-RPC error."""
    return {"jsonrpc": "2.0", "id": rpc_id, "error": {"code": code, "message": message}}


# --- Behaviours -------------------------------------------------------------------------------------------------------


def status(code: int, body: bytes = b"", content_type: str = "text/plain", **headers: str) -> Behaviour:
    """Answer with a status."""
    fields = [("Content-Type", content_type), *((n.replace("_", "-"), v) for n, v in headers.items())]

    async def behave(exchange: Exchange) -> None:
        await exchange.answer(code, body, fields)

    return behave


def result(value: dict[str, Any]) -> Behaviour:
    """Answer with a JSON-RPC result."""

    async def behave(exchange: Exchange) -> None:
        await exchange.result(value)

    return behave


def error(code: int, message: str, http: int = 200, data: Any = None) -> Behaviour:
    """Answer with a JSON-RPC error."""

    async def behave(exchange: Exchange) -> None:
        value = failure(exchange.request.id, code, message)
        if data is not None:
            value["error"]["data"] = data
        await exchange.json(value, http)

    return behave


def raw(data: bytes, close: bool = True) -> Behaviour:
    """Write these bytes, whatever they are, and close."""

    async def behave(exchange: Exchange) -> None:
        await exchange.write(data)
        exchange.close_after = close

    return behave


def slow(seconds: float) -> Behaviour:
    """Wait, then answer decently."""

    async def behave(exchange: Exchange) -> None:
        await asyncio.sleep(seconds)
        await exchange.upstream.decent(exchange)

    return behave


def hang() -> Behaviour:
    """Never answer."""
    return slow(3600)


def drip(body: bytes, size: int = 1, pause: float = 0.02, content_type: str = "application/json") -> Behaviour:
    """Answer in small pieces, with pauses."""

    async def behave(exchange: Exchange) -> None:
        await exchange.head(200, [("Content-Type", content_type)])
        for at in range(0, len(body), size):
            await exchange.chunk(body[at : at + size])
            await asyncio.sleep(pause)
        await exchange.end()

    return behave


def broken_chunking() -> Behaviour:
    """Begin a chunked answer and then break the framing."""

    async def behave(exchange: Exchange) -> None:
        await exchange.head(200, [("Content-Type", "application/json")])
        await exchange.write(b'5\r\n{"jso\r\nZZZ\r\nnot a chunk\r\n')
        exchange.close_after = True

    return behave


def cut_short() -> Behaviour:
    """Promise more bytes than come."""
    return raw(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"jsonrpc"')


def huge(total: int, piece: int = 65536, content_type: str = "application/json") -> Behaviour:
    """Answer with `total` bytes of one JSON-RPC result."""

    async def behave(exchange: Exchange) -> None:
        head = (
            b'{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":"'
            % json.dumps(exchange.request.id).encode()
        )
        tail = b'"}]}}'
        await exchange.head(200, [("Content-Type", content_type)])
        await exchange.chunk(head)
        left = total - len(head) - len(tail)
        block = b"x" * piece
        while left > 0:
            await exchange.chunk(block[: min(piece, left)])
            left -= piece
        await exchange.chunk(tail)
        await exchange.end()

    return behave


def redirect(location: str, code: int = 307) -> Behaviour:
    """Send the client elsewhere."""
    return status(code, Location=location)


def sse(
    messages: Iterable[Any], *, size: int = 0, pause: float = 0, hold: float = 0, tail: bytes = b"", answer: Any = None
) -> Behaviour:
    """Stream messages as server-sent events (bytes go out as they are), cut into chunks of `size` bytes.

    `answer` is the result that goes out last with the request's id; `hold` keeps the stream open for so long before it.
    """

    async def behave(exchange: Exchange) -> None:
        await exchange.head(200, [("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache")])

        async def emit(data: bytes) -> None:
            step = size or len(data)
            for at in range(0, len(data), step):
                await exchange.chunk(data[at : at + step])
                if pause and size:
                    await asyncio.sleep(pause)
            if pause:
                await asyncio.sleep(pause)

        for message in messages:
            await emit(message if isinstance(message, bytes) else event(message))
        if hold:
            await asyncio.sleep(hold)
        if answer is not None:
            await emit(event({"jsonrpc": "2.0", "id": exchange.request.id, "result": answer}))
        if tail:
            await emit(tail)
        await exchange.end()

    return behave


def event(message: Any) -> bytes:
    """One server-sent event."""
    return b"event: message\ndata: " + json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def echo_headers() -> Behaviour:
    """Answer a call with the headers that came."""

    async def behave(exchange: Exchange) -> None:
        await exchange.result({"content": [{"type": "text", "text": json.dumps(exchange.request.headers)}]})

    return behave
