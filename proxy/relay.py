"""The upstream's answer on its way to the client: byte for byte, but nothing that was not read whole, judged and recorded.

Every message goes through proxy.judging, on every road and with every status; what is none does not pass. A plain answer
is held until its outcome is durable; in a stream only the event that answers the request is. What the gateway may change
is the one thing policy asks for, lists lose what the caller may not call, and how events are framed.
"""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from audit.events.event import Event
from audit.redaction.sanitizer import MISSING
from policies.engine.decide import decide
from policies.engine.types import Context, Target
from policies.vocabulary import ASKED
from proxy import outcomes
from proxy.call import FOR_GOOD, Call, Record, State, nothing
from proxy.follow_ups import tasks
from proxy.follow_ups.resumption import Ids
from proxy.follow_ups.task_book import of_call
from proxy.gateway import Gateway
from proxy.http.exchange import PIECE, Departed
from proxy.http.headers import response_headers
from proxy.http.refusals import passed_on, refuse
from proxy.judging import Judged, judge, keep_head, withheld
from proxy.legacy import endpoint
from proxy.mcp.listing import LIST_METHODS, MOST_LIST_BYTES
from proxy.mcp.message import Refused
from proxy.mcp.replies import Reply, Unreadable, read, same_id
from proxy.mcp.splice import find
from proxy.mcp.sse import KEEP_ALIVE, EventTooLarge, SseEvent, SseReader, encode, frame
from proxy.request import error_response
from proxy.upstreams.transports.base import Broken, Cancelled, Redirected, TooLarge, UpstreamError, UpstreamResponse

#: what an upstream says when what it offers has changed
_LIST_CHANGED = re.compile(r"notifications/(?:tools|prompts|resources)/list_changed")
#: how many requests of the server the event of a stream names
SERVER_REQUESTS = 20
#: and how many of them have events of their own; the rest are counted
RECORDED_REQUESTS = 200
MAX_METHOD = 64
_VERBS = (b"POST", b"GET", b"DELETE")
#: how much of the body of a failure is read and kept as the answer's payload
ERROR_BYTES = 4096
#: how much of a stream is taken apart at once, and how long the loop is held for it
SLICE_BYTES = 16 * 1024
TURN_SECONDS = 0.01
#: how long what a stream still has to say may take to write, in seconds
PARTING = 2.0


async def relay(gateway: Gateway, call: Call, response: UpstreamResponse) -> None:
    """Judge the head of the answer, then relay its body."""
    status = response.status
    if 300 <= status < 400:
        raise Redirected("The upstream answered with a redirect; its configured address needs fixing.")
    if status >= 500 or status in (401, 407):
        body = await _error_head(call, response)
        with suppress(Unreadable):  # a page of some server in between, most often
            _note_result(call, read(body))
        raise UpstreamError(
            "The upstream refused the gateway's own credential." if status in (401, 407) else "The upstream failed.",
            detail=f"HTTP {status}",
            said=body.decode("utf-8", "replace"),
        )
    call.answer_status = status
    if status == 200 and response.streaming:
        await _RelayedStream(gateway, call, response).run()
    else:
        await _plain(gateway, call, response)


async def _error_head(call: Call, response: UpstreamResponse) -> bytes:
    try:
        with call.exchange.interruptible():
            body = b""
            while len(body) < ERROR_BYTES and (piece := await response.read()):
                body += piece[:ERROR_BYTES]
            return body[:ERROR_BYTES]
    except UpstreamError:
        return b""


# -- a plain answer


async def _plain(gateway: Gateway, call: Call, response: UpstreamResponse) -> None:
    message = call.message
    status = response.status
    if call.verb == "GET" and (status < 300 or (status == 404 and not call.session)):
        call.details["error"] = f"The upstream has no stream for a GET: it answered HTTP {status}."
        status = call.answer_status = 405  # as clients expect where none is offered, and go on without
    asked = message is not None and message.kind == "request"
    since = time.perf_counter_ns()
    with call.exchange.interruptible():
        body = await response.body(_largest(gateway, call), lambda size: _count(gateway, call, len(call.body) + size))
    call.upstream_ns += time.perf_counter_ns() - since
    judged = None
    if asked and status < 300:
        judged = await _answer(gateway, call, response, body)
        if call.link is not None:
            await endpoint.begun(gateway, call, response, judged.reply)
    elif status >= 400 and response.content_type == b"application/json":
        judged = await _error(gateway, call, body)
    if judged is not None and judged.reply.id is None and call.link is not None:
        judged = _addressed(call, judged)
    headers = await _headers(gateway, call, response)
    _wanted(call)
    call.outcome, call.reason = "allowed", call.decision.reason if call.decision else ""
    if status >= 400 and call.verb == "POST":
        call.outcome, call.reason = "upstream_error", outcomes.UPSTREAM_REFUSED  # it says itself that nothing ran
    elif asked and judged is not None:
        status = call.answer_status = 200  # whatever way of saying yes it chose: that is how an answer goes to a client
    if judged is not None:
        body = judged.data
        payload = await gateway.payload(
            body, judged.value, compact=judged.compact, caller=call.key_id, level=call.level, side="response"
        )
        _wanted(call)  # a large one has waited for its turn
        outcomes.complete(call, response=payload, response_bytes=len(body))
        headers.append((b"content-type", b"application/json"))
    else:  # nobody waits for what it says, or nobody can read it
        await keep_head(gateway, call, body)
        body = b""
        if status >= 400:
            told = _unread(call, status, asked=asked)
            call.details.setdefault("error", told)
            body = passed_on(status, call.rpc_id or None, str(call.id), told, outcomes.fate(call))
            headers.append((b"content-type", b"application/json"))
            if status == 405 and not response.header(b"allow"):
                headers.append((b"allow", b", ".join(verb for verb in _VERBS if verb != call.verb.encode())))
        outcomes.complete(call)
    headers.append((b"content-length", b"%d" % len(body)))
    await gateway.logger.outcome(_event(call))
    call.close(Record.KEPT)
    await call.exchange.answer(status, headers, body)


def _wanted(call: Call) -> None:
    """See to it that what a client has taken back, or may not have any more, is not answered, whatever the upstream said."""
    if call.exchange.ended_by in FOR_GOOD:
        raise Departed(call.exchange.ended_by)


def _count(gateway: Gateway, call: Call, size: int) -> None:
    """Count what waits for the record of an answer as its caller's."""
    if not call.holds(gateway.ledger, size):
        raise refuse("too_much_waiting", call=call, retry_after=5)


def _largest(gateway: Gateway, call: Call) -> int:
    """Give the bound of one answer: the transport's, and less for a list, all of which is read closely."""
    own = call.spec.way.max_answer_bytes if call.spec is not None else None
    most = int(own or gateway.config.max_answer_bytes)
    return min(most, MOST_LIST_BYTES) if call.known.method in LIST_METHODS else most


def _unread(call: Call, status: int, *, asked: bool) -> str:
    """Say that an upstream refused in words that are no message; a client that speaks both eras goes by the status alone."""
    told = f"The upstream answered HTTP {status}, and no message of the protocol"
    if asked and not call.session and status in (400, 404, 405, 410):
        return f"{told}: it may speak an earlier version only, or its address is wrong."
    return f"{told}."


async def _answer(gateway: Gateway, call: Call, response: UpstreamResponse, body: bytes) -> Judged:
    """The answer to a request is one JSON-RPC response with that request's id, or it is broken."""
    if response.content_type != b"application/json":
        await keep_head(gateway, call, body)
        raise Broken("The upstream's answer is neither JSON nor an event stream.")
    judged = await judge(gateway, call, body)
    reply = judged.reply
    # An error may lack the id of a request that could not be read.
    mine = reply.id is None or (call.message is not None and reply.id == call.message.id) or _mine(call, reply)
    if reply.kind != "response" or not mine:
        await keep_head(gateway, call, body)
        raise Broken(
            "The upstream's answer is not a JSON-RPC response."
            if reply.kind != "response"
            else "The upstream's answer has another request's id."
        )
    _note_result(call, reply)
    await tasks.note(gateway, call, reply.result)
    return judged


async def _error(gateway: Gateway, call: Call, body: bytes) -> Judged | None:
    """With an error status only a JSON-RPC error passes; None when the body is anything else."""
    try:
        judged = await judge(gateway, call, body)
    except Broken:
        return None
    if judged.reply.kind != "response" or judged.reply.result is not None:
        return None
    _note_result(call, judged.reply)
    return judged


def _addressed(call: Call, judged: Judged) -> Judged:
    """Give an error without an id that of its request: on a stream nobody could tell to what it is an answer."""
    start, end = find(judged.data, ("error",))[("error",)]
    data = b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (call.rpc_id or b"null", judged.data[start:end])
    return Judged(judged.reply, data, MISSING)


def _mine(call: Call, reply: Reply) -> bool:
    return call.message is not None and same_id(reply.id, call.message.id)


def _note_result(call: Call, reply: Reply) -> None:
    call.details.update(_failure(reply))


def _failure(reply: Reply) -> dict[str, Any]:
    """Give what an event's details say of an answer in which the tool or the upstream says that it failed (see audit.events.tool_errors)."""
    if reply.kind != "response":
        return {}
    if reply.result is not None:
        return {"tool_error": True} if reply.result.get("isError") is True else {}
    error = reply.value.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return {"rpc_error": code if isinstance(code, int) else None}


def _modern(call: Call) -> bool:
    return call.era is not None and call.era.modern


# -- a stream


class _RelayedStream:
    """Relays one SSE stream event by event."""

    def __init__(self, gateway: Gateway, call: Call, response: UpstreamResponse) -> None:
        self.gateway = gateway
        self.call = call
        self.response = response
        self.reader = SseReader(max_event=_largest(gateway, call))
        self.events = 0
        #: events of which no data passed, since no client would take it for a message or it had its answer; and the first
        self.dropped = 0
        self.lost = b""
        self.server_requests: list[dict[str, Any]] = []
        self.server_asked = 0
        self.asked = call.message is not None and call.message.kind == "request"
        self.pending = bytearray()
        self.since = 0.0
        #: bytes on their way to a client that has not read what went before
        self.writing = 0
        self.ids = Ids(gateway, call, response)
        self.reading = False
        self.unasked = self.withheld = 0

    async def run(self) -> None:
        call, exchange = self.call, self.call.exchange
        call.reach(State.STREAMING)
        call.outcome, call.reason = "allowed", call.decision.reason if call.decision else ""
        ended = "complete"
        self.gateway.stream_opened(call)
        call.keep_alive = self._keep_alive
        call.waiting = self._waiting
        call.last_write = time.monotonic()
        try:
            with exchange.interruptible():
                headers = await _headers(self.gateway, call, self.response)
                await exchange.start(200, [*headers, (b"content-type", b"text/event-stream")])
                self.pending += self.response.greeting
                await self._flush()
                try:
                    await self._pump()
                except EventTooLarge as error:
                    await keep_head(self.gateway, call, self.reader.rest())
                    raise TooLarge("An event of the upstream's stream is too large.") from error
            if self.asked and not call.answered:
                await self._without_answer()
            ended = "complete" if call.answered or not self.asked else "without_answer"
        except Cancelled as error:
            await self._part(error.reason)
            raise Departed(error.reason) from None
        except Departed as departed:
            await self._part(departed.reason)
            raise
        except UpstreamError as error:
            ended = "cut"
            await self._part(error.reason)
            _wanted(call)
            if call.resumable and self.reading and type(error) is Broken:
                call.details["error"] = error.detail  # the client may come back for the answer, as without a gateway
            else:
                await self._broken(error)
        except Refused as refused:
            ended = refused.reason
            await self._part(refused.reason)
            await self._refused(refused)
        finally:
            call.keep_alive, call.waiting = None, nothing  # what refers to this stream, which refers to the call
            self.gateway.stream_closed(call)
            stream: dict[str, Any] = {"bytes": exchange.sent_bytes, "events": self.events, "ended": ended}
            if exchange.ended_by:
                stream["ended"] = exchange.ended_by
            call.torn = self.writing > 0
            if self.dropped:
                stream["dropped"] = self.dropped
            if self.unasked:
                stream["unasked"] = self.unasked
            if self.withheld:
                stream["withheld"] = self.withheld
            if self.server_requests:
                stream["server_requests"] = self.server_requests
            if self.server_asked > len(self.server_requests):
                stream["server_requests_in_all"] = self.server_asked
            call.details["stream"] = stream

    async def _pump(self) -> None:
        while await self._read():
            self._count()
            await self._flush()

    async def _give_way(self) -> None:
        """Let others have the loop, however much an upstream has to say."""
        if time.monotonic() - self.since > TURN_SECONDS:
            await asyncio.sleep(0)
            self.since = time.monotonic()

    async def _read(self) -> bool:
        """Take what has come; what it was read from is forgotten before it is written."""
        self.reading = True
        piece = await self.response.read()
        self.reading = False
        self.since = time.monotonic()
        for start in range(0, len(piece), SLICE_BYTES):
            for event in self.reader.feed(piece[start : start + SLICE_BYTES]):
                self.events += 1
                await self._take(self.ids.outgoing(event) if event.id is not None else event)
            await self._give_way()
        return bool(piece)

    def _waiting(self) -> int:
        return len(self.pending) + self.writing + self.reader.pending + self.response.waiting

    def _count(self) -> None:
        if not self.call.holds(self.gateway.ledger, self._waiting()):
            raise refuse("too_much_waiting", call=self.call, retry_after=5)

    async def _flush(self) -> None:
        if self.ids.due:
            await self.ids.promise()
        if self.pending:
            piece, self.pending = bytes(self.pending), bytearray()
            self.writing = len(piece)
            self.call.last_write = time.monotonic()
            await self.call.exchange.write(piece)
            self.writing = 0
            if self.call.state == State.ANSWERED:
                self.call.reach(State.DELIVERED)

    async def _keep_alive(self) -> None:
        # Between two events only; the bytes of an event still arriving are not written before it is whole.
        self.call.last_write = time.monotonic()
        if self.call.keep_alive is not None and not self.pending and not self.writing:
            with suppress(Departed):  # the stream itself sees that too
                await self.call.exchange.write(KEEP_ALIVE)

    async def _take(self, event: SseEvent) -> None:
        """Take one event: a message is judged, anything else may keep a stream alive but says nothing."""
        if self.response.judged:
            self.pending += event.raw
        elif event.message:
            await self._message(event)
        else:
            if not event.plain:
                self._drop(event)
            self.pending += frame(event)

    def _drop(self, event: SseEvent) -> None:
        self.dropped += 1
        self.lost = self.lost or event.raw

    async def _message(self, event: SseEvent) -> None:
        try:
            judged = await judge(self.gateway, self.call, event.message)
        except Broken:
            if not (self.asked and self.call.answered):
                raise
            self._drop(event)  # the client has its answer
            return
        reply = judged.reply
        if reply.kind == "response" and self.asked and not self.call.answered and not _mine(self.call, reply):
            await keep_head(self.gateway, self.call, event.message)
            raise Broken("The upstream's answer has another request's id.")
        if judged.data is not event.data:
            event = event._replace(data=judged.data, plain=False)
        if reply.kind == "response":
            await self._response(event, judged)
        elif reply.kind == "request":
            await self._server_request(event, judged)
        elif await withheld(self.gateway, self.call, reply):
            self.withheld += 1
        else:
            if _LIST_CHANGED.fullmatch(reply.method) is not None:
                self.gateway.registry.lists_changed(self.call.slug)
            self.pending += frame(event)

    async def _response(self, event: SseEvent, judged: Judged) -> None:
        call, reply = self.call, judged.reply
        if self.ids.brings(reply.id):
            await self._flush()
            _note_result(call, reply)
            resumed = call.resumes.call if call.resumes is not None else None
            await tasks.note(self.gateway, call, reply.result, known_by=of_call(resumed) if resumed else "")
            await self.ids.record(judged.data, judged.value)
            self.pending += frame(event)
            return
        if not self.asked:
            self.unasked += 1  # the protocol forbids it, and nobody's event would hold it
            return
        if call.answered:
            self._drop(event)  # only the first is recorded, so only the first passes
            return
        await self._flush()
        _wanted(call)
        _note_result(call, reply)
        if call.link is not None:
            await endpoint.begun(self.gateway, call, self.response, reply)
        await tasks.note(self.gateway, call, reply.result)
        payload = await self.gateway.payload(
            judged.data, judged.value, caller=call.key_id, level=call.level, side="response"
        )
        outcomes.complete(call, response=payload, response_bytes=len(judged.data))
        await self.gateway.logger.outcome(_event(call), final=False)
        call.reach(State.ANSWERED)
        self.pending += frame(event)

    async def _server_request(self, event: SseEvent, judged: Judged) -> None:
        """A request of the server (sampling, elicitation, roots): a `method:` target like any other, with an event of its own."""
        call, reply = self.call, judged.reply
        snapshot, principal = self.gateway.snapshot, call.principal
        if reply.method == "ping":
            self.pending += frame(event)
            return
        allowed, reason = False, "policy_stale"
        if snapshot is not None and principal is not None:
            target = Target(ASKED, call.slug, reply.method, reply.value.get("params") or {})
            context = Context(now=datetime.now(UTC), client_ip=call.client_ip)
            decision = decide(snapshot.policy, principal, target, context)
            allowed, reason = decision.allowed, decision.reason
        if self.server_asked < RECORDED_REQUESTS:
            await self._record_request(judged, allowed, reason)
        self.server_asked += 1
        if allowed:
            self.pending += frame(event)
            return
        # The upstream waits for an answer, so it gets one; the client never sees the question.
        self.gateway.spawn(error_response(self.gateway, call, reply.id, reply.method))

    async def _record_request(self, judged: Judged, allowed: bool, reason: str) -> None:
        """Keep what the server asks before the client sees it; the answer is a request of the client's, with its own event."""
        call, gateway = self.call, self.gateway
        payload = await gateway.payload(judged.data, judged.value, caller=call.key_id, level=call.level, side="request")
        asked = outcomes.asked(gateway, call, judged.reply, payload, allowed, reason)
        if len(self.server_requests) < SERVER_REQUESTS:
            about = {"method": judged.reply.method[:MAX_METHOD], "allowed": allowed, "reason": reason}
            self.server_requests.append({**about, "event": str(asked.id)})
        await gateway.logger.log_event(asked)

    async def _without_answer(self) -> None:
        """A stream that ends before its answer may be taken up again in the legacy era, but not when something was lost."""
        rest = self.reader.rest()
        if any(event.data or not event.plain for event in SseReader(len(rest) + 2).feed(rest + b"\n\n")):
            await keep_head(self.gateway, self.call, rest)
            raise Broken("The upstream's stream ended within an event.")
        if self.dropped or _modern(self.call) or self.call.link is not None:
            await keep_head(self.gateway, self.call, self.lost)
            raise Broken("The upstream's stream ended without an answer.")

    async def _part(self, reason: str) -> None:
        """Let those have their say whose answers were to come on this stream, unless it ends in the middle of an event."""
        if reason == "client_gone" or self.writing > PIECE or not self.call.exchange.started:
            return
        words = await self.response.last_words(reason)
        if words:
            with suppress(Departed, TimeoutError):
                async with asyncio.timeout(PARTING):
                    await self.call.exchange.write(words)

    async def _broken(self, error: UpstreamError) -> None:
        """The head of the answer is out, so what went wrong is told as the stream's last event."""
        call = self.call
        await self._flush()  # what came before it was in order
        outcomes.upstream_failed(self.gateway, call, error)
        if call.reason == "server_stopping":
            return  # as with any stream that a stop ends
        await self._last_word()

    async def _refused(self, refused: Refused) -> None:
        """The same, of what this key may not have here."""
        outcomes.refused(self.call, refused)
        await self._last_word()

    async def _last_word(self) -> None:
        call = self.call
        if not (self.asked and not call.answered and call.rpc_id and call.refusal is not None):
            call.answer_status = 200  # nobody is told: the answer has passed, or none is waited for
            return
        outcomes.complete(call)
        await self.gateway.logger.outcome(_event(call), final=False)
        call.reach(State.ANSWERED)
        await call.exchange.write(encode(outcomes.answer_for(self.gateway, call, call.refusal, str(call.id)).body))


# -- heads


def _event(call: Call) -> Event:
    if call.event is None:
        raise RuntimeError("an answer is relayed only after an intent")
    return call.event


async def _headers(gateway: Gateway, call: Call, response: UpstreamResponse) -> list[tuple[bytes, bytes]]:
    headers = response_headers(response.headers)
    sid = response.header(b"mcp-session-id")
    if sid and not _modern(call) and call.spec is not None:
        fresh = call.message is not None and call.message.method == "initialize" and response.status == 200
        if fresh and call.link is None:
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
