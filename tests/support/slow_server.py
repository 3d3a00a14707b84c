"""An MCP server that takes its time, over each transport: the same on every road, so that roads can be compared.

    slow_server.py stdio | http PORT | sse PORT

What a call gets stands in its arguments: `sleep` seconds before the answer, `progress` notes `every` so many seconds, `comments`
in place of notes (where the transport has comments), `stream` for an answer as an event stream (http), `die` ends the process.
The method `received` tells what came.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Say = Callable[[Any], None]
RECEIVED: list[Any] = []
COMMENT = object()


def answer(message: Any, say: Say) -> None:
    """Do what a request asks, and say everything that has to be said."""
    method, params = message.get("method"), message.get("params") or {}
    arguments = params.get("arguments") or {}
    if method == "initialize":
        info = {"name": "slow", "version": "1"}
        result: Any = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}
    elif method == "received":
        result = {"received": RECEIVED}
    else:
        token = (params.get("_meta") or {}).get("progressToken")
        for step in range(arguments.get("progress", 0) or arguments.get("comments", 0)):
            note = {"progressToken": token, "progress": step}
            say(COMMENT if "comments" in arguments else {"method": "notifications/progress", "params": note})
            time.sleep(arguments.get("every", 0.5))
        if arguments.get("die"):
            os._exit(3)
        time.sleep(arguments.get("sleep", 0))
        result = {"content": [{"type": "text", "text": "late"}]}
    say({"id": message["id"], "result": result})


def heard(message: Any, say: Say) -> None:
    """Take a message in, and answer it when it is a request."""
    RECEIVED.append(message)
    if "method" in message and "id" in message:
        threading.Thread(target=answer, args=(message, say), daemon=True).start()


def event(message: Any) -> bytes:
    """Write a message as an event."""
    if message is COMMENT:
        return b": still here\n\n"
    return b"event: message\ndata: %b\n\n" % json.dumps({"jsonrpc": "2.0"} | message).encode()


class Handler(BaseHTTPRequestHandler):
    """Streamable HTTP and HTTP+SSE."""

    protocol_version = "HTTP/1.1"
    streams: dict[str, Any] = {}

    def log_message(self, *args: object) -> None:
        """Keep quiet."""

    def _head(self, status: int, kind: str = "", **more: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **{n.replace("_", "-"): v for n, v in more.items()}}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()

    def _say(self, data: bytes) -> None:
        try:
            self.wfile.write(data)
            self.wfile.flush()
        except OSError:
            self.close_connection = True

    def do_GET(self) -> None:
        """Open the stream of the older transport."""
        if self.path != "/sse":
            return self._head(405, Content_Length="0")
        name = str(len(self.streams))
        self.streams[name] = self._say
        self.close_connection = True
        self._head(200, "text/event-stream", Connection="close")
        self._say(b"event: endpoint\ndata: /messages?s=%b\n\n" % name.encode())
        while self.connection.recv(1):
            continue

    def do_DELETE(self) -> None:
        """End a session."""
        self._head(200, Content_Length="0")

    def do_POST(self) -> None:
        """Take a message."""
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.startswith("/messages"):
            say = self.streams[self.path.rpartition("=")[2]]
            heard(message, lambda said: say(event(said)))
            return self._head(202, Content_Length="0")
        RECEIVED.append(message)
        if "id" not in message or "method" not in message:
            return self._head(202, Content_Length="0")
        session = {"Mcp_Session_Id": f"s{len(RECEIVED)}"} if message["method"] == "initialize" else {}
        arguments = (message.get("params") or {}).get("arguments") or {}
        if arguments.get("progress") or arguments.get("comments") or arguments.get("stream"):
            self.close_connection = True
            self._head(200, "text/event-stream", Connection="close", **session)
            return answer(message, lambda said: self._say(event(said)))
        said: list[Any] = []
        answer(message, said.append)
        body = json.dumps({"jsonrpc": "2.0"} | said[-1]).encode()
        self._head(200, "application/json", Content_Length=str(len(body)), **session)
        return self._say(body)


def main(kind: str, port: str = "0") -> None:
    """Serve until the end."""
    if kind != "stdio":
        ThreadingHTTPServer.daemon_threads = True
        return ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
    lock = threading.Lock()

    def say(message: Any) -> None:
        with lock:
            sys.stdout.write(json.dumps({"jsonrpc": "2.0"} | message) + "\n")
            sys.stdout.flush()

    for line in sys.stdin:
        heard(json.loads(line), say)
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
