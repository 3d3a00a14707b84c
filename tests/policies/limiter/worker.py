"""A process that asks the limiter, for the tests: `python -m tests.policies.limiter.worker MODE PLACE ARGS...`.

It says "ready", waits for a line on its standard input, and prints what it saw as one JSON line.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from policies.engine.limits import LimitRef
from policies.limiter.limiter import Limiter
from policies.limiter.redis import RedisWindows
from policies.limiter.shared import SharedTable
from policies.limiter.table import Window
from policies.specs import LimitSpec

SECOND = 1_000_000_000


def wait() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


async def burst(windows: Any, requests: int, seconds: int, times: int) -> dict[str, Any]:
    """Ask `times` times, 50 at once."""
    window = Window(b"burst", requests, seconds * SECOND)
    admitted = 0
    for _ in range(times // 50):
        verdicts = await asyncio.gather(*(windows.decide([window]) for _ in range(50)))
        admitted += sum(verdict.allowed for verdict, _ in verdicts)
    return {"admitted": admitted}


def hammer(table: SharedTable, requests: int, seconds: int, span: float) -> dict[str, Any]:
    """Ask for a while without a pause; the times at which a place was given."""
    window = Window(b"hammer", requests, seconds * SECOND)
    until = time.monotonic() + span
    admitted = []
    asked = 0
    while time.monotonic() < until:
        verdict, now = table.decide_now([window])
        asked += 1
        if verdict.allowed:
            admitted.append(now)
    return {"admitted": admitted, "asked": asked}


def stall(table: SharedTable) -> None:
    """Take the lock, decide, and never let go."""
    decide = table._table.decide

    def stalled(*args: Any) -> Any:
        verdict = decide(*args)
        print("inside", flush=True)
        time.sleep(60)
        return verdict

    table._table.decide = stalled  # type: ignore[method-assign]
    wait()
    table.decide_now([Window(b"stall", 2, 60 * SECOND)])


async def bursts(limiter: Limiter, requests: int, seconds: int) -> None:
    """For each line "BUCKET TIMES": ask so often at once, as the gateway does; say how it went. Ends with the input."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        bucket, times = line.split()
        ref = LimitRef(bucket.encode(), LimitSpec(requests, seconds))
        waits: list[float] = []
        reasons: Counter[str] = Counter()

        async def ask(ref: LimitRef = ref, waits: list[float] = waits, reasons: Counter[str] = reasons) -> None:
            begun = time.monotonic()
            reasons[(await limiter.admit([ref])).reason or "admitted"] += 1
            waits.append(time.monotonic() - begun)

        await asyncio.gather(*(ask() for _ in range(int(times))))
        print(json.dumps({**reasons, "slowest": max(waits)}), flush=True)


def main() -> None:
    mode, place, *rest = sys.argv[1:]
    numbers = [int(text) for text in rest]
    if mode == "bursts":
        redis = place.startswith("redis:")
        # A second's patience, so that a busy machine is not taken for a dead Redis: what is counted here is who got in.
        limiter = Limiter(RedisWindows(place, timeout=1.0)) if redis else Limiter.open(Path(place))
        print("ready", flush=True)
        asyncio.run(bursts(limiter, *numbers))
    elif mode == "stall":
        stall(SharedTable(Path(place)))
    elif mode == "hammer":
        table = SharedTable(Path(place))
        wait()
        print(json.dumps(hammer(table, *numbers)), flush=True)
    else:
        windows: Any = RedisWindows(place, timeout=2.0) if mode == "redis" else SharedTable(Path(place))
        wait()
        print(json.dumps(asyncio.run(burst(windows, *numbers))), flush=True)


if __name__ == "__main__":
    main()
