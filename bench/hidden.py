"""Does time tell what is hidden from what does not exist? Refused calls of both kinds, in turns, through a running gateway.

    python -m bench.hidden [--calls 300]

For each kind of target and era: the two medians, and the z of a rank test (Mann and Whitney); beyond 3 would be a difference.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time

from tests.support.gateway import Gateway
from tests.support.upstream import FakeUpstream

POLICY = "roles: {admin: {allow: ['*']}, nobody: {allow: ['something else']}}\n"
ASKS = {
    "tool": ("tools/call", lambda name: {"name": name}, "get_customer", "got_customer"),
    "prompt": ("prompts/get", lambda name: {"name": name}, "greet", "groot"),
    "resource": ("resources/read", lambda uri: {"uri": uri}, "test://one", "test://eno"),
    "completion": (
        "completion/complete",
        lambda name: {"ref": {"type": "ref/prompt", "name": name}, "argument": {"name": "a", "value": ""}},
        "greet",
        "groot",
    ),
    "subscription": ("resources/subscribe", lambda uri: {"uri": uri}, "test://one", "test://eno"),
}


def rank_z(one: list[float], two: list[float]) -> float:
    """How many standard deviations the sum of ranks is from what chance gives."""
    ranked = sorted([(value, 0) for value in one] + [(value, 1) for value in two])
    ranks = sum(rank for rank, (_, group) in enumerate(ranked, 1) if group == 0)
    n, m = len(one), len(two)
    u = ranks - n * (n + 1) / 2
    return (u - n * m / 2) / (n * m * (n + m + 1) / 12) ** 0.5


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="Does time tell what is hidden from what does not exist?")
    parser.add_argument("--calls", type=int, default=300)
    options = parser.parse_args()
    with FakeUpstream() as fake, Gateway(workers=2) as gateway:
        path = gateway.home / "policy.yaml"
        path.write_text(POLICY)
        made = gateway.commands(
            ["policy", "apply", str(path)],
            ["upstreams", "add", "fake", "--url", fake.url, "--check"],
            ["keys", "create", "n", "--role", "nobody", "--json"],
        )
        time.sleep(1.5)
        print("| target | era | hidden ms | nonexistent ms | z |\n|---|---|--:|--:|--:|")
        for era in ("legacy", "modern"):
            client = gateway.client(json.loads(made[-1])["key"], era=era)
            for kind, (method, params, hidden, absent) in ASKS.items():
                times: dict[str, list[float]] = {hidden: [], absent: []}
                for _ in range(options.calls):
                    for name in random.sample((hidden, absent), 2):
                        begun = time.perf_counter()
                        client.ask(method, params(name))
                        times[name].append((time.perf_counter() - begun) * 1000)
                first, second = times[hidden], times[absent]
                medians = f"{statistics.median(first):.2f} | {statistics.median(second):.2f}"
                print(f"| {kind} | {era} | {medians} | {rank_z(first, second):+.2f} |", flush=True)


if __name__ == "__main__":
    main()
