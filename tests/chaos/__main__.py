"""`python -m tests.chaos [--short] [SCENARIO ...]`: run the scenarios and print the table for docs/reliability.md."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

from tests.chaos import scenarios, traced
from tests.chaos.scenarios import Result


def plan(short: bool) -> dict[str, Callable[[], Awaitable[Result]]]:
    """Give the scenarios by name, in their long or short form."""
    kills, away, full, flood = (12, 5.0, 3.0, 5.0) if short else (200, 60.0, 20.0, 30.0)
    return {
        "kills": lambda: scenarios.kills(kills),
        "killed": lambda: scenarios.postgres("killed", away),
        "stopped": lambda: scenarios.postgres("stopped", away),
        "cut": lambda: scenarios.postgres("cut", away / 2),
        "full": lambda: scenarios.full_disk(full),
        "lost": scenarios.lost_disk,
        "backup": lambda: scenarios.backup(full / 2),
        "clock": lambda: scenarios.clock(full),
        "flood": lambda: scenarios.flood(flood),
        "trace": traced.sync_before_send,
    }


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("scenarios", nargs="*", help=f"some of {', '.join(plan(True))} (all)")
    parser.add_argument("--short", action="store_true", help="seconds instead of minutes")
    options = parser.parse_args()
    known = plan(options.short)
    results: list[Result] = []
    for name in options.scenarios or known:
        begun = time.monotonic()
        result = asyncio.run(known[name]())  # type: ignore[arg-type]
        results.append(result)
        figures = ", ".join(f"{key} {value}" for key, value in result.figures.items())
        print(
            f"{'ok    ' if result.ok else 'FAILED'} {result.name} ({time.monotonic() - begun:.0f} s): {figures}",
            flush=True,
        )
        for problem in result.problems:
            print(f"       {problem[:1000]}", flush=True)
    print("\n| scenario | figures | |\n|---|---|---|")
    for result in results:
        figures = ", ".join(f"{key} {value}" for key, value in result.figures.items())
        print(f"| {result.name} | {figures} | {'ok' if result.ok else 'FAILED'} |")
    return 0 if all(result.ok for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
