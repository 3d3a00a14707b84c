"""Counts by the minute, kept in the transaction that stores the events they count."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg

from audit.drain import latencies

__all__ = ["KEYS", "forget", "store_rollups", "tally"]

KEYS = ("minute", "outcome", "reason", "upstream", "method", "tool_name", "key_id", "key_name", "role")
SUMS = (
    "requests",
    "events",
    "tool_errors",
    "latency_count",
    "latency_sum",
    "upstream_sum",
    "request_bytes",
    "response_bytes",
)
EXECUTED = frozenset(("allowed", "upstream_error", "cancelled", "interrupted"))
SHORT = 128

UPSERT = (
    f"INSERT INTO audit_rollup ({', '.join((*KEYS, *SUMS))})"  # noqa: S608
    f" VALUES (to_timestamp(%s){', %s' * (len(KEYS) - 1 + len(SUMS))})"
    f" ON CONFLICT ({', '.join(KEYS)}) DO UPDATE SET "
    + ", ".join(f"{name} = audit_rollup.{name} + excluded.{name}" for name in SUMS)
)


LATENCIES = (
    "INSERT INTO audit_latency (minute, upstream, bucket, number, least_us, most_us) VALUES (to_timestamp(%s), %s, %s, %s, %s, %s)"
    " ON CONFLICT (minute, upstream, bucket) DO UPDATE SET number = audit_latency.number + excluded.number,"
    " least_us = least(audit_latency.least_us, excluded.least_us), most_us = greatest(audit_latency.most_us, excluded.most_us)"
)
#: longer than any view of latencies looks back
LATENCY_DAYS = 10


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
            sums = totals[key] = [0] * len(SUMS)
        sums[0] += record.get("count") or 1
        sums[1] += 1
        if executed and outcome != "interrupted":
            latency = record.get("latency_ms") or 0.0
            sums[2] += bool(record.get("tool_error"))
            sums[3] += 1
            sums[4] += latency
            sums[5] += record.get("upstream_ms") or 0.0
        sums[6] += record.get("request_bytes") or 0
        sums[7] += record.get("response_bytes") or 0
    return totals


def timed(records: Iterable[dict[str, Any]]) -> dict[tuple[int, str, int], tuple[int, int, int]]:
    """Count what reached an upstream by minute, upstream and how long it took: number, least and most of each bucket."""
    found: dict[tuple[int, str, int], tuple[int, int, int]] = {}
    for record in records:
        upstream = (record.get("upstream") or "")[:SHORT]
        us = round((record.get("latency_ms") or 0.0) * 1000)
        # What took no time is no call: an upstream's own request, an answer that has an event beside its stream's.
        if us and upstream and record.get("outcome") in EXECUTED - {"interrupted"}:
            key = (record["ts"] // 60_000_000 * 60, upstream, latencies.bucket(us))
            number, least, most = found.get(key, (0, us, us))
            found[key] = (number + 1, min(least, us), max(most, us))
    return found


def store_rollups(connection: psycopg.Connection[Any], records: list[dict[str, Any]]) -> None:
    """Add the counts of events; in one order everywhere, so that two drainers never wait for each other in a circle."""
    totals, times = tally(records), timed(records)
    if totals:
        with connection.cursor() as cursor:
            cursor.executemany(UPSERT, [(*key, *totals[key]) for key in sorted(totals)])
            cursor.executemany(LATENCIES, [(*key, *times[key]) for key in sorted(times)])


def forget(connection: psycopg.Connection[Any]) -> None:
    """Delete the latencies that no view looks back to."""
    connection.execute("DELETE FROM audit_latency WHERE minute < now() - make_interval(days => %s)", (LATENCY_DAYS,))
