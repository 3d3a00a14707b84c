"""A small MCP client over a transport: what checks, era probes and the catalogue need, in both eras. Not for the data path."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from core.types import Headers
from proxy.http.headers import SESSION, USER_AGENT
from proxy.mcp.replies import LARGE_BYTES, crowded
from proxy.mcp.sse import EventTooLarge, SseReader
from proxy.upstreams.transports.base import Broken, Transport, UpstreamError, UpstreamRequest, UpstreamResponse
from proxy.upstreams.transports.conversation import parse

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
_META = "io.modelcontextprotocol/"
CLIENT_INFO = {"name": "mcp-sentinel", "version": "1"}
MAX_ANSWER = 16 * 1024 * 1024
MAX_EVENTS = 1000
TIMEOUT = 15.0


class RpcError(Exception):
    """The server answered with a JSON-RPC error, or with an HTTP error."""

    def __init__(self, status: int, code: int | None, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.data = data

    def __str__(self) -> str:
        said = f"error {self.code}: {self.message}" if self.code is not None else self.message
        return f"HTTP {self.status}, {said}" if self.status != 200 else said


class Client:
    """One conversation with an upstream."""

    def __init__(self, transport: Transport, *, patience: float = TIMEOUT) -> None:
        """`patience` is how long the first answer may take, in seconds: a command may have to be fetched first."""
        self._transport = transport
        self._patience = patience
        self._serial = 0
        self._session = b""
        self._version = LEGACY
        self.era = ""
        self.server_info: dict[str, Any] = {}
        self.capabilities: dict[str, Any] = {}
        self.versions: list[str] = []

    async def discover(self) -> None:
        """Begin in the modern era; raises RpcError or UpstreamError."""
        result = await self._ask("server/discover", {}, modern=True)
        found = result.get("supportedVersions")
        self.versions = [str(version)[:40] for version in found[:20]] if isinstance(found, list) else []
        self.capabilities = _dict(result.get("capabilities"))
        self.server_info = _dict(_dict(result.get("_meta")).get(_META + "serverInfo"))
        self.era = "modern"

    async def initialize(self) -> None:
        """Begin in the legacy era; raises RpcError or UpstreamError."""
        params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": CLIENT_INFO}
        result = await self._ask("initialize", params, modern=False)
        self._version = str(result.get("protocolVersion", ""))[:40]
        self.versions = [self._version]
        self.capabilities = _dict(result.get("capabilities"))
        self.server_info = _dict(result.get("serverInfo"))
        self.era = "legacy"
        body = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
        response = await self._transport.send(
            UpstreamRequest(b"POST", self._headers("", legacy=True), body, TIMEOUT, TIMEOUT)
        )
        response.abort()

    async def ask(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask in the era that was begun; raises RpcError or UpstreamError."""
        return await self._ask(method, params or {}, modern=self.era == "modern")

    async def end(self) -> None:
        """End the legacy session, if there is one."""
        if not self._session:
            return
        headers = self._headers("", legacy=True)
        self._session = b""
        try:
            response = await self._transport.send(UpstreamRequest(b"DELETE", headers, b"", 2.0, 2.0))
            response.abort()
        except UpstreamError:
            return  # servers need not support it

    def _headers(self, method: str, *, legacy: bool) -> Headers:
        headers: Headers = [
            (b"user-agent", USER_AGENT),
            (b"content-type", b"application/json"),
            (b"accept", b"application/json, text/event-stream"),
        ]
        if not legacy:
            headers += [(b"mcp-protocol-version", MODERN.encode()), (b"mcp-method", method.encode())]
        elif method != "initialize":
            headers.append((b"mcp-protocol-version", self._version.encode("ascii", "ignore")))
            if self._session:
                headers.append((SESSION, self._session))
        return headers

    async def _ask(self, method: str, params: dict[str, Any], *, modern: bool) -> dict[str, Any]:
        self._serial += 1
        if modern:
            meta = {"protocolVersion": MODERN, "clientCapabilities": {}, "clientInfo": CLIENT_INFO}
            params = {**params, "_meta": {_META + name: value for name, value in meta.items()}}
        message = {"jsonrpc": "2.0", "id": self._serial, "method": method, "params": params}
        headers = self._headers(method, legacy=not modern)
        limit, self._patience = self._patience, TIMEOUT
        request = UpstreamRequest(b"POST", headers, orjson.dumps(message), limit, TIMEOUT)
        response = await self._transport.send(request)
        try:
            answer = await self._answer(response)
        finally:
            response.abort()
        if answer is None or ("result" not in answer and "error" not in answer):
            if response.status == 200:
                kind = response.content_type.decode("latin-1")[:60] or "an empty answer"
                raise RpcError(200, None, f"no JSON-RPC answer but {kind}")
            raise RpcError(response.status, None, "no JSON-RPC answer")
        error = answer.get("error")
        if isinstance(error, dict):
            code = error.get("code")
            raise RpcError(
                response.status,
                code if isinstance(code, int) else None,
                str(error.get("message", ""))[:300],
                error.get("data"),
            )
        if not 200 <= response.status < 300:
            raise RpcError(response.status, None, "an answer with an error status")
        if method == "initialize":
            self._session = response.header(SESSION)
        return _dict(answer.get("result"))

    async def _answer(self, response: UpstreamResponse) -> dict[str, Any] | None:
        if not response.streaming:
            return await _read(await response.body(MAX_ANSWER))
        reader = SseReader(MAX_ANSWER)
        events = 0
        try:
            while data := await response.read():
                for event in reader.feed(data):
                    events += 1
                    message = await _read(event.message) if event.message else None
                    if message is not None and "method" not in message and message.get("id") in (self._serial, None):
                        return message
                    if events > MAX_EVENTS:
                        raise Broken("The upstream sent too many events without an answer.")
        except EventTooLarge:
            raise Broken("The upstream sent an event larger than this gateway accepts.") from None
        return None


async def _read(data: bytes) -> dict[str, Any] | None:
    """Read a message; a large one in a thread, and none with more values than anybody should take apart."""
    if len(data) <= LARGE_BYTES:
        return parse(data)
    if await asyncio.to_thread(crowded, data):
        raise Broken("The upstream's answer holds more values than this gateway accepts.")
    return await asyncio.to_thread(parse, data)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
