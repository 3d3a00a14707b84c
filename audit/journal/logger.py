"""What the gateway says to the log: an intent before a call, its outcome after, a refusal, or one complete event.

    logger = shared()
    await logger.intent(event)             # durable before anything is executed; raises AuditUnavailable
    event.complete(outcome="allowed", ...)
    await logger.outcome(event)            # durable before the answer is released

Each event has one number (seq), dense within its writer's boot, given out when its first frame is queued.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import orjson

from audit.events.event import FIELDS, JSON, Event
from audit.journal.flood import Flood, Group, kind_of
from audit.journal.flood import Kind as RefusalKind
from audit.journal.frames import Kind
from audit.journal.tickets import AuditUnavailable, Done, JournalUnavailable, Ticket
from audit.journal.writer import CALL_ROOM, Journal
from audit.redaction.sanitizer import Payload, current

__all__ = [
    "OUTCOME_ROOM",
    "Admission",
    "AuditLogger",
    "AuditUnavailable",
    "Pending",
    "Refusal",
    "shared",
]

OUTCOME_ROOM = CALL_ROOM
COUNT_SECONDS = 1.0


class Pending(Protocol):
    """What the logger gives back: await it before anything depends on the record."""

    def __await__(self) -> Generator[Any, None, None]: ...

    def wait(self, timeout: float | None = None) -> None:
        """Block until the record is safe."""
        ...


class Refusal(NamedTuple):
    """What is known of a refusal before an event is made of it."""

    api_key_id: UUID | None  # of a valid key alone
    client_ip: str
    reason: str
    upstream: str
    method: str
    target_kind: str
    tool_name: str
    size: int = 0  # of the body


class Admission(NamedTuple):
    """What a refusal leaves: a place in a counted event (its id, then no event is wanted), or an event of its own."""

    kind: RefusalKind
    group: Group | None = None
    whole: bool = True  # the event may keep what was asked
    counted: str = ""


class Lenient:
    """A ticket of best-effort mode: what failed stays queued in memory, and nobody is stopped."""

    __slots__ = ("_ticket",)

    def __init__(self, ticket: Ticket) -> None:
        self._ticket = ticket

    def __await__(self) -> Generator[Any, None, None]:
        try:
            yield from self._ticket.__await__()
        except JournalUnavailable:
            return

    def wait(self, timeout: float | None = None) -> None:
        """Block until the record is safe, or known not to be."""
        try:
            self._ticket.wait(timeout)
        except JournalUnavailable:
            return


class AuditLogger:
    """Writes events to a sink: a Journal, or any callable that takes one complete event (default: the process's journal)."""

    def __init__(
        self,
        sink: Journal | Callable[[Any], Any] | list[Any] | None = None,
        *,
        mode: str = "strict",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if sink is None:
            sink = shared().journal
        self.journal: Journal | None = sink if isinstance(sink, Journal) else None
        self._sink: Callable[[Any], Any] | None = None
        if not isinstance(sink, Journal):
            self._sink = sink.append if isinstance(sink, list) else sink
        self.strict = mode != "best-effort"
        self.refused = 0
        self.counted = 0
        self.lost = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._flood = Flood()
        self._closing: list[Group] = []
        self._ticker: threading.Thread | None = None
        self._stopped = threading.Event()
        self._gap: list[Any] | None = None  # [from, to, count, reason] of what best-effort mode could not record

    # -- one request --------------------------------------------------------------------------------------------------

    def log_event(self, event: Any) -> Pending:
        """Record one complete event. Raises AuditUnavailable (strict mode)."""
        if self.journal is None:
            return self._hand_over(event)
        event = as_event(event)
        try:
            return self._open(Kind.EVENT, event, 0)
        except JournalUnavailable as error:
            return self._could_not(event, error)

    def intent(self, event: Event) -> Pending:
        """Record that a call is about to be made, with room for its outcome. Raises AuditUnavailable (strict mode)."""
        if self.journal is None:
            return Done()
        try:
            return self._open(Kind.INTENT, event, OUTCOME_ROOM)
        except JournalUnavailable as error:
            return self._could_not(event, error)

    def outcome(self, event: Event, final: bool = True) -> Pending:
        """Record how a call ended; with `final` false, that a stream's answer is about to be released: its end follows."""
        if self.journal is None:
            return self._hand_over(event) if final else Done()
        if not event.seq:
            # No intent could be recorded (best-effort), so this is all there will be of it.
            if not final:
                return Done()
            with self._lock:
                if self._gap is not None and self._gap[2] > 0:
                    self._gap[2] -= 1
                    self.lost -= 1
            return self.log_event(event)
        record = event.as_record()
        record.pop("request_json", None)  # the intent has it
        return self._append(Kind.OUTCOME if final else Kind.ANSWERED, record, OUTCOME_ROOM if final else 0)

    def resumable(self, event: Event, wait: float, *, ended: bool) -> Pending:
        """Record that a call's answer may come on another stream for so long, and how it ends when none does.

        First before the client is handed what it needs for that, then (`ended`) instead of the outcome of a call whose own
        stream has ended without an answer: its event stays open until the answer or the end of the wait.
        """
        if self.journal is None or not event.seq:
            return self.outcome(event) if ended else Done()
        record = event.as_record()
        record.pop("request_json", None)  # the intent has it
        until = _until(wait) if ended else 0
        value = {"id": event.id, "wait": max(int(wait), 1), "until": until, "record": record}
        return self._append(Kind.RESUMABLE, value, OUTCOME_ROOM if ended else 0)

    def resumed(
        self,
        event: Event,
        call: UUID,
        wait: float,
        *,
        response: Payload | None = None,
        response_bytes: int = 0,
        details: dict[str, Any] | None = None,
    ) -> Pending:
        """Record that this event's stream has taken up another call, which it holds open so long, or brings its answer.

        The call may be another writer's, or one of a process that is gone; whoever drains the journals joins the two.
        `details` are what the answer adds to those of the call: flags and numbers, no text of others.
        """
        if self.journal is None:
            return Done()
        value: dict[str, Any] = {"id": event.id, "call": call, "until": _until(wait)}
        if response is not None:
            value["answer"] = {
                "ts": time.time_ns() // 1000,
                "response_json": response.json,
                "response_bytes": response_bytes,
                "response_digest": response.digest,
                "truncated": response.truncated,
                "redactions": response.redactions,
                "details": details or {},
            }
        return self._append(Kind.RESUMED, value, 0)

    def end(self, event: Event) -> Pending:
        """Record how a stream ended whose answer was recorded before."""
        return self.outcome(event, final=True)

    def admit(self, refusal: Refusal) -> Admission:
        """Decide what a refusal leaves, before anything dear is done for it: one more of a flood is counted here."""
        kind = kind_of(refusal)
        journal = self.journal
        if journal is None:
            return Admission(kind)
        with self._lock:
            group = self._flood.admit(kind, refusal.reason, self._clock(), not journal.usable)
            if group is None:
                return Admission(kind, None, self._flood.keep(kind, refusal.size))
            if group.event is None:
                return Admission(kind, group, False)  # the first of its kind: its sample is still to be made
            self.refused += 1
            return Admission(kind, group, False, self._count(group, None))

    def charge(self, admission: Admission, seconds: float) -> None:
        """Note what making the event of a refusal took of the processor: it counts against whoever was refused."""
        with self._lock:
            self._flood.charge(admission.kind, seconds)

    def refuse(self, event: Event, admission: Admission | None = None) -> tuple[str, Pending]:
        """Record a refusal, or count it when there are too many of its kind: the id to tell the caller, and a ticket."""
        self.refused += 1
        if self.journal is None:
            return str(event.id), self._hand_over(event)
        if event.seq:
            return self.unrecorded(event), Done()
        kind = kind_of(event) if admission is None else admission.kind
        with self._lock:
            if admission is None:
                group = self._flood.admit(kind, event.reason, self._clock(), not self.journal.usable)
            else:
                group = admission.group
                if group is not None and group.event is None:
                    # Its sample has come; unless its window has ended meanwhile, and another has begun.
                    group = self._flood.kept(group)
            if group is not None:
                return self._count(group, event), Done()
        try:
            return str(event.id), self._open(Kind.EVENT, event, 0)
        except JournalUnavailable as error:
            if not self.strict:
                return str(event.id), self._could_not(event, error)
            with self._lock:
                group = self._flood.admit(kind, event.reason, self._clock(), True)
                assert group is not None  # noqa: S101 - forced
                return self._count(group, event), Done()

    def unrecorded(self, event: Event) -> str:
        """Take note of a request whose intent or outcome could not be made durable; never waits, never raises.

        What its device did not take waits in memory and is written when the device is back: the frame then says how the
        request really ended for its caller. A request that never had a number is counted. Gives the id to tell.
        """
        if not event.seq:
            return self.refuse(event)[0]
        journal = self.journal
        if journal is not None:
            record = event.as_record()
            record.pop("request_json", None)
            payload = orjson.dumps(record)
            try:
                if not journal.amend(Kind.OUTCOME, str(event.id).encode(), payload):
                    journal.append(Kind.OUTCOME, payload, False, OUTCOME_ROOM)
            except JournalUnavailable:
                self.lost += 1
        return str(event.id)

    def give_up(self) -> None:
        """Let go of calls that wait for a device that hangs; called once a second, in the event loop they wait in."""
        if self.journal is not None:
            self.journal.give_up()

    def close(self) -> None:
        """Close the counted events, and the journal."""
        self._stopped.set()
        self.save_counts(everything=True)
        if self.journal is not None:
            self.journal.close()

    # -- how -----------------------------------------------------------------------------------------------------------

    def _open(self, kind: Kind, event: Event, reserve: int) -> Pending:
        journal = self.journal
        assert journal is not None  # noqa: S101 - callers have looked

        def make(seq: int) -> bytes:
            event.numbered(journal.writer, journal.boot, seq)
            return orjson.dumps(event.as_record())

        try:
            _, ticket = journal.open_event(kind, make, reserve)
        except JournalUnavailable:
            event.seq = 0
            raise
        if self._gap is not None:
            self._tell_gap()
        # Nothing has been done for a call whose intent waits, and in best-effort mode nobody waits for a device that hangs.
        ticket.patient = self.strict and kind != Kind.INTENT
        return ticket if self.strict else Lenient(ticket)

    def _append(self, kind: Kind, record: dict[str, Any], release: int) -> Pending:
        journal = self.journal
        assert journal is not None  # noqa: S101 - callers have looked
        ticket = journal.append(kind, orjson.dumps(record), False, release)
        ticket.patient = self.strict
        return ticket if self.strict else Lenient(ticket)

    def _hand_over(self, event: Any) -> Pending:
        assert self._sink is not None  # noqa: S101 - there is a journal or a sink
        self._sink(event)
        return Done()

    def _could_not(self, event: Event, error: JournalUnavailable) -> Pending:
        if self.strict:
            raise error
        with self._lock:
            self.lost += 1
            if self._gap is None:
                self._gap = [event.ts, event.ts, 0, str(error)]
            self._gap[1] = max(self._gap[1], event.ts)
            self._gap[2] += 1
            self._tick()
        return Done()

    def _tell_gap(self) -> None:
        """Write down what could not be recorded, as soon as something can be."""
        with self._lock:
            gap, self._gap = self._gap, None
        if gap is None or gap[2] <= 0:
            return
        first, last, count, why = gap
        event = Event(
            ts=time.time_ns() // 1000,
            outcome="unrecorded",
            reason="audit_unavailable",
            count=count,
            first_ts=first,
            last_ts=last,
            details={"gap": {"from": first, "to": last, "count": count, "reason": why}},
        )
        try:
            self._open(Kind.EVENT, event, 0)
        except JournalUnavailable:
            with self._lock:
                if self._gap is None:
                    self._gap = gap
                else:
                    self._gap[0] = min(first, self._gap[0])
                    self._gap[2] += count

    def _count(self, group: Group, event: Event | None) -> str:
        """Add one refusal to a group (the lock is held), and give its id: a new one takes its number now, so that it holds."""
        self.counted += 1
        ts = time.time_ns() // 1000 if event is None else event.ts
        group.count += 1
        group.last_ts = max(group.last_ts, ts)
        if group.event is None:
            group.event, group.first_ts = event, ts
            self._number(group)
        self._tick()
        return str(group.event.id)

    def _number(self, group: Group) -> None:
        journal, event = self.journal, group.event
        assert journal is not None  # noqa: S101 - callers have looked

        def make(seq: int) -> bytes:
            event.complete(
                writer=journal.writer,
                boot=journal.boot,
                seq=seq,
                count=group.count,
                first_ts=group.first_ts,
                last_ts=group.last_ts,
            )
            return orjson.dumps(event.as_record())

        if journal.failing:
            return  # held in memory until the device is back
        group.seq, _ = journal.open_event(Kind.COUNTED, make, must=True)
        group.saved = group.count

    def save_counts(self, everything: bool = False) -> None:
        """Write down the counts that changed, and close the groups whose window has ended."""
        journal = self.journal
        if journal is None:
            return
        with self._lock:
            # A group without an event waits for its sample, which some request is making.
            self._closing += [group for group in self._flood.ended(self._clock(), everything) if group.event]
            for group in [*self._flood.groups.values(), *self._closing]:
                if group.event is not None and not group.seq:
                    self._number(group)
            if journal.failing:
                return
            for group in self._flood.groups.values():
                if group.event is not None and group.count != group.saved:
                    self._save(journal, group, False)
            for group in self._closing:
                self._save(journal, group, True)
            self._closing.clear()

    def _save(self, journal: Journal, group: Group, closed: bool) -> None:
        payload = {"id": str(group.event.id), "count": group.count, "last_ts": group.last_ts, "closed": closed}
        journal.append(Kind.COUNTED, orjson.dumps(payload))
        group.saved = group.count

    def _tick(self) -> None:
        """Have a thread look after the counts while there are any (the lock is held)."""
        if self._ticker is None or not self._ticker.is_alive():
            self._ticker = threading.Thread(target=self._ticking, name="audit counts", daemon=True)
            self._ticker.start()

    def _ticking(self) -> None:
        while not self._stopped.wait(COUNT_SECONDS):
            try:
                self.save_counts()
                if self._gap is not None and self.journal is not None and self.journal.usable:
                    self._tell_gap()
            except JournalUnavailable:
                continue
            with self._lock:
                if not self._flood.groups and not self._closing and self._gap is None:
                    self._ticker = None
                    return


def _until(wait: float) -> int:
    return time.time_ns() // 1000 + int(wait * 1_000_000)


def as_event(event: Any) -> Event:
    """Take a stored event's model as well as an event."""
    if isinstance(event, Event):
        return event
    # The model was sanitised when it was made: what it shows escaped is not escaped once more.
    values = {field.name: getattr(event, field.name) for field in FIELDS}
    values |= {name: current().as_json(values[name]) for name in JSON}
    return Event(again=True, **values)


_shared: AuditLogger | None = None
_shared_lock = threading.Lock()


def shared() -> AuditLogger:
    """Give the logger of this process; its journal is opened at the first call. Raises JournalUnavailable."""
    global _shared
    with _shared_lock:
        if _shared is None:
            from django.conf import settings

            config = settings.SENTINEL
            journal = Journal(
                config.var / "journal",
                f"{config.instance}-w{os.environ.get('SENTINEL_WORKER', '0')}",
                fsync=config.audit_fsync,
                budget=config.audit_disk_budget,
            )
            _shared = AuditLogger(journal, mode=config.audit_mode)
        return _shared
