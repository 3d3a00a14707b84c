"""The snapshot follows a real database: within a second, by notification or poll, through failures, and swaps whole."""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from core.db import connect
from policies.engine.compiled import PolicyError
from policies.snapshot import loading, snapshot
from policies.snapshot.snapshot import SnapshotHolder
from tests.policies.conftest import PEPPERS

pytestmark = pytest.mark.django_db  # so that there is a database when this file runs alone


@contextmanager
def holding(dsn: str, **more) -> Iterator[SnapshotHolder]:
    """A running holder."""
    holder = SnapshotHolder(dsn, peppers=PEPPERS, **more)
    holder.start()
    try:
        assert holder.ready(10)
        yield holder
    finally:
        holder.stop()


def until(holds: Callable[[], object], within: float = 3.0) -> float:
    """Seconds until something holds."""
    since = time.monotonic()
    while not holds():
        assert time.monotonic() - since < within, "it did not happen in time"
        time.sleep(0.002)
    return time.monotonic() - since


def lets_in(holder: SnapshotHolder, text: str) -> bool:
    return holder.current.authenticate(text, time.time(), "10.0.0.1").principal is not None


def test_a_key_works_and_stops_within_a_second_of_its_change(dsn, add_key, outside):
    with holding(dsn) as one, holding(dsn) as two:
        taken = []
        for _ in range(20):
            key_id, text = add_key()
            until(lambda: lets_in(one, text) and lets_in(two, text))  # noqa: B023
            assert one.current.key_is_live(key_id, time.time()) and one.current.key_is_live(str(key_id), time.time())
            outside.execute("UPDATE policies_apikey SET revoked_at = now() WHERE id = %s", [key_id])
            taken.append(until(lambda: not (lets_in(one, text) or lets_in(two, text))))  # noqa: B023
            assert one.current.authenticate(text, time.time(), None).failure == "revoked_key"
            assert not one.current.key_is_live(key_id, time.time())
        assert max(taken) < 1.0 and statistics.median(taken) < 0.3


def test_a_missed_notification_is_caught_by_the_poll(dsn, add_key, monkeypatch):
    monkeypatch.setattr(snapshot, "CHANNEL", "another_channel")
    with holding(dsn) as holder:
        _, text = add_key()
        assert until(lambda: lets_in(holder, text)) < 1.0


def test_rules_swap_whole_and_the_version_moves(dsn, outside):
    seen = []
    with holding(dsn) as holder:
        holder.subscribe(lambda old, new: seen.append((old.version, new.version)))
        before = holder.current
        with outside.transaction():
            outside.execute(
                "INSERT INTO policies_rule (name, effect, any_role, any_key, kinds, upstreams, pattern, days, time_zone, networks,"
                " reason, note, enabled, observe) VALUES ('', 'allow', true, true, '{tool}', '{}', 'half', '{}', 'UTC', '{}', '', '', true, false)"
            )
            time.sleep(0.7)
            assert holder.current is before  # nothing of an open transaction is seen
        until(lambda: holder.current.version == before.version + 1)
        assert any(rule.spec.pattern == "half" for rule in holder.current.policy.rules)
        assert not any(rule.spec.pattern == "half" for rule in before.policy.rules)
        assert holder.current.ring is before.ring  # only what changed was read again
        assert seen == [(before.version, before.version + 1)]


def test_what_cannot_be_built_keeps_the_old_and_raises_an_alarm(dsn, add_key, outside):
    with holding(dsn) as holder:
        before = holder.current
        with outside.transaction():
            rule = outside.execute(
                "INSERT INTO policies_rule (name, effect, any_role, any_key, kinds, upstreams, pattern, days, time_zone, networks,"
                " reason, note, enabled, observe) VALUES ('', 'allow', true, true, '{tool}', '{}', 'x', '{}', 'UTC', '{}', '', '', true, false)"
                " RETURNING id"
            ).fetchone()[0]
            outside.execute(
                "INSERT INTO policies_rulecondition (rule_id, subject, path, quantifier, operator, value)"
                " VALUES (%s, 'arguments', 'a', '', 'matches', '\"(\"')",
                [rule],
            )
        until(lambda: "policy" in holder.alarms)
        assert f"rule {rule}" in holder.alarms["policy"] and holder.current.policy is before.policy
        age = holder.confirmed_age()
        _, text = add_key()
        until(lambda: lets_in(holder, text))  # keys go on
        time.sleep(0.3)
        assert holder.confirmed_age() > age  # but this policy is not the newest, and grows old
        with outside.transaction():
            outside.execute("DELETE FROM policies_rulecondition WHERE rule_id = %s", [rule])
            outside.execute("DELETE FROM policies_rule WHERE id = %s", [rule])
        until(lambda: not holder.alarms)
        assert holder.confirmed_age() < 1.0


def test_it_comes_back_after_its_connection_was_killed(dsn, add_key, outside):
    with holding(dsn) as holder:
        outside.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mcp-sentinel snapshot'"
        )
        _, text = add_key()
        until(lambda: lets_in(holder, text))
        until(lambda: not holder.alarms)


def test_a_database_that_is_not_there_is_an_alarm_and_no_snapshot(tmp_path):
    holder = SnapshotHolder(f"host={tmp_path} dbname=none", peppers=PEPPERS, poll=0.05)
    holder.start()
    try:
        assert not holder.ready(0.3)
        assert holder.current is None and "database" in holder.alarms and holder.confirmed_age() == float("inf")
    finally:
        holder.stop()


def test_a_database_that_hangs_does_not_hold_the_thread_for_ever(dsn, outside):
    with connect(dsn, "a test", seconds=5, patience=0.5) as connection:
        since = time.monotonic()
        with pytest.raises(psycopg.OperationalError, match="has not answered"):
            connection.execute("SELECT pg_sleep(5)")
        assert time.monotonic() - since < 2.0 and connection.closed


def test_extras_ride_along(dsn, outside):
    loads = []

    def load(connection):
        loads.append(connection.execute("SELECT 1").fetchone())
        return {"crm": len(loads)}

    with holding(dsn, extra={"upstreams-test": load}) as holder:
        assert holder.extras["upstreams-test"] == {"crm": 1}
        outside.execute("INSERT INTO policies_revision (kind, number, txid) VALUES ('upstreams-test', 5, 0)")
        outside.execute("NOTIFY sentinel_changed, 'upstreams-test'")
        until(lambda: holder.extras["upstreams-test"] == {"crm": 2})
    outside.execute("DELETE FROM policies_revision WHERE kind = 'upstreams-test'")


def test_use_is_written_down_apart_from_requests_and_is_no_change(dsn, add_key, outside, monkeypatch):
    monkeypatch.setattr(snapshot, "USAGE_SECONDS", 0.2)
    with holding(dsn) as holder:
        key_id, text = add_key()
        until(lambda: lets_in(holder, text))
        revisions = loading.revisions(outside)
        holder.current.authenticate(text, time.time(), "10.0.0.9", "query")
        until(lambda: outside.execute("SELECT 1 FROM policies_keyusage WHERE key_id = %s", [key_id]).fetchone())
        ip, queried = outside.execute(
            "SELECT host(last_ip), last_query_at FROM policies_keyusage WHERE key_id = %s", [key_id]
        ).fetchone()
        assert ip == "10.0.0.9" and queried is not None
        assert loading.revisions(outside) == revisions


def test_a_use_outlives_the_connection_it_could_not_be_written_on(dsn, add_key, outside, monkeypatch):
    monkeypatch.setattr(snapshot, "USAGE_SECONDS", 0.2)
    statement = snapshot.USAGE
    # as when the server goes away in the middle
    monkeypatch.setattr(snapshot, "USAGE", "SELECT pg_terminate_backend(pg_backend_pid())")
    with holding(dsn) as holder:
        key_id, text = add_key()
        until(lambda: lets_in(holder, text))
        holder.current.authenticate(text, time.time(), "10.0.0.9", "bearer")
        until(lambda: "database" in holder.alarms)
        monkeypatch.setattr(snapshot, "USAGE", statement)
        until(lambda: outside.execute("SELECT 1 FROM policies_keyusage WHERE key_id = %s", [key_id]).fetchone())


def test_keys_whose_pepper_is_gone_raise_an_alarm(dsn, add_key):
    add_key()
    holder = SnapshotHolder(dsn, peppers={7: b"other" * 8})
    holder.load_once()
    assert "no pepper for 1 live keys" in holder.alarms["peppers"]


def test_readers_never_see_half_a_snapshot(dsn, add_key):
    """Readers take one reference; whatever they take is whole."""
    stop, wrong = threading.Event(), []

    def read(holder):
        while not stop.is_set():
            current = holder.current
            if current.policy.version != current.version:
                wrong.append(current)

    with holding(dsn) as holder:
        readers = [threading.Thread(target=read, args=(holder,)) for _ in range(2)]
        for reader in readers:
            reader.start()
        for _ in range(5):
            add_key()
            time.sleep(0.02)
        stop.set()
        for reader in readers:
            reader.join()
    assert not wrong


def test_a_policy_that_never_compiled_gives_no_snapshot(dsn, monkeypatch):
    def refuse(spec):
        raise PolicyError("rule 1: no")

    monkeypatch.setattr(snapshot, "PolicySet", refuse)
    holder = SnapshotHolder(dsn, peppers=PEPPERS)
    with pytest.raises(RuntimeError, match="rule 1: no"):
        holder.load_once()
