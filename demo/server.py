"""A deliberately careless MCP server: no keys, no roles, no limits, and a tool that deletes customers.

It is what the demonstration and `make run` put behind the gateway. It speaks both eras of the protocol over Streamable
HTTP at `/mcp` (sessions from 2024-11-05 to 2025-11-25, stateless requests in 2026-07-28), answers plain JSON, and needs
nothing but uvicorn. Run it with `python demo/server.py --port 9000`.
"""

from __future__ import annotations

import argparse
import copy
import json
import secrets
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

LEGACY_VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
MODERN_VERSION = "2026-07-28"
VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"
SERVER_INFO = {"name": "careless-crm", "version": "1.0.0"}
CAPABILITIES = {"tools": {}}

CUSTOMERS = {
    "1": {"id": "1", "name": "Ada Byron", "email": "ada@example.com", "plan": "enterprise"},
    "2": {"id": "2", "name": "Blaise Pascal", "email": "blaise@example.com", "plan": "team"},
    "3": {"id": "3", "name": "Hedy Lamarr", "email": "hedy@example.com", "plan": "team"},
    "4": {"id": "4", "name": "Radia Perlman", "email": "radia@example.com", "plan": "free"},
}


def tool(name: str, description: str, properties: dict[str, Any], **hints: bool) -> dict[str, Any]:
    """One entry of the catalogue."""
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"name": name, "description": description, "inputSchema": schema, "annotations": hints}


CUSTOMER_ID = {"customer_id": {"type": "string", "description": "the customer's id, such as 3"}}
TOOLS = [
    tool("list_customers", "List every customer.", {}, readOnlyHint=True),
    tool("get_customer", "Read one customer.", CUSTOMER_ID, readOnlyHint=True),
    tool("delete_customer", "Delete a customer for good.", CUSTOMER_ID, readOnlyHint=False, destructiveHint=True),
    tool("public.echo", "Say the text back.", {"text": {"type": "string"}}, readOnlyHint=True),
]


class Fault(Exception):
    """An answer with a JSON-RPC error: HTTP status, code, message and optional data."""

    def __init__(self, status: int, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"code": code, "message": message} | ({} if data is None else {"data": data})


class Server:
    """The whole server: its customers, its sessions, and an ASGI application."""

    def __init__(self, verbose: bool = False) -> None:
        self.customers = copy.deepcopy(CUSTOMERS)
        self.sessions: set[str] = set()
        self.verbose = verbose

    # --- HTTP -------------------------------------------------------------------------------------------------------

    async def __call__(self, scope: dict[str, Any], receive: Callable[[], Awaitable[dict]], send: Callable) -> None:
        """Answer one request (the ASGI entry)."""
        if scope["type"] == "lifespan":
            return await self._lifespan(receive, send)
        if scope["type"] != "http":
            return None
        headers = {name.decode("latin-1").lower(): value.decode("latin-1").strip() for name, value in scope["headers"]}
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        status, extra, payload = self.answer(scope["method"], scope["path"], headers, body)
        content = b"" if payload is None else json.dumps(payload, ensure_ascii=False).encode()
        if content:
            extra["content-type"] = "application/json"
        extra["content-length"] = str(len(content))
        fields = [(name.encode(), value.encode()) for name, value in extra.items()]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": content})
        return None

    async def _lifespan(self, receive: Callable[[], Awaitable[dict]], send: Callable) -> None:
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return

    def answer(self, verb: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], Any]:
        """What one HTTP request gets: status, headers, and a JSON value or None."""
        if path.rstrip("/") != "/mcp":
            return 404, {}, {"error": "not found"}
        session = headers.get("mcp-session-id")
        if verb == "DELETE" and session:
            known = session in self.sessions
            self.sessions.discard(session)
            return (200 if known else 404), {}, None
        if verb != "POST":
            return 405, {"allow": "POST"}, {"error": "this server opens no streams of its own"}
        try:
            message = json.loads(body)
        except ValueError:
            return 400, {}, failure(None, {"code": -32700, "message": "Parse error"})
        if not isinstance(message, dict) or not isinstance(message.get("method"), str):
            return 400, {}, failure(None, {"code": -32600, "message": "Invalid request"})
        rpc_id = message.get("id")
        params = message.get("params") if isinstance(message.get("params"), dict) else {}
        try:
            if self._is_modern(headers, params):
                self._check_envelope(headers, message["method"], params)
                if rpc_id is None:
                    return 202, {}, None
                return 200, {}, {"jsonrpc": "2.0", "id": rpc_id, "result": self.modern(message["method"], params)}
            if message["method"] != "initialize" and session is not None and session not in self.sessions:
                raise Fault(404, -32600, "Session not found")
            if rpc_id is None:
                return 202, {}, None
            result, extra = self.legacy(message["method"], params)
            return 200, extra, {"jsonrpc": "2.0", "id": rpc_id, "result": result}
        except Fault as fault:
            return fault.status, {}, failure(rpc_id, fault.error)

    # --- The two eras -----------------------------------------------------------------------------------------------

    @staticmethod
    def _is_modern(headers: dict[str, str], params: dict[str, Any]) -> bool:
        meta = params.get("_meta")
        if isinstance(meta, dict) and VERSION_KEY in meta:
            return True
        return headers.get("mcp-protocol-version", LEGACY_VERSIONS[0]) > LEGACY_VERSIONS[0]

    @staticmethod
    def _check_envelope(headers: dict[str, str], method: str, params: dict[str, Any]) -> None:
        """What 2026-07-28 asks of every request: its envelope, and headers that agree with the body."""
        meta = params.get("_meta")
        if not isinstance(meta, dict) or VERSION_KEY not in meta or CAPABILITIES_KEY not in meta:
            raise Fault(400, -32602, f"params._meta needs {VERSION_KEY} and {CAPABILITIES_KEY}")
        version = meta[VERSION_KEY]
        if headers.get("mcp-protocol-version") != version:
            raise Fault(400, -32020, "MCP-Protocol-Version does not match the body")
        if headers.get("mcp-method") != method:
            raise Fault(400, -32020, "Mcp-Method does not match the body")
        if method == "tools/call" and headers.get("mcp-name") != params.get("name"):
            raise Fault(400, -32020, "Mcp-Name does not match the body")
        if version != MODERN_VERSION:
            data = {"supported": [MODERN_VERSION], "requested": version}
            raise Fault(400, -32022, "Unsupported protocol version", data)

    def modern(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """The result of one stateless request."""
        common = {"resultType": "complete", "_meta": {"io.modelcontextprotocol/serverInfo": SERVER_INFO}}
        cache = {"ttlMs": 60_000, "cacheScope": "public"}
        if method == "server/discover":
            return common | cache | {"supportedVersions": [MODERN_VERSION], "capabilities": CAPABILITIES}
        if method == "tools/list":
            return common | cache | {"tools": TOOLS}
        if method == "tools/call":
            return common | self.call(params)
        raise Fault(404, -32601, f"Method not found: {method}")

    def legacy(self, method: str, params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """The result of one request in a session, and the headers that go with it."""
        if method == "initialize":
            asked = params.get("protocolVersion")
            session = secrets.token_urlsafe(24)
            self.sessions.add(session)
            version = asked if asked in LEGACY_VERSIONS else LEGACY_VERSIONS[0]
            result = {"protocolVersion": version, "capabilities": CAPABILITIES, "serverInfo": SERVER_INFO}
            return result, {"mcp-session-id": session}
        if method == "ping":
            return {}, {}
        if method == "tools/list":
            return {"tools": TOOLS}, {}
        if method == "tools/call":
            return self.call(params), {}
        raise Fault(200, -32601, f"Method not found: {method}")

    # --- The tools, which ask nobody --------------------------------------------------------------------------------

    def call(self, params: dict[str, Any]) -> dict[str, Any]:
        """Run a tool for whoever asks."""
        name = params.get("name")
        arguments = params.get("arguments") or {}
        if self.verbose:
            print(f"{name} {json.dumps(arguments, ensure_ascii=False)}", flush=True)
        customer_id = str(arguments.get("customer_id", arguments.get("id", "")))
        if name == "list_customers":
            return text(list(self.customers.values()))
        if name == "public.echo":
            return text(arguments.get("text", arguments.get("message", arguments)))
        if name not in ("get_customer", "delete_customer"):
            raise Fault(200 if VERSION_KEY not in params.get("_meta", {}) else 400, -32602, f"Unknown tool: {name}")
        if customer_id not in self.customers:
            return text(f"There is no customer {customer_id!r}.") | {"isError": True}
        if name == "get_customer":
            return text(self.customers[customer_id])
        return text(f"Customer {self.customers.pop(customer_id)['name']} is deleted for good.")


def text(value: Any) -> dict[str, Any]:
    """A tool's result with one block of text."""
    content = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return {"content": [{"type": "text", "text": content}], "isError": False}


def failure(rpc_id: Any, error: dict[str, Any]) -> dict[str, Any]:
    """A JSON-RPC error."""
    return {"jsonrpc": "2.0", "id": rpc_id, "error": error}


def main(argv: list[str] | None = None) -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=9000, help="port to listen on (9000)")
    parser.add_argument("--verbose", action="store_true", help="print one line per tool call")
    options = parser.parse_args(argv)
    uvicorn.run(Server(options.verbose), host=options.host, port=options.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
