"""Joins three histories by each call's marker, and counts what must never be."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.chaos.histories import Call


@dataclass
class Verdict:
    """How often each thing that must never be was seen."""

    calls: int = 0
    answered: int = 0
    executed: int = 0
    events: int = 0
    answered_unaudited: list[str] = field(default_factory=list)
    executed_unrecorded: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    other_outcome: list[str] = field(default_factory=list)
    told_as_gap: int = 0
    gaps: int = 0
    verified: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing of it was."""
        return self.verified and not (
            self.answered_unaudited or self.executed_unrecorded or self.doubled or self.other_outcome
        )

    def row(self) -> dict[str, Any]:
        """Give the figures for the table."""
        return {
            "calls": self.calls,
            "executed": self.executed,
            "events": self.events,
            "answered unaudited": len(self.answered_unaudited),
            "executed unrecorded": len(self.executed_unrecorded),
            "doubled": len(self.doubled),
            "other outcome": len(self.other_outcome),
            "refusals told as a gap": self.told_as_gap,
            "verify": "ok" if self.verified else "FAILED",
        }


def join(calls: list[Call], executed: dict[str, int], events: list[dict[str, Any]], verified: bool) -> Verdict:
    """Compare what clients saw and the upstream did with what the log says."""
    verdict = Verdict(calls=len(calls), executed=sum(executed.values()), verified=verified)
    by_marker: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if event["outcome"] == "unrecorded" and event["details"].get("gap"):
            verdict.gaps += 1
        if event["rpc_id"].startswith('"m'):
            by_marker.setdefault(event["rpc_id"].strip('"'), []).append(event)
    verdict.events = sum(map(len, by_marker.values()))
    verdict.doubled = [marker for marker, found in by_marker.items() if len(found) > 1]
    numbers = Counter((event["writer"], event["seq"]) for event in events)
    verdict.doubled += [f"{writer}#{seq}" for (writer, seq), count in numbers.items() if count > 1]
    verdict.executed_unrecorded = [marker for marker in executed if marker not in by_marker]
    # Refusals in a flood share a counted event, whose sample has one marker alone: they are compared by their sums.
    counted = sum(event["count"] - 1 for event in events if event["count"] > 1)
    gaps = cut_counts(events)
    for call in calls:
        if not call.status:
            continue
        verdict.answered += 1
        found = by_marker.get(call.marker)
        if not found:
            if not call.result and not call.executed and counted > 0:
                counted -= 1
                continue
            if not call.result and not call.executed and covered(call, gaps):
                verdict.told_as_gap += 1
                continue
            verdict.answered_unaudited.append(f"{call.marker} {call.status} {call.reason}")
        elif not fits(call, found[0]):
            verdict.other_outcome.append(
                f"{call.marker} {call.status} {call.reason} -> {found[0]['outcome']} {found[0]['reason']}"
            )
    return verdict


def cut_counts(events: list[dict[str, Any]]) -> list[tuple[str, float]]:
    """Find the counts of refusals that the log says a kill cut short: their reason, and when they were last written down."""
    told = {(event["details"].get("gap") or {}).get("counted") for event in events if event["outcome"] == "unrecorded"}
    return [
        (event["reason"], datetime.fromisoformat(event["last_ts"]).timestamp())
        for event in events
        if event["id"] in told and event["last_ts"]
    ]


def covered(call: Call, gaps: list[tuple[str, float]]) -> bool:
    """Say whether a refused call fell into the one second of a count that a kill may take, where the log says that it did."""
    return any(call.reason == reason and last - 0.1 <= call.ended_at <= last + 1.5 for reason, last in gaps)


def fits(call: Call, event: dict[str, Any]) -> bool:
    """Say whether an event tells what its client saw."""
    if call.result:
        return bool(event["outcome"] == "allowed" and event["status_code"] == call.status)
    # Within a stream, whose head went out before, only that it may have run is told: its answer may not have come yet.
    if call.executed or (call.may_have_run and call.reason == "audit_unavailable"):
        return bool(event["outcome"] == "unrecorded" and event["details"].get("executed"))
    return bool(event["outcome"] != "allowed" and event["status_code"] == call.status)
