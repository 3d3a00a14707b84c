"""A client of the older HTTP+SSE transport on the wire: one stream that is read all the time, and posts beside it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from http.client import HTTPException
from typing import Any

from tests.support.clients import PATIENCE
from tests.support.wire import LEGACY, Response, Stream, messages, request, send


class Older:
    """One session; `told` is what has come on its stream, in order."""

    def __init__(self, gateway: str, slug: str, key: str) -> None:
        self.headers = {"Authorization": f"Bearer {key}"}
        self.gateway = gateway
        self.stream: Stream = send(f"{gateway}/sse/{slug}", None, self.headers, verb="GET", stream=True, timeout=120)
        self.status = self.stream.status
        self.told: list[Any] = []
        self.raw = b""
        self.ended = threading.Event()
        self.address = ""
        self._arrived = threading.Condition()
        self._ids = 100
        if self.status == 200:
            began = self.stream.until(b"\n\n", 20)
            self.address = gateway + began.split(b"data: ")[1].split(b"\n")[0].decode().strip()
            self._thread = threading.Thread(target=self._read, daemon=True)
            self._thread.start()

    def _read(self) -> None:
        try:
            while self.stream.read():
                whole = self.stream.received.rpartition(b"\n\n")[0]
                with self._arrived:
                    self.told = [value for value in messages(whole.partition(b"\n\n")[2])]
                    self._arrived.notify_all()
        except (OSError, HTTPException):
            pass
        self.stream.close()
        self.ended.set()
        with self._arrived:
            self._arrived.notify_all()

    def post(self, body: Any, headers: dict[str, str] | None = None) -> Response:
        """Post a message; gives what the post itself is answered."""
        return send(self.address, body, self.headers | (headers or {}))

    def wait(self, wanted: Callable[[Any], bool], seconds: float = 15) -> Any:
        """Wait for a message that fits."""
        until = time.monotonic() + seconds * PATIENCE
        with self._arrived:
            while True:
                for message in self.told:
                    if wanted(message):
                        return message
                left = until - time.monotonic()
                if left <= 0 or self.ended.is_set():
                    raise AssertionError(f"it did not come ({'ended' if self.ended.is_set() else 'open'}): {self.told}")
                self._arrived.wait(left)

    def answer(self, rpc_id: Any, seconds: float = 15) -> Any:
        """Wait for the answer to a request."""
        return self.wait(lambda one: one.get("id") == rpc_id and "method" not in one, seconds)

    def ask(self, method: str, params: Any = None, rpc_id: Any = None) -> Any:
        """Send a request and wait for its answer."""
        self._ids += 1
        rpc_id = self._ids if rpc_id is None else rpc_id
        posted = self.post(request(method, params, rpc_id))
        assert posted.status == 202, posted
        return self.answer(rpc_id)

    def begin(self, capabilities: Any = None) -> Older:
        """Initialize the session."""
        info = {"name": "older", "version": "1"}
        told = self.ask(
            "initialize", {"protocolVersion": LEGACY, "capabilities": capabilities or {}, "clientInfo": info}
        )
        assert "result" in told, told
        assert self.post(request("notifications/initialized", rpc_id=None)).status == 202
        return self

    def close(self) -> None:
        """Leave."""
        if self.status != 200:
            self.stream.close()
            return
        if not self.ended.is_set():
            with contextlib.suppress(OSError):
                self.stream._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)

    def __enter__(self) -> Older:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
