"""Every event once, whatever dies: real journals, a real database, real signals."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest

from audit.drain import store
from audit.drain.drainer import Boot, Drainer, read_status
from audit.events.event import Event
from audit.journal.frames import Kind, Mark
from audit.journal.logger import AuditLogger
from audit.journal.reader import BootReader, segments_of
from audit.journal.retention import sweep
from audit.journal.writer import Journal
from tests.audit.conftest import ANSWER, KEY, call, make_event
from tests.audit.journal.test_reader import frames_in
from tests.support.clients import PATIENCE

Opener = Callable[..., Journal]
Stored = Callable[..., list[dict[str, Any]]]
Database = psycopg.Connection[Any]


def die(journal: Journal) -> None:
    """End a journal as a kill would: no last word, the lock free."""
    journal._closing = True
    with journal._lock:
        journal._ring()
    journal._thread.join()
    journal._closed = True
    os.close(journal._lock_fd)


def open_calls(database: Database, instance: str) -> list[tuple[Any, ...]]:
    return database.execute(
        "SELECT id, kind, seq, answered, method, tool_name FROM audit_opencall WHERE writer LIKE %s ORDER BY seq",
        (f"{instance}%",),
    ).fetchall()


def position(database: Database, journal: Journal) -> tuple[Any, ...]:
    row = database.execute(
        "SELECT frame, seq, closed_at IS NOT NULL, clean, previous_boot, previous_seq, reported_seq FROM audit_writerposition"
        " WHERE writer = %s AND boot = %s",
        (journal.writer, journal.boot),
    ).fetchone()
    assert row is not None
    return row


def test_calls_become_rows(open_journal: Opener, drainer: Drainer, stored: Stored, database: Database) -> None:
    journal = open_journal()
    logger = AuditLogger(journal)
    made = [call(logger, tool_name=f"tool-{number}") for number in range(5)]
    assert drainer.finish(5)
    rows = stored()
    assert [row["id"] for row in rows] == [event.id for event in made]
    assert [row["seq"] for row in rows] == [1, 2, 3, 4, 5]
    first = rows[0]
    assert (first["outcome"], first["status_code"], first["api_key_id"], first["tool_name"]) == (
        "allowed",
        200,
        KEY,
        "tool-0",
    )
    assert first["request_json"] == {"method": "tools/call", "params": {"name": "echo"}}, (
        "the intent's request is in the row"
    )
    assert first["response_json"] == ANSWER["response_json"]
    assert "tool-0" in first["search"] and first["ts"].tzinfo is not None
    assert position(database, journal)[:4] == (11, 5, False, False)
    logger.close()
    assert drainer.finish(5)
    assert position(database, journal)[:4] == (12, 5, True, True)
    assert read_status(drainer.root)["state"] in ("starting", "ok")


def test_a_running_call_is_seen_and_pins_nothing(
    open_journal: Opener, drainer: Drainer, stored: Stored, database: Database, instance: str
) -> None:
    journal = open_journal(segment_bytes=128 * 1024)
    logger = AuditLogger(journal)
    slow = make_event(tool_name="slow")
    logger.intent(slow).wait()
    assert drainer.finish(5)
    assert open_calls(database, instance) == [(slow.id, "call", 1, False, "tools/call", "slow")]
    slow.complete(**ANSWER)
    logger.outcome(slow, final=False).wait()
    while len(segments_of(journal.directory)[journal.boot]) < 3:
        call(logger)
    assert drainer.finish(5)
    assert open_calls(database, instance)[0][3] is True, "answered, and still streaming"
    assert sweep(drainer.root, drainer._boots.values(), 0, 0) >= 1, "its segment may go"
    slow.complete(details={"stream": {"events": 3, "ended": "complete"}})
    logger.end(slow).wait()
    assert drainer.finish(5)
    assert open_calls(database, instance) == []
    (row,) = [row for row in stored() if row["tool_name"] == "slow"]
    assert row["request_json"] and row["response_json"] and row["details"]["stream"]["ended"] == "complete"
    assert len(stored()) == journal.seq


def test_what_a_dead_writer_left_is_adopted(
    open_journal: Opener, drainer: Drainer, stored: Stored, database: Database, instance: str
) -> None:
    journal = open_journal()
    logger = AuditLogger(journal)
    call(logger)
    cut_off, streaming = make_event(tool_name="cut"), make_event(tool_name="streaming")
    logger.intent(cut_off).wait()
    logger.intent(streaming).wait()
    streaming.complete(**ANSWER)
    logger.outcome(streaming, final=False).wait()
    for _ in range(30):
        logger.refuse(make_event(api_key_id=None, outcome="unauthenticated", reason="invalid_credential"))
    logger.save_counts()
    journal.append(Kind.EVENT, orjson.dumps(make_event(outcome="denied", seq=25).as_record()), False).wait()
    assert drainer.finish(5)
    assert [kind for _, kind, *_ in open_calls(database, instance)] == ["call", "call", "counted"]
    die(journal)
    assert drainer.finish(5)
    assert open_calls(database, instance) == []
    by_name = {row["tool_name"]: row for row in stored()}
    assert (by_name["cut"]["outcome"], by_name["cut"]["reason"]) == ("interrupted", "process_died")
    assert by_name["cut"]["request_json"]
    assert by_name["streaming"]["outcome"] == "allowed", "its caller has seen the result"
    assert by_name["streaming"]["details"]["stream"]["ended"] == "process_died"
    (counted,) = [row for row in stored() if row["count"] > 1]
    assert counted["count"] == 10 and counted["outcome"] == "unauthenticated"
    gaps = [row for row in stored(f"{instance}-d") if row["outcome"] == "unrecorded"]
    assert [gap["details"]["gap"]["counted"] for gap in gaps] == [str(counted["id"])], (
        "what a kill may have lost is told"
    )
    # Again and again changes nothing.
    before = stored()
    again = Drainer(drainer.dsn, drainer.root, instance, housekeeping=False)
    assert again.finish(5)
    again.close()
    assert stored() == before


def test_boots_name_the_end_of_the_boot_before(open_journal: Opener, drainer: Drainer, database: Database) -> None:
    first = open_journal()
    call(AuditLogger(first))
    first.close()
    second = open_journal()
    assert drainer.finish(5)
    assert position(database, second)[4:6] == (first.boot, 1)


def test_a_bad_row_never_blocks_the_rest(
    open_journal: Opener, drainer: Drainer, stored: Stored, database: Database, instance: str
) -> None:
    journal = open_journal()
    logger = AuditLogger(journal)
    bad = {
        **make_event(tool_name="bad").as_record(),
        "status_code": 99_999,
        "writer": journal.writer,
        "boot": journal.boot,
    }
    for number in range(40):
        if number == 17:
            _, ticket = journal.open_event(Kind.EVENT, lambda seq: orjson.dumps({**bad, "seq": seq}))
            ticket.wait()
            journal.append(Kind.EVENT, b"not json", True).wait()
            journal.append(Kind.EVENT, b'{"ts": 5}', True).wait()
        call(logger)
    assert drainer.finish(5)
    assert len(stored()) == 40
    frames = database.execute(
        "SELECT seq, error, data FROM audit_quarantinedframe WHERE writer = %s ORDER BY frame", (journal.writer,)
    ).fetchall()
    assert [seq for seq, *_ in frames] == [18, 19, 20]
    assert "out of range" in frames[0][1] and orjson.loads(bytes(frames[0][2]))["status_code"] == 99_999
    assert bytes(frames[1][2]) == b"not json"
    assert drainer.status.quarantined == 3


def test_an_id_that_is_taken_is_kept_aside(
    open_journal: Opener, drainer: Drainer, stored: Stored, database: Database
) -> None:
    journal = open_journal()
    logger = AuditLogger(journal)
    first = call(logger)
    assert drainer.finish(5)
    call(logger, id=first.id, tool_name="impostor")
    call(logger)
    assert drainer.finish(5)
    assert [row["tool_name"] for row in stored()] == ["echo", "echo"]
    ((error,),) = database.execute(
        "SELECT error FROM audit_quarantinedframe WHERE writer = %s", (journal.writer,)
    ).fetchall()
    assert "another event has this id" in error


def test_a_database_that_went_back_in_time_is_fed_again(
    open_journal: Opener, drainer: Drainer, stored: Stored, database: Database
) -> None:
    journal = open_journal()
    logger = AuditLogger(journal)
    for _ in range(4):
        call(logger)
    assert drainer.finish(5)
    saved = position(database, journal)
    for _ in range(6):
        call(logger)
    assert drainer.finish(5)
    whole = stored()
    # As a backup taken at four would restore it; and once more with a position that is behind its own rows.
    for forget in (True, False):
        if forget:
            with database.transaction():
                database.execute("SET LOCAL session_replication_role = replica")
                database.execute("DELETE FROM audit_auditevent WHERE writer = %s AND seq > 4", (journal.writer,))
        database.execute(
            "UPDATE audit_writerposition SET frame = %s, seq = %s WHERE writer = %s AND boot = %s",
            (saved[0], saved[1], journal.writer, journal.boot),
        )
        call(logger)
        drainer._next_report = 0.0
        assert drainer.finish(5)
        assert stored()[:10] == whole
    assert [row["seq"] for row in stored()] == list(range(1, 13))
    assert not database.execute("SELECT 1 FROM audit_quarantinedframe WHERE writer = %s", (journal.writer,)).fetchall()


def test_a_backend_that_was_given_up_and_wakes_late_doubles_nothing(
    open_journal: Opener,
    log_dsn: dict[str, Any],
    stored: Stored,
    database: Database,
    instance: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    journal = open_journal()
    logger = AuditLogger(journal)
    first = Drainer(log_dsn, journal.root, instance, housekeeping=False, transaction_seconds=0.5)
    call(logger)
    assert first.finish(5)
    for _ in range(9):
        call(logger)
    stopped: list[int] = []
    original = store.save_position

    def stop_then_go_on(connection: Database, *rest: Any) -> None:
        original(connection, *rest)
        if not stopped:
            stopped.append(connection.info.backend_pid)
            os.kill(stopped[0], signal.SIGSTOP)  # the COMMIT that follows reaches a backend that does not answer

    monkeypatch.setattr(store, "save_position", stop_then_go_on)
    try:
        begun = time.monotonic()
        with pytest.raises(psycopg.Error):
            first.round()
        assert time.monotonic() - begun < 5, "a hung database is treated like a dead one"
        first.close()
        monkeypatch.undo()
        # The position alone must tell; that ids are unique as well is a second net, which nothing may fall into.
        monkeypatch.setattr(store, "not_stored", lambda *_: pytest.fail("the batch was stored a second time"))
        call(logger)
        second = Drainer(log_dsn, journal.root, instance, housekeeping=False)
        second._next_report = float("inf")  # what it reports would wait for the same row
        threading.Timer(0.5, os.kill, (stopped[0], signal.SIGCONT)).start()
        assert second.finish(15)
        second.close()
    finally:
        with suppress(ProcessLookupError):
            os.kill(stopped[0], signal.SIGCONT)
    assert [row["seq"] for row in stored()] == list(range(1, 12))
    assert position(database, journal)[1] == 11


RECOVERY = textwrap.dedent(
    """
    import sys, orjson
    from pathlib import Path
    import django
    django.setup()
    from audit.drain.drainer import Drainer
    import audit.drain.drainer
    audit.drain.drainer.BATCH_BYTES = 16384
    drainer = Drainer(orjson.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], housekeeping=False)
    print("ready", flush=True)
    sys.exit(0 if drainer.finish(30) else 3)
    """
)


def test_recovery_may_be_killed_as_often_as_it_likes(
    open_journal: Opener, log_dsn: dict[str, Any], stored: Stored, database: Database, instance: str
) -> None:
    journal = open_journal()
    logger = AuditLogger(journal)
    random.seed(4)
    unfinished = set()
    for number in range(300):
        event = make_event(tool_name=f"t{number}")
        logger.intent(event)
        if number % 7 == 0:
            unfinished.add(event.id)
            continue
        event.complete(**ANSWER)
        logger.outcome(event)
    journal.append(Kind.EVENT, orjson.dumps({"marker": 1}), False).wait()
    die(journal)
    arguments = [sys.executable, "-c", RECOVERY, orjson.dumps(log_dsn).decode(), str(journal.root), instance]
    kills = 0
    for delay in (0.0, 0.01, 0.02, 0.04):
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert subprocess.run(arguments, capture_output=True, timeout=60).returncode == 0
    rows = stored()
    assert kills >= 2
    assert [row["seq"] for row in rows] == list(range(1, 301))
    assert {row["id"] for row in rows if row["outcome"] == "interrupted"} == unfinished
    assert open_calls(database, instance) == []
    requests = database.execute(
        "SELECT sum(requests) FROM audit_rollup WHERE key_id = %s AND tool_name LIKE 't%%' AND outcome = 'interrupted'",
        (str(KEY),),
    ).fetchone()
    assert requests is not None and requests[0] >= len(unfinished)


def test_damage_is_told_and_what_follows_is_stored(
    open_journal: Opener, drainer: Drainer, stored: Stored, database: Database, instance: str
) -> None:
    journal = open_journal()
    logger = AuditLogger(journal)
    for number in range(5):
        logger.log_event(make_event(outcome="denied", tool_name=f"d{number}")).wait()
    die(journal)
    (file,) = segments_of(journal.directory)[journal.boot]
    found = frames_in(journal.directory, journal.boot)
    data = bytearray(file.path.read_bytes())
    data[found[2].offset + 40] ^= 4
    file.path.write_bytes(data)
    assert drainer.finish(5)
    assert [row["tool_name"] for row in stored()] == ["d0", "d2", "d3", "d4"]
    (gap,) = stored(f"{instance}-d")
    assert (gap["outcome"], gap["reason"], gap["count"]) == ("unrecorded", "journal_damaged", 1)
    told = gap["details"]["gap"]
    assert (told["writer"], told["boot"], told["first_seq"], told["last_seq"]) == (journal.writer, journal.boot, 2, 2)
    ((kept,),) = database.execute(
        "SELECT data FROM audit_quarantinedframe WHERE writer = %s", (journal.writer,)
    ).fetchall()
    assert bytes(kept) == bytes(data[found[2].offset : found[2].end])


def test_a_database_that_is_away_costs_nothing_but_time(
    open_journal: Opener, log_dsn: dict[str, Any], stored: Stored, instance: str
) -> None:
    journal = open_journal()
    logger = AuditLogger(journal)
    away = threading.Event()
    away.set()

    def where() -> dict[str, Any]:
        return {**log_dsn, "host": "/nowhere"} if away.is_set() else log_dsn

    drainer = Drainer(where, journal.root, instance, housekeeping=False)
    stop = threading.Event()
    thread = threading.Thread(target=drainer.run, args=(stop,))
    thread.start()
    for _ in range(20):
        call(logger)
    time.sleep(0.3)
    assert read_status(journal.root)["state"] == "waiting" and "/nowhere" in read_status(journal.root)["error"]
    away.clear()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and len(stored()) < 20:
        time.sleep(0.05)
    begun = time.monotonic()
    call(logger)
    while len(stored()) < 21 and time.monotonic() - begun < 3:
        time.sleep(0.02)
    assert time.monotonic() - begun < 1, "an event is in the log within a second"
    stop.set()
    thread.join(15)
    assert [row["seq"] for row in stored()] == list(range(1, 22))


def test_a_cut_in_the_middle_of_a_copy(
    open_journal: Opener, drainer: Drainer, stored: Stored, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal()
    logger = AuditLogger(journal)
    for _ in range(30):
        call(logger)
    original = store.copy_rows
    cuts = []

    def cut(connection: Database, part: list[Any]) -> None:
        if len(cuts) < 2:
            cuts.append(connection.info.backend_pid)
            with connection.cursor() as cursor, cursor.copy(store.COPY) as copy:
                for _, values in part[: len(part) // 2]:
                    copy.write_row(values)
                database.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
                time.sleep(0.1)
                for _, values in part[len(part) // 2 :]:
                    copy.write_row(values)
        else:
            original(connection, part)

    monkeypatch.setattr(store, "copy_rows", cut)
    assert drainer.finish(10)
    assert len(cuts) == 2
    assert [row["seq"] for row in stored()] == list(range(1, 31))


def test_acts_are_numbered_without_holes(drainer: Drainer, stored: Stored, database: Database, instance: str) -> None:
    def act(name: str) -> Event:
        event = Event(method="admin.test.changed", tool_name=name, outcome="changed", status_code=200)
        database.execute(
            "INSERT INTO audit_outboxevent (event_id, created_at, record) VALUES (%s, now(), %s)",
            (event.id, orjson.dumps(event.as_record()).decode()),
        )
        return event

    with pytest.raises(ZeroDivisionError), database.transaction():
        act("never")
        _ = 1 / 0
    made = [act(f"a{number}") for number in range(3)]
    assert drainer.finish(5)
    made.append(act("a3"))
    assert drainer.finish(5)
    rows = stored(f"{instance}-d")
    assert [row["id"] for row in rows] == [event.id for event in made]
    assert [row["seq"] for row in rows] == [1, 2, 3, 4]


@pytest.mark.timeout(300)
def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, os, time\n"
        "child = subprocess.Popen([sys.executable, 'manage.py', 'drain', '--parent', str(os.getpid())])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "SENTINEL_VAR": str(tmp_path / "var")}
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    root = tmp_path / "var" / "journal" / "drainer.lock"
    deadline = time.monotonic() + 60 * PATIENCE
    while time.monotonic() < deadline and not root.exists():
        time.sleep(0.05)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{child}/stat").read_text().split(")")[1].split()[0] == "Z":
                break
        except FileNotFoundError:
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        pytest.fail("the drainer outlived its parent")


@pytest.mark.parametrize("keep,budget,left", [(0, 0, 1), (1e9, 0, 5), (1e9, 600_000, 3)])
def test_drained_segments_stay_a_day_within_the_budget(
    open_journal: Opener, drainer: Drainer, keep: float, budget: int, left: int
) -> None:
    journal = open_journal(segment_bytes=128 * 1024)
    while len(segments_of(journal.directory).get(journal.boot, [])) < 5:
        journal.append(Kind.EVENT, orjson.dumps({"id": str(uuid.uuid4()), "ts": 1, "pad": " " * 4000}), False).wait()
    assert drainer.finish(5)
    assert len(segments_of(journal.directory)[journal.boot]) == 5
    sweep(drainer.root, drainer._boots.values(), keep, budget)
    assert len(segments_of(journal.directory)[journal.boot]) <= left
    assert len(segments_of(journal.directory)[journal.boot]) >= 1


def test_the_age_of_the_backlog_is_that_of_what_waits(drainer: Drainer) -> None:
    """Under steady traffic something always waits; it is old only when the drainer does not come on."""
    boot = Boot("w", 1, BootReader(drainer.root, 1), frame=5)

    def told(frame: int, written: int) -> int:
        boot.frame, boot.mark = frame, Mark(1, 1, 0, written, written, 0)
        drainer._write_status([boot])
        time.sleep(0.002)
        return drainer.status.oldest_ts

    first = told(5, 10)
    assert told(7, 20) == first > 0, "frame 10 still waits"
    later = told(20, 30)
    assert later > first
    assert told(30, 30) == 0
    assert told(30, 31) > later
