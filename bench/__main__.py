"""`make bench`: the same tools/call direct, through nginx, and through the gateway with everything on, in turns."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from bench import parts, share
from bench.parts import Sample

FLOOR = 0.08  # of nginx, at concurrency 32
SHARE = 0.5  # of a call's CPU, that the audit may take
BUSY = 0.85  # share of its core that nginx has to get for its throughput to mean anything


def rows(samples: dict[tuple[str, int], list[Sample]], levels: list[int]) -> tuple[list[list[str]], dict[int, float]]:
    """The table, and the gateway's ratio to nginx at each level."""

    def middle(name: str, level: int, field: str) -> float:
        return statistics.median(getattr(sample, field) for sample in samples[name, level])

    def per_core(name: str, level: int) -> float:
        return statistics.median(sample.rate / max(sample.gateway_cpu, 0.001) for sample in samples[name, level])

    table, ratios = [], {}
    for level in levels:
        base = middle("nginx", level, "rate")
        base_per_core = per_core("nginx", level)
        for name in ("direct", "nginx", "sentinel"):
            rate = middle(name, level, "rate")
            spread = [sample.rate for sample in samples[name, level]]
            of_core = per_core(name, level) / base_per_core
            if name == "sentinel":
                # On a core that others use too, throughput says who got the core and not what a call costs.
                ratios[level] = rate / base if middle("nginx", level, "gateway_cpu") >= BUSY else of_core
            table.append(
                [
                    name,
                    str(level),
                    f"{rate:,.0f}",
                    f"{min(spread):,.0f} - {max(spread):,.0f}",
                    f"{middle(name, level, 'p50'):.2f}",
                    f"{middle(name, level, 'p99'):.2f}",
                    f"{rate / base:.3f}",
                    "" if name == "direct" else f"{middle(name, level, 'gateway_cpu'):.2f}",
                    "" if name == "direct" else f"{of_core:.3f}",
                    str(sum(s.other + s.errors + s.unanswered for s in samples[name, level])),
                ]
            )
    return table, ratios


def show(table: list[list[str]]) -> None:
    """Print a table in Markdown."""
    heads = ["", "at once", "calls/s", "least - most", "p50 ms", "p99 ms", "x nginx", "cores", "x nginx/core", "failed"]
    widths = [max(len(row[i]) for row in [heads, *table]) for i in range(len(heads))]
    for row in [heads, ["-" * width for width in widths], *table]:
        cells = (
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("| " + " | ".join(cells) + " |")


def stored(gateway: parts.PinnedGateway, expected: int) -> int:
    """How many calls stand in the log, once the drainer has caught up."""
    count, until = -1, time.monotonic() + 120
    while time.monotonic() < until:
        command = [sys.executable, "manage.py", "audit", "export", "--format", "ndjson"]
        with subprocess.Popen(
            command, cwd=Path(__file__).parent.parent, env=gateway.environment, stdout=subprocess.PIPE
        ) as export:
            assert export.stdout is not None
            fresh = 0
            for line in export.stdout:
                event = json.loads(line)
                fresh += event["method"] == "tools/call" and event["outcome"] == "allowed"
        if fresh == count or fresh >= expected:
            return fresh
        count = fresh
        time.sleep(1)
    return count


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").strip())
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement (3)")
    parser.add_argument("--at-once", default="1,32,128", help="how many calls at once, a list (1,32,128)")
    parser.add_argument("--era", choices=("modern", "legacy"), default="modern", help="revision of the call (modern)")
    parser.add_argument("--json", type=Path, help="write the samples to this file too")
    parser.add_argument("--one-core", action="store_true", help="keep the database on the gateway's core too")
    options = parser.parse_args(argv)
    levels = [int(level) for level in options.at_once.split(",")]
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("the benchmark needs two cores: one for the gateway, one for load and upstream")
    load_core, gateway_core = cores[0], cores[1]
    database_core = gateway_core if options.one_core else load_core
    program = parts.generator()
    body = parts.question(options.era)
    print(
        f"{platform.python_implementation()} {platform.python_version()} on {platform.machine()}, "
        f"{len(body)} bytes in, {len(parts.reply())} bytes out, core {gateway_core} for the gateway, "
        f"core {load_core} for load and upstream, core {database_core} for its database",
        flush=True,
    )
    samples: dict[tuple[str, int], list[Sample]] = {}
    with tempfile.TemporaryDirectory(prefix="sentinel-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        upstream = stack.enter_context(parts.Nginx(folder, "upstream", load_core))
        with (
            parts.Nginx(folder, "proxy", gateway_core, upstream.port) as proxy,
            parts.PinnedGateway(gateway_core, database_core) as gateway,
        ):
            gateway.add_upstream("bench", f"http://127.0.0.1:{upstream.port}/mcp")
            key = gateway.create_key("bench", "admin").key
            time.sleep(1)
            assert gateway.process is not None
            targets = {
                "direct": (upstream.port, "/mcp", "", []),
                "nginx": (proxy.port, "/mcp", "", [proxy.process.pid]),
                "sentinel": (gateway.port, "/mcp/bench", key, [gateway.process.pid]),
            }
            for target, (port, path, credential, _) in targets.items():
                (folder / target).write_bytes(parts.head(path, port, len(body), options.era, credential) + body)
            for _ in range(options.rounds):
                for level in levels:
                    for target, (port, _, _, processes) in targets.items():
                        sample = parts.measure(
                            program, port, folder / target, level, options.seconds, load_core, processes
                        )
                        samples.setdefault((target, level), []).append(sample)
            answered = sum(s.answered for (target, _), found in samples.items() if target == "sentinel" for s in found)
            events = stored(gateway, answered)
        with parts.PinnedGateway(gateway_core, database_core, **share.environment(folder)) as gateway:
            gateway.add_upstream("bench", f"http://127.0.0.1:{upstream.port}/mcp")
            key = gateway.create_key("bench", "admin").key
            time.sleep(1)
            request = folder / "share"
            request.write_bytes(parts.head("/mcp/bench", gateway.port, len(body), options.era, key) + body)
            audit = share.measure(program, gateway, request, load_core, folder, 2 * options.seconds)
    table, ratios = rows(samples, levels)
    show(table)
    failed = sum(s.other + s.errors + s.unanswered for s in (x for found in samples.values() for x in found))
    print(f"calls answered by the gateway: {answered:,}; events stored: {events:,}; failed anywhere: {failed}")
    print(
        f"the audit's share of the CPU of worker and drainer: {audit[0]:.0%} (the journal's threads {audit[1]:.0%},"
        f" the drainer {audit[2]:.0%}); it should stay below {SHARE:.0%}"
    )
    if options.json:
        told = {f"{target} {level}": [vars_of(s) for s in found] for (target, level), found in samples.items()}
        options.json.write_text(json.dumps(told, indent=1))
    good = answered == events and not failed and audit[0] < SHARE
    if any(
        s.gateway_cpu < BUSY
        for (target, level), found in samples.items()
        if target == "nginx" and level > 1
        for s in found
    ):
        print("nginx did not get its core to itself: compared is what a core-second does, and even that only roughly")
    if 32 in ratios:
        print(f"at 32 at once: {ratios[32]:.3f} x nginx (the floor is {FLOOR})")
        good = good and ratios[32] >= FLOOR
    return 0 if good else 1


def vars_of(sample: Sample) -> dict[str, float]:
    """A sample as a dict."""
    return {name: getattr(sample, name) for name in Sample.__slots__}


if __name__ == "__main__":
    sys.exit(main())
