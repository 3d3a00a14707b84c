"""A client that adds nothing: it sends JSON-RPC as it stands over one of three transports, and keeps all that comes back.

Real clients hide what they do not understand; this one compares. It answers what servers ask (sampling, elicitation, roots)
with fixed results.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import queue
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO
from urllib.parse import urljoin, urlsplit

from tests.support.clients import PATIENCE

Message = dict[str, Any]

MODERN = "2026-07-28"
#: what every request of the modern era says of its client
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "walker", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}, "sampling": {}, "roots": {}},
}
ANSWERS: dict[str, Message] = {
    "sampling/createMessage": {
        "role": "assistant",
        "model": "none",
        "stopReason": "endTurn",
        "content": {"type": "text", "text": "sampled by the walker"},
    },
    "elicitation/create": {"action": "accept", "content": {"name": "Ada", "check": True}},
    "roots/list": {"roots": [{"uri": "file:///srv/root", "name": "root"}]},
    "ping": {},
}
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


class Silent(Exception):
    """No answer came in time."""


class Peer:
    """What the three transports have in common: ids, waiting, and what came unasked."""

    def __init__(self) -> None:
        self.ids = itertools.count(1)
        self.notifications: list[Message] = []
        self.asked: list[Message] = []
        self._waiting: dict[Any, queue.Queue[Message]] = {}

    def ask(self, method: str, params: Message | None = None, timeout: float = 30) -> Message:
        """Send a request and wait for its response."""
        return self.wait(self.begin(method, params), timeout)

    def begin(self, method: str, params: Message | None = None) -> int:
        """Send a request; its id is for `wait` and for cancelling."""
        number = next(self.ids)
        self._waiting[number] = queue.Queue()
        message: Message = {"jsonrpc": "2.0", "id": number, "method": method}
        self._send(message | ({} if params is None else {"params": params}))
        return number

    def wait(self, number: int, timeout: float = 30) -> Message:
        """Wait for the response to a request."""
        try:
            return self._waiting[number].get(timeout=timeout * PATIENCE)
        except queue.Empty:
            raise Silent from None

    def notify(self, method: str, params: Message | None = None) -> None:
        """Send a notification."""
        self._send({"jsonrpc": "2.0", "method": method} | ({} if params is None else {"params": params}))

    def close(self) -> Any:
        """End the session; what the server says to that, where it can say something."""
        return None

    def listen(self, version: str) -> None:
        """Open what carries messages that belong to no request, where that has to be opened."""

    def _send(self, message: Message) -> None:
        raise NotImplementedError

    def _received(self, message: Any) -> None:
        if not isinstance(message, dict):
            self.notifications.append({"not a message": message})
        elif "method" not in message:
            if (waiting := self._waiting.get(message.get("id"))) is not None:
                waiting.put(message)
            else:
                self.notifications.append({"nobody's answer": message})
        elif "id" not in message:
            self.notifications.append(message)
        else:
            self.asked.append(message)
            answer = ANSWERS.get(message["method"])
            outcome = {"error": {"code": -32601, "message": "unknown"}} if answer is None else {"result": answer}
            threading.Thread(target=self._send, args=({"jsonrpc": "2.0", "id": message["id"]} | outcome,)).start()


class Pipes(Peer):
    """A server that is a command; what it prints for people goes to `log`."""

    def __init__(self, command: list[str], environment: dict[str, str], cwd: str, log: BinaryIO) -> None:
        super().__init__()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=os.environ | environment,
            cwd=cwd,
            start_new_session=True,
        )
        self._writing = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip().startswith(b"{"):
                self._received(json.loads(line))
        for number in list(self._waiting):
            self._never(number)

    def _send(self, message: Message) -> None:
        assert self.process.stdin is not None
        try:
            with self._writing:
                self.process.stdin.write(json.dumps(message).encode() + b"\n")
                self.process.stdin.flush()
        except (OSError, ValueError):
            self._never(message.get("id"))

    def _never(self, number: Any) -> None:
        """Nothing more will come in answer to a request; who waits need not."""
        if number in self._waiting:
            self._waiting[number].put({"no answer": "the process has ended"})

    def close(self) -> Any:
        """End the process."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
            self.process.wait(2)
        except (OSError, subprocess.TimeoutExpired):
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(5)
        self._reader.join(5)
        if self.process.stdout is not None:
            self.process.stdout.close()


class Web(Peer):
    """What both transports over HTTP share."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        super().__init__()
        self.url = urlsplit(url)
        self.headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"} | headers
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    @contextmanager
    def _request(
        self, verb: str, target: str, body: bytes | None, headers: dict[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self.url.hostname or "", self.url.port, timeout=120 * PATIENCE)
        connection.connect()
        self._open.append(connection.sock)  # the response takes it over, and reads it in another thread
        try:
            connection.request(verb, target, body, headers)
            with connection.getresponse() as response:
                yield response
        finally:
            connection.close()

    def _drop(self) -> None:
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)

    def _aside(self, work: Callable[..., None], *arguments: Any) -> None:
        """Do something in a thread that `close` waits for."""
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()


class Streamable(Web):
    """Streamable HTTP, in either era."""

    def __init__(self, url: str, headers: dict[str, str], modern: bool = False) -> None:
        super().__init__(url, headers)
        self.modern = modern

    def listen(self, version: str) -> None:
        """Open the stream for what belongs to no request."""
        if not self.modern:
            self.headers["MCP-Protocol-Version"] = version
            self._aside(self._listening)

    def _listening(self) -> None:
        headers = self.headers | {"Accept": "text/event-stream"}
        try:
            with self._request("GET", self.url.path, None, headers) as response:
                if response.status == 200:
                    for _, data in events(response):
                        self._received(json.loads(data))
        except (OSError, http.client.HTTPException, ValueError):
            return  # closed at the end

    def begin(self, method: str, params: Message | None = None) -> int:
        """Send a request, with the envelope of the modern era where that is spoken."""
        if self.modern:
            params = (params or {}) | {"_meta": ENVELOPE | (params or {}).get("_meta", {})}
        return super().begin(method, params)

    def _send(self, message: Message) -> None:
        if "method" in message and "id" in message:
            self._aside(self._exchange, message)
        else:
            self._exchange(message)

    def _exchange(self, message: Message) -> None:
        headers = dict(self.headers)
        method = message.get("method", "")
        if self.modern:
            headers |= {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
            if method in NAMED:
                headers["Mcp-Name"] = str(message["params"][NAMED[method]])
        try:
            with self._request("POST", self.url.path, json.dumps(message).encode(), headers) as response:
                if method == "initialize":
                    session = response.getheader("Mcp-Session-Id")
                    self.headers |= {"Mcp-Session-Id": session} if session else {}
                self._read(message, response)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if message.get("id") in self._waiting:
                self._waiting[message["id"]].put({"no answer": type(error).__name__})

    def _read(self, message: Message, response: http.client.HTTPResponse) -> None:
        if response.getheader("Content-Type", "").startswith("text/event-stream"):
            for _, data in events(response):
                if data:
                    self._received(json.loads(data))
        elif body := response.read():
            self._answered(message, response.status, body)
        elif message.get("id") in self._waiting:
            self._waiting[message["id"]].put({"no answer": f"HTTP {response.status}"})

    def _answered(self, message: Message, status: int, body: bytes) -> None:
        try:
            answer = json.loads(body)
        except ValueError:
            answer = {"text": body.decode(errors="replace")[:200]}
        if status >= 400:
            if "method" in message and "id" in message:
                self._waiting[message["id"]].put({"http": status} | answer)
        else:
            self._received(answer)

    def close(self) -> Any:
        """Delete the session."""
        status = None
        if "Mcp-Session-Id" in self.headers:
            with self._request("DELETE", self.url.path, None, self.headers) as response:
                status = response.status
            del self.headers["Mcp-Session-Id"]
        self._drop()
        return status


class Older(Web):
    """HTTP+SSE: one stream carries everything back."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        super().__init__(url, headers)
        self._posts: queue.Queue[str] = queue.Queue()
        self._aside(self._listening)
        try:
            self._post = self._posts.get(timeout=30 * PATIENCE)
        except queue.Empty:
            raise Silent from None

    def _listening(self) -> None:
        target = self.url.path + (f"?{self.url.query}" if self.url.query else "")
        try:
            with self._request("GET", target, None, self.headers | {"Accept": "text/event-stream"}) as stream:
                for kind, data in events(stream):
                    if kind == "endpoint":
                        self._posts.put(urljoin(self.url.geturl(), data))
                    else:
                        self._received(json.loads(data))
        except (OSError, http.client.HTTPException, ValueError):
            return  # closed at the end

    def _send(self, message: Message) -> None:
        post = urlsplit(self._post)
        target = post.path + (f"?{post.query}" if post.query else "")
        with self._request("POST", target, json.dumps(message).encode(), self.headers) as response:
            body = response.read()
        if response.status >= 400 and message.get("id") in self._waiting:
            self._waiting[message["id"]].put({"http": response.status, "text": body.decode(errors="replace")[:300]})

    def close(self) -> Any:
        """Leave."""
        self._drop()


def events(response: http.client.HTTPResponse) -> Iterator[tuple[str, str]]:
    """The events of a stream: kind and data."""
    if response.status != 200:
        raise ValueError(f"HTTP {response.status}: {response.read(300)!r}")
    kind, data = "message", []
    for raw in response:
        line = raw.decode("utf-8").rstrip("\r\n")
        if not line:
            if data:
                yield kind, "\n".join(data)
            kind, data = "message", []
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif line.startswith("event:"):
            kind = line[6:].strip()
