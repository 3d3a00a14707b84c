"""An MCP upstream as plain as can be, on Python's own parser: notes what it executes, and answers it.

`server.py [--credulous] PORT`. A credulous one takes every header at its word: codings, any charset Python knows, whatever line
of a header it sees last, names folded as CGI folds them, other verbs. It tells what the mirroring headers said as well.
"""

import base64
import gzip
import json
import re
import sys
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SEEN: list[Any] = []
CREDULOUS = "--credulous" in sys.argv
CODINGS = {"gzip": gzip.decompress, "x-gzip": gzip.decompress, "deflate": zlib.decompress}


class Handler(BaseHTTPRequestHandler):
    """POST executes, GET tells what was executed."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Execute a message."""
        body: Any = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            message = json.loads(self.credulously(body) if CREDULOUS else body)
            params = message.get("params") or {}
            method = message.get("method")
        except (ValueError, LookupError, AttributeError, zlib.error, OSError):
            return self.answer(400, b"")
        trace = (self.headers.get("traceparent") or "").split("-")[1]
        read = [trace, method, *(params.get(name) for name in ("name", "uri", "arguments", "ref"))]
        SEEN.append([*read, self.mirrored()] if CREDULOUS else read)
        if "id" not in message:
            return self.answer(202, b"")
        result = {"content": [], "messages": [], "contents": [], "completion": {"values": []}}
        self.answer(200, json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode())

    def do_GET(self) -> None:
        """Tell."""
        self.answer(200, json.dumps(SEEN).encode())

    def folded(self) -> dict[str, str]:
        """The headers as a CGI-like server hands them on: one variable for all spellings, the last one's value."""
        return {re.sub("[^A-Z0-9]", "_", name.upper()): value.strip() for name, value in self.headers.items()}

    def credulously(self, body: bytes) -> str:
        """The body as its headers say it is to be read."""
        headers = self.folded()
        for coding in reversed(headers.get("CONTENT_ENCODING", "").lower().split(",")):
            if decode := CODINGS.get(coding.strip()):
                body = decode(body)
        charset = re.findall(r"charset\*?=[\"']?([\w.:-]+)", headers.get("CONTENT_TYPE", ""), re.IGNORECASE)
        return body.decode(charset[-1] if charset else "utf-8")

    def mirrored(self) -> dict[str, str]:
        """What the protocol's headers say."""
        found = {}
        for name, value in self.folded().items():
            if name.startswith("MCP_") or name.endswith(("OVERRIDE", "METHOD", "URL")):
                coded = re.fullmatch(r"=\?base64\?(.*)\?=", value, re.IGNORECASE)
                found[name] = base64.b64decode(coded[1]).decode("utf-8", "replace") if coded else value
        return found

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
    Server(("127.0.0.1", int(sys.argv[-1])), Handler).serve_forever()
