"""Limits across real processes: bursts, killed and stopped holders of the lock, restarts, reboots."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from policies.engine.limits import LimitRef
from policies.limiter import shared
from policies.limiter.limiter import MOST_NAMES, LimitAnswer, Limiter, build_limiter
from policies.limiter.shared import LocalTable, Locked, SharedTable
from policies.limiter.table import Window, table_bytes
from policies.specs import LimitSpec

SECOND = 1_000_000_000
ROOT = Path(__file__).resolve().parents[3]


class Worker:
    """A process of tests.policies.limiter_worker."""

    def __init__(self, *args: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.policies.limiter.worker", *map(str, args)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self, line: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def result(self) -> Any:
        return json.loads(self.line())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture
def workers() -> Iterator[Any]:
    started: list[Worker] = []

    def start(*args: object) -> Worker:
        started.append(Worker(*args))
        return started[-1]

    yield start
    for worker in started:
        worker.close()


def limit(requests: int, seconds: int, bucket: bytes = b"b", burst: int | None = None) -> LimitRef:
    return LimitRef(bucket, LimitSpec(requests, seconds, burst=burst))


def test_bursts_of_500_over_four_processes_never_let_one_too_many_in(tmp_path: Path, workers: Any) -> None:
    four = [workers("shared", tmp_path, 120, 60, 500) for _ in range(4)]
    for worker in four:
        worker.go()
    assert sum(worker.result()["admitted"] for worker in four) == 120


def test_no_window_of_any_place_holds_too_many(tmp_path: Path, workers: Any) -> None:
    four = [workers("hammer", tmp_path, 50, 1, 3) for _ in range(4)]
    for worker in four:
        worker.go()
    results = [worker.result() for worker in four]
    times = sorted(at for result in results for at in result["admitted"])
    assert sum(result["asked"] for result in results) > 1000
    assert len(times) > 120  # and places do come back
    for first, last in zip(times, times[50:], strict=False):
        assert last - first >= SECOND


def test_a_killed_holder_frees_its_lock(tmp_path: Path, workers: Any) -> None:
    worker = workers("stall", tmp_path)
    table = SharedTable(tmp_path)
    worker.go()
    assert worker.line() == "inside"
    window = Window(b"stall", 2, 60 * SECOND)
    with pytest.raises(Locked):
        table.decide_now([window])
    worker.process.send_signal(signal.SIGKILL)
    worker.process.wait()
    # what the killed one had consumed stays consumed
    assert [table.decide_now([window])[0].allowed for _ in range(2)] == [True, False]


async def test_a_stopped_holder_does_not_stop_the_others(tmp_path: Path, workers: Any) -> None:
    worker = workers("stall", tmp_path)
    limiter = Limiter(SharedTable(tmp_path))
    worker.go()
    assert worker.line() == "inside"
    worker.process.send_signal(signal.SIGSTOP)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticking = asyncio.create_task(tick())
    since = time.monotonic()
    admission = await limiter.admit([limit(5, 60)])
    assert (admission.allowed, admission.reason) == (False, "limiter_unavailable")
    assert time.monotonic() - since < 5
    assert ticks > 5  # the loop went on while this one waited
    since = time.monotonic()
    assert not (await limiter.admit([limit(5, 60)])).allowed
    assert time.monotonic() - since < 0.5  # and the next one did not wait
    assert limiter.alarm
    ticking.cancel()
    worker.process.send_signal(signal.SIGKILL)
    worker.process.wait()
    assert (await limiter.admit([limit(5, 60)])).allowed
    assert limiter.alarm == ""


async def test_what_was_counted_survives_a_restart(tmp_path: Path) -> None:
    first = SharedTable(tmp_path)
    window = Window(b"b", 3, 60 * SECOND)
    for _ in range(2):
        assert first.decide_now([window])[0].allowed
    await first.close()
    second = SharedTable(tmp_path)
    assert [second.decide_now([window])[0].allowed for _ in range(2)] == [True, False]
    await second.close()


@pytest.mark.parametrize(("away", "allowed"), [(100, False), (3500, False), (3700, True), (-500, False)])
async def test_a_reboot_goes_on_where_the_last_boot_stopped(tmp_path: Path, away: int, allowed: bool) -> None:
    window = Window(b"b", 1, 3600 * SECOND)
    clock = {"boot": 50_000 * SECOND, "wall": 1_700_000_000 * SECOND, "id": 1}

    def opened() -> SharedTable:
        return SharedTable(
            tmp_path,
            boot_clock=lambda: clock["boot"],
            wall_clock=lambda: clock["wall"],
            boot_id=lambda: clock["id"],
        )

    table = opened()
    assert table.decide_now([window])[0].allowed
    before = table.now()
    await table.close()
    clock.update(boot=20 * SECOND, wall=clock["wall"] + away * SECOND, id=2)
    table = opened()
    assert table.now() >= before
    assert table.decide_now([window])[0].allowed == allowed
    await table.close()


async def test_a_wall_clock_that_jumps_changes_nothing(tmp_path: Path) -> None:
    wall = {"now": 1_700_000_000 * SECOND}
    table = SharedTable(tmp_path, wall_clock=lambda: wall["now"])
    window = Window(b"b", 1, 60 * SECOND)
    assert table.decide_now([window])[0].allowed
    for jump in (86_400, -86_400 * 365):
        wall["now"] += jump * SECOND
        assert not table.decide_now([window])[0].allowed
    await table.close()


@pytest.mark.parametrize("wreck", [b"", b"x", b"x" * 1_000_000, bytes(table_bytes(64))])
async def test_a_wrecked_file_is_made_anew(tmp_path: Path, wreck: bytes) -> None:
    (tmp_path / "windows.v1").write_bytes(wreck)
    table = SharedTable(tmp_path, 64)
    assert table.decide_now([Window(b"b", 1, SECOND)])[0].allowed
    await table.close()
    assert (tmp_path / "windows.v1").stat().st_size == table_bytes(64)


async def test_a_file_of_another_size_keeps_its_size(tmp_path: Path) -> None:
    await SharedTable(tmp_path, 64).close()
    table = SharedTable(tmp_path, 128)
    assert table.decide_now([Window(b"b", 1, SECOND)])[0].allowed
    await table.close()
    assert (tmp_path / "windows.v1").stat().st_size == table_bytes(64)


def test_nobody_else_can_read_the_file(tmp_path: Path) -> None:
    with SharedTable(tmp_path / "deep" / "limiter") as table:
        assert table.path.stat().st_mode & 0o777 == 0o600
        assert table.path.parent.stat().st_mode & 0o777 == 0o700
        assert table.path.stat().st_size == table_bytes(shared.SLOTS) < 20 << 20


def test_threads_of_one_process(tmp_path: Path) -> None:
    table = SharedTable(tmp_path, 64)
    window = Window(b"b", 100, 60 * SECOND)
    admitted: list[bool] = []

    def ask() -> None:
        for _ in range(100):
            admitted.append(table.decide_now([window])[0].allowed)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert admitted.count(True) == 100


def test_a_forked_child_locks_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = SharedTable(tmp_path, 64)
    file = table._file
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert table.decide_now([Window(b"b", 1, SECOND)])[0].allowed
    assert table._file != file


# --- the limiter over it


async def test_admissions_say_what_is_full_and_when(tmp_path: Path) -> None:
    limiter = Limiter.open(tmp_path)
    wide, tight = limit(10, 60, b"wide"), limit(2, 30, b"tight")
    first = await limiter.admit([wide, tight])
    assert first == LimitAnswer(True, "", 0.0, 2, 1, tight)
    assert (await limiter.admit([wide, tight])).remaining == 0
    third = await limiter.admit([wide, tight])
    assert (third.allowed, third.reason, third.which) == (False, "rate_limited", tight)
    assert 29 < third.retry_after <= 30.5
    assert dict(third.headers)[b"ratelimit-limit"] == b"2"
    assert int(dict(third.headers)[b"ratelimit-reset"]) >= third.retry_after
    # the refused call took nothing from the wide one
    assert (await limiter.admit([wide])).remaining == 7
    assert (await limiter.admit([])).allowed
    await limiter.close()


async def test_how_many_at_once() -> None:
    now = [10**15]
    limiter = Limiter(LocalTable(64, clock=lambda: now[0]))
    ref = limit(12, 60, burst=3)  # 3 in any 15 seconds, 12 in any 60
    times = []
    for _ in range(600):
        if (await limiter.admit([ref])).allowed:
            times.append(now[0])
        now[0] += SECOND // 4
    for first, last in zip(times, times[3:], strict=False):
        assert last - first >= 15 * SECOND
    assert len(times) >= 24


async def test_limits_by_name(tmp_path: Path) -> None:
    class Config:
        var, redis_url, limiter_fail, limiter_timeout = tmp_path, "", "closed", 0.005

    limiter = build_limiter(Config)
    assert (await limiter.admit([limit(1, 60)])).allowed
    await limiter.close()
    assert (tmp_path / "limiter" / "windows.v1").exists()


async def test_one_key_cannot_fill_the_table_with_names(tmp_path: Path) -> None:
    """Whoever makes up names has so many of them; others are counted as before, the same key's known names too."""
    limiter = Limiter(SharedTable(tmp_path))
    counted = [0, 0]
    for number in range(3 * MOST_NAMES):
        ref = replace(limit(5, 3600, b"tool %d" % number, burst=2 if number % 2 else None), namer=b"mcps_loud")
        admission = await limiter.admit([ref])
        counted[admission.allowed] += 1
        assert admission.reason in ("", "rate_limited"), admission
    assert counted == [2 * MOST_NAMES, MOST_NAMES]
    assert admission.retry_after > 0
    again = replace(limit(5, 3600, b"tool 0"), namer=b"mcps_loud")
    assert (await limiter.admit([again])).allowed
    for number in range(200):
        ref = replace(limit(5, 3600, b"other %d" % number), namer=b"mcps_quiet")
        assert (await limiter.admit([ref])).allowed
    assert not limiter.alarm
    await limiter.close()


def test_what_makes_no_new_name_needs_no_place_among_names() -> None:
    table = LocalTable(64)
    names = Window(b"names", 2, 60 * SECOND, makes=1)

    def admitted(bucket: bytes) -> bool:
        return table.decide_now([Window(bucket, 3, 60 * SECOND), names])[0].allowed

    assert [admitted(b) for b in (b"a", b"b", b"c", b"a", b"a", b"a", b"b")] == [
        True,
        True,
        False,
        True,
        True,
        False,
        True,
    ]


async def test_an_alarm_ends_by_itself_when_nobody_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever raised it, and again after another failure; a success ends it at once."""
    clock = [1000.0]
    monkeypatch.setattr("policies.limiter.limiter.time.monotonic", lambda: clock[0])
    limiter = Limiter.local()
    for failure in ("limits cannot be checked: x", "the table of limits is full"):
        limiter._raise_alarm(failure)
        clock[0] += 59
        assert limiter.alarm == failure
        limiter._raise_alarm(failure)
        clock[0] += 59
        assert limiter.alarm == failure
        clock[0] += 2
        assert limiter.alarm == ""
    limiter._raise_alarm("x")
    limiter._raise_alarm("")
    assert limiter.alarm == ""
