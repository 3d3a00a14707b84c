"""What rules cost: reading, compiling, memory, and a decision among ten to ten thousand of them.

python -m bench.policy
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
import tracemalloc

from policies.documents.reader import parse
from policies.engine.compiled import PolicySet
from policies.engine.decide import decide
from policies.engine.types import Context, Principal, Target
from policies.specs import numbered

SIZES = (10, 100, 1_000, 10_000)
RULE = """\
  - name: rule {0}
    effect: {1}
    roles: [r{2}]
    tool: tool_{0}_*
    upstreams: [up{3}]
    when:
      - {{argument: amount, le: {0}}}
      - {{argument: currency, in: [EUR, USD]}}
    reason: "Because of {0}."
"""
# What the measured call meets, whatever else there is.
ASKED = """\
  - {name: asked, effect: allow, roles: [r0], tool: refund, when: [{argument: amount, le: 100}, {argument: currency, in: [EUR]}]}
  - {name: asked too, effect: deny, roles: "*", tool: "ref*", when: [{argument: amount, eq: 5}]}
"""


def document(rules: int) -> str:
    """A policy of so many rules, two of which concern the tool that is asked for."""
    more = (RULE.format(n, "allow" if n % 3 else "deny", n % 4, n % 50) for n in range(1, rules - 1))
    return "roles: {r0: {}, r1: {}, r2: {}, r3: {}}\nrules:\n" + ASKED + "".join(more)


def quantiles(times: list[int]) -> tuple[float, float]:
    """The median and the 99th percentile, in microseconds."""
    cut = statistics.quantiles(times, n=100)
    return cut[49] / 1000, cut[98] / 1000


def decisions(policy: PolicySet, calls: int, *, fresh: bool) -> tuple[float, float]:
    """The cost of a decision; `fresh` asks for another name each time, so that its rules must be looked up."""
    principal, context = Principal(None, "k", "mcps_live_AAAAAAAAAAAA", "r0"), Context(time.time(), "127.0.0.1")
    times = []
    for at in range(calls):
        name = f"ref{at}" if fresh else "refund"
        target = Target("tool", "up1", name, {"amount": 50, "currency": "EUR"})
        begun = time.perf_counter_ns()
        decide(policy, principal, target, context)
        times.append(time.perf_counter_ns() - begun)
    return quantiles(times)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="What rules cost.")
    parser.add_argument("--calls", type=int, default=20_000)
    options = parser.parse_args()
    print("| rules | read s | compiled s | MB kept | decision p50 us | p99 us | new name p50 us | p99 us |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|")
    for size in SIZES:
        text = document(size)
        gc.collect()
        begun = time.process_time()
        spec = numbered(parse(text).spec)
        read = time.process_time() - begun
        begun = time.process_time()
        policy = PolicySet(spec)
        built = time.process_time() - begun
        known, fresh = decisions(policy, options.calls, fresh=False), decisions(policy, options.calls, fresh=True)
        del spec, policy
        tracemalloc.start()
        kept = PolicySet(numbered(parse(text).spec))
        gc.collect()
        memory = tracemalloc.get_traced_memory()[0] / 1e6
        tracemalloc.stop()
        del kept
        row = (f"{size:,}", f"{read:.3f}", f"{built:.3f}", f"{memory:.1f}", *(f"{us:.1f}" for us in (*known, *fresh)))
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
