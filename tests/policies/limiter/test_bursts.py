"""Bursts of 500 over four workers, again and again, with what can go wrong meanwhile: never one above the limit.

SENTINEL_TEST_BURSTS=100 is the whole proof.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.policies.limiter.test_redis import Server, server  # noqa: F401 - a fixture
from tests.policies.limiter.test_shared import Worker, workers  # noqa: F401 - a fixture

pytestmark = pytest.mark.timeout(1800)

BURSTS = int(os.environ.get("SENTINEL_TEST_BURSTS", "6"))
LIMIT, SECONDS, EACH = 120, 600, 125
#: what a call may wait when its table's lock or its Redis is hung: far above what is promised, for busy machines
PATIENCE = 5.0


def run(start: Callable[[], Worker], disturb: Callable[[list[Worker], int], set[int]]) -> Counter[str]:
    """Let four workers ask 125 times at once in each burst; `disturb` may do harm, and says which workers it ended."""
    four = [start() for _ in range(4)]
    total: Counter[str] = Counter()
    for burst in range(BURSTS):
        for worker in four:
            worker.go(f"bucket{burst} {EACH}")
        ended = disturb(four, burst)
        seen: Counter[str] = Counter()
        for at, worker in enumerate(four):
            if at in ended:
                with contextlib.suppress(ValueError):  # it may have got as far as to answer
                    seen.update(worker.result())
                four[at] = start()
                continue
            seen.update(told := worker.result())
            assert told["slowest"] < PATIENCE
            assert told.get("admitted", 0) + told.get("rate_limited", 0) + told.get("limiter_unavailable", 0) == EACH
        assert seen["admitted"] <= LIMIT, (burst, seen)
        if not ended and not seen["limiter_unavailable"]:
            assert seen["admitted"] == LIMIT, (burst, seen)
            total["exact"] += 1
        total["admitted"] += seen["admitted"]
        total["unavailable"] += seen["limiter_unavailable"]
    print(f"{BURSTS} bursts of {4 * EACH}: {dict(total)}")
    return total


def test_a_shared_file_whose_askers_are_killed(tmp_path: Path, workers: Any) -> None:  # noqa: F811
    def disturb(four: list[Worker], burst: int) -> set[int]:
        if burst % 3 != 2:
            return set()
        time.sleep(0.002 * (burst % 7))
        four[0].process.send_signal(signal.SIGKILL)
        four[0].process.wait()
        return {0}

    total = run(lambda: workers("bursts", tmp_path, LIMIT, SECONDS), disturb)
    assert total["exact"] >= BURSTS // 2


def test_a_redis_that_hangs_and_dies(server: Server, workers: Any) -> None:  # noqa: F811
    def disturb(four: list[Worker], burst: int) -> set[int]:
        if burst % 3 == 1:
            server.signal(signal.SIGSTOP)
            time.sleep(1.5)
            server.signal(signal.SIGCONT)
            time.sleep(1.5)  # left alone for a moment after a failure
        elif burst % 3 == 2:  # what it had counted is gone with it, so it comes back only after the burst
            server.signal(signal.SIGKILL)
            server.process.wait()
            time.sleep(0.3)
            for worker in four:
                worker.go(f"dead{burst} 5")
            for worker in four:
                first, second = worker.result(), worker.result()
                assert second.get("admitted", 0) == 0, "let in without a count"
                held.append(first.get("admitted", 0))
            assert sum(held[-4:]) <= LIMIT
            server.start()
            time.sleep(1.5)  # left alone for a moment after a failure
            for worker in four:
                worker.go(f"again{burst} {EACH}")
        return set()

    held: list[int] = []
    total = run(lambda: workers("bursts", server.url, LIMIT, SECONDS), disturb)
    assert total["exact"] > 0 and len(held) == 4 * (BURSTS // 3)
