"""The older HTTP+SSE transport for clients that know no other: /sse/{upstream} and /messages/{upstream}.

The stream's first event names the address to post to: a path under /messages, right behind a path prefix too, whose
`session_id` is sealed for the key that opened the stream; with another key it opens to nothing (404). Behind it stands a
mailbox (proxy.legacy.mailbox), whatever the upstream speaks. The gateway is the upstream's client, by its own transport:

    GET /sse         what the upstream says beside its answers is listened to and judged here, as events of the stream
    POST /messages   202; the message goes on through the pipeline like any other call, and its answer, recorded first, or
                     the gateway's refusal is an event of the stream
    the stream ends  calls that wait for an answer in it end with it, and so does the upstream's session

`accept` answers a request's post as soon as its intent is recorded, and that of anything else once the upstream has it:
clients post one message after the other, and a server is to see them in that order.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

from core.types import Headers
from proxy.call import Call
from proxy.gateway import Gateway
from proxy.http.exchange import CANCELLED, CANCELLING, AnswerState, Exchange
from proxy.http.headers import request_headers
from proxy.http.refusals import refuse
from proxy.legacy.listener import Cursor, Resumed, SessionEnded, listen
from proxy.legacy.mailbox import Duplicate, Mailbox, MailboxLink, known_by
from proxy.mcp.era import LEGACY_VERSIONS
from proxy.mcp.mirrors import VERSION
from proxy.mcp.replies import Reply, spelled
from proxy.mcp.splice import one_line
from proxy.mcp.sse import encode
from proxy.request import upstream_request
from proxy.upstreams.transports.base import Broken, UpstreamError, UpstreamRequest, UpstreamResponse
from proxy.upstreams.transports.http.http_sse import OPEN

MAILBOX = "mailbox"
_HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
_ACCEPTED = [(b"content-type", b"text/plain"), (b"content-length", b"8"), (b"cache-control", b"no-store")]
#: refusals that say nothing of one message: of where it came from, of the stream, and of an id that another call waits with,
#: which on the stream would be taken for that call's answer
_AS_STATUS = frozenset(
    ("bad_host", "bad_origin", "unknown_session", "id_in_use", "credential_ambiguous", "credential_misplaced")
)
#: how long the first answer of a session waits until the gateway listens to what may follow it, in seconds
HEARD = 0.5
#: how long a cancel may take to reach the upstream before its call ends in any case
CANCEL = 1.0


class StreamResponse(UpstreamResponse):
    """A client's stream as the relay reads it: a mailbox, and what the upstream says by itself."""

    __slots__ = ("_call", "_ears", "_gateway", "_heard", "_listening", "_mailbox", "_session", "greeting", "judged")

    def __init__(self, gateway: Gateway, call: Call, mailbox: Mailbox, greeting: bytes) -> None:
        super().__init__(200, list(_HEADERS))
        self._gateway, self._call, self._mailbox, self.greeting = gateway, call, mailbox, greeting
        #: what the relay of a call has put there was judged, what the upstream says by itself was not
        self.judged = True
        self._session = b""
        self._ears: asyncio.Task[None] | None = None
        self._listening: UpstreamResponse | None = None
        self._heard = asyncio.Event()
        mailbox.begun = self.begun

    async def open(self) -> None:
        """Open the session of an upstream that speaks this transport too: its stream is the session. Raises UpstreamError."""
        response = await self._open(b"", (OPEN, b"1"))
        if response.status != 200 or not response.streaming:
            response.abort()
            raise Broken("The upstream did not open an event stream.", detail=f"status {response.status}")
        self._mailbox.session = self._session = response.header(b"mcp-session-id")
        self._note()
        self._listen(response)

    async def begun(self) -> None:
        """Listen to the session that the upstream has begun, and end the one before it."""
        if self._session and self._session == self._mailbox.session:
            self._note()
            return
        self._deafen()
        self._session = self._mailbox.session
        self._note()
        self._listen()
        with suppress(TimeoutError):
            async with asyncio.timeout(HEARD):
                await self._heard.wait()

    def _note(self) -> None:
        """Have the stream's own event and its answers to the server be those of the session."""
        call, version = self._call, self._mailbox.version
        call.session = self._session
        call.protocol = [(VERSION, version)] if version else []
        if call.event is not None and self._session:
            call.event.complete(session=self._gateway.sealer.reference(self._session))

    def _listen(self, first: UpstreamResponse | None = None) -> None:
        self._heard.clear()
        self._listening = first
        self._ears = asyncio.get_running_loop().create_task(self._hear(first))

    async def _hear(self, first: UpstreamResponse | None) -> None:
        def heard(response: UpstreamResponse) -> None:
            self._listening = response
            self._heard.set()

        mailbox, limit = self._mailbox, self._gateway.config.max_answer_bytes
        try:
            if first is None:
                await listen(self._open, limit, heard, mailbox.offer)
                return
            cursor = Cursor(limit)
            while piece := await cursor.read(first):
                await mailbox.offer(piece)
            raise SessionEnded("The upstream has ended the session.")
        except UpstreamError as error:
            mailbox.fail(error.with_traceback(None))
        finally:
            self._heard.set()

    async def _open(self, last_id: bytes, *more: tuple[bytes, bytes]) -> UpstreamResponse:
        call = self._call
        headers = request_headers(
            "GET", protocol=call.protocol, session=self._session, last_event=last_id, secret=call.presented.value
        )
        request = UpstreamRequest(
            b"GET", [*headers, *more], first_byte_timeout=None if more else 0, idle_timeout=0, caller=call.key_id
        )
        guard = self._gateway.registry.transport(call.slug)
        # Who listens is no call that waits, however long a server takes to say the first word.
        return await (guard if more else guard.inner).send(request)

    async def read(self) -> bytes:
        """Give the next events, b"" at the end."""
        piece, self.judged = await self._mailbox.read()
        return piece

    async def last_words(self, reason: str) -> bytes:
        """Have the calls end that wait for an answer on this stream; gives what there is to say of them."""
        return await self._mailbox.last_words(reason)

    def abort(self) -> None:
        """Shut the mailbox, and end the session that was opened for it; safe any number of times."""
        self._mailbox.begun = None
        self._mailbox.shut()
        self._deafen()

    def _deafen(self) -> None:
        ears, listening, session = self._ears, self._listening, self._session
        self._ears, self._listening, self._session = None, None, b""
        if ears is not None:
            ears.cancel()
        if listening is not None:
            listening.abort()
        if session:
            self._gateway.spawn(_end_session(self._gateway, self._call, self._mailbox, session))


class StreamExchange(Exchange):
    """Takes an answer to where a client of the older transport reads it: its stream. The post itself gets a 202."""

    __slots__ = ("_accepted", "_asked", "_link", "_post")

    def __init__(self, call: Call, link: MailboxLink) -> None:
        post = call.exchange
        super().__init__(post.scope, post._receive, post._send)
        self._task = asyncio.current_task()
        self._post, self._link = post, link
        self._asked = bool(call.rpc_id) and call.known.kind != "response"
        self._accepted = False
        self.ended_by = CANCELLED if link.ended == CANCELLING else link.ended
        link.told = self.end

    def end(self, reason: str) -> None:
        """End the exchange early, for a reason; one that its client takes back gets no answer, and ends a little later."""
        if reason == CANCELLING and not self.finished:
            self.ended_by = self.ended_by or CANCELLED
        elif self.ended_by == CANCELLED:
            self.ended_by = ""
            super().end(CANCELLED)
        else:
            super().end(reason)

    async def accept(self) -> None:
        """Answer the post: what else there is to say is said in the stream."""
        if not self._accepted:
            self._accepted = True
            await self._post.answer(202, list(_ACCEPTED), b"Accepted")

    async def start(self, status: int, headers: Headers) -> None:
        """Do nothing: the head of an answer has nowhere to go, so none has begun before there is something of it."""

    async def write(self, piece: bytes) -> None:
        self.sent_bytes += len(piece)
        await self._link.push(piece)

    async def finish(self, piece: bytes = b"") -> None:
        self.state = AnswerState.OVER
        if piece:
            await self.write(piece)
        await self.accept()

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Put a whole JSON answer into the stream, as the event that clients of this transport wait for."""
        self.state = AnswerState.OVER
        if body and self._asked:
            await self.write(encode(one_line(body), event="message"))
        await self.accept()


async def open_endpoint(gateway: Gateway, call: Call) -> None:
    """Open the seal of a message's address; unknown, ended and another key's are the same 404."""
    message = call.message
    request = message.kind == "request" if message is not None else False
    try:
        found = await _link(gateway, call, known_by(spelled(message.id)) if request and message is not None else "")
    except Duplicate:
        raise refuse("id_in_use", call=call) from None
    if found is None:
        raise refuse("unknown_session", call=call)
    call.session_refused = b""
    if found.version:
        call.protocol = [(VERSION, found.version)]


async def _link(gateway: Gateway, call: Call, request: str = "") -> MailboxLink | None:
    presented = parse_qs(call.exchange.scope.get("query_string", b"").decode("latin-1")).get("session_id", [])
    call.session_refused = (presented or [""])[0].encode()
    if len(presented) != 1:
        return None
    value = gateway.sealer.open(presented[0], key_id=call.key_id, upstream=call.slug, purpose=MAILBOX)
    link = await gateway.mailboxes.link(value, request) if value is not None else None
    if link is not None:
        call.link, call.session = link, link.session
    return link


async def accept(call: Call) -> None:
    """Accept a message for a stream; from here on everything is said there. A request's post is over with that."""
    if call.link is not None and not isinstance(call.exchange, StreamExchange):
        call.exchange = StreamExchange(call, call.link)
        if call.known.kind == "request":
            await call.exchange.accept()


async def in_stream(gateway: Gateway, call: Call) -> bool:
    """Say whether a refusal is told on the stream, since a client whose post is refused may never learn of it.

    What could not be read, and so has no id to answer, is refused where it was posted.
    """
    refusal = call.refusal
    if call.endpoint != "messages" or call.principal is None or refusal is None or refusal.reason in _AS_STATUS:
        return False
    if not refusal.rpc_id and call.message is None:
        return False
    if call.link is None and await _link(gateway, call) is None:
        return False
    await accept(call)
    return True


async def begun(gateway: Gateway, call: Call, response: UpstreamResponse, reply: Reply) -> None:
    """Note the session that the answer to `initialize` begins, before that answer goes out."""
    if call.link is None or call.message is None or call.message.method != "initialize" or reply.result is None:
        return
    session = response.header(b"mcp-session-id") or call.link.session
    version = reply.result.get("protocolVersion")
    known = version.encode() if isinstance(version, str) and version in LEGACY_VERSIONS else b""
    if session and gateway.sealer.seal(session, key_id=call.key_id, upstream=call.slug) is None:
        raise Broken("The upstream's session id is not one.")
    await call.link.remember(session, known)
    if call.event is not None and session:
        call.event.complete(session=gateway.sealer.reference(session))


async def send(gateway: Gateway, call: Call) -> UpstreamResponse:
    """Open the stream of a GET, or send a message on."""
    link, message = call.link, call.message
    if link is None:
        return await _stream(gateway, call)
    transport = gateway.registry.transport(call.slug)
    request = upstream_request(call)
    if message is None or message.kind == "request":
        response = await transport.send(request)
        if response.status != 200 or not response.streaming:
            return response

        def again(last_id: bytes) -> UpstreamRequest:
            headers = request_headers("GET", protocol=call.protocol, session=link.session, last_event=last_id)
            return UpstreamRequest(b"GET", headers, caller=call.key_id)

        return Resumed(
            response,
            gateway.config.max_answer_bytes,
            lambda: not call.answered,
            lambda last_id: transport.send(again(last_id)),
        )
    if message.method != "notifications/cancelled":
        return await transport.send(request)
    wanted = known_by(spelled((message.params or {}).get("requestId")))
    # Whatever the upstream answers from now on is nothing to the client, but the call waits until the upstream knows: some
    # transports find it by the call that waits.
    link.cancel(wanted, CANCELLING)
    in_any_case = asyncio.get_running_loop().call_later(CANCEL, link.cancel, wanted, CANCELLED)
    try:
        return await transport.send(request)
    finally:
        in_any_case.cancel()
        link.cancel(wanted, CANCELLED)


async def _stream(gateway: Gateway, call: Call) -> StreamResponse:
    mailbox = gateway.mailboxes.create(gateway.ledger.hold(call.key_id), lambda: call.exchange.end("too_much_waiting"))
    address = gateway.mailboxes.address(mailbox)
    sealed = gateway.sealer.wrap(address, key_id=call.key_id, upstream=call.slug, purpose=MAILBOX)
    prefix = urlsplit(gateway.config.public_url).path.rstrip("/") if gateway.config.public_url else ""
    greeting = encode(f"{prefix}/messages/{call.slug}?session_id={sealed}".encode(), event="endpoint")
    response = StreamResponse(gateway, call, mailbox, greeting)
    if call.spec is not None and call.spec.transport == "sse":
        try:
            await response.open()
        except BaseException:
            response.abort()
            raise
    return response


async def _end_session(gateway: Gateway, call: Call, mailbox: Mailbox, session: bytes) -> None:
    """Tell the upstream that a session is over, as a client of Streamable HTTP would.

    Its calls end first: else what the upstream makes of their end would be taken for a failure of its own.
    """
    await mailbox.quiet()
    with suppress(UpstreamError):
        headers = request_headers("DELETE", protocol=call.protocol, session=session)
        response = await gateway.registry.transport(call.slug).send(
            UpstreamRequest(b"DELETE", headers, first_byte_timeout=5, caller=call.key_id)
        )
        response.abort()
