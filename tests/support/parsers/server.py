"""An MCP upstream as plain as can be, on Python's own parser: notes what it executes, and answers it."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SEEN: list[Any] = []


class Handler(BaseHTTPRequestHandler):
    """POST executes, GET tells what was executed."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Execute a message."""
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        params = message.get("params") or {}
        trace = (self.headers.get("traceparent") or "").split("-")[1]
        SEEN.append([trace, message.get("method"), *(params.get(name) for name in ("name", "uri", "arguments", "ref"))])
        if "id" not in message:
            return self.answer(202, b"")
        result = {"content": [], "messages": [], "contents": [], "completion": {"values": []}}
        self.answer(200, json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode())

    def do_GET(self) -> None:
        """Tell."""
        self.answer(200, json.dumps(SEEN).encode())

    def answer(self, status: int, body: bytes) -> None:
        """Answer with JSON."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """One with room for many connections at once."""

    request_queue_size = 256


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
