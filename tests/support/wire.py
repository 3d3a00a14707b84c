"""MCP on the wire, for tests that care about every byte: requests in both eras without an SDK in between."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

LEGACY = "2025-11-25"
MODERN = "2026-07-28"
ACCEPT = "application/json, text/event-stream"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "wire", "version": "1"},
}


@dataclass
class Response:
    """A whole answer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    elapsed: float = 0.0

    def header(self, name: str) -> str | None:
        """The value of a header, or None."""
        return next((value for n, value in self.headers if n.lower() == name.lower()), None)

    @property
    def json(self) -> Any:
        """The JSON value; of a stream, the message that answers (the last with an id and no method)."""
        if (self.header("content-type") or "").startswith("text/event-stream"):
            answers = [m for m in self.messages if "id" in m and "method" not in m]
            return answers[-1]
        return json.loads(self.body)

    @property
    def messages(self) -> list[Any]:
        """The JSON values of a stream's events."""
        return list(messages(self.body))

    @property
    def result(self) -> Any:
        """The JSON-RPC result."""
        value = self.json
        assert "result" in value, value
        return value["result"]

    @property
    def error(self) -> Any:
        """The JSON-RPC error."""
        value = self.json
        assert "error" in value, value
        return value["error"]

    @property
    def refusal(self) -> dict[str, Any]:
        """What a refusal or failure of the gateway's own says of itself (code, reason, audit_id, text, ...), in any style."""
        value = self.json
        if "error" in value:
            return {"code": value["error"]["code"], "text": value["error"]["message"], **value["error"]["data"]}
        assert value["result"]["isError"] is True, value
        return {"text": value["result"]["content"][0]["text"], **value["result"]["_meta"]["mcp-sentinel/refusal"]}


def messages(stream: bytes) -> Iterator[Any]:
    """The JSON values in a text of server-sent events."""
    for block in stream.replace(b"\r\n", b"\n").split(b"\n\n"):
        data = b"\n".join(line[5:].lstrip() for line in block.split(b"\n") if line.startswith(b"data:"))
        if data.strip():
            yield json.loads(data)


class Stream:
    """An answer that is read as it comes."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self.connection = connection
        self.response = response
        self.status = response.status
        self.headers = response.getheaders()
        self.received = b""

    def header(self, name: str) -> str | None:
        """The value of a header, or None."""
        return self.response.getheader(name)

    def read(self, size: int = 65536) -> bytes:
        """Some bytes; empty at the end."""
        data = self.response.read1(size)
        self.received += data
        return data

    def until(self, mark: bytes, timeout: float = 5) -> bytes:
        """Read until these bytes have come."""
        assert self.connection.sock is not None or self.response.fp is not None
        end = time.monotonic() + timeout
        while mark not in self.received:
            if time.monotonic() > end or not self.read():
                raise AssertionError(f"{mark!r} did not come; received {self.received[-500:]!r}")
        return self.received

    def reset(self) -> None:
        """Cut the connection with a TCP reset."""
        sock = self._socket
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    @property
    def _socket(self) -> socket.socket:
        if self.connection.sock is not None:
            return self.connection.sock
        return self.response.fp.raw._sock  # type: ignore[union-attr]

    def close(self) -> None:
        """Close the connection."""
        if self.response.fp is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self.response.close()
        self.connection.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def send(
    url: str,
    body: Any = None,
    headers: dict[str, str] | list[tuple[str, str]] | None = None,
    *,
    verb: str = "POST",
    timeout: float = 30,
    stream: bool = False,
) -> Any:
    """Send one request. A body that is not bytes goes as JSON. Returns a Response, or a Stream when asked for."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    fields = list(headers.items() if isinstance(headers, dict) else headers or [])
    names = {name.lower() for name, _ in fields}
    data = body if isinstance(body, bytes) or body is None else json.dumps(body, ensure_ascii=False).encode()
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    begun = time.monotonic()
    connection.putrequest(verb, target, skip_host="host" in names, skip_accept_encoding=True)
    if "accept" not in names:
        fields.append(("Accept", ACCEPT if verb == "POST" else "text/event-stream"))
    if data is not None:
        if "content-type" not in names:
            fields.append(("Content-Type", "application/json"))
        if "content-length" not in names and "transfer-encoding" not in names:
            fields.append(("Content-Length", str(len(data))))
    for name, value in fields:
        connection.putheader(name, value.encode() if not value.isascii() else value)
    connection.endheaders()
    if data:
        try:
            connection.send(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before the whole body was read: the answer may be there all the same
    response = connection.getresponse()
    if stream:
        return Stream(connection, response)
    try:
        return Response(response.status, response.getheaders(), response.read(), time.monotonic() - begun)
    finally:
        connection.close()


def request(method: str, params: Any = None, rpc_id: Any = 1, **more: Any) -> dict[str, Any]:
    """A JSON-RPC request; `rpc_id=None` makes a notification."""
    value: dict[str, Any] = {"jsonrpc": "2.0"}
    if rpc_id is not None:
        value["id"] = rpc_id
    value["method"] = method
    if params is not None:
        value["params"] = params
    return value | more


@dataclass
class Client:
    """A client of one address with one key, in one era."""

    url: str
    key: str | None = None
    era: str = "legacy"
    place: str = "bearer"
    session: str | None = None
    version: str = LEGACY
    extra: dict[str, str] = field(default_factory=dict)

    def headers(self, method: str | None = None, name: Any = None) -> dict[str, str]:
        """The headers of a request."""
        fields = dict(self.extra)
        if self.key is not None and self.place == "bearer":
            fields["Authorization"] = f"Bearer {self.key}"
        elif self.key is not None and self.place == "header":
            fields["X-API-Key"] = self.key
        if self.era == "modern":
            fields["MCP-Protocol-Version"] = MODERN
            if method is not None:
                fields["Mcp-Method"] = method
            if isinstance(name, str):
                fields["Mcp-Name"] = encoded(name)
        elif self.session is not None or self.version != LEGACY:
            fields["MCP-Protocol-Version"] = self.version
            if self.session is not None:
                fields["Mcp-Session-Id"] = self.session
        return fields

    @property
    def address(self) -> str:
        """The address, with the key in it when that is its place."""
        return f"{self.url}?api_key={self.key}" if self.place == "query" and self.key else self.url

    def body(self, method: str, params: dict[str, Any] | None = None, rpc_id: Any = 1) -> dict[str, Any]:
        """The message, with its envelope in the modern era."""
        if self.era == "modern":
            params = {"_meta": META | (params or {}).get("_meta", {})} | {
                k: v for k, v in (params or {}).items() if k != "_meta"
            }
        return request(method, params, rpc_id)

    def ask(self, method: str, params: dict[str, Any] | None = None, rpc_id: Any = 1, **options: Any) -> Any:
        """Send one request and return the Response (or Stream)."""
        name = (params or {}).get("name", (params or {}).get("uri"))
        headers = self.headers(method, name) | options.pop("headers", {})
        return send(self.address, self.body(method, params, rpc_id), headers, **options)

    def call(self, name: str, arguments: Any = None, rpc_id: Any = 1, **options: Any) -> Any:
        """Call a tool."""
        params: dict[str, Any] = {"name": name}
        if arguments is not None:
            params["arguments"] = arguments
        return self.ask("tools/call", params, rpc_id, **options)

    def initialize(self, version: str = LEGACY) -> Client:
        """Open a legacy session."""
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "wire", "version": "1"}}
        answer = self.ask("initialize", params)
        assert answer.status == 200, (answer.status, answer.body)
        self.session = answer.header("mcp-session-id")
        self.version = answer.result["protocolVersion"]
        done = self.ask("notifications/initialized", None, None)
        assert done.status == 202, (done.status, done.body)
        return self

    def tools(self) -> list[str]:
        """The names of the tools that are listed."""
        return [tool["name"] for tool in self.ask("tools/list").result["tools"]]


def encoded(name: str) -> str:
    """A header value for a name, in the encoding of the modern era where it needs one."""
    if name.isascii() and name.isprintable() and name == name.strip() and not name.startswith("=?base64?"):
        return name
    import base64

    return f"=?base64?{base64.b64encode(name.encode()).decode()}?="
