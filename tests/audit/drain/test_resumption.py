"""A call whose answer comes on another stream is one event, whichever journal tells of it first and whoever dies."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from audit.drain import resumption
from audit.drain.drainer import Drainer
from audit.drain.verify import verify
from audit.events.event import Event
from audit.journal.logger import AuditLogger
from audit.journal.writer import Journal
from audit.redaction.sanitizer import current
from tests.audit.conftest import KEY, make_event
from tests.audit.drain.test_drainer import die

Opener = Callable[..., Journal]
Stored = Callable[..., list[dict[str, Any]]]
Database = psycopg.Connection[Any]

WAIT = 300


class Writer:
    """One worker: its journal and what it says to it."""

    def __init__(self, open_journal: Opener, name: str) -> None:
        self.journal = open_journal(name)
        self.logger = AuditLogger(self.journal)

    def begin(self, **values: Any) -> Event:
        event = make_event(**values)
        self.logger.intent(event).wait()
        return event

    def promise(self, event: Event, wait: float = WAIT) -> None:
        """The client is about to be handed an event id."""
        event.complete(outcome="allowed", status_code=200, latency_ms=1, decision={"reason": "allowed_by_rule"})
        self.logger.resumable(event, wait, ended=False).wait()

    def leave(self, event: Event, ended: str = "without_answer", wait: float = WAIT, **outcome: Any) -> None:
        """The call's own stream is over."""
        event.complete(**outcome, details={"stream": {"events": 1, "ended": ended}})
        self.logger.resumable(event, wait, ended=True).wait()

    def listen(self, call: Event, wait: float = WAIT) -> Event:
        """A stream takes the call up."""
        event = make_event(method="GET", tool_name=None, target_kind="")
        self.logger.intent(event).wait()
        self.logger.resumed(event, call.id, wait).wait()
        return event

    def answer(self, stream: Event, call: Event, text: str = "late but there", wait: float = WAIT) -> None:
        payload = current().payload({"result": {"text": text}}, side="response")
        self.logger.resumed(
            stream, call.id, wait, response=payload, response_bytes=77, details={"tool_error": True}
        ).wait()

    def close(self, stream: Event) -> None:
        stream.complete(outcome="allowed", status_code=200)
        self.logger.outcome(stream).wait()


@pytest.fixture
def writers(open_journal: Opener, instance: str) -> Callable[[], Writer]:
    numbers = itertools.count()
    return lambda: Writer(open_journal, f"{instance}-w{next(numbers)}")


@pytest.fixture(autouse=True)
def nothing_left(database: Database) -> Iterator[None]:
    yield
    left = database.execute("SELECT count(*) FROM audit_resumption").fetchone()
    database.execute("DELETE FROM audit_resumption")
    assert left == (0,)


def missing(database: Database, writer: Writer) -> list[Any]:
    """What `audit verify` holds for lost, of this test's writers, when no journal is at hand that would explain it."""
    instance = writer.journal.writer.split("-")[0]
    return [one for one in verify(database).findings if one.writer.startswith(instance) and not one.explained]


def only(stored: Stored, event: Event) -> dict[str, Any]:
    found = [row for row in stored() if row["id"] == event.id]
    assert len(found) == 1, found
    return found[0]


def whole(row: dict[str, Any], *streams: Event, paused: str = "without_answer") -> None:
    """It is the call's one event, and says all of it."""
    assert (row["outcome"], row["reason"], row["status_code"]) == ("allowed", "allowed_by_rule", 200)
    assert row["request_json"]["params"] == {"name": "echo"}, "the intent's"
    assert row["response_json"] == {"result": {"text": "late but there"}} and row["response_bytes"] == 77
    assert row["response_digest"] and row["latency_ms"] > 0
    assert row["details"]["tool_error"] is True
    stream = row["details"]["stream"]
    assert (stream["ended"], stream["paused"]) == ("resumed", paused)
    assert stream["resumed"] == [str(one.id) for one in streams] and stream["resumptions"] == len(streams)


def test_the_answer_on_another_stream_of_the_same_writer(
    writers: Callable[[], Writer], drainer: Drainer, stored: Stored, database: Database
) -> None:
    one = writers()
    call = one.begin()
    one.promise(call)
    one.leave(call)
    assert drainer.finish(5) and not stored(), "it waits"
    assert not missing(database, one)
    stream = one.listen(call)
    one.answer(stream, call)
    one.close(stream)
    assert drainer.finish(5)
    whole(only(stored, call), stream)
    assert only(stored, stream)["response_json"] is None
    assert [row["seq"] for row in stored()] == [1, 2]


@pytest.mark.parametrize("order", list(itertools.permutations(["call", "end", "answer"])))
def test_in_whatever_order_two_journals_are_stored(
    writers: Callable[[], Writer],
    drainer: Drainer,
    stored: Stored,
    order: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What one writer says is read when this test lets it be read, as when one of them has much to catch up on."""
    one, two = writers(), writers()
    reached: dict[str, int] = {}
    call = one.begin()
    one.promise(call)
    reached["call"] = one.journal.synced
    one.leave(call)
    reached["end"] = one.journal.synced
    stream = two.listen(call)
    two.answer(stream, call)
    reached["answer"] = two.journal.synced
    seen = {one.journal.writer: 0, two.journal.writer: 0}
    look = drainer._look

    def partly() -> Any:
        boots = look()
        for boot in boots:
            if boot.mark is not None and boot.writer in seen:
                boot.mark = boot.mark.__class__(*(getattr(boot.mark, name) for name in boot.mark.__slots__))
                if seen[boot.writer] < boot.mark.frame:
                    boot.mark = None if seen[boot.writer] == 0 else upto(boot.mark, seen[boot.writer])
        return boots

    def upto(mark: Any, frame: int) -> Any:
        return mark.__class__(mark.boot, mark.index, mark.offset, frame, mark.seq, mark.ts)

    monkeypatch.setattr(drainer, "_look", partly)
    for step in order:
        writer = two if step == "answer" else one
        seen[writer.journal.writer] = max(seen[writer.journal.writer], reached[step])
        drainer.finish(5)
    whole(only(stored, call), stream)
    two.close(stream)
    monkeypatch.undo()
    assert drainer.finish(5)
    assert len(stored()) == 2


@pytest.mark.parametrize("drained", [False, True])
@pytest.mark.parametrize("ended", [False, True])
def test_the_calls_writer_is_killed(
    writers: Callable[[], Writer], drainer: Drainer, stored: Stored, database: Database, drained: bool, ended: bool
) -> None:
    one, two = writers(), writers()
    call = one.begin()
    one.promise(call)
    if ended:
        one.leave(call)
    die(one.journal)
    if drained:
        assert drainer.finish(5) and not stored()
        # Its journal is swept away one day, on another machine at once: the call is explained all the same.
        assert not missing(database, one)
    stream = two.listen(call)
    two.answer(stream, call)
    two.close(stream)
    assert drainer.finish(5)
    whole(only(stored, call), stream, paused="without_answer" if ended else "process_died")
    assert not missing(database, one)


def test_the_writer_that_brought_the_answer_is_killed(
    writers: Callable[[], Writer], drainer: Drainer, stored: Stored
) -> None:
    one, two = writers(), writers()
    call = one.begin()
    one.promise(call)
    stream = two.listen(call)
    two.answer(stream, call)
    two.logger.resumed(stream, call.id, WAIT).wait()  # which takes nothing back
    die(two.journal)
    assert drainer.finish(5)
    assert only(stored, stream)["outcome"] == "interrupted"
    one.leave(call, "client_gone", outcome="cancelled", reason="client_gone", status_code=499)
    assert drainer.finish(5)
    whole(only(stored, call), stream, paused="client_gone")


def test_nobody_comes_back(
    writers: Callable[[], Writer], drainer: Drainer, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumption, "SLACK_US", 0)
    one, two = writers(), writers()
    call, killed = one.begin(), two.begin()
    one.promise(call, 1)
    two.promise(killed, 1)
    one.leave(call, "client_gone", 1, outcome="cancelled", reason="client_gone", status_code=499)
    die(two.journal)
    assert drainer.finish(5) and not stored()
    time.sleep(1.1)
    assert drainer.finish(5)
    row = only(stored, call)
    assert (row["outcome"], row["reason"], row["status_code"]) == ("cancelled", "client_gone", 499)
    assert row["response_json"] is None and row["details"]["stream"] == {"events": 1, "ended": "client_gone"}
    assert (only(stored, killed)["outcome"], only(stored, killed)["reason"]) == ("interrupted", "process_died")


def test_a_stream_that_took_it_up_holds_it_open(
    writers: Callable[[], Writer], drainer: Drainer, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumption, "SLACK_US", 0)
    one, two = writers(), writers()
    call = one.begin()
    one.promise(call, 1)
    one.leave(call, wait=1)
    stream = two.listen(call, 3)
    assert drainer.finish(5)
    time.sleep(1.3)
    assert drainer.finish(5) and not stored()
    two.logger.resumed(stream, call.id, 6).wait()
    time.sleep(2.2)
    assert drainer.finish(5) and not stored()
    two.answer(stream, call)
    two.close(stream)
    assert drainer.finish(5)
    whole(only(stored, call), stream)


def test_what_waits_in_a_journal_is_not_too_late(
    writers: Callable[[], Writer], drainer: Drainer, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database was away for longer than the wait; the answer came in time."""
    monkeypatch.setattr(resumption, "SLACK_US", 0)
    one, two = writers(), writers()
    call = one.begin()
    one.promise(call, 1)
    one.leave(call, wait=1)
    stream = two.listen(call, 1)
    two.answer(stream, call, wait=1)
    two.close(stream)
    time.sleep(1.2)
    assert drainer.finish(5)
    whole(only(stored, call), stream)
    assert len(stored()) == 2


def test_no_wait_ends_while_a_journal_is_behind(
    writers: Callable[[], Writer], drainer: Drainer, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumption, "SLACK_US", 0)
    one, two = writers(), writers()
    call = one.begin()
    one.promise(call, 1)
    one.leave(call, wait=1)
    stream = two.listen(call, 1)
    two.answer(stream, call, wait=1)
    drain = drainer._drain
    monkeypatch.setattr(drainer, "_drain", lambda it, boot: boot.writer == one.journal.writer and drain(it, boot))
    time.sleep(1.2)
    for _ in range(3):
        drainer._next_settle = 0
        drainer.round()
    assert not stored()
    monkeypatch.undo()
    assert drainer.finish(5)
    whole(only(stored, call), stream)
    two.close(stream)


def test_answers_that_come_again_and_one_that_comes_too_late(
    writers: Callable[[], Writer], drainer: Drainer, stored: Stored, instance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumption, "SLACK_US", 0)
    one, two = writers(), writers()
    answered, twice, late = one.begin(), one.begin(), one.begin()
    for call in (answered, twice, late):
        one.promise(call, 1)
    answered.complete(response_json={"result": {"ok": 1}})
    one.logger.outcome(answered).wait()
    one.leave(twice)
    one.leave(late, wait=1)
    again, first, second, after = (two.listen(call, 1) for call in (answered, twice, twice, late))
    two.answer(again, answered)
    two.answer(first, twice)
    two.answer(second, twice, "another text")
    assert drainer.finish(5)
    time.sleep(1.2)
    assert drainer.finish(5)
    assert only(stored, answered)["response_json"] == {"result": {"ok": 1}}
    whole(only(stored, twice), first, second)
    assert only(stored, late)["response_json"] is None
    two.answer(second, twice, "a third time")
    two.answer(after, late)
    for stream in (again, first, second, after):
        two.close(stream)
    assert drainer.finish(5)
    assert len(stored()) == 7
    own = stored(f"{instance}-d")
    (row,) = (one for one in own if one["reason"] == "answered_late")
    others = [one for one in own if one is not row]
    assert {
        (other["reason"], other["response_json"]["result"]["text"], other["details"]["call"]) for other in others
    } == {
        ("answered_again", "late but there", str(answered.id)),
        ("answered_again", "another text", str(twice.id)),
        ("answered_again", "a third time", str(twice.id)),
    }
    assert (row["outcome"], row["reason"], row["tool_name"]) == ("allowed", "answered_late", "echo")
    assert row["api_key_id"] == KEY and row["response_json"] == {"result": {"text": "late but there"}}
    assert row["details"]["call"] == str(late.id) and row["details"]["stream"]["resumed"] == [str(after.id)]


def test_one_key_has_so_many_waiting_calls(
    writers: Callable[[], Writer], drainer: Drainer, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumption, "MOST_WAITING", 2)
    one = writers()
    calls = [one.begin(api_key_id=key) for key in (KEY, KEY, KEY, uuid.uuid4(), KEY)]
    for call in calls:
        one.promise(call)
        one.leave(call)
    assert drainer.finish(5)
    assert [row["id"] for row in stored()] == [calls[0].id, calls[1].id]


def test_an_answer_whose_call_is_lost_is_kept(
    writers: Callable[[], Writer], drainer: Drainer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumption, "ORPHAN_US", 0)
    two = writers()
    lost = make_event()
    stream = two.listen(lost, 1)
    two.answer(stream, lost, wait=0)
    assert drainer.finish(5)
    time.sleep(1.1)
    assert drainer.finish(5)
    found = database.execute("SELECT data FROM audit_quarantinedframe WHERE place = %s", (str(stream.id),)).fetchall()
    assert len(found) == 1 and b"late but there" in bytes(found[0][0])
