"""The upstream's answer on its way to the client: byte for byte, as it comes, and no result before its record.

A plain JSON answer is held until its outcome is durable; in a stream only the event that answers the request is. What
the gateway may change is the one thing policy asks for: lists lose what the caller may not call.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any

import orjson

from audit.sanitizer import MISSING
from policies.engine import Context, Target, decide, may_list
from proxy import outcomes
from proxy.call import Call
from proxy.gateway import Gateway
from proxy.headers import response_headers
from proxy.listing import LIST_METHODS, FilteredList, Unfilterable, filter_event, filter_result
from proxy.message import ABSENT, TargetKind
from proxy.request import error_response
from proxy.resumption import Ids
from proxy.sse import KEEP_ALIVE, EventTooLarge, Item, SseEvent, SseReader, classify, encode, load, same_id
from proxy.transports.base import Broken, Redirected, TimedOut, TooLarge, UpstreamError, UpstreamResponse

#: a plain answer up to this size is held whole; a larger one goes out behind its durable outcome, in constant memory
HOLD_BYTES = 16 * 1024 * 1024
#: how much of a larger answer the event is made from
HEAD_BYTES = 64 * 1024
#: what an upstream says when what it offers has changed (told by its bytes, as every notification is)
_LIST_CHANGED = re.compile(rb'"notifications/(?:tools|prompts|resources)/list_changed"')
#: how many requests of the server the event of a stream names
SERVER_REQUESTS = 20


async def relay(gateway: Gateway, call: Call, response: UpstreamResponse) -> None:
    """Judge the head of the answer, then relay its body."""
    status = response.status
    if 300 <= status < 400:
        raise Redirected("The upstream answered with a redirect; its configured address needs fixing.")
    if status >= 500 or status in (401, 407):
        body = await _error_text(call, response)
        raise UpstreamError(
            "The upstream refused the gateway's own credential." if status in (401, 407) else "The upstream failed.",
            detail=f"HTTP {status}: {body}",
        )
    call.answer_status = status
    if status == 200 and response.streaming:
        await _Stream(gateway, call, response).run()
    else:
        await _plain(gateway, call, response)


async def _error_text(call: Call, response: UpstreamResponse) -> str:
    try:
        with call.exchange.interruptible():
            return (await response.body(4096))[:512].decode("utf-8", "replace")
    except UpstreamError:
        return ""


# -- a plain answer


async def _plain(gateway: Gateway, call: Call, response: UpstreamResponse) -> None:
    message = call.message
    status = response.status
    if call.verb == "GET" and status < 300:
        raise Broken("The upstream answered a GET with something that is no event stream.")
    # The older transport accepts a request here and answers it on its stream.
    asked = message is not None and message.kind == "request" and (call.endpoint != "messages" or call.link is not None)
    lists = message is not None and message.method in LIST_METHODS
    if asked and _misplaced(call, response):
        raise Broken(f"The upstream answered HTTP {status} as no MCP server does; its address may be wrong.")
    since = time.perf_counter_ns()
    pieces: list[bytes] = []
    size = 0
    limit = gateway.config.max_answer_bytes if lists else HOLD_BYTES
    whole = False
    value: Any = MISSING
    with call.exchange.interruptible():
        while size <= limit:
            piece = await response.read()
            if not piece:
                whole = True
                break
            pieces.append(piece)
            size += len(piece)
    body = b"".join(pieces)
    call.upstream_ns += time.perf_counter_ns() - since
    if not whole and lists:
        raise TooLarge("The upstream's list is too large.")
    if status < 300 and asked:
        if response.content_type != b"application/json":
            raise Broken("The upstream's answer is neither JSON nor an event stream.")
        if whole:
            body, value = _checked(gateway, call, body, lists)
    call.outcome, call.reason = "allowed", call.decision.reason if call.decision else ""
    headers = await _headers(gateway, call, response)
    if whole:
        headers.append((b"content-length", b"%d" % len(body)))
        if status not in (202, 204):
            payload = await gateway.payload(body, value, level=call.level, side="response")
            outcomes.complete(call, response=payload, response_bytes=len(body))
        else:
            outcomes.complete(call)
        await gateway.logger.outcome(_event(call))
        call.completed = True
        await call.exchange.answer(status, headers, body)
        return
    payload = await gateway.payload(body[:HEAD_BYTES], level=call.level, side="response")
    outcomes.complete(call, response=payload, response_bytes=size)
    await gateway.logger.outcome(_event(call), final=False)
    call.answered = True
    await call.exchange.start(status, headers)
    with call.exchange.interruptible():
        while body:
            await call.exchange.write(body)
            body = await response.read()
    call.details["stream"] = {"bytes": call.exchange.sent_bytes, "ended": "complete"}
    await call.exchange.finish()


def _misplaced(call: Call, response: UpstreamResponse) -> bool:
    """Whether a refusal came from something that is no MCP server: in a text, and with no session it could speak of."""
    status = response.status
    return status in (403, 404, 405, 410) and response.content_type != b"application/json" and not call.session


def _checked(gateway: Gateway, call: Call, body: bytes, lists: bool) -> tuple[bytes, Any]:
    """The answer to a request is one JSON-RPC response with that request's id, or it is broken.

    Gives what passes of it, and what that was parsed to when it was plain JSON.
    """
    try:
        value = parsed = orjson.loads(body)
    except ValueError:
        value, parsed = load(body), MISSING  # what a lenient reader makes of it is no base for what is kept
    if not isinstance(value, dict) or ("result" not in value and "error" not in value):
        raise Broken("The upstream's answer is not a JSON-RPC response.")
    if call.message is not None and "result" in value and not same_id(value.get("id"), call.message.id):
        raise Broken("The upstream's answer has another request's id.")
    _note_result(call, value)
    return (_filtered(gateway, call, body), MISSING) if lists else (body, parsed)


def _note_result(call: Call, value: dict[str, Any]) -> None:
    error = value.get("error")
    if isinstance(error, dict):
        call.details["rpc_error"] = error.get("code") if isinstance(error.get("code"), int) else None
    result = value.get("result")
    if isinstance(result, dict) and result.get("isError") is True:
        call.details["tool_error"] = True


# -- lists


def _filtered(gateway: Gateway, call: Call, body: bytes) -> bytes:
    try:
        found = filter_result(body, _Keep(gateway, call))
    except Unfilterable as error:
        raise Broken("The upstream's list cannot be read.", detail=str(error)) from error
    _note_list(call, found)
    return found.raw


def _note_list(call: Call, found: FilteredList) -> None:
    call.details["list"] = {"kept": found.kept, "hidden": found.hidden}


def _modern(call: Call) -> bool:
    return call.era is not None and call.era.modern


class _Keep:
    """Says of one list item whether the caller may see it: the same engine, snapshot and clock as for calls."""

    def __init__(self, gateway: Gateway, call: Call) -> None:
        self.gateway = gateway
        self.call = call
        self.context = Context(now=datetime.now(UTC), client_ip=call.client_ip)

    def __call__(self, kind: TargetKind, name: str, item: dict[str, Any]) -> bool:
        snapshot, principal, spec = self.gateway.snapshot, self.call.principal, self.call.spec
        if snapshot is None or principal is None or spec is None:
            return False
        annotations = item.get("annotations")
        target = Target(kind, spec.slug, name, ABSENT, annotations if isinstance(annotations, dict) else None)
        return may_list(snapshot.policy, principal, target, self.context) and not self.gateway.registry.blocked(
            spec.slug, kind, name, item
        )


# -- a stream


class _Stream:
    """Relays one SSE stream event by event."""

    def __init__(self, gateway: Gateway, call: Call, response: UpstreamResponse) -> None:
        self.gateway = gateway
        self.call = call
        self.response = response
        self.reader = SseReader(max_event=gateway.config.max_answer_bytes)
        self.events = 0
        self.server_requests: list[dict[str, Any]] = []
        self.asked = call.message is not None and call.message.kind == "request"
        self.lists = call.message is not None and call.message.method in LIST_METHODS
        self.pending = bytearray()
        self.ids = Ids(gateway, call, response)
        self.reading = False
        self.unasked = 0

    async def run(self) -> None:
        call, exchange = self.call, self.call.exchange
        call.streaming = True
        call.outcome, call.reason = "allowed", call.decision.reason if call.decision else ""
        ended = "complete"
        self.gateway.stream_opened(call)
        call.keep_alive = self._keep_alive
        call.last_write = time.monotonic()
        try:
            with exchange.interruptible():
                await exchange.start(200, await _headers(self.gateway, call, self.response))
                try:
                    await self._pump()
                except EventTooLarge as error:
                    raise TooLarge("An event of the upstream's stream is too large.") from error
            if self.asked and not call.answered and _modern(call):
                raise Broken("The upstream's stream ended without an answer.")
            ended = "complete" if call.answered or not self.asked else "without_answer"
        except UpstreamError as error:
            ended = "cut"
            if call.resumable and self.reading and type(error) is Broken:
                call.details["error"] = error.detail  # the client may come back for the answer, as without a gateway
            else:
                await self._broken(error)
        finally:
            call.keep_alive = None
            self.gateway.stream_closed(call)
            stream: dict[str, Any] = {"bytes": exchange.sent_bytes, "events": self.events, "ended": ended}
            if exchange.ended_by:
                stream["ended"] = exchange.ended_by
            if self.unasked:
                stream["unasked"] = self.unasked
            if self.server_requests:
                stream["server_requests"] = self.server_requests
            call.details["stream"] = stream

    async def _pump(self) -> None:
        exchange = self.call.exchange
        while piece := await self._read():
            for event in self.reader.feed(piece):
                self.events += 1
                if event.id is not None:
                    event = self.ids.outgoing(event)
                if event.data:
                    await self._event(event)
                else:
                    self.pending += event.raw
            await self._flush()
        if rest := self.reader.rest():
            await exchange.write(rest)

    async def _read(self) -> bytes:
        self.reading = True
        piece = await self.response.read()
        self.reading = False
        return piece

    async def _flush(self) -> None:
        if self.ids.due:
            await self.ids.promise()
        if self.pending:
            piece = bytes(self.pending)
            self.pending.clear()
            self.call.last_write = time.monotonic()
            await self.call.exchange.write(piece)
            self.call.delivered = self.call.answered

    async def _keep_alive(self) -> None:
        # Between two events only; the bytes of an event still arriving are not written before it is whole.
        self.call.last_write = time.monotonic()
        if self.call.keep_alive is not None and not self.pending:
            await self.call.exchange.write(KEEP_ALIVE)

    async def _event(self, event: SseEvent) -> None:
        item = classify(event.data)
        if item.kind == "response":
            await self._response(event, item)
        elif item.kind == "request":
            await self._server_request(event, item)
        else:
            if _LIST_CHANGED.search(event.data) is not None:
                self.gateway.registry.lists_changed(self.call.slug)
            self.pending += event.raw

    async def _response(self, event: SseEvent, item: Item) -> None:
        call = self.call
        raw, data = event.raw, event.data
        result = item.value.get("result") if isinstance(item.value, dict) else None
        if self.lists or not self.asked or isinstance(item.value, list) or _looks_like_list(result):
            try:
                found = filter_event(event, _Keep(self.gateway, call))
            except Unfilterable as error:
                raise Broken("The upstream's list cannot be read.", detail=str(error)) from error
            if found.changed:
                raw = found.raw
                _note_list(call, found)
                data = SseReader().feed(raw)[0].data
        if isinstance(item.value, dict) and self.ids.brings(item.id):
            await self._flush()
            _note_result(call, item.value)
            await self.ids.record(data)
            self.pending += raw
            return
        if call.verb == "GET" and call.endpoint == "mcp":
            self.unasked += 1  # the protocol forbids it, and nobody's event would hold it
            return
        mine = self.asked and call.message is not None and same_id(item.id, call.message.id)
        if not mine or call.answered:
            self.pending += raw
            return
        await self._flush()
        if isinstance(item.value, dict):
            _note_result(call, item.value)
        payload = await self.gateway.payload(data, level=call.level, side="response")
        outcomes.complete(call, response=payload, response_bytes=len(data))
        await self.gateway.logger.outcome(_event(call), final=False)
        call.answered = True
        self.pending += raw

    async def _server_request(self, event: SseEvent, item: Item) -> None:
        """A request of the server (sampling, elicitation, roots): a `method:` target like any other."""
        call = self.call
        snapshot, principal = self.gateway.snapshot, call.principal
        if item.method == "ping":
            self.pending += event.raw
            return
        allowed, reason = False, "policy_stale"
        if snapshot is not None and principal is not None:
            target = Target("method", call.slug, item.method, (item.value or {}).get("params") or {})
            context = Context(now=datetime.now(UTC), client_ip=call.client_ip)
            decision = decide(snapshot.policy, principal, target, context)
            allowed, reason = decision.allowed, decision.reason
        if len(self.server_requests) < SERVER_REQUESTS:
            self.server_requests.append({"method": item.method, "allowed": allowed, "reason": reason})
        if allowed:
            self.pending += event.raw
            return
        # The upstream waits for an answer, so it gets one; the client never sees the question.
        self.gateway.spawn(error_response(self.gateway, call, item.id, item.method))

    async def _broken(self, error: UpstreamError) -> None:
        """The head of the answer is out, so what went wrong is told as the stream's last event."""
        call = self.call
        outcomes.upstream_failed(call, error)
        call.answer_status = 200
        if not (self.asked and not call.answered and call.rpc_id):
            return
        code = 504 if isinstance(error, TimedOut) else 502
        audit_id = str(call.id)
        outcomes.complete(call)
        await self.gateway.logger.outcome(_event(call), final=False)
        call.answered = True
        body = outcomes.stream_error(call, code, error, audit_id)
        await call.exchange.write(encode(body))


def _looks_like_list(result: Any) -> bool:
    return isinstance(result, dict) and any(
        isinstance(result.get(name), list) for name in ("tools", "prompts", "resources", "resourceTemplates")
    )


# -- heads


def _event(call: Call) -> Any:
    if call.event is None:
        raise RuntimeError("an answer is relayed only after an intent")
    return call.event


async def _headers(gateway: Gateway, call: Call, response: UpstreamResponse) -> list[tuple[bytes, bytes]]:
    headers = response_headers(response.headers)
    sid = response.header(b"mcp-session-id")
    if sid and not _modern(call) and call.spec is not None:
        fresh = call.message is not None and call.message.method == "initialize" and response.status == 200
        if fresh and call.link is not None:
            await call.link.remember(sid)
            if call.event is not None:
                call.event.complete(session=gateway.sealer.reference(sid))
        elif fresh:
            sealed = gateway.sealer.seal(sid, key_id=call.key_id, upstream=call.spec.slug)
            if sealed is not None:
                headers.append((b"mcp-session-id", sealed.encode()))
                if call.event is not None:
                    call.event.complete(session=gateway.sealer.reference(sid))
        elif call.session and sid == call.session:
            headers.append((b"mcp-session-id", call.session_presented))
    if response.streaming and response.status == 200:
        headers.append((b"x-accel-buffering", b"no"))
        if not response.header(b"cache-control"):
            headers.append((b"cache-control", b"no-cache"))
    elif not response.header(b"cache-control"):
        headers.append((b"cache-control", b"no-store"))
    return headers
