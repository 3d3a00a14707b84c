"""Is every number there? Walks the sequences of every writer and boot, names each hole, and says which are explained.

A number is accounted for when its event is stored, when the call still runs, when its frame waits in quarantine, when its
partition was dropped by age, when a gap event tells of it, or (for a moment) when it is still in a journal that is being
drained. Anything else is a loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg

from audit.drain.partitions import ISLANDS, id_ranges, listed, within
from audit.journal.reader import segments_of

__all__ = ["Finding", "VerificationReport", "check", "holes", "verify"]

Range = tuple[int, int]
Progress = Callable[[int, int, int], None]
REPORT_PATIENCE_SECONDS = 60
RUNNING = "still running"
RESUMABLE = "waits for its client to come back for the answer"


@dataclass(frozen=True, slots=True)
class Finding:
    """Numbers of one writer that are not in the log, and why; `explained` is false for a loss."""

    writer: str
    boot: int
    first: int
    last: int
    why: str
    explained: bool

    def __str__(self) -> str:
        numbers = f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"
        return f"{self.writer}.{self.boot} {numbers}: {self.why}"


@dataclass(slots=True)
class VerificationReport:
    """What a verification found."""

    events: int = 0
    writers: int = 0
    boots: int = 0
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return all(finding.explained for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Give the report as JSON values."""
        return {"ok": self.ok, **asdict(self)}


def merged(ranges: Iterable[Range]) -> list[Range]:
    result: list[Range] = []
    for first, last in sorted(ranges):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(result[-1][1], last))
        else:
            result.append((first, last))
    return result


def holes(have: Iterable[Range], last: int) -> list[Range]:
    """Find what is missing of 1..last."""
    missing = []
    following = 1
    for first, end in merged(have):
        if first > following:
            missing.append((following, min(first - 1, last)))
        following = max(following, end + 1)
        if following > last:
            break
    if following <= last:
        missing.append((following, last))
    return [span for span in missing if span[0] <= span[1]]


def without(span: Range, covers: Iterable[Range]) -> list[Range]:
    left = [span]
    for first, last in covers:
        cut: list[Range] = []
        for begin, end in left:
            if last < begin or first > end:
                cut.append((begin, end))
                continue
            if begin < first:
                cut.append((begin, first - 1))
            if end > last:
                cut.append((last + 1, end))
        left = cut
    return left


def overlap(span: Range, other: Range) -> Range | None:
    first, last = max(span[0], other[0]), min(span[1], other[1])
    return (first, last) if first <= last else None


def check(
    writer: str,
    boot: int,
    last: int,
    stored: Iterable[Range],
    excuses: Iterable[tuple[Range, str, bool]],
) -> list[Finding]:
    """Find the holes of one boot and say why each is there; `excuses` are ranges, a reason, and whether it explains."""
    findings: list[Finding] = []
    excuses = list(excuses)
    for hole in holes(stored, last):
        left = [hole]
        for span, why, explained in excuses:
            rest: list[Range] = []
            for part in left:
                shared = overlap(part, span)
                if shared is None:
                    rest.append(part)
                    continue
                findings.append(Finding(writer, boot, *shared, why, explained))
                rest += without(part, [shared])
            left = rest
        findings += [Finding(writer, boot, *part, "missing", False) for part in left]
    return sorted(findings, key=lambda finding: finding.first)


def verify(
    connection: psycopg.Connection[Any],
    journal: Path | None = None,
    instance: str = "",
    progress: Progress = lambda done, of, events: None,
) -> VerificationReport:
    """Verify the whole log. `journal` is the journal folder of `instance`: what waits there is not lost.

    Journals of other instances are elsewhere; they are believed for as long as somebody reports on them. `progress` is told after
    each partition how many of how many are read, and the events in them.
    """
    report = VerificationReport()
    with connection.transaction():
        # One snapshot, so that what moves from an open call to an event while we look is seen once.
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        connection.execute("SET LOCAL statement_timeout = 0")
        stored = read_stored(connection, report, progress)
        positions = connection.execute(
            "SELECT writer, boot, seq, reported_seq, previous_boot, previous_seq, closed_at IS NOT NULL,"
            " coalesce(reported_at > now() - make_interval(secs => %s), false) FROM audit_writerposition",
            (REPORT_PATIENCE_SECONDS,),
        ).fetchall()
        excuses = read_excuses(connection)
    last: dict[tuple[str, int], int] = {}
    drained: dict[tuple[str, int], tuple[int, bool]] = {}
    for writer, boot, seq, reported, previous_boot, previous_seq, _, lately in positions:
        key = (writer, boot)
        drained[key] = (seq, lately)
        last[key] = max(last.get(key, 0), seq, reported)
        if previous_boot:
            last[writer, previous_boot] = max(last.get((writer, previous_boot), 0), previous_seq)
    for key, spans in stored.items():
        last[key] = max(last.get(key, 0), spans[-1][1])
    for key in sorted(last):
        writer, boot = key
        if boot == 0:
            continue
        seq, lately = drained.get(key, (0, False))
        here = has_segments(journal, writer, boot)
        alive = here or (lately and not writer.startswith(f"{instance}-"))
        if not alive:
            # Nobody is left who could tell how these ended.
            lost = "its end was never stored, and its journal is not there"
            excuses[key] = [
                (span, lost, False) if why == RUNNING else (span, why, ok) for span, why, ok in excuses.get(key, [])
            ]
        waiting: list[tuple[Range, str, bool]] = []
        if last[key] > seq:
            beyond = (seq + 1, last[key])
            if alive:
                waiting.append((beyond, "still in the journal", True))
            else:
                waiting.append(
                    (beyond, "missing: reported by the writer, never stored, and its journal is not there", False)
                )
        report.findings += check(writer, boot, last[key], stored.get(key, []), [*excuses.get(key, []), *waiting])
    report.boots = len(last)
    report.writers = len({writer for writer, _ in last})
    return report


def read_stored(
    connection: psycopg.Connection[Any], report: VerificationReport, progress: Progress
) -> dict[tuple[str, int], list[Range]]:
    """Read which numbers the log has, a partition at a time."""
    stored: dict[tuple[str, int], list[Range]] = {}
    ranges = id_ranges(listed(connection))
    for number, (_, low, high) in enumerate(ranges, 1):
        table = f"(SELECT writer, boot, seq FROM audit_auditevent WHERE {within(low, high)}) AS part"  # noqa: S608 - ids
        for writer, boot, first, last, count in connection.execute(ISLANDS.format(table=table)):
            stored.setdefault((writer, boot), []).append((first, last))
            report.events += count
        progress(number, len(ranges), report.events)
    for (writer, boot), spans in stored.items():
        spans.sort()
        joined = merged(spans)
        if boot:
            for before, after in pairwise(spans):
                if (shared := overlap(before, after)) is not None:
                    report.findings.append(
                        Finding(writer, boot, *shared, "doubled: more than one event has this number", False)
                    )
        stored[writer, boot] = joined
    return stored


def read_excuses(connection: psycopg.Connection[Any]) -> dict[tuple[str, int], list[tuple[Range, str, bool]]]:
    """Read what explains a hole: calls under way, quarantine, partitions dropped by age, gaps that were told."""
    excuses: dict[tuple[str, int], list[tuple[Range, str, bool]]] = {}
    queries = (
        ("SELECT writer, boot, seq, seq FROM audit_opencall WHERE until = 0", RUNNING),
        ("SELECT writer, boot, seq, seq FROM audit_opencall WHERE until > 0", RESUMABLE),
        (
            "SELECT writer, boot, seq, seq FROM audit_quarantinedframe WHERE seq IS NOT NULL AND resolved_at IS NULL",
            "in quarantine",
        ),
        ("SELECT writer, boot, first_seq, last_seq FROM audit_tombstone", "dropped by age"),
        (
            "SELECT details->'gap'->>'writer', (details->'gap'->>'boot')::bigint, (details->'gap'->>'first_seq')::bigint,"
            " (details->'gap'->>'last_seq')::bigint FROM audit_auditevent WHERE outcome = 'unrecorded'"
            " AND details->'gap'->>'last_seq' IS NOT NULL",
            "told as a gap: its journal was damaged",
        ),
    )
    for query, why in queries:
        for writer, boot, first, last in connection.execute(query):
            if first <= last:
                excuses.setdefault((writer, boot), []).append(((first, last), why, True))
    return excuses


def has_segments(journal: Path | None, writer: str, boot: int) -> bool:
    """Say whether a boot's segments are on this machine."""
    return journal is not None and bool(segments_of(journal / writer).get(boot))
