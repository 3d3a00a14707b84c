"""Ids are UUIDv7, keep their time exactly, and sort as they were made."""

import os
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from core import ids

MICROSECONDS = st.integers(0, (1 << 48) * 1000 - 1)


@given(MICROSECONDS)
def test_the_time_survives_exactly(ts):
    made = ids.uuid7(ts)
    assert ids.ts_of(made) == ts
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert uuid.UUID(str(made)) == made


@given(MICROSECONDS, MICROSECONDS)
def test_order_follows_time(a, b):
    if a < b:
        assert ids.uuid7(a) < ids.uuid7(b)


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 1, 1)))
def test_floor_is_the_smallest_of_its_microsecond(moment):
    moment = moment.replace(tzinfo=UTC)
    floor = ids.uuid7_floor(moment)
    ts = ids.ts_of(floor)
    assert floor <= ids.uuid7(ts)
    if ts:
        assert ids.uuid7(ts - 1) < floor
    assert datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ts) == moment


def test_a_hundred_thousand_are_unique_and_grow():
    made = [ids.uuid7() for _ in range(100_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert {m.version for m in made} == {7}
    assert abs(ids.ts_of(made[-1]) - time.time_ns() // 1000) < 5_000_000


def test_threads_never_share_one():
    made: list[uuid.UUID] = []

    def work():
        made.extend([ids.uuid7() for _ in range(5_000)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(set(made)) == 20_000


def test_a_small_step_back_keeps_order_and_a_large_one_is_believed(monkeypatch):
    now = time.time_ns()
    monkeypatch.setattr(ids, "_last", 0)
    monkeypatch.setattr(ids.time, "time_ns", lambda: now)
    first = ids.uuid7()
    monkeypatch.setattr(ids.time, "time_ns", lambda: now - 200_000_000)
    second = ids.uuid7()
    monkeypatch.setattr(ids.time, "time_ns", lambda: now - 3_600_000_000_000)
    third = ids.uuid7()
    assert second > first > third
    assert ids.ts_of(third) == now // 1000 - 3_600_000_000


def test_an_overflowing_counter_stays_a_uuid7(monkeypatch):
    now = time.time_ns()
    monkeypatch.setattr(ids.time, "time_ns", lambda: now)
    last = ids._time_bits(now // 1000) | ids._RANDOM_BITS
    monkeypatch.setattr(ids, "_last", last)
    made = ids.uuid7()
    assert made.int > last
    assert (made.version, made.variant) == (7, uuid.RFC_4122)


def test_a_forked_child_makes_others(tmp_path):
    ids.uuid7()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, str(ids.uuid7()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert uuid.UUID(os.read(read, 36).decode()) != ids.uuid7()
