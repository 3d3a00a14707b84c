"""Resumption: a legacy stream that ends before its answer, and the one that brings it (`GET` with `Last-Event-ID`).

What a client holds of an event is not the upstream's id but a seal of it: for one key, upstream and session, with the call
that its stream answers. So another's id opens to nothing, and any worker, after a restart too, knows which call a stream
that is opened with it takes up. It stores nothing for that.

    the call's stream    Ids.outgoing seals; Ids.promise says in the journal that the call may be resumed, before an id goes
                         out; when the stream ends without the answer, the call's event stays open (Call.waits)
    a stream that        `claim` opens the id, `take_up` and `hold` keep the call's event open, Ids.record writes down the
    takes it up          answer before it is passed on

Who drains the journals joins both (audit.drain.resumption). Ids are never forwarded unless we sealed them, and on GET alone; where
the client could not come back with one (the older transport), there are none: proxy.legacy.listener goes on in its stead.
"""

from __future__ import annotations

import re
import time
from typing import Any
from uuid import UUID

from audit.events.tool_errors import NOTES
from proxy import outcomes
from proxy.call import Call, State
from proxy.follow_ups.place import LEVELS, Place
from proxy.gateway import Gateway
from proxy.http.refusals import refuse
from proxy.mcp.replies import spelled
from proxy.mcp.sse import SseEvent, presentable, with_id
from proxy.upstreams.transports.base import UpstreamResponse

#: what a client presents is no longer than this, in bytes: what we hand out never is
MOST_PRESENTED = 1200
_SESSION = re.compile(rb"[\x21-\x7e]{1,1024}\Z")


def _purpose(call: Call, session: bytes) -> str:
    """Ids of one session are nothing elsewhere; on the older transport there are none."""
    return f"event/{call.endpoint}/{session.decode('latin-1')}"


# -- the stream that takes a call up


def claim(gateway: Gateway, call: Call) -> None:
    """Open the event id that a GET presents; unknown, altered and another's are the same refusal."""
    presented = call.header_values(b"last-event-id")
    if call.verb != "GET" or not presented or presented == [b""]:
        return
    value = None
    if len(presented) == 1 and len(presented[0]) <= MOST_PRESENTED:
        value = gateway.sealer.open(
            presented[0].decode("latin-1"),
            key_id=call.key_id,
            upstream=call.slug,
            purpose=_purpose(call, call.session),
        )
    if value is None:
        raise refuse("unknown_event", call=call)
    place = call.resumes = Place.unpacked(value)
    call.details["resumed"] = {"call": None}
    if place.call is not None:
        rpc_id = place.rpc[1:].decode("utf-8", "replace") if place.rpc[:1] == b"=" else None
        call.details["resumed"] = {"call": str(place.call), "rpc_id": rpc_id, "answered": False}


def take_up(gateway: Gateway, call: Call) -> None:
    """Hold the event open of the call that a stream takes up, for as long as the stream is open and a while longer."""
    place = call.resumes
    if place is None or place.call is None or call.event is None or call.answered:
        return
    wait = gateway.config.resume_wait
    place.hold_at = time.monotonic() + wait / 3
    gateway.logger.resumed(call.event, place.call, wait)


def hold(gateway: Gateway, call: Call, now: float) -> None:
    """Hold it open anew when it is time; called now and then for each open stream."""
    if call.resumes is not None and call.resumes.hold_at and now >= call.resumes.hold_at:
        take_up(gateway, call)


# -- either stream


class Ids:
    """What one stream of an upstream has to do with resumption."""

    __slots__ = ("_call", "_gateway", "_place", "_purpose", "due")

    def __init__(self, gateway: Gateway, call: Call, response: UpstreamResponse) -> None:
        self._gateway = gateway
        self._call = call
        #: an id of this call's stream is about to go out, and the journal does not say so yet
        self.due = False
        self._place: Place | None = call.resumes
        session = call.session
        message = call.message
        if message is not None and message.kind == "request":
            level = call.level if call.level in LEVELS else "full"
            self._place = Place(b"", call.id, spelled(message.id), level)
            fresh = response.header(b"mcp-session-id")
            if message.method == "initialize":
                session = fresh if _SESSION.match(fresh) else b""
        self._purpose = _purpose(call, session)

    def outgoing(self, event: SseEvent) -> SseEvent:
        """Give an event with its id sealed, or without one that cannot be; in the modern era ids say nothing and pass."""
        call = self._call
        if call.era is not None and call.era.modern:
            return event
        if not event.id or not presentable(event.id):
            # An empty id forgets the last one; it has to go on as that.
            return with_id(event, None if event.id else b"")
        place = Place(event.id) if self._place is None else Place(event.id, *self._bound(self._place))
        sealed = self._gateway.sealer.wrap(
            place.packed(), key_id=call.key_id, upstream=call.slug, purpose=self._purpose
        )
        self.due = place.call == call.id and not call.resumable
        return with_id(event, sealed.encode())

    @staticmethod
    def _bound(place: Place) -> tuple[UUID | None, bytes, str]:
        return place.call, place.rpc, place.level

    async def promise(self) -> None:
        """Say in the journal that the client may come back for the answer, before it is handed an id to do so."""
        self.due = False
        call = self._call
        if call.answered or call.event is None:
            return
        outcomes.complete(call)
        await self._gateway.logger.resumable(call.event, self._gateway.config.resume_wait, ended=False)
        call.resumable = True

    def brings(self, rpc_id: Any) -> bool:
        """Whether a response on this stream is the answer that a resumed stream was opened for."""
        resumes = self._call.resumes
        return (
            resumes is not None
            and resumes.call is not None
            and resumes.rpc == spelled(rpc_id)
            and not self._call.answered
        )

    async def record(self, data: bytes, value: Any) -> None:
        """Write down the answer of the call that this stream took up, before it is passed on."""
        gateway, call, place = self._gateway, self._call, self._call.resumes
        if place is None or place.call is None or call.event is None:
            raise RuntimeError("only a stream that took a call up brings its answer")
        payload = await gateway.payload(data, value, caller=call.key_id, level=place.level, side="response")
        call.details["resumed"]["answered"] = True
        # What the answer says of its call is no saying of this stream's.
        notes = {name: call.details.pop(name) for name in NOTES if name in call.details}
        call.brought_failure = bool(notes)
        outcomes.complete(call)
        written = gateway.logger.resumed(
            call.event,
            place.call,
            gateway.config.resume_wait,
            response=payload,
            response_bytes=len(data),
            details=notes,
        )
        await gateway.logger.outcome(call.event, final=False)
        await written
        call.reach(State.ANSWERED)
