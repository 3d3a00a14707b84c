from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from core.conf.settings import PROJECT
from sentinel.observability import counters
from sentinel.observability.counters import Tally

BOUNDS = (10, 100, 1000)


def total(folder: Path, *key: str) -> int:
    return sum(number for _, found, offset, number in counters.read(folder) if found == key and offset == 0)


def test_counts_of_several_processes_add_up(tmp_path: Path) -> None:
    first, second = Tally(tmp_path, "worker-1"), Tally(tmp_path, "worker-2")
    first.add(("requests", "allowed"), 3)
    second.add(("requests", "allowed"), 4)
    second.add(("requests", "denied"))
    assert total(tmp_path, "requests", "allowed") == 7
    assert total(tmp_path, "requests", "denied") == 1
    first.close()
    second.close()


def test_a_successor_counts_on(tmp_path: Path) -> None:
    first = Tally(tmp_path, "worker-1")
    first.add(("a",), 5)
    first.observe(("h",), 50, BOUNDS)
    first.close()
    second = Tally(tmp_path, "worker-1")
    second.add(("b",), 1)
    second.add(("a",), 1)
    second.observe(("h",), 50, BOUNDS)
    assert total(tmp_path, "a") == 6
    assert total(tmp_path, "b") == 1
    cells = {offset: number for _, key, offset, number in counters.read(tmp_path) if key == ("h",)}
    assert cells == {0: 0, 1: 2, 2: 0, 3: 0, 4: 100}
    second.close()


def test_durations_fall_into_their_buckets(tmp_path: Path) -> None:
    counts = Tally(tmp_path, "w")
    for value in (0, 10, 11, 100, 1000, 1001, 10**12, -5):
        counts.observe(("h",), value, BOUNDS)
    cells = [number for _, _, _, number in counters.read(tmp_path)]
    assert cells[:4] == [3, 2, 1, 2]
    counts.close()


def test_a_kill_loses_nothing(tmp_path: Path) -> None:
    code = (
        f"import sys; from pathlib import Path; from sentinel.observability.counters import Tally\n"
        f"t = Tally(Path({str(tmp_path)!r}), 'w')\n"
        f"for n in range(1000): t.add(('n',))\n"
        f"print('counted', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROJECT)
    assert process.stdout is not None and process.stdin is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    process.stdin.close()
    assert total(tmp_path, "n") == 1000


def test_a_name_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    counts = Tally(tmp_path, "w")
    counts.add(("a",))
    counts.close()
    with (tmp_path / "w.names").open("a") as file:
        file.write('[1, "cut of')
    assert total(tmp_path, "a") == 1


def test_labels_without_end_are_bounded(tmp_path: Path) -> None:
    counts = Tally(tmp_path, "w")
    for number in range(counters.CELLS + 100):
        counts.add(("n", str(number)))
    assert (tmp_path / "w.cells").stat().st_size == counters.CELLS * 8
    counts.close()


def test_counting_is_cheap(tmp_path: Path) -> None:
    counts = Tally(tmp_path, "w")
    key = ("requests", "allowed", "allowed_by_rule", "demo", "tools/call")
    begun = time.perf_counter()
    for _ in range(20_000):
        counts.add(key)
    assert (
        time.perf_counter() - begun
    ) / 20_000 < 10e-6  # 0.4 us on an idle machine; a bound that says "not a file write"
    counts.close()
