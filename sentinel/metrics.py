"""What Prometheus is told, added up over all workers; no label comes from a text that a caller chooses.

Workers count in files below SENTINEL_VAR/metrics (see tally.py), so that whichever worker is asked answers for all, and
a killed one's counts stay. What is a state rather than a count is read when it is asked for.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from sentinel import http_protocol
from sentinel.tally import Key, Tally, read

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS_MS = (0.5, 1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000)
BOUNDS = tuple(int(bound * 1000) for bound in BOUNDS_MS)
METHODS = frozenset(
    "initialize ping server/discover tools/list tools/call prompts/list prompts/get resources/list resources/read"
    " resources/templates/list resources/subscribe resources/unsubscribe completion/complete logging/setLevel"
    " subscriptions/listen tasks/get tasks/list tasks/result tasks/cancel notifications/initialized"
    " notifications/cancelled notifications/progress notifications/roots/list_changed".split()
)

HELP = {
    "requests": "Requests to the gateway, by how they ended.",
    "gateway_seconds": "Time a request spent in the gateway itself, without its upstream.",
    "upstream_seconds": "Time a request waited for its upstream.",
    "http_refused": "Connections cut off because their bytes were no HTTP request, or came or were read too slowly.",
    "open_streams": "Streams open to clients.",
    "snapshot_age_seconds": "Time since keys and policies were last confirmed with the database; the oldest worker's.",
    "policy_version": "Version of the policy that is applied; the oldest worker's.",
    "worker_up": "Workers that have reported within the last 15 seconds.",
}
LABELS = {
    "requests": ("outcome", "reason", "upstream", "method"),
    "gateway_seconds": ("upstream",),
    "upstream_seconds": ("upstream",),
    "http_refused": ("reason",),
}


class Worker:
    """What one worker reports."""

    def __init__(self, folder: Path, name: str) -> None:
        self.tally = Tally(folder, name)
        self._refused: dict[str, int] = {}

    def observe(
        self, *, outcome: str, reason: str, upstream: str, method: str, total_us: int, upstream_us: int
    ) -> None:
        """Count one finished request; `upstream` must be the name of one that exists, or nothing."""
        if method not in METHODS:
            method = "other" if method else ""
        tally = self.tally
        tally.add(("requests", outcome, reason, upstream, method))
        tally.observe(("gateway_seconds", upstream), max(0, total_us - upstream_us), BOUNDS)
        if upstream_us > 0:
            tally.observe(("upstream_seconds", upstream), upstream_us, BOUNDS)

    def observe_call(self, call: Any) -> None:
        """Count one finished call of the gateway."""
        upstream_us = int(getattr(call, "upstream_ns", 0)) // 1000
        total_us = (time.perf_counter_ns() - call.started_ns) // 1000
        self.observe(
            outcome=call.outcome,
            reason=call.reason,
            upstream=call.slug if call.spec is not None else "",
            method=call.message.method if call.message is not None else "",
            total_us=total_us,
            upstream_us=upstream_us,
        )

    def report(self, *, open_streams: int, snapshot_age: float, policy_version: int) -> None:
        """Report what is a state; to be called every few seconds."""
        self.tally.set(("worker_seen",), int(time.time()))
        self.tally.set(("open_streams",), open_streams)
        self.tally.set(("snapshot_age_seconds",), int(snapshot_age * 1000))
        self.tally.set(("policy_version",), policy_version)
        for reason, count in http_protocol.refused.items():
            more = count - self._refused.get(reason, 0)
            if more:
                self.tally.add(("http_refused", reason), more)
                self._refused[reason] = count

    def close(self) -> None:
        """Say that this worker is gone, and let go of the files."""
        self.tally.set(("worker_seen",), 0)
        self.tally.set(("open_streams",), 0)
        self.tally.close()


class Workers(Collector):
    """Adds up what the workers have counted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """Give every family."""
        sums: dict[Key, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        states: dict[str, dict[str, int]] = defaultdict(dict)
        for process, key, offset, number in read(self._folder):
            if key[0] in LABELS:
                sums[key][offset] += number
            else:
                states[process][key[0]] = number
        for name in ("requests", "http_refused"):
            family = CounterMetricFamily(f"sentinel_{name}", HELP[name], labels=LABELS[name])
            for key, cells in sorted(sums.items()):
                if key[0] == name:
                    family.add_metric(key[1:], cells[0])
            yield family
        for name in ("gateway_seconds", "upstream_seconds"):
            histogram = HistogramMetricFamily(f"sentinel_{name}", HELP[name], labels=LABELS[name])
            for key, cells in sorted(sums.items()):
                if key[0] == name:
                    histogram.add_metric(key[1:], list(_buckets(cells)), cells[len(BOUNDS) + 1] / 1e6)
            yield histogram
        live = [state for state in states.values() if state.get("worker_seen", 0) > time.time() - 15]
        yield _gauge("worker_up", len(live))
        yield _gauge("open_streams", sum(state.get("open_streams", 0) for state in live))
        yield _gauge(
            "snapshot_age_seconds", max((state.get("snapshot_age_seconds", 0) for state in live), default=0) / 1000
        )
        yield _gauge("policy_version", min((state.get("policy_version", 0) for state in live), default=0))


class Facts(Collector):
    """States that are read when they are asked for: name, help, function; one that cannot be had is left out."""

    def __init__(self, facts: list[tuple[str, str, Callable[[], float | None]]]) -> None:
        self._facts = facts

    def collect(self) -> Iterator[Metric]:
        """Give every gauge."""
        for name, text, function in self._facts:
            try:
                value = function()
            except OSError:
                continue
            if value is not None:
                yield GaugeMetricFamily(f"sentinel_{name}", text, value=value)


def journal_facts(folder: Path) -> list[tuple[str, str, Callable[[], float | None]]]:
    """Return what the journal's folder tells."""

    def files() -> list[os.stat_result]:
        return [place.stat() for place in folder.rglob("*") if place.is_file()] if folder.exists() else []

    return [
        ("journal_bytes", "Size of the journal on the disk.", lambda: sum(status.st_blocks * 512 for status in files())),
        (
            "journal_free_bytes", "Space left on the journal's disk.",
            lambda: (space := os.statvfs(folder)).f_bavail * space.f_frsize,
        ),
    ]  # fmt: skip


def scrape(folder: Path, *collectors: Collector) -> bytes:
    """Write the exposition."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Workers(folder))
    for collector in collectors:
        registry.register(collector)
    return generate_latest(registry)


def _buckets(cells: dict[int, int]) -> Iterator[tuple[str, float]]:
    below = 0
    for offset, bound in enumerate((*BOUNDS_MS, None)):
        below += cells[offset]
        yield ("+Inf" if bound is None else str(bound / 1000)), below


def _gauge(name: str, value: float) -> Metric:
    return GaugeMetricFamily(f"sentinel_{name}", HELP[name], value=value)
