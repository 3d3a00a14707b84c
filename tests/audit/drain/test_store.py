"""Events as stored: nobody changes them, a serving role least of all; partitions are made ahead and dropped by age."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson
import psycopg
import pytest
from psycopg import errors

from audit.drain import partitions
from audit.drain.drainer import Drainer
from audit.drain.store import copy_rows
from audit.events.event import Event
from audit.filters import Filters
from audit.journal.logger import AuditLogger
from audit.journal.writer import Journal
from audit.models import AuditEvent
from audit.search import search
from core.db import connect
from sentinel.postgres import grants
from tests.audit.conftest import ANSWER, KEY, call, make_event

Database = psycopg.Connection[Any]
INSERT = "INSERT INTO audit_auditevent (id, outcome, writer, boot, seq) VALUES (%s, %s, %s, 1, 1)"


@pytest.fixture
def row(database: Database, instance: str) -> uuid.UUID:
    made = Event(outcome="denied", request_json={"a": 1}).id
    database.execute(
        "INSERT INTO audit_auditevent (id, outcome, writer, boot, seq, request_json, request_digest) VALUES (%s, 'denied', %s, 1, 1, '{}', 'd')",
        (made, f"{instance}-w0"),
    )
    return made


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_auditevent SET outcome = 'allowed' WHERE id = %s",
        "UPDATE audit_auditevent SET request_json = NULL WHERE id = %s",
        "DELETE FROM audit_auditevent WHERE id = %s",
        "TRUNCATE audit_auditevent",
        "TRUNCATE audit_auditevent_default",
    ],
)
def test_even_the_owner_is_refused(database: Database, row: uuid.UUID, statement: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege, match="audit events cannot be changed"):
        database.execute(statement, (row,) if "%s" in statement else None)


def test_maintenance_empties_payloads_and_nothing_else(database: Database, row: uuid.UUID) -> None:
    with database.transaction(force_rollback=True):
        database.execute("SET LOCAL sentinel.maintenance = 'on'")
        for statement in (
            "UPDATE audit_auditevent SET request_json = NULL, outcome = 'allowed' WHERE id = %s",
            "UPDATE audit_auditevent SET request_json = '{\"b\":1}' WHERE id = %s",
            "DELETE FROM audit_auditevent WHERE id = %s",
        ):
            with pytest.raises(errors.InsufficientPrivilege), database.transaction():
                database.execute(statement, (row,))
        database.execute("UPDATE audit_auditevent SET request_json = NULL WHERE id = %s", (row,))
        found = database.execute(
            "SELECT request_json, request_digest FROM audit_auditevent WHERE id = %s", (row,)
        ).fetchone()
        assert found == (None, "d")


def test_impossible_events_are_refused(database: Database, instance: str) -> None:
    for outcome in ("allowed", "perhaps"):
        with pytest.raises(errors.CheckViolation):
            database.execute(INSERT, (uuid.uuid4(), outcome, instance))


@pytest.fixture
def serving(database: Database, log_dsn: dict[str, Any], instance: str) -> Iterator[Database]:
    """A connection as a role that may only serve."""
    role = f"serving_{instance}"
    database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'serving-password-of-a-test'")
    for _ in range(2):
        for statement in grants.statements(role):
            database.execute(statement)
    try:
        with connect(
            {**log_dsn, "user": role, "password": "serving-password-of-a-test"}, "test", seconds=15
        ) as connection:
            yield connection
    finally:
        database.execute(f"DROP OWNED BY {role}")
        database.execute(f"DROP ROLE {role}")


def test_a_serving_role_drains_and_can_change_nothing(
    serving: Database, database: Database, instance: str, open_journal: Callable[..., Journal], log_dsn: dict[str, Any]
) -> None:
    journal = open_journal()
    logger = AuditLogger(journal)
    running = make_event()
    logger.intent(running).wait()
    call(logger)
    own = {**log_dsn, "user": f"serving_{instance}", "password": "serving-password-of-a-test"}
    drainer = Drainer(own, journal.root, instance)
    assert drainer.finish(5), drainer.status
    running.complete(**ANSWER)
    logger.outcome(running).wait()
    assert drainer.finish(5), drainer.status
    drainer.close()
    count = serving.execute("SELECT count(*) FROM audit_auditevent WHERE writer = %s", (journal.writer,)).fetchone()
    assert count == (2,)
    part = f"audit_auditevent_p{datetime.now(UTC):%Y%m%d}"
    for statement in (
        "UPDATE audit_auditevent SET outcome = 'denied'",
        "DELETE FROM audit_auditevent",
        "TRUNCATE audit_auditevent",
        f"DELETE FROM {part}",
        f"TRUNCATE {part}",
        f"INSERT INTO {part} (id, outcome) VALUES (gen_random_uuid(), 'denied')",
        f"DROP TABLE {part}",
        f"ALTER TABLE audit_auditevent DETACH PARTITION {part}",
        "ALTER TABLE audit_auditevent DISABLE TRIGGER ALL",
        "DELETE FROM audit_tombstone",
        "INSERT INTO audit_tombstone (writer, boot, first_seq, last_seq, partition, dropped_at) VALUES ('w', 1, 1, 9, 'p', now())",
    ):
        with pytest.raises(errors.InsufficientPrivilege), serving.transaction():
            serving.execute("SET LOCAL sentinel.maintenance = 'on'")
            serving.execute(statement)


def test_partitions_are_made_by_a_serving_role_near_today_only(serving: Database, database: Database) -> None:
    day = datetime.now(UTC).date() + timedelta(days=20)
    assert partitions.ensure(serving, day)
    assert not partitions.ensure(serving, day)
    name = f"audit_auditevent_p{day:%Y%m%d}"
    with pytest.raises(errors.InsufficientPrivilege):
        serving.execute(f"DELETE FROM {name}")
    with pytest.raises(errors.InsufficientPrivilege, match="cannot be changed"):
        database.execute(f"TRUNCATE {name}")
    with pytest.raises(errors.InsufficientPrivilege, match="too far"):
        partitions.ensure(serving, date(2040, 1, 1))


def stamped(day: date, instance: str, seq: int) -> tuple[Any, ...]:
    micros = int(datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp() * 1e6)
    event = Event(ts=micros, outcome="denied", writer=f"{instance}-w0", boot=1, seq=seq)
    return event.as_row()


def test_events_of_another_day_go_where_they_belong(database: Database, instance: str) -> None:
    day = date(2031, 5, 3)
    with database.transaction():
        copy_rows(database, [(None, stamped(day, instance, 1)), (None, stamped(day + timedelta(days=1), instance, 2))])  # type: ignore[list-item]
    assert partitions.default_rows(database) >= 2, "and raise an alarm while there is no place for them"
    assert partitions.ensure(database, day)
    where = database.execute(
        "SELECT seq, tableoid::regclass::text FROM audit_auditevent WHERE writer = %s ORDER BY seq", (f"{instance}-w0",)
    ).fetchall()
    assert where == [(1, "audit_auditevent_p20310503"), (2, "audit_auditevent_default")]


def test_old_partitions_leave_tombstones_and_an_event(database: Database, instance: str) -> None:
    today = datetime.now(UTC).date()
    old, kept = today - timedelta(days=91), today - timedelta(days=90)
    partitions.ensure(database, old)
    partitions.ensure(database, kept)
    rows = [stamped(old, instance, n) for n in (1, 2, 3, 7, 8)] + [stamped(kept, instance, n) for n in (4, 5, 6)]
    with database.transaction():
        copy_rows(database, [(None, values) for values in rows])  # type: ignore[misc]
    name = f"audit_auditevent_p{old:%Y%m%d}"
    assert partitions.drop_old(database, 90) == [name]
    left = database.execute(
        "SELECT seq FROM audit_auditevent WHERE writer = %s ORDER BY 1", (f"{instance}-w0",)
    ).fetchall()
    assert left == [(4,), (5,), (6,)]
    assert database.execute(
        "SELECT first_seq, last_seq FROM audit_tombstone WHERE writer = %s ORDER BY 1", (f"{instance}-w0",)
    ).fetchall() == [(1, 3), (7, 8)]
    told = database.execute("SELECT record::text FROM audit_outboxevent ORDER BY number DESC LIMIT 1").fetchone()
    assert told is not None and name in told[0] and orjson.loads(told[0])["outcome"] == "changed"


def test_at_most_five_indexes_and_the_planner_prunes(database: Database, instance: str) -> None:
    indexes = database.execute("SELECT count(*) FROM pg_indexes WHERE tablename = 'audit_auditevent'").fetchone()
    assert indexes is not None and indexes[0] <= 5
    for _, low, high in partitions.id_ranges(partitions.listed(database)):
        plan = database.execute(
            f"EXPLAIN SELECT 1 FROM audit_auditevent WHERE {partitions.within(low, high)}"
        ).fetchall()
        assert sum("audit_auditevent_" in line for (line,) in plan if "Scan" in line) <= 2


@pytest.mark.django_db
def test_a_model_keeps_json_to_the_letter() -> None:
    event = AuditEvent(api_key_id=KEY, outcome="allowed", details={"n": 1.50, "big": 12345678901234567890})
    event.save(force_insert=True)
    read = AuditEvent.objects.with_text().get(pk=event.pk)
    assert read.details == {"n": 1.5, "big": 12345678901234567890}
    assert read.request_json is None and read.request_text is None
    assert read.outcome == "allowed" and read.count == 1
    with pytest.raises(Exception, match="cannot be changed"):
        AuditEvent.objects.filter(pk=event.pk).update(reason="x")


@pytest.mark.django_db
def test_pages_by_key() -> None:
    made = [AuditEvent(outcome="denied", reason=f"r{n}") for n in range(7)]
    for event in made:
        event.save(force_insert=True)
    ids = [event.id for event in reversed(made)]
    first = search(Filters(), limit=3)
    assert [row.id for row in first.rows] == ids[:3] and first.newer is None
    second = search(Filters(), before=first.older, limit=3)
    assert [row.id for row in second.rows] == ids[3:6]
    third = search(Filters(), before=second.older, limit=3)
    assert [row.id for row in third.rows] == ids[6:] and third.older is None
    back = search(Filters(), after=third.newer, limit=3)
    assert [row.id for row in back.rows] == ids[3:6]
    assert [row.reason for row in search(Filters.of({"reason": ["r2"]}), limit=3).rows] == ["r2"]
    day, hour = datetime.now(UTC), timedelta(hours=1)
    assert len(search(Filters(start=day - hour, end=day + hour)).rows) == 7
    assert search(Filters(end=day - hour)).rows == []
    assert [row.reason for row in search(Filters(text="R3")).rows] == ["r3"]
    assert search(Filters(text="r%")).rows == []
    assert AuditEvent.objects.about_count() >= 0
