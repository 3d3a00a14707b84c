"""stdio upstreams: a command of the operator's, presented through the same seam as an HTTP server.

One process is shared by all sessions, or each session has its own. A shared process is initialised by the gateway
itself, once, so that any worker can serve any session and a restarted process serves on; clients get the answer of that
handshake. Stateless messages (2026-07-28) always go to a process that was never initialised, since servers settle on an
era with the first message.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from copy import copy
from typing import Any

from core.ledger import Ledger
from core.types import Headers
from proxy.mcp.splice import find, replace
from proxy.upstreams.transports.base import (
    Broken,
    BufferedResponse,
    TimedOut,
    TransportLimits,
    Unreachable,
    UpstreamError,
    UpstreamRequest,
    UpstreamResponse,
)
from proxy.upstreams.transports.conversation import JSON_HEADERS, Conversation, is_modern, parse
from proxy.upstreams.transports.session_table import SessionTable, new_token
from proxy.upstreams.transports.stdio.child import Child, CommandLine, Ring

LATEST_LEGACY = "2025-11-25"
LEGACY_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
SESSION = b"mcp-session-id"
FIRST_BACKOFF = 0.1
LONGEST_BACKOFF = 30.0
#: a process that lived this long starts again without delay
STEADY_SECONDS = 10.0
#: `npx -y` and `uvx` fetch a server before it can answer; who waits for it waits no longer than for any other answer
HANDSHAKE_SECONDS = 180.0
MAX_SESSIONS = 64
MAX_SAID = 1000  # characters of its last words that go with a failure


class Process:
    """A command kept running: started when needed, again after it died, with growing pauses."""

    def __init__(
        self,
        command: CommandLine,
        limits: TransportLimits,
        ring: Ring,
        *,
        private: bool,
        handshake: bool,
        ledger: Ledger | None = None,
    ) -> None:
        self._command = command
        self._limits = limits
        self._ring = ring
        self._handshake = handshake
        self._child: Child | None = None
        self._ready: Child | None = None  # the child, once it may be spoken to
        self._bringing: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._backoff = 0.0
        self._not_before = 0.0
        self._started_at = 0.0
        self._closing = asyncio.Event()
        self.initialized: dict[str, Any] = {}
        self.conversation = Conversation(
            self._write, private=private, idle=limits.idle, limit=limits.answer_bytes, ledger=ledger
        )

    @property
    def pid(self) -> int:
        """Give the process id, 0 when it does not run."""
        return self._child.pid if self._child is not None and self._child.alive else 0

    @property
    def alive(self) -> bool:
        """Tell whether it runs."""
        return self._child is not None and self._child.alive

    async def ready(self) -> None:
        """Start the process unless it runs, and wait until it may be spoken to; raises UpstreamError.

        Everyone waits for the one start, which goes on whoever of them leaves: nobody is answered by a process that has not
        said yet what it is. A command may have to be fetched first: then some are told so, and the start goes on.
        """
        if self._ready is not None and self._ready is self._child and self._child.alive:
            return
        task = self._bringing
        if task is None:
            task = self._bringing = asyncio.get_running_loop().create_task(self._bring_up())
            task.add_done_callback(self._brought)
        try:
            async with asyncio.timeout(self._limits.first_byte or None):
                await asyncio.shield(task)
        except UpstreamError as error:
            raise copy(error) from None  # of one for each, since errors hold the frames they pass
        except TimeoutError:
            raise TimedOut(
                "The upstream's command is still starting.", said=self._last_words(), executed=False
            ) from None

    def _brought(self, task: asyncio.Task[None]) -> None:
        self._bringing = None
        if not task.cancelled():
            task.exception()  # everyone may have left

    async def _bring_up(self) -> None:
        async with self._starting:
            if self._ready is not None and self._ready is self._child and self._child.alive:
                return
            self._refuse_closed()
            if self._child is not None:
                await self._child.gone.wait()  # its last words are read, and its calls told, before there is another
            loop = asyncio.get_running_loop()
            pause = self._not_before - loop.time()
            if pause > self._limits.connect:
                raise Unreachable(
                    "The upstream's process keeps ending and is being restarted.", said=self._last_words()
                )
            if pause > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), pause)
            self._refuse_closed()
            self._started_at = loop.time()
            self._child = child = await Child.start(
                self._command,
                received=self.conversation.deliver,
                received_large=self.conversation.deliver_large,
                ended=self._ended,
                ring=self._ring,
                max_line=self._limits.answer_bytes,
            )
            if self._closing.is_set():  # while it was started; close() waits for this
                await child.stop()
                self._refuse_closed()
            if self._handshake:
                try:
                    await self._initialize()
                except BaseException:
                    child.kill()
                    raise
            self._ready = child

    async def close(self, patience: float = 2.0) -> None:
        """End the process for good."""
        self._closing.set()
        child, self._child = self._child, None
        if child is not None:
            await child.stop(patience)
        self.conversation.fail(Broken("The upstream was removed or changed."))
        async with self._starting:  # one that was being started is stopped by then
            self._child = None

    def _refuse_closed(self) -> None:
        if self._closing.is_set():
            raise Unreachable("The upstream was removed or changed.")

    async def _write(self, raw: bytes) -> None:
        child = self._child
        if child is None:
            raise Broken("The upstream's process has ended.", executed=False)
        await child.write(raw)

    async def _initialize(self) -> None:
        info = {"name": "mcp-sentinel", "version": "1"}
        params = {"protocolVersion": LATEST_LEGACY, "capabilities": {}, "clientInfo": info}
        message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        raw = json.dumps(message).encode()
        try:
            response = await self.conversation.request(raw, message, first_byte=HANDSHAKE_SECONDS)
        except TimedOut:  # nobody's call has been sent yet
            raise TimedOut(
                "The upstream's process did not answer initialize.", said=self._last_words(), executed=False
            ) from None
        except Broken as ended:
            raise Unreachable(
                "The upstream's process ended as soon as it was started.", detail=ended.detail, said=self._last_words()
            ) from None
        answer = parse(await response.body(self._limits.answer_bytes)) or {}
        result = answer.get("result")
        if not isinstance(result, dict):
            error = answer.get("error")
            said = json.dumps(error)[:MAX_SAID] if error else ""
            detail = "an error" if error else "no result"
            raise Broken("The upstream refused to be initialised.", detail=detail, said=said, executed=False)
        self.initialized = result
        await self._write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')

    def _ended(self, how: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._started_at >= STEADY_SECONDS:
            self._backoff = 0.0
        self._backoff = min(max(self._backoff * 2, FIRST_BACKOFF), LONGEST_BACKOFF)
        self._not_before = now + self._backoff
        self.conversation.fail(
            Broken("The upstream's process ended before it had answered.", detail=how, said=self._last_words())
        )

    def _last_words(self) -> str:
        return "\n".join(self._ring.lines()[-5:])[:MAX_SAID]


class StdioTransport:
    """A command as an upstream."""

    def __init__(
        self,
        command: CommandLine,
        *,
        mode: str = "shared",
        limits: TransportLimits | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self._command = command
        self._ledger = ledger
        self._limits = limits or TransportLimits()
        self._per_session = mode == "session"
        self.ring = Ring()
        self._legacy: Process | None = None
        self._modern: Process | None = None
        self._sessions: SessionTable[Process] = SessionTable(MAX_SESSIONS)
        #: processes of sessions that are being opened
        self._opening: set[Process] = set()
        self._closed = False

    async def connect(self) -> None:
        """Find the command; raises Unreachable. For checks."""
        self._command.resolved()

    def stderr(self) -> list[str]:
        """Give the last lines the command wrote to its standard error."""
        return self.ring.lines()

    def pids(self) -> list[int]:
        processes = [self._legacy, self._modern, *self._sessions.peers()]
        return [process.pid for process in processes if process is not None and process.pid]

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Take a request as a Streamable HTTP server would."""
        if self._closed:
            raise Unreachable("The upstream was removed or changed.")
        headers = dict(request.headers)
        session = headers.get(SESSION, b"")
        if request.verb != b"POST":
            return await self._without_body(request, session)
        message = parse(request.body)
        if message is None:
            return refusal(400, -32700, "Parse error")
        if is_modern(message, headers.get(b"mcp-protocol-version", b"")):
            if self._modern is None:
                self._modern = self._process(private=False, handshake=False)
            await self._modern.ready()
            return await self._pass(self._modern, request, message, session=session, modern=True)
        if self._per_session:
            return await self._in_session(request, message, session)
        if self._legacy is None:
            self._legacy = self._process(private=False, handshake=True)
        await self._legacy.ready()
        if message.get("method") == "initialize" and "id" in message:
            return self._greet(request.body, message, self._legacy.initialized)
        return await self._pass(self._legacy, request, message, session=session)

    async def close(self, grace: float = 0.0) -> None:
        """Let calls end within the grace, then end every process."""
        self._closed = True
        processes = [process for process in (self._legacy, self._modern) if process is not None]
        deadline = asyncio.get_running_loop().time() + grace
        while any(process.conversation.calls for process in (*processes, *self._sessions.peers())):
            if asyncio.get_running_loop().time() >= deadline:
                break
            await asyncio.sleep(0.05)
        processes += self._opening
        await asyncio.gather(*(process.close() for process in processes), self._sessions.close())

    # -- shared ------------------------------------------------------------------------------------------------

    def _process(self, *, private: bool, handshake: bool) -> Process:
        return Process(
            self._command, self._limits, self.ring, private=private, handshake=handshake, ledger=self._ledger
        )

    async def _pass(
        self,
        process: Process,
        request: UpstreamRequest,
        message: dict[str, Any],
        *,
        session: bytes,
        modern: bool = False,
    ) -> UpstreamResponse:
        limit = self._limits.first_byte if request.first_byte_timeout is None else request.first_byte_timeout
        if message.get("method") == "initialize":
            limit = max(limit, HANDSHAKE_SECONDS) if limit else limit  # it has only just been started
        if isinstance(message.get("method"), str) and "id" in message:
            return await process.conversation.request(
                request.body, message, session=session, caller=request.caller, modern=modern, first_byte=limit,
                idle=request.idle_timeout,
            )  # fmt: skip
        await process.conversation.accept(request.body, message, session=session, caller=request.caller)
        return BufferedResponse(202, [])

    def _greet(self, raw: bytes, message: dict[str, Any], result: dict[str, Any]) -> UpstreamResponse:
        params = message.get("params")
        asked = params.get("protocolVersion") if isinstance(params, dict) else None
        spoken = str(result.get("protocolVersion"))
        # an older revision that the client asks for is what it gets: later ones only added to it
        version = asked if asked in LEGACY_VERSIONS and str(asked) <= spoken else spoken
        body = json.dumps({"jsonrpc": "2.0", "id": 0, "result": {**result, "protocolVersion": version}}).encode()
        start, end = find(raw, ("id",))[("id",)]
        body = replace(body, {find(body, ("id",))[("id",)]: raw[start:end]})
        return BufferedResponse(200, [*JSON_HEADERS, (SESSION, new_token())], body)

    # -- a process for each session ----------------------------------------------------------------------------

    async def _in_session(self, request: UpstreamRequest, message: dict[str, Any], session: bytes) -> UpstreamResponse:
        if message.get("method") == "initialize" and "id" in message:
            self._sessions.make_room(request.caller)
            process = self._process(private=True, handshake=False)
            token = new_token()
            self._opening.add(process)
            try:
                await process.ready()
                response = await self._pass(process, request, message, session=token)
                if self._closed:
                    raise Unreachable("The upstream was removed or changed.")
            except BaseException:
                self._sessions.dispose(process)
                raise
            finally:
                self._opening.discard(process)
            self._sessions.add(process, token, request.caller)
            response.headers.append((SESSION, token))
            return response
        if not session:
            return refusal(400, -32600, "Bad Request: Missing session ID", id=asked(message))
        known = self._sessions.get(session)
        if known is None:
            return refusal(404, -32600, "Session not found", id=asked(message))
        return await self._pass(known, request, message, session=session)

    async def _without_body(self, request: UpstreamRequest, session: bytes) -> UpstreamResponse:
        if request.verb not in (b"GET", b"DELETE"):
            return refusal(405, -32600, "Method Not Allowed", [(b"allow", b"GET, POST, DELETE")])
        if self._per_session:
            if self._sessions.get(session) is None:
                return refusal(404 if session else 400, -32600, "Session not found")
            if request.verb == b"GET":
                return self._sessions.listen(session, request.caller)
            self._sessions.leave(session)
            return BufferedResponse(200, [])
        if request.verb == b"DELETE":
            if self._legacy is not None:
                self._legacy.conversation.forget(session, request.caller)
            return BufferedResponse(200, [])
        if self._legacy is None:
            self._legacy = self._process(private=False, handshake=True)
        await self._legacy.ready()
        return self._legacy.conversation.listen(session or new_token(), request.caller)


def refusal(
    status: int, code: int, message: str, headers: Headers | None = None, *, id: Any = None
) -> BufferedResponse:
    """Answer as a Streamable HTTP server would refuse."""
    body = json.dumps({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}).encode()
    return BufferedResponse(status, [*JSON_HEADERS, *(headers or [])], body)


def asked(message: dict[str, Any]) -> Any:
    """Give the id of a request; None for what expects no answer."""
    return message.get("id") if isinstance(message.get("method"), str) else None
