from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import orjson
import psycopg
from hypothesis import given
from hypothesis import strategies as st

from audit.drain.drainer import Drainer
from audit.drain.verify import Finding, check, holes, merged, verify
from audit.journal.frames import Kind
from audit.journal.logger import AuditLogger
from audit.journal.writer import Journal
from tests.audit.conftest import ANSWER, call, make_event
from tests.audit.drain.test_drainer import die
from tests.audit.journal.test_reader import frames_in

Opener = Callable[..., Journal]
Database = psycopg.Connection[Any]
RANGES = st.lists(
    st.tuples(st.integers(1, 60), st.integers(0, 8)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=12
)


@given(RANGES, st.integers(0, 70))
def test_holes_are_what_is_not_there(have: list[tuple[int, int]], last: int) -> None:
    numbers = {n for first, end in have for n in range(first, end + 1)}
    found = [n for first, end in holes(have, last) for n in range(first, end + 1)]
    assert found == [n for n in range(1, last + 1) if n not in numbers]
    assert sum(end - first + 1 for first, end in merged(have)) == len(numbers)


@given(RANGES, RANGES, st.integers(1, 70))
def test_each_missing_number_is_told_once(
    have: list[tuple[int, int]], excused: list[tuple[int, int]], last: int
) -> None:
    findings = check("w", 1, last, have, [(span, "because", True) for span in excused])
    stored = {n for first, end in have for n in range(first, end + 1)}
    excuses = {n for first, end in excused for n in range(first, end + 1)}
    told = [(n, finding.explained) for finding in findings for n in range(finding.first, finding.last + 1)]
    assert sorted(told) == [(n, n in excuses) for n in range(1, last + 1) if n not in stored]


def findings_of(database: Database, journal: Journal, at: bool = True) -> list[Finding]:
    report = verify(database, journal.root if at else None)
    return [finding for finding in report.findings if finding.writer == journal.writer]


def test_a_whole_log_verifies(open_journal: Opener, drainer: Drainer, database: Database) -> None:
    journal = open_journal()
    logger = AuditLogger(journal)
    for _ in range(5):
        call(logger)
    assert drainer.finish(5)
    assert findings_of(database, journal) == []
    running = make_event()
    logger.intent(running).wait()
    call(logger)
    assert drainer.finish(5)
    (finding,) = findings_of(database, journal)
    assert (finding.first, finding.last, finding.why, finding.explained) == (6, 6, "still running", True)
    running.complete(**ANSWER)
    logger.outcome(running).wait()
    assert drainer.finish(5)
    assert findings_of(database, journal) == []


def test_a_deleted_row_is_a_loss(open_journal: Opener, drainer: Drainer, database: Database) -> None:
    journal = open_journal()
    logger = AuditLogger(journal)
    for _ in range(6):
        call(logger)
    assert drainer.finish(5)
    with database.transaction():
        database.execute("SET LOCAL session_replication_role = replica")
        database.execute("DELETE FROM audit_auditevent WHERE writer = %s AND seq IN (3, 4, 6)", (journal.writer,))
    assert [(f.first, f.last, f.explained) for f in findings_of(database, journal)] == [(3, 4, False), (6, 6, False)]
    assert not verify(database).ok


def test_a_lost_disk_is_named(open_journal: Opener, drainer: Drainer, database: Database) -> None:
    journal = open_journal()
    logger = AuditLogger(journal)
    for _ in range(3):
        call(logger)
    logger.intent(make_event()).wait()
    assert drainer.finish(5)
    for _ in range(3):
        call(logger)
    # The drainer told the database how far the writer is, and the disk went before it could store the rest.
    connection = drainer._connected()
    boots = drainer._look()
    for boot in boots:
        boot.frame = 8
    drainer._report(connection, boots)
    assert [f.why for f in findings_of(database, journal)] == ["still running", "still in the journal"]
    die(journal)
    shutil.rmtree(journal.directory)
    # For another instance the report of a moment ago would still speak for it; not for one's own, whose disk this is.
    assert all(finding.explained for finding in findings_of(database, journal))
    report = verify(database, journal.root, journal.writer.split("-")[0])
    running, rest = [finding for finding in report.findings if finding.writer == journal.writer]
    assert (running.first, running.last, running.explained) == (4, 4, False)
    assert (rest.first, rest.last, rest.explained) == (5, 7, False)
    assert "its journal is not there" in running.why and "its journal is not there" in rest.why


def test_a_lost_end_of_a_boot_is_known_from_the_next(
    open_journal: Opener, drainer: Drainer, database: Database
) -> None:
    first = open_journal()
    logger = AuditLogger(first)
    for _ in range(3):
        call(logger)
    assert drainer.finish(5)
    call(logger)
    first.close()
    second = open_journal()  # knows that the boot before it gave out four numbers
    for path in first.directory.glob(f"{first.boot:016d}*"):
        path.unlink()
    assert drainer.finish(5)
    assert [(f.boot, f.first, f.last, f.explained) for f in findings_of(database, second)] == [
        (first.boot, 4, 4, False)
    ]


def test_quarantine_and_told_gaps_explain(open_journal: Opener, drainer: Drainer, database: Database) -> None:
    journal = open_journal()
    logger = AuditLogger(journal)
    for _ in range(3):
        logger.log_event(make_event(outcome="denied")).wait()
    _, ticket = journal.open_event(Kind.EVENT, lambda seq: orjson.dumps({"ts": "never"}))
    ticket.wait()
    logger.log_event(make_event(outcome="denied")).wait()
    die(journal)
    found = frames_in(journal.directory, journal.boot)
    (path,) = journal.directory.glob("*.seg")
    data = bytearray(path.read_bytes())
    data[found[2].offset + 33] ^= 1
    path.write_bytes(data)
    assert drainer.finish(5)
    assert [(f.first, f.last, f.why, f.explained) for f in findings_of(database, journal)] == [
        (2, 2, "told as a gap: its journal was damaged", True),
        (4, 4, "in quarantine", True),
    ]


def test_a_doubled_number_is_found(open_journal: Opener, drainer: Drainer, database: Database) -> None:
    journal = open_journal()
    call(AuditLogger(journal))
    assert drainer.finish(5)
    database.execute(
        "INSERT INTO audit_auditevent (id, outcome, writer, boot, seq) VALUES (gen_random_uuid(), 'denied', %s, %s, 1)",
        (journal.writer, journal.boot),
    )
    (finding,) = findings_of(database, journal)
    assert finding.why.startswith("doubled") and not finding.explained
