"""The front page: what happens, what fails, and what waits for somebody; read from the rollups, never from the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.core.exceptions import PermissionDenied
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from sentinel import charts, state

# range -> (label, span, bucket in minutes)
RANGES: dict[str, tuple[str, timedelta, int]] = {
    "1h": ("1 h", timedelta(hours=1), 1),
    "24h": ("24 h", timedelta(hours=24), 15),
    "7d": ("7 days", timedelta(days=7), 120),
}
SERIES = {
    "allowed": ("allowed", ("allowed",)),
    "denied": ("denied or unauthenticated", ("denied", "unauthenticated")),
    "limited": ("limited", ("limited",)),
    "error": ("failed, cancelled or cut off", ("upstream_error", "cancelled", "interrupted", "unrecorded")),
    "other": ("malformed", ("invalid",)),
}
SERIES_OF = {outcome: name for name, (_, outcomes) in SERIES.items() for outcome in outcomes}
BOUNDS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)
TOP = 8

TIMELINE = """
SELECT date_bin(make_interval(mins => %s), minute, %s) AS at, outcome, sum(requests)::bigint
FROM audit_rollup WHERE minute >= %s AND outcome <> 'changed' GROUP BY 1, 2
"""
# One pass over the time shown gives all the lists.
BREAKDOWN = f"""
SELECT grouping(tool_name, key_id, upstream, reason) AS kind, tool_name, key_id, max(key_name), upstream, reason, max(outcome),
  sum(requests)::bigint, sum(requests) FILTER (WHERE outcome = 'upstream_error')::bigint,
  sum(latency_count)::bigint, sum(latency_sum), {", ".join(f"sum(le_{bound})::bigint" for bound in (*BOUNDS, "inf"))}
FROM audit_rollup WHERE minute >= %s AND outcome <> 'changed'
GROUP BY GROUPING SETS ((tool_name), (key_id), (upstream), (outcome, reason))
"""  # noqa: S608 - the names are constants above


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a list: a name, a number, and the events behind it."""

    name: str
    number: int
    link: str
    bar: Any
    note: str = ""


@dataclass(frozen=True, slots=True)
class UpstreamLine:
    """How one upstream does."""

    name: str
    link: str
    requests: int
    errors: int
    error_share: float
    p50: float | None
    p95: float | None


def page(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    """Show the overview, or to those who may not see it, where they may go."""
    if not request.user.has_perm("sentinel.view_overview"):
        if context["navigation"]:
            return render(request, "admin/overview_none.html", context | {"title": "Welcome"})
        raise PermissionDenied
    chosen = request.GET.get("range", "24h")
    if chosen not in RANGES:
        chosen = "24h"
    now = timezone.now()
    numbers = read(chosen, now)
    waiting = state.attention(request.user)
    shown = {
        "title": "Overview",
        "ranges": [(word, label) for word, (label, _, _) in RANGES.items()],
        "chosen": chosen,
        "events_url": reverse("admin:audit_auditevent_changelist"),
        "series": [(name, label) for name, (label, _) in SERIES.items()],
        **numbers,
        **waiting,
        "state": state.pulse(),
    }
    return render(request, "admin/overview.html", context | shown)


def read(chosen: str, now: datetime) -> dict[str, Any]:
    """Read the numbers of one time range."""
    _, span, minutes = RANGES[chosen]
    bucket = timedelta(minutes=minutes)
    origin = datetime(2000, 1, 1, tzinfo=now.tzinfo)
    last = origin + ((now - origin) // bucket) * bucket
    first = last - span + bucket
    with connection.cursor() as cursor:
        cursor.execute(TIMELINE, [minutes, origin, first])
        timeline = cursor.fetchall()
        cursor.execute(BREAKDOWN, [first])
        rows = cursor.fetchall()
    events = reverse("admin:audit_auditevent_changelist")
    buckets: dict[datetime, dict[str, int]] = {}
    totals: dict[str, int] = {}
    for at, outcome, number in timeline:
        name = SERIES_OF.get(outcome, "other")
        entry = buckets.setdefault(at, {})
        entry[name] = entry.get(name, 0) + number
        totals[name] = totals.get(name, 0) + number
    bars, table = [], []
    at = first
    while at <= last:
        parts = buckets.get(at, {})
        local = timezone.localtime(at)
        ends = timezone.localtime(at + bucket)
        link = f"{events}?{urlencode({'from': f'{local:%Y-%m-%dT%H:%M:%S}', 'to': f'{ends:%Y-%m-%dT%H:%M:%S}'})}"
        words = ", ".join(f"{parts[name]:,} {SERIES[name][0]}" for name in SERIES if parts.get(name))
        bar = charts.Bar(parts, link, f"{local:%a %H:%M} to {ends:%H:%M}: {words or 'nothing'}")
        bars.append(bar)
        if parts:
            table.append((local, link, [parts.get(name, 0) for name in SERIES], bar.total))
        at += bucket
    total = sum(totals.values())
    return {
        "chart": charts.stacked(bars, list(SERIES), f"Requests over the last {RANGES[chosen][0]} by outcome"),
        "chart_top": charts.ceiling(max((bar.total for bar in bars), default=0)),
        "chart_ticks": _ticks(first, last + bucket, chosen),
        "table": table[::-1],
        "total": total,
        "totals": totals,
        "shares": {name: _share(totals.get(name, 0), total) for name in SERIES},
        "figures": _figures(totals, total, events, chosen),
        **_lists(rows, events, chosen),
    }


def _figures(totals: Mapping[str, int], total: int, events: str, chosen: str) -> list[dict[str, Any]]:
    figures = [{"name": "Requests", "value": total, "note": "", "link": f"{events}?range={chosen}"}]
    for name, label in (("allowed", "Allowed"), ("denied", "Refused"), ("limited", "Limited"), ("error", "Failed")):
        query = urlencode([("range", chosen), *(("outcome", outcome) for outcome in SERIES[name][1])])
        figures.append(
            {
                "name": label,
                "value": totals.get(name, 0),
                "note": _share(totals.get(name, 0), total),
                "link": f"{events}?{query}",
            }
        )
    return figures


def _share(part: int, whole: int) -> str:
    if not whole:
        return ""
    share = part / whole * 100
    return "0 %" if part == 0 else "under 0.1 %" if share < 0.1 else f"{share:.1f} %"


def _ticks(first: datetime, end: datetime, chosen: str) -> list[str]:
    form = "%a %d" if chosen == "7d" else "%H:%M"
    return [f"{timezone.localtime(first + (end - first) * number / 4):{form}}" for number in range(5)]


def _lists(rows: list[tuple[Any, ...]], events: str, chosen: str) -> dict[str, Any]:
    tools: list[tuple[str, int, str]] = []
    keys: list[tuple[str, int, str]] = []
    reasons: list[tuple[str, int, str]] = []
    upstreams: list[UpstreamLine] = []

    def link(**query: str) -> str:
        return f"{events}?{urlencode({'range': chosen, **query})}"

    for kind, tool, key, key_name, upstream, reason, outcome, requests, errors, timed, _total, *counts in rows:
        if kind == 0b0111 and tool:
            tools.append((tool, requests, link(tool=tool)))
        elif kind == 0b1011 and key:
            keys.append((key_name or key, requests, link(key=key)))
        elif kind == 0b1101 and upstream and timed:
            upstreams.append(
                UpstreamLine(
                    upstream,
                    link(upstream=upstream),
                    requests,
                    errors or 0,
                    (errors or 0) / requests if requests else 0.0,
                    percentile(counts, 0.5),
                    percentile(counts, 0.95),
                )
            )
        elif kind == 0b1110 and reason and outcome in ("denied", "unauthenticated", "limited", "invalid"):
            reasons.append((reason, requests, link(reason=reason)))
    return {
        "tools": _entries(tools, "accent"),
        "keys": _entries(keys, "accent"),
        "reasons": _entries(reasons, "denied"),
        "upstreams": sorted(upstreams, key=lambda line: -line.requests)[:TOP],
    }


def _entries(found: list[tuple[str, int, str]], colour: str) -> list[Entry]:
    found.sort(key=lambda entry: -entry[1])
    most = found[0][1] if found else 1
    return [Entry(name, number, link, charts.meter(number / most, colour)) for name, number, link in found[:TOP]]


def percentile(counts: list[int | None], share: float) -> float | None:
    """Estimate a percentile from counted buckets, evenly spread within each."""
    whole = sum(count or 0 for count in counts)
    if not whole:
        return None
    wanted, low, seen = whole * share, 0.0, 0
    for bound, count in zip((*BOUNDS, 10_000), counts, strict=True):
        count = count or 0
        if count and seen + count >= wanted:
            return low + (bound - low) * (wanted - seen) / count
        seen += count
        low = float(bound)
    return low
