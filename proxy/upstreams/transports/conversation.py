"""MCP over a pipe of messages: answers found again among everything a server says, and nobody given another's.

Older HTTP+SSE servers and child processes say everything on one stream. A conversation sends requests under ids of its
own (spliced in, every other byte untouched), hands each answer to the call it belongs to under the caller's own id, and
gives what belongs to no call to whoever listens.

A *private* conversation has one client, so the server's own requests, logs and notifications are that client's. In a
*shared* one nothing may cross between callers: progress follows its call, resource updates follow their subscription,
what a client names by an id of its own choice is looked up under that client's owner (its key and session) alone, changed
lists go to every listener, and the rest (log messages, sampling, elicitation, roots) has no rightful receiver:
notifications are dropped, requests are answered with an error, pings with a result.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from copy import copy
from hashlib import sha256
from typing import Any, NamedTuple

import orjson

from core.ledger import Hold, Ledger
from proxy.mcp.replies import LARGE_BYTES, crowded
from proxy.mcp.splice import Path, Span, find, one_line, replace
from proxy.upstreams.transports.base import (
    Broken,
    BufferedResponse,
    Cancelled,
    TimedOut,
    Unread,
    UpstreamError,
    UpstreamResponse,
)

JSON_HEADERS = [(b"content-type", b"application/json")]
#: whose something is: the caller's key, and its session if it has one
Owner = tuple[str, bytes]
STREAM_HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
VERSION = "io.modelcontextprotocol/protocolVersion"
_ID: Path = ("id",)
_TOKEN: Path = ("params", "_meta", "progressToken")
_PROGRESS: Path = ("params", "progressToken")
_CANCELLED: Path = ("params", "requestId")
_SUBSCRIPTION: Path = ("params", "_meta", SUBSCRIPTION)
_RESULT_SUBSCRIPTION: Path = ("result", "_meta", SUBSCRIPTION)
_SPANS = (_ID, _PROGRESS, _SUBSCRIPTION, _RESULT_SUBSCRIPTION)
#: subscriptions to resources that a pipe remembers: clients vanish without a word, so the oldest have to go
MOST_SUBSCRIPTIONS = 10_000
#: what a message that waits takes beside its bytes
_EACH = 64


def parse(raw: bytes) -> dict[str, Any] | None:
    """Read a message; None when it is not one JSON object."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        try:  # integers of more than 64 bits, lone surrogates
            value = json.loads(raw)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


class Said(NamedTuple):
    """What a server said, and where in its bytes the values are that may have to be replaced."""

    message: dict[str, Any]
    spans: dict[Path, Span]


def understand(raw: bytes) -> Said | None:
    """Read what a server said (pure, so that large messages may be read in a thread); None when it is no message.

    Of one with more values than anybody should take apart only the id is read: whoever asked is told what is wrong with it.
    """
    if len(raw) > LARGE_BYTES and crowded(raw):
        spans = find(raw, _ID)
        identity = parse(b'{"id":%b}' % raw[slice(*spans[_ID])]) if _ID in spans else None
        return Said(identity, spans) if identity is not None else None
    message = parse(raw)
    return Said(message, find(raw, *_SPANS)) if message is not None else None


def is_modern(message: dict[str, Any], version: bytes = b"") -> bool:
    """Tell whether a message belongs to the stateless era, by its envelope or its version header."""
    params = message.get("params")
    meta = params.get("_meta") if isinstance(params, dict) else None
    return version >= b"2026" or (isinstance(meta, dict) and VERSION in meta)


def as_event(raw: bytes) -> bytes:
    """Write a message as one server-sent event."""
    return b"event: message\ndata: " + one_line(raw) + b"\n\n"


class QueueResponse(UpstreamResponse):
    """An SSE answer fed message by message."""

    __slots__ = ("_abandoned", "_error", "_heard", "_held", "_idle", "_limit", "_pieces", "_size", "_waiter", "done")

    def __init__(self, *, idle: float, limit: int, abandoned: Callable[[bool], None], held: Hold) -> None:
        super().__init__(200, list(STREAM_HEADERS))
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: UpstreamError | None = None
        #: told when the answer is no longer waited for, and whether that is because it was waited for too long
        self._abandoned: Callable[[bool], None] | None = abandoned
        #: when the server last gave a sign of life that has to do with this
        self._heard = asyncio.get_running_loop().time()
        self._idle = idle
        self._limit = limit
        self._held = held
        self.done = False

    def renew(self) -> None:
        """Take a sign of life: what waits for the answer may go on waiting."""
        self._heard = asyncio.get_running_loop().time()

    def push(self, raw: bytes) -> None:
        """Add a message; a reader who is far behind loses the stream, since others wait on the same pipe."""
        if self.done:
            return
        piece = as_event(raw)
        if self._size > self._limit or not self._held.set(self._size + len(piece) + _EACH):
            self.fail(Unread("The caller reads too slowly for a stream shared with others."))
            self._forget()
            return
        self._size += len(piece) + _EACH
        self._pieces.append(piece)
        self.renew()
        self._wake()

    def finish(self) -> None:
        self.done = True
        self._abandoned = None
        self._wake()

    def fail(self, error: UpstreamError) -> None:
        if not self.done:
            self._error = error.with_traceback(None)
            self.finish()

    def only(self) -> bytes | None:
        """Give the one message if the answer was whole at once and nothing came before it."""
        if self.done and self._error is None and len(self._pieces) == 1:
            return self._pieces[0][len(b"event: message\ndata: ") : -2]
        return None

    async def first(self, silence: float) -> None:
        """Wait until there is something to read, or an error; raises TimeoutError after so many seconds of silence."""
        while not self._pieces and not self.done:
            await self._wait(silence)
        if not self._pieces and self._error is not None:
            raise copy(self._error)  # what is raised refers to the frames it passes, and they to this

    async def read(self) -> bytes:
        while not self._pieces:
            if self._error is not None:
                raise copy(self._error)  # what is raised refers to the frames it passes, and they to this
            if self.done:
                return b""
            try:
                await self._wait(self._idle)
            except TimeoutError:
                self.abort(overdue=True)
                raise TimedOut("The upstream stopped sending its answer.") from None
        data = b"".join(self._pieces)
        self._forget()
        return data

    def _forget(self) -> None:
        self._pieces.clear()
        self._size = 0
        self._held.set(0)

    def abort(self, *, overdue: bool = False) -> None:
        """Give up; whoever fed this learns of it."""
        abandoned, self._abandoned = self._abandoned, None
        self.done = True
        self._forget()
        if self._error is None:
            self._error = Broken("The exchange with the upstream was given up.")
        if abandoned is not None:
            abandoned(overdue)
        self._wake()

    async def _wait(self, silence: float) -> None:
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        try:
            while not waiter.done():
                left = self._heard + silence - loop.time() if silence else None
                if left is not None and left <= 0:
                    raise TimeoutError
                await asyncio.wait((waiter,), timeout=left)
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Call:
    __slots__ = ("id_raw", "key", "modern", "response", "token_raw")

    def __init__(self, key: tuple[Owner, str], id_raw: bytes, token_raw: bytes, modern: bool) -> None:
        self.key = key
        self.id_raw = id_raw
        self.token_raw = token_raw
        self.modern = modern
        self.response: QueueResponse


class Conversation:
    """One pipe's calls and listeners."""

    def __init__(
        self,
        write: Callable[[bytes], Awaitable[None]],
        *,
        private: bool,
        idle: float,
        limit: int,
        ledger: Ledger | None = None,
    ) -> None:
        self._write = write
        self._ledger = ledger or Ledger(limit)
        self._private = private
        self._idle = idle
        self._limit = limit
        self._serial = 0
        self._calls: dict[int, _Call] = {}
        self._listeners: dict[Owner, QueueResponse] = {}
        #: owner and digest of the resource's address, the oldest first
        self._subscribed: dict[tuple[Owner, bytes], None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Tell whether anyone waits for or listens to it."""
        return bool(self._calls or self._listeners)

    @property
    def calls(self) -> int:
        return len(self._calls)

    # -- from clients ------------------------------------------------------------------------------------------

    async def request(
        self,
        raw: bytes,
        message: dict[str, Any],
        *,
        session: bytes = b"",
        caller: str = "",
        modern: bool = False,
        first_byte: float = 300.0,
        idle: float | None = None,
    ) -> UpstreamResponse:
        """Send a request; gives its answer as JSON when nothing came before it, else as a stream."""
        owner = (caller, session)
        spans = find(raw, _ID, _TOKEN)
        start, end = spans[_ID]
        if self._others_listen(message, owner):
            self._note_subscription(message, owner)
            return BufferedResponse(200, list(JSON_HEADERS), b'{"jsonrpc":"2.0","id":%b,"result":{}}' % raw[start:end])
        self._serial += 1
        serial = self._serial
        wire = b"%d" % serial
        changes = {(start, end): wire}
        token_raw = b""
        if _TOKEN in spans:
            token_raw = raw[slice(*spans[_TOKEN])]
            changes[spans[_TOKEN]] = wire
        call = _Call((owner, json.dumps(message.get("id"))), raw[start:end], token_raw, modern)

        def abandoned(overdue: bool) -> None:
            # on HTTP the stream's end would say it in the modern era; in the legacy one a client that leaves cancels nothing
            if (
                self._calls.pop(serial, None) is not None
                and (modern or overdue)
                and message.get("method") != "initialize"
            ):
                self._cancel(serial, "it took too long" if overdue else "the client has gone")

        silence = self._idle if idle is None else idle
        held = self._ledger.hold(caller)
        response = call.response = QueueResponse(idle=silence, limit=self._limit, abandoned=abandoned, held=held)
        self._calls[serial] = call
        try:
            async with asyncio.timeout(first_byte or None):
                await self._write(replace(raw, changes))
            self._note_subscription(message, owner)
            response.renew()
            await response.first(first_byte)
        except TimeoutError:
            response.abort(overdue=True)
            raise TimedOut("The upstream did not answer in time.", detail=f"no answer after {first_byte:g} s") from None
        except BaseException:
            response.abort()
            raise
        whole = response.only()
        if whole is not None:
            return BufferedResponse(200, list(JSON_HEADERS), whole)
        return response

    async def accept(self, raw: bytes, message: dict[str, Any], *, session: bytes = b"", caller: str = "") -> None:
        """Pass on what expects no answer: a notification, or the client's answer to the server."""
        method = message.get("method")
        if method == "notifications/cancelled":
            await self._take_back(raw, message, (caller, session))
            return
        if self._private or (isinstance(method, str) and not method.startswith("notifications/")):
            await self._write(raw)

    async def _take_back(self, raw: bytes, message: dict[str, Any], owner: Owner) -> None:
        """End what a caller cancels, at once, and let the server hear of it, which may answer all the same or not at all.

        Without a session an id may be that of several calls, of clients that share a key: then it names none of them.
        """
        params = message.get("params")
        wanted = (owner, json.dumps(params.get("requestId") if isinstance(params, dict) else None))
        spans = find(raw, _CANCELLED)
        found = [serial for serial, call in self._calls.items() if call.key == wanted and _CANCELLED in spans]
        if len(found) > 1 and not owner[1]:
            return
        for serial in found:
            self._calls.pop(serial).response.fail(Cancelled("The request was cancelled."))
        for serial in found:
            await self._write(replace(raw, {spans[_CANCELLED]: b"%d" % serial}))

    def end(self, error: UpstreamError) -> None:
        """End what waits because its client wants no more of it, and nothing else."""
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.response.fail(error)

    def listen(self, session: bytes = b"", caller: str = "") -> QueueResponse:
        """Open the stream of what belongs to no call; a newer one of the same owner replaces it."""
        owner = (caller, session)
        older = self._listeners.pop(owner, None)
        if older is not None:
            older.finish()

        def abandoned(overdue: bool) -> None:
            if self._listeners.get(owner) is response:
                del self._listeners[owner]

        # it may be silent for as long as it likes
        held = self._ledger.hold(caller)
        response = QueueResponse(idle=0.0, limit=self._limit, abandoned=abandoned, held=held)
        self._listeners[owner] = response
        return response

    def forget(self, session: bytes, caller: str = "") -> None:
        """End the listener, the subscriptions and what is waited for of a session that its client ends."""
        owner = (caller, session)
        for serial in [serial for serial, call in self._calls.items() if session and call.key[0] == owner]:
            self._calls.pop(serial).response.fail(Cancelled("The session was ended by its client."))
            self._cancel(serial, "its session has ended")
        listener = self._listeners.pop(owner, None)
        if listener is not None:
            listener.finish()
        for key in [key for key in self._subscribed if key[0] == owner]:
            del self._subscribed[key]

    def heard(self) -> None:
        """Take a sign of life of a server that has one client: all that this one waits for may go on waiting."""
        for call in self._calls.values():
            call.response.renew()

    # -- from the server ---------------------------------------------------------------------------------------

    def deliver(self, raw: bytes, said: Said | None = None) -> bool:
        """Take what the server said; False when it is no message."""
        said = said or understand(raw)
        if said is None:
            return False
        if self._private:
            self.heard()
        message = said.message
        method = message.get("method")
        if not isinstance(method, str):
            self._answer(raw, said)
        elif "id" in message:
            self._server_request(raw, message, method)
        else:
            self._notification(raw, said, method)
        return True

    async def deliver_large(self, raw: bytes) -> bool:
        """Take a large message of the server's, without holding up what else the loop does."""
        said = await asyncio.to_thread(understand, raw)
        return said is not None and self.deliver(raw, said)

    def fail(self, error: UpstreamError) -> None:
        """End every call and listener: the pipe is gone."""
        self.end(error)
        listeners, self._listeners = self._listeners, {}
        self._subscribed.clear()
        for listener in listeners.values():
            listener.finish()

    def _answer(self, raw: bytes, said: Said) -> None:
        serial, spans = said.message.get("id"), said.spans
        call = self._calls.pop(serial, None) if type(serial) is int else None
        if call is None:
            return  # of a call that was given up
        if _ID not in spans:
            return
        changes = {spans[_ID]: call.id_raw}
        if _RESULT_SUBSCRIPTION in spans:
            changes[spans[_RESULT_SUBSCRIPTION]] = call.id_raw
        call.response.push(replace(raw, changes))
        call.response.finish()

    def _notification(self, raw: bytes, said: Said, method: str) -> None:
        params, spans = said.message.get("params"), said.spans
        params = params if isinstance(params, dict) else {}
        meta = params.get("_meta")
        subscription = meta.get(SUBSCRIPTION) if isinstance(meta, dict) else None
        if subscription is not None:
            call = self._calls.get(subscription) if type(subscription) is int else None
            if call is not None and _SUBSCRIPTION in spans:
                call.response.push(replace(raw, {spans[_SUBSCRIPTION]: call.id_raw}))
        elif method == "notifications/progress":
            token = params.get("progressToken")
            call = self._calls.get(token) if type(token) is int else None
            if call is not None and call.token_raw and _PROGRESS in spans:
                call.response.push(replace(raw, {spans[_PROGRESS]: call.token_raw}))
        elif self._private:
            self._to_client(raw)
        elif method == "notifications/resources/updated":
            resource = _digest(params.get("uri"))
            for owner, listener in list(self._listeners.items()):
                if (owner, resource) in self._subscribed:
                    listener.push(raw)
        elif method.endswith("/list_changed"):
            for listener in list(self._listeners.values()):
                listener.push(raw)

    def _server_request(self, raw: bytes, message: dict[str, Any], method: str) -> None:
        if self._private and self._to_client(raw):
            return
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        if method == "ping":
            answer["result"] = {}
        else:
            answer["error"] = {"code": -32601, "message": "No client is there to answer this."}
        self._later(json.dumps(answer).encode())

    def _to_client(self, raw: bytes) -> bool:
        listener = next(iter(self._listeners.values()), None)
        if listener is None and self._calls:
            listener = next(reversed(self._calls.values())).response
        if listener is None:
            return False
        listener.push(raw)
        return True

    def _others_listen(self, message: dict[str, Any], owner: Owner) -> bool:
        """Tell whether one who unsubscribes would end others' updates too: a shared server knows one client only."""
        if self._private or message.get("method") != "resources/unsubscribe":
            return False
        params = message.get("params")
        resource = _digest(params.get("uri")) if isinstance(params, dict) else b""
        return any(key[1] == resource and key[0] != owner for key in self._subscribed)

    def _note_subscription(self, message: dict[str, Any], owner: Owner) -> None:
        method = message.get("method")
        params = message.get("params")
        if isinstance(params, dict) and method in ("resources/subscribe", "resources/unsubscribe"):
            key = (owner, _digest(params.get("uri")))
            self._subscribed.pop(key, None)
            if method == "resources/subscribe":
                self._subscribed[key] = None
                if len(self._subscribed) > MOST_SUBSCRIPTIONS:
                    del self._subscribed[next(iter(self._subscribed))]

    def _cancel(self, serial: int, reason: str) -> None:
        params = {"requestId": serial, "reason": reason}
        self._later(json.dumps({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}).encode())

    def _later(self, raw: bytes) -> None:
        async def write() -> None:
            try:
                await self._write(raw)
            except UpstreamError:
                return  # the pipe is gone, and whoever waits on it knows

        task = asyncio.get_running_loop().create_task(write())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _digest(uri: Any) -> bytes:
    return sha256(str(uri).encode("utf-8", "surrogatepass")).digest()
