"""What Prometheus is told, added up over all workers; no label comes from a text that a caller chooses.

Workers count in files below SENTINEL_VAR/metrics (see counters.py), so that whichever worker is asked answers for all, and
a killed one's counts stay. What is a state rather than a count is read when it is asked for.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from audit.events.tool_errors import said
from sentinel.observability.counters import Key, Tally, read

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
    "tool_errors": "Answers in which the tool or the upstream itself said that it failed.",
    "gateway_seconds": "Time a request spent in the gateway itself, without its upstream.",
    "upstream_seconds": "Time a request waited for its upstream.",
    "http_refused": "Connections cut off because their bytes were no HTTP request, or came or were read too slowly.",
    "limiter_decisions": "Decisions about rate limits: where the windows were counted, and what was decided.",
    "open_streams": "Streams open to clients.",
    "connections": "Connections of clients that are open.",
    "requests_in_flight": "Requests that have arrived and whose outcome is not recorded yet.",
    "snapshot_age_seconds": "Time since keys and policies were last confirmed with the database; the oldest worker's.",
    "policy_version": "Version of the policy that is applied; the oldest worker's.",
    "journal_failing": "Workers whose journal's disk refuses what they write.",
    "unrecorded_events": "Requests served without a record since each worker began (best-effort mode only).",
    "limiter_alarm": "Workers that cannot count rate limits where they should.",
    "limiter_backend": "Workers by where they count rate limits now: redis, machine (a file that workers share) or process.",
    "upstream_in_flight": "Calls that wait for the first byte of an upstream's answer.",
    "upstream_circuit_open": "Workers that have stopped trying an upstream for a moment, because waiting for it was in vain.",
    "worker_up": "Workers that have reported within the last 15 seconds.",
}
LABELS = {
    "requests": ("outcome", "reason", "upstream", "method"),
    "tool_errors": ("upstream", "method"),
    "gateway_seconds": ("upstream",),
    "upstream_seconds": ("upstream",),
    "http_refused": ("reason",),
    "limiter_decisions": ("backend", "result"),
}
COUNTERS = ("requests", "tool_errors", "http_refused", "limiter_decisions")
HISTOGRAMS = ("gateway_seconds", "upstream_seconds")


class ReportedState(NamedTuple):
    """One thing that workers report anew every few seconds, and how theirs make one number."""

    together: Callable[[Iterable[int]], int] = sum
    labels: tuple[str, ...] = ()
    scale: int = 1  # what is kept is a whole number: so many of the metric's unit


STATES = {
    "open_streams": ReportedState(),
    "connections": ReportedState(),
    "requests_in_flight": ReportedState(),
    "snapshot_age_seconds": ReportedState(max, scale=1000),
    "policy_version": ReportedState(min),
    "journal_failing": ReportedState(),
    "unrecorded_events": ReportedState(),
    "limiter_alarm": ReportedState(),
    "limiter_backend": ReportedState(labels=("backend",)),
    "upstream_in_flight": ReportedState(labels=("upstream",)),
    "upstream_circuit_open": ReportedState(labels=("upstream",)),
}
SEEN = ("worker_seen",)


def states_of(gateway: Any) -> dict[Key, int]:
    """Read the present state of this worker's gateway."""
    snapshot, journal = gateway.snapshot, gateway.logger.journal
    states: dict[Key, int] = {
        ("open_streams",): gateway.stream_count,
        ("requests_in_flight",): len(gateway.calls),
        # Without end as long as nothing has been read yet.
        ("snapshot_age_seconds",): int(min(gateway.holder.confirmed_age(), 1e9) * 1000),
        ("policy_version",): getattr(snapshot, "version", 0) or 0,
        ("journal_failing",): int(journal is not None and journal.failing),
        ("unrecorded_events",): gateway.logger.lost,
        ("limiter_alarm",): int(bool(gateway.limiter.alarm)),
        ("limiter_backend", gateway.limiter.backend): 1,
    }
    for slug, guard in gateway.registry.guards().items():
        states["upstream_in_flight", slug] = guard.waiting
        states["upstream_circuit_open", slug] = int(guard.open)
    return states


class Worker:
    """What one worker reports."""

    def __init__(self, folder: Path, name: str) -> None:
        self.tally = Tally(folder, name)
        self._refused: dict[str, int] = {}
        self._reported: set[Key] = set()
        # What a killed worker of this name last said of its state is not this one's.
        for key in self.tally.keys():
            if key == SEEN or key[0] in STATES:
                self.tally.set(key, 0)

    def observe(
        self,
        *,
        outcome: str,
        reason: str,
        upstream: str,
        method: str,
        total_us: int,
        upstream_us: int,
        failed: bool = False,
    ) -> None:
        """Count one finished request; `upstream` must be the name of one that exists, or nothing."""
        if method not in METHODS:
            method = "other" if method else ""
        tally = self.tally
        tally.add(("requests", outcome, reason, upstream, method))
        if failed:
            tally.add(("tool_errors", upstream, method))
        tally.observe(("gateway_seconds", upstream), max(0, total_us - upstream_us), BOUNDS)
        if upstream_us > 0:
            tally.observe(("upstream_seconds", upstream), upstream_us, BOUNDS)

    def observe_call(self, call: Any) -> None:
        upstream_us = int(getattr(call, "upstream_ns", 0)) // 1000
        total_us = (time.perf_counter_ns() - call.started_ns) // 1000
        self.observe(
            outcome=call.outcome,
            reason=call.reason,
            upstream=call.slug if call.spec is not None else "",
            method=call.message.method if call.message is not None else "",
            total_us=total_us,
            upstream_us=upstream_us,
            failed=call.brought_failure or said(call.details),
        )

    def observe_limit(self, backend: str, result: str) -> None:
        self.tally.add(("limiter_decisions", backend, result))

    def report(self, states: Mapping[Key, int], refused: Mapping[str, int]) -> None:
        """Report what is a state, and how many connections this process has cut off; to be called every few seconds."""
        for key in self._reported - states.keys():
            self.tally.set(key, 0)  # an upstream that is gone, a limiter that counts elsewhere
        self._reported = set(states)
        for key, value in states.items():
            self.tally.set(key, value)
        self.tally.set(SEEN, int(time.time()))
        for reason, count in refused.items():
            more = count - self._refused.get(reason, 0)
            if more:
                self.tally.add(("http_refused", reason), more)
                self._refused[reason] = count

    def close(self) -> None:
        """Say that this worker is gone, and let go of the files."""
        self.tally.set(SEEN, 0)
        self.tally.close()


class Workers(Collector):
    """Adds up what the workers have counted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """Give every family."""
        sums: dict[Key, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        states: dict[str, dict[Key, int]] = defaultdict(dict)
        for process, key, offset, number in read(self._folder):
            if key[0] in LABELS:
                sums[key][offset] += number
            else:
                states[process][key] = number
        for name in COUNTERS:
            family = CounterMetricFamily(f"sentinel_{name}", HELP[name], labels=LABELS[name])
            for key, cells in sorted(sums.items()):
                if key[0] == name:
                    family.add_metric(key[1:], cells[0])
            yield family
        for name in HISTOGRAMS:
            histogram = HistogramMetricFamily(f"sentinel_{name}", HELP[name], labels=LABELS[name])
            for key, cells in sorted(sums.items()):
                if key[0] == name:
                    histogram.add_metric(key[1:], list(_buckets(cells)), cells[len(BOUNDS) + 1] / 1e6)
            yield histogram
        live = [state for state in states.values() if state.get(SEEN, 0) > time.time() - 15]
        yield GaugeMetricFamily("sentinel_worker_up", HELP["worker_up"], value=len(live))
        for name, how in STATES.items():
            told: dict[Key, list[int]] = defaultdict(list)
            for state in live:
                for key, number in state.items():
                    if key[0] == name:
                        told[key].append(number)
            gauge = GaugeMetricFamily(f"sentinel_{name}", HELP[name], labels=how.labels)
            for key, numbers in sorted(told.items()):
                gauge.add_metric(key[1:], how.together(numbers) / how.scale)
            yield gauge


def scrape(folder: Path, *collectors: Collector) -> bytes:
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
