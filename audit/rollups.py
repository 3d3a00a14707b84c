"""Counts by the minute, kept in the transaction that stores the events they count."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Any

import psycopg

__all__ = ["BOUNDS", "KEYS", "store_rollups", "tally"]

BOUNDS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)
KEYS = ("minute", "outcome", "reason", "upstream", "method", "tool_name", "key_id", "key_name", "role")
SUMS = ("requests", "events", "latency_count", "latency_sum", "upstream_sum", "request_bytes", "response_bytes")
HISTOGRAM = (*(f"le_{bound}" for bound in BOUNDS), "le_inf")
EXECUTED = frozenset(("allowed", "upstream_error", "cancelled", "interrupted"))
SHORT = 128

UPSERT = (
    f"INSERT INTO audit_rollup ({', '.join((*KEYS, *SUMS, *HISTOGRAM))})"  # noqa: S608
    f" VALUES (to_timestamp(%s){', %s' * (len(KEYS) - 1 + len(SUMS) + len(HISTOGRAM))})"
    f" ON CONFLICT ({', '.join(KEYS)}) DO UPDATE SET "
    + ", ".join(f"{name} = audit_rollup.{name} + excluded.{name}" for name in (*SUMS, *HISTOGRAM))
)


def tally(records: Iterable[dict[str, Any]]) -> dict[tuple[Any, ...], list[float]]:
    """Count events by minute and kind; names that a refused caller chose are left out, they have no bound."""
    totals: dict[tuple[Any, ...], list[float]] = {}
    for record in records:
        outcome = record.get("outcome") or "invalid"
        executed = outcome in EXECUTED
        known = record.get("api_key_id") is not None
        tool = (record.get("tool_name") or "")[:SHORT] if executed else ""
        key = (
            record["ts"] // 60_000_000 * 60,
            outcome,
            record.get("reason") or "",
            (record.get("upstream") or "")[:SHORT] if known else "",
            (record.get("method") or "")[:SHORT] if known else "",
            tool,
            str(record["api_key_id"]) if known else "",
            (record.get("key_name") or "")[:SHORT] if known else "",
            (record.get("role") or "")[:SHORT] if known else "",
        )
        sums = totals.get(key)
        if sums is None:
            sums = totals[key] = [0] * (len(SUMS) + len(HISTOGRAM))
        sums[0] += record.get("count") or 1
        sums[1] += 1
        if executed and outcome != "interrupted":
            latency = record.get("latency_ms") or 0.0
            sums[2] += 1
            sums[3] += latency
            sums[4] += record.get("upstream_ms") or 0.0
            sums[len(SUMS) + bisect_left(BOUNDS, latency)] += 1
        sums[5] += record.get("request_bytes") or 0
        sums[6] += record.get("response_bytes") or 0
    return totals


def store_rollups(connection: psycopg.Connection[Any], records: Iterable[dict[str, Any]]) -> None:
    """Add the counts of events; in one order everywhere, so that two drainers never wait for each other in a circle."""
    totals = tally(records)
    if totals:
        with connection.cursor() as cursor:
            cursor.executemany(UPSERT, [(*key, *totals[key]) for key in sorted(totals)])
