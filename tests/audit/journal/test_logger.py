from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from audit.events.event import Event
from audit.journal.frames import Frame, Kind
from audit.journal.logger import AuditLogger, AuditUnavailable, as_event
from audit.journal.tickets import JournalUnavailable
from audit.journal.writer import Journal
from audit.models import AuditEvent
from tests.audit.conftest import ANSWER, call, make_event
from tests.audit.journal.test_writer import FailingDevice, read_all

Opener = Callable[..., Journal]


def frames_of(journal: Journal) -> list[tuple[int, dict[str, Any]]]:
    journal.append(Kind.EVENT, b'{"last": true}').wait()
    items = read_all(journal.directory, journal.boot, live=True)
    return [(item.kind, orjson.loads(item.payload)) for item in items if isinstance(item, Frame)][1:-1]


def test_an_intent_is_safe_before_anything_runs_and_an_outcome_before_it_is_told(open_journal: Opener) -> None:
    journal = open_journal()
    logger = AuditLogger(journal)

    async def scene() -> None:
        event = make_event()
        await logger.intent(event)
        assert (event.writer, event.boot, event.seq) == (journal.writer, journal.boot, 1)
        assert journal.synced == 2, "the boot record and the intent"
        event.complete(**ANSWER)
        await logger.outcome(event)
        assert journal.synced == 3

    asyncio.run(scene())
    assert journal.reserved == 0
    (intent, outcome) = frames_of(journal)
    assert intent[0] == Kind.INTENT and outcome[0] == Kind.OUTCOME
    assert intent[1]["id"] == outcome[1]["id"] and intent[1]["request_json"]
    assert "request_json" not in outcome[1], "it is written once"


def test_a_stream_has_an_answer_and_an_end(open_journal: Opener) -> None:
    journal = open_journal()
    logger = AuditLogger(journal)
    event = make_event()
    logger.intent(event).wait()
    event.complete(**ANSWER)
    logger.outcome(event, final=False).wait()
    assert journal.reserved > 0
    event.complete(details={"stream": {"bytes": 10, "events": 2, "ended": "complete"}})
    logger.end(event).wait()
    assert [kind for kind, _ in frames_of(journal)] == [Kind.INTENT, Kind.ANSWERED, Kind.OUTCOME]
    assert journal.reserved == 0


def test_a_sink_gets_each_complete_event_once() -> None:
    seen: list[Any] = []
    logger = AuditLogger(seen.append)
    call(logger)
    refused = make_event(outcome="denied", reason="no_rule", status_code=403)
    audit_id, ticket = logger.refuse(refused)
    ticket.wait()
    model = AuditEvent(method="tools/call", outcome="denied", request_json={"password": "hunter2-hunter2"})
    logger.log_event(model).wait()
    assert [event.outcome for event in seen] == ["allowed", "denied", "denied"]
    assert audit_id == str(refused.id)
    assert "hunter2" not in repr(seen[2].request_json)
    listed: list[Any] = []
    AuditLogger(listed).log_event(refused)
    assert listed == [refused]


def test_a_model_is_recorded_like_an_event(open_journal: Opener) -> None:
    journal = open_journal()
    model = AuditEvent(method="tools/call", outcome="denied", reason="no_rule", status_code=403)
    AuditLogger(journal).log_event(model).wait()
    ((kind, record),) = frames_of(journal)
    assert kind == Kind.EVENT and record["id"] == str(model.id) and record["seq"] == 1


def test_a_model_shows_escapes_as_it_did(open_journal: Opener) -> None:
    odd = "a\u202eb \\u{202E} \\u{5C}u"  # a character, text that looks like its escape, and text that looks like that one's
    fields: dict[str, Any] = {"tool_name": odd, "key_name": odd, "details": {odd: odd}, "response_json": odd}
    model = AuditEvent(
        outcome="denied", method="tools/call", request_json={odd: [odd, "\x00"], "password": "p"}, **fields
    )
    value = Event(
        id=model.id,
        ts=model.ts,
        outcome="denied",
        method="tools/call",
        request_json={odd: [odd, "\x00"], "password": "p"},
        **fields,
    )
    assert as_event(model) == value
    assert model.tool_name == "a\\u{202E}b \\u{5C}u{202E} \\u{5C}u{5C}u" == as_event(model).tool_name
    journal = open_journal()
    AuditLogger(journal).log_event(model).wait()
    ((_, record),) = frames_of(journal)
    assert Event(again=True, **record).tool_name == model.tool_name


def test_strict_mode_takes_no_call_it_cannot_record(open_journal: Opener) -> None:
    device = FailingDevice()
    journal = open_journal(sync=device.sync)
    logger = AuditLogger(journal)
    device.broken = True

    async def scene() -> tuple[Event, Event]:
        first = make_event()
        with pytest.raises(AuditUnavailable):
            await logger.intent(first)
        # Its frame waits in memory; it is told how it ended, and nobody waits for that.
        first.complete(outcome="unrecorded", reason="audit_unavailable", status_code=503)
        audit_id, ticket = logger.refuse(first)
        await ticket
        assert audit_id == str(first.id)
        second = make_event()
        with pytest.raises(AuditUnavailable):
            logger.intent(second)
        second.complete(outcome="unrecorded", reason="audit_unavailable", status_code=503)
        _, ticket = logger.refuse(second)
        await ticket
        device.broken = False
        for _ in range(200):
            if journal.usable:
                break
            await asyncio.sleep(0.02)
        logger.save_counts(everything=True)
        return first, second

    first, second = asyncio.run(scene())
    found = frames_of(journal)
    assert [kind for kind, _ in found] == [Kind.INTENT, Kind.OUTCOME, Kind.COUNTED, Kind.COUNTED]
    assert [record["id"] for _, record in found] == [str(first.id)] * 2 + [str(second.id)] * 2
    assert found[1][1]["status_code"] == 503
    assert found[3][1]["count"] == 1 and found[3][1]["closed"]
    assert journal.reserved == 0
    logger.close()


def test_best_effort_serves_and_tells_the_gap(open_journal: Opener) -> None:
    device = FailingDevice()
    journal = open_journal(sync=device.sync)
    logger = AuditLogger(journal, mode="best-effort")
    device.broken = True
    kept = make_event()
    logger.intent(kept).wait(0.5)  # goes into memory, and is not lost
    for _ in range(3):
        event = make_event()
        logger.intent(event).wait()
        event.complete(**ANSWER)
        logger.outcome(event).wait()
    assert logger.lost == 3
    device.broken = False
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and not journal.usable:
        time.sleep(0.02)
    kept.complete(**ANSWER)
    logger.outcome(kept).wait()
    call(logger)
    found = frames_of(journal)
    gaps = [record for _, record in found if record.get("outcome") == "unrecorded"]
    assert len(gaps) == 1 and gaps[0]["count"] == 3 and gaps[0]["reason"] == "audit_unavailable"
    assert orjson.loads(gaps[0]["details"])["gap"]["count"] == 3
    assert sorted(record["seq"] for kind, record in found if kind != Kind.OUTCOME) == [1, 2, 3], (
        "no number was spent on them"
    )
    logger.close()


def test_a_flood_is_counted_exactly(open_journal: Opener) -> None:
    now = [100.0]
    journal = open_journal()
    logger = AuditLogger(journal, clock=lambda: now[0])
    told = set()
    for _ in range(500):
        event = make_event(api_key_id=None, outcome="unauthenticated", reason="invalid_credential", status_code=401)
        audit_id, ticket = logger.refuse(event)
        ticket.wait()
        told.add(audit_id)
    assert len(told) == 21
    logger.save_counts()
    for _ in range(100):
        logger.refuse(make_event(api_key_id=None, outcome="unauthenticated", reason="invalid_credential"))
    now[0] += 3.5
    logger.save_counts()
    found = frames_of(journal)
    own = [record for kind, record in found if kind == Kind.EVENT]
    counts = [record for kind, record in found if kind == Kind.COUNTED]
    assert len(own) == 20
    assert [record.get("closed") for record in counts] == [None, False, True]
    assert counts[-1]["count"] == 580
    assert {record["id"] for record in own} | {counts[0]["id"]} == told
    assert not logger._flood.groups
    logger.close()


def test_the_reserve_counts_refusals_while_the_disk_is_full(open_journal: Opener) -> None:
    journal = open_journal(segment_bytes=128 * 1024)

    def full(size: int) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    journal._space.allocate = full  # type: ignore[method-assign]
    logger = AuditLogger(journal)
    refused = 0
    for _ in range(200):
        event = make_event()
        try:
            logger.intent(event).wait()
        except JournalUnavailable:
            event.complete(outcome="unrecorded", reason="audit_unavailable", status_code=503)
            logger.refuse(event)[1].wait()
            refused += 1
        else:
            event.complete(**ANSWER)
            logger.outcome(event).wait()
    assert refused > 50
    logger.close()
    records = frames_after_close(journal)
    assert sum(record["count"] for kind, record in records if kind == Kind.COUNTED and record.get("closed")) == refused
    assert len([1 for kind, _ in records if kind == Kind.OUTCOME]) == 200 - refused


def frames_after_close(journal: Journal) -> list[tuple[int, dict[str, Any]]]:
    items = read_all(journal.directory, journal.boot)
    return [(item.kind, orjson.loads(item.payload)) for item in items if isinstance(item, Frame)]


def test_an_outcome_that_could_not_be_told_says_so_itself(open_journal: Opener) -> None:
    device = FailingDevice()
    journal = open_journal(sync=device.sync)
    logger = AuditLogger(journal)

    async def scene() -> None:
        event = make_event()
        await logger.intent(event)
        device.broken = True
        event.complete(**ANSWER)
        with pytest.raises(AuditUnavailable):
            await logger.outcome(event)
        # The call was made, its result was not released: that is what its caller knows, and what the log will say.
        event.complete(outcome="unrecorded", reason="audit_unavailable", status_code=503, details={"executed": True})
        assert logger.unrecorded(event) == str(event.id)
        device.broken = False
        for _ in range(200):
            if journal.usable:
                break
            await asyncio.sleep(0.02)

    asyncio.run(scene())
    intent, outcome = frames_of(journal)
    assert (intent[0], outcome[0]) == (Kind.INTENT, Kind.OUTCOME)
    assert (outcome[1]["outcome"], outcome[1]["status_code"]) == ("unrecorded", 503)
    assert orjson.loads(outcome[1]["details"])["executed"] is True
    assert journal.reserved == 0 and journal.room > 0


def test_a_device_that_hangs_stops_calls_and_forgets_nothing(
    open_journal: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was not let in hears so in time; an outcome that may become durable waits; all of it is there in the end."""
    monkeypatch.setattr("audit.journal.writer.HANG_SECONDS", 0.2)
    answers = threading.Event()
    answers.set()

    def sync(descriptor: int) -> None:
        answers.wait(30)
        os.fdatasync(descriptor)

    journal = open_journal(sync=sync)
    logger = AuditLogger(journal)

    async def scene() -> None:
        done, waiting, late = make_event(), make_event(), make_event()
        await logger.intent(done)
        done.complete(**ANSWER)
        answers.clear()
        outcome = asyncio.ensure_future(settled(logger.outcome(done)))
        await asyncio.sleep(0.05)
        intent = asyncio.ensure_future(settled(logger.intent(waiting)))
        await asyncio.sleep(0.3)
        logger.give_up()
        assert isinstance(await intent, JournalUnavailable)
        assert not outcome.done() and not journal.usable and journal.failing
        with pytest.raises(JournalUnavailable):
            logger.intent(late)
        waiting.complete(outcome="unrecorded", reason="audit_unavailable", status_code=503)
        assert logger.unrecorded(waiting) == str(waiting.id)
        answers.set()
        assert await asyncio.wait_for(outcome, 5) is None
        async with asyncio.timeout(5):
            while not journal.usable:  # service returns with the device, once what waited has been written
                await asyncio.sleep(0.01)
        await logger.intent(late)

    asyncio.run(scene())
    found = [(kind, record["id"], record.get("outcome")) for kind, record in frames_of(journal) if "id" in record]
    assert [kind for kind, *_ in found] == [Kind.INTENT, Kind.OUTCOME, Kind.INTENT, Kind.OUTCOME, Kind.INTENT]
    assert found[3][2] == "unrecorded"


async def settled(pending: Any) -> BaseException | None:
    try:
        await pending
    except JournalUnavailable as error:
        return error
    return None
