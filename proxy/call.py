"""What the stages know of one request: filled in from left to right, read by the event at the end.

How far it got, and what the journal has of its end, are two states; every other way through them is a defect, and raises:

    ARRIVED -> INTENDED -> SENT -+-> (a plain answer)
                  ^         |    +-> STREAMING -> ANSWERED -> DELIVERED
                  +- unsent +                                              a request may end at each of them

    OPEN -+-> KEPT       the outcome is in the journal, or counted there
          +-> LOST       the journal takes none: what can be left of it is left, and its client is told

Nothing is sent without an intent, only an answer that is recorded is delivered, and once its end is known nothing goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from enum import IntEnum
from typing import Any
from uuid import UUID

from audit.events.event import Event
from audit.journal.logger import Admission
from core.ids import uuid7
from core.ledger import SMALL, Hold, Ledger
from core.types import Headers
from policies.engine.dispatchers import Inner
from policies.engine.types import Decision, Principal, Target
from policies.keys.index import AuthResult
from proxy.follow_ups.place import Place
from proxy.follow_ups.task_book import Made
from proxy.http.credentials import NOTHING, Presented
from proxy.http.exchange import CANCELLED, Exchange, RequestHead
from proxy.legacy.mailbox import MailboxLink
from proxy.mcp.era import Era
from proxy.mcp.message import Message, Readable, Refused
from proxy.upstreams.specs import UpstreamSpec


def nothing() -> int:
    """How many bytes wait where nothing does."""
    return 0


#: ends after which nobody may have an answer, nor come back for one
FOR_GOOD = frozenset({"revoked_during_stream", "denied_during_stream", CANCELLED})


class State(IntEnum):
    """How far a request got; what is true of one state is true of those after it."""

    ARRIVED = 0
    #: an intent is with the journal, so an outcome must follow
    INTENDED = 1
    #: the upstream may have seen it
    SENT = 2
    #: its answer has begun, as a stream
    STREAMING = 3
    #: the answer inside the stream is in the journal, the end of the stream is not yet
    ANSWERED = 4
    #: that answer has been written: a client that leaves now leaves nothing unanswered
    DELIVERED = 5


class Record(IntEnum):
    """What the journal has of a request's end."""

    OPEN = 0
    KEPT = 1
    LOST = 2


class Call(RequestHead):
    """One request on its way through the pipeline."""

    __slots__ = (
        "admission",
        "answer_status",
        "auth",
        "body",
        "brought_failure",
        "client_ip",
        "decision",
        "details",
        "endpoint",
        "era",
        "event",
        "exchange",
        "held",
        "id",
        "keep_alive",
        "key_id",
        "known",
        "last_write",
        "level",
        "link",
        "message",
        "outcome",
        "policy_version",
        "presented",
        "principal",
        "protocol",
        "reason",
        "record",
        "refusal",
        "resumable",
        "resumes",
        "rpc_id",
        "said",
        "session",
        "session_presented",
        "session_refused",
        "slug",
        "spec",
        "stages",
        "started_ns",
        "state",
        "target",
        "tasks",
        "torn",
        "upstream_ns",
        "waiting",
        "within",
    )

    def __init__(self, exchange: Exchange, *, endpoint: str, slug: str) -> None:
        super().__init__(exchange.scope)
        self.started_ns = time.perf_counter_ns()
        self.id: UUID = uuid7()
        self.exchange = exchange
        self.endpoint = endpoint
        self.slug = slug
        self.client_ip = ""
        self.presented: Presented = NOTHING
        self.auth: AuthResult | None = None
        self.principal: Principal | None = None
        #: the id of the key it came with, "" without a valid one
        self.key_id = ""
        self.body = b""
        self.message: Message | None = None
        self.era: Era | None = None
        self.rpc_id = b""
        self.known = Readable()
        self.spec: UpstreamSpec | None = None
        #: the protocol's own headers for the upstream, written anew
        self.protocol: Headers = []
        #: the upstream's own session id, once the client's has been opened
        self.session = b""
        self.session_presented = b""
        #: the id that a client sent and that did not open
        self.session_refused = b""
        #: where answers go when the client reads them from a stream of the older transport
        self.link: MailboxLink | None = None
        self.target: Target | None = None
        #: the calls that made the tasks which it names, None for one that is not known
        self.tasks: list[Made | None] = []
        #: the tools that the target calls by name, where it is one that does
        self.within: tuple[Inner, ...] = ()
        self.decision: Decision | None = None
        self.policy_version = 0
        self.stages: list[dict[str, Any]] = []
        self.event: Event | None = None
        #: what the log said its refusal leaves; for a stranger before anything is done with the body
        self.admission: Admission | None = None
        self.state = State.ARRIVED
        self.record = Record.OPEN
        #: its client holds an event id with which it may come back for the answer
        self.resumable = False
        #: the place in another stream that this one goes on from
        self.resumes: Place | None = None
        #: whether the answer that it brought to that call says that the tool or the upstream failed
        self.brought_failure = False
        #: how the gateway itself answers, when it does
        self.refusal: Refused | None = None
        self.outcome = ""
        self.reason = ""
        self.answer_status = 0
        self.upstream_ns = 0
        #: how much of the payloads the event keeps
        self.level = "full"
        self.details: dict[str, Any] = {}
        #: what the upstream said when it failed
        self.said = ""
        #: an event of the stream has gone out in part
        self.torn = False
        #: writes a keep-alive comment; set while a stream is open and between two events
        self.keep_alive: Callable[[], Coroutine[Any, Any, None]] | None = None
        self.last_write = 0.0
        #: how many bytes of an open stream wait for somebody to read them
        self.waiting: Callable[[], int] = nothing
        #: what is counted of that against the key's share of memory, once it is worth counting
        self.held: Hold | None = None

    def reach(self, state: State) -> None:
        if state != self.state + 1 or self.record:
            raise RuntimeError(f"a call that is {self.state.name} ({self.record.name}) cannot become {state.name}")
        self.state = state

    def unsent(self) -> None:
        """Go back: the upstream surely has not seen it. Once an answer has begun, it has."""
        if self.state == State.SENT:
            self.state = State.INTENDED

    def close(self, record: Record) -> None:
        """Say what the journal has of the end: once, and nothing goes on after it."""
        if self.record or not record:
            raise RuntimeError(f"the record of a call that is {self.record.name} cannot become {record.name}")
        self.record = record

    @property
    def intended(self) -> bool:
        return self.state >= State.INTENDED

    @property
    def executed(self) -> bool:
        """Whether the upstream may have seen it."""
        return self.state >= State.SENT

    @property
    def streaming(self) -> bool:
        """Whether its answer is a stream, which has begun."""
        return self.state >= State.STREAMING

    @property
    def answered(self) -> bool:
        """Whether the answer inside its stream is recorded."""
        return self.state >= State.ANSWERED

    @property
    def waits(self) -> bool:
        """Whether the answer may still come, though its stream has ended: its client has an id to come back with."""
        return self.resumable and not self.answered and self.reason not in FOR_GOOD

    @property
    def listens(self) -> bool:
        """Whether it waits for what the upstream will say some time, and not for an answer."""
        return self.verb == "GET" or (self.message is not None and self.message.method == "subscriptions/listen")

    def holds(self, ledger: Ledger, size: int) -> bool:
        """Say how many bytes wait on this call's behalf; False when that is more than its key's share."""
        if self.held is None:
            if size <= SMALL:
                return True
            self.held = ledger.hold(self.key_id)
        return self.held.set(size)

    def stage(self, name: str, result: str, since_ns: int) -> None:
        """Note how a stage ended and what it took, for the event's decision."""
        self.stages.append({"stage": name, "result": result, "us": (time.perf_counter_ns() - since_ns) // 1000})

    def elapsed_ms(self) -> float:
        """Milliseconds since the request arrived, by a clock that only goes forward."""
        return round((time.perf_counter_ns() - self.started_ns) / 1e6, 3)
