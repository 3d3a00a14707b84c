"""What the metrics tell that no worker counts: states of the journal, the drainer and the database, read when asked for."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from audit.drain.drainer import drainer_runs, read_status

Labels = tuple[tuple[str, str], ...]


class Fact(NamedTuple):
    """One number; facts of one name have the same labels, with other values."""

    name: str
    help: str
    value: float
    labels: Labels = ()


class Facts(Collector):
    """Words facts as gauges."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self._facts = list(facts)

    def collect(self) -> Iterator[Metric]:
        """Give every gauge."""
        gauges: dict[str, GaugeMetricFamily] = {}
        for name, text, value, labels in self._facts:
            if name not in gauges:
                gauges[name] = GaugeMetricFamily(f"sentinel_{name}", text, labels=[label for label, _ in labels])
            gauges[name].add_metric([word for _, word in labels], value)
        yield from gauges.values()


def journal_facts(folder: Path) -> Iterator[Fact]:
    """Tell what the journal takes on the disk, and what is left there."""
    size = 0
    for place in folder.rglob("*"):
        with suppress(OSError):  # the drainer removes what it has stored
            size += place.stat().st_blocks * 512
    yield Fact("journal_bytes", "Size of the journal on the disk.", size)
    with suppress(OSError):
        space = os.statvfs(folder)
        yield Fact("journal_free_bytes", "Space left on the journal's disk.", space.f_bavail * space.f_frsize)


def drainer_facts(folder: Path, newest_age: float | None = None) -> Iterator[Fact]:
    """Tell whether the drainer runs and how far it is behind; `newest_age` is that of the newest event stored, in seconds."""
    yield Fact("drainer_up", "Whether the process runs that stores the journal in the database.", drainer_runs(folder))
    status = read_status(folder)
    if not status:
        return
    now = time.time()
    yield Fact(
        "drainer_report_age_seconds",
        "Time since the drainer last said how far it is; one that hangs says nothing.",
        max(0.0, now - status["ts"] / 1e6),
    )
    yield Fact("drainer_waiting", "Whether the database does not take what the drainer has.", status["state"] != "ok")
    yield Fact("journal_backlog_frames", "Records in the journal that are not stored yet.", status["backlog_frames"])
    # The drainer notes since when something has always been waiting. Under steady traffic that is long ago although nothing
    # waits for long; then the newest event stored tells better.
    age = max(0.0, now - status["oldest_ts"] / 1e6) if status["oldest_ts"] else 0.0
    yield Fact(
        "journal_backlog_age_seconds",
        "Time the oldest record has waited to be stored, at most.",
        age if newest_age is None else min(age, newest_age),
    )
    yield Fact(
        "default_partition_events",
        "Events that found no partition of their day; looked at every hour.",
        status["default_rows"],
    )
    yield Fact("partition_alarms", "What the drainer could not do with partitions.", len(status["alarms"]))
