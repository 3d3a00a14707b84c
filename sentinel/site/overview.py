"""The front page: what happens, what fails, and what waits for somebody; read from the rollups, never from the log."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.core.exceptions import PermissionDenied
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from audit.drain.latencies import Span, percentile
from audit.filters import absolute
from sentinel.site import attention, charts

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
    "other": ("invalid", ("invalid",)),
}
SERIES_OF = {outcome: name for name, (_, outcomes) in SERIES.items() for outcome in outcomes}
# Upper bounds (ms) of the counts that rollups from before `Latency` have; the last stands for all that took longer.
BOUNDS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)

SLOT = timedelta(minutes=15)
# Slots younger than this are summed from the minutes each time: events still arrive for them.
SETTLED = timedelta(minutes=30)
ORIGIN = datetime(2000, 1, 1, tzinfo=UTC)
COUNTS = ", ".join(f"coalesce(sum(le_{bound}), 0)::bigint" for bound in (*BOUNDS[:-1], "inf"))
# Sums minutes by tool, key, upstream, reason and outcome in one pass.
SUMS = f"""
SELECT {{time}} AS slot,
  CASE grouping(tool_name, key_id, upstream, reason, outcome) WHEN 15 THEN 'tool' WHEN 23 THEN 'key' WHEN 27 THEN 'upstream'
    WHEN 28 THEN 'reason' ELSE 'outcome' END AS kind,
  coalesce(tool_name, key_id, upstream, reason, '') AS name, coalesce(max(key_name), '') AS label, coalesce(outcome, '') AS outcome,
  sum(requests)::bigint, coalesce(sum(requests) FILTER (WHERE outcomes = 'upstream_error'), 0)::bigint,
  sum(tool_errors)::bigint, sum(latency_count)::bigint, CASE WHEN grouping(upstream) = 0 THEN ARRAY[{COUNTS}] ELSE ARRAY[]::bigint[] END
FROM (SELECT *, outcome AS outcomes FROM audit_rollup WHERE minute >= %s AND minute < %s AND outcome <> 'changed') r
GROUP BY {{time}}, GROUPING SETS ((tool_name), (key_id), (upstream), (reason, outcome), (outcome))
"""  # noqa: S608 - the names are constants above
FILL = f"""
INSERT INTO sentinel_overviewslot (slot, kind, name, label, outcome, requests, errors, tool_errors, timed, counts)
{SUMS.format(time="date_bin('15 minutes', minute, '2000-01-01 00:00:00+00')")}
ON CONFLICT DO NOTHING
"""
# Latencies in their buckets, one after the other in one array: as many rows as upstreams.
FILL_LATENCIES = """
INSERT INTO sentinel_overviewslot (slot, kind, name, label, outcome, requests, errors, timed, counts)
SELECT slot, 'latency', upstream, '', '', 0, 0, 0, array_agg(value ORDER BY bucket, place)
FROM (
  SELECT date_bin('15 minutes', minute, '2000-01-01 00:00:00+00') AS slot, upstream, bucket,
    ARRAY[bucket, sum(number), min(least_us), max(most_us)]::bigint[] AS four
  FROM audit_latency WHERE minute >= %s AND minute < %s GROUP BY 1, 2, 3
) b, unnest(four) WITH ORDINALITY AS v (value, place)
GROUP BY slot, upstream ON CONFLICT DO NOTHING
"""
# A slot without traffic is remembered as well: it has a line of its own that says so.
DONE = """
INSERT INTO sentinel_overviewslot (slot, kind, name, label, outcome, requests, errors, timed, counts)
SELECT unnest(%s::timestamptz[]), 'done', '', '', '', 0, 0, 0, '{}' ON CONFLICT DO NOTHING
"""
KNOWN = "SELECT slot FROM sentinel_overviewslot WHERE kind = 'done' AND slot >= %s AND slot < %s"
STORED = f"""
WITH slots AS NOT MATERIALIZED (SELECT * FROM sentinel_overviewslot WHERE slot >= %s AND slot < %s)
SELECT kind, name, max(label), outcome, sum(requests)::bigint, 0::bigint, 0::bigint, 0::bigint, NULL::bigint[]
FROM slots WHERE kind IN ('tool', 'key', 'reason') GROUP BY kind, name, outcome
UNION ALL
SELECT kind, name, '', outcome, sum(requests)::bigint, sum(errors)::bigint, sum(tool_errors)::bigint, sum(timed)::bigint,
  ARRAY[{", ".join(f"sum(counts[{n}])::bigint" for n in range(1, len(BOUNDS) + 1))}]
FROM slots WHERE kind = 'upstream' GROUP BY kind, name, outcome
UNION ALL
SELECT kind, name, '', counts[n]::text, sum(counts[n + 1])::bigint, min(counts[n + 2]), max(counts[n + 3]), 0::bigint, NULL::bigint[]
FROM slots, generate_series(1, cardinality(counts), 4) AS n WHERE kind = 'latency' GROUP BY kind, name, counts[n]
"""  # noqa: S608 - the numbers are counted above
LATENCIES = """
SELECT upstream, bucket, sum(number)::bigint, min(least_us), max(most_us) FROM audit_latency
WHERE minute >= %s AND minute < %s GROUP BY 1, 2
"""
TIMELINE = """
SELECT date_bin(make_interval(mins => %s), slot, %s) AS at, outcome, sum(requests)::bigint FROM sentinel_overviewslot
WHERE slot >= %s AND slot < %s AND kind = 'outcome' GROUP BY 1, 2
"""
RECENT = """
SELECT date_bin(make_interval(mins => %s), minute, %s), outcome, sum(requests)::bigint
FROM audit_rollup WHERE minute >= %s AND outcome <> 'changed' GROUP BY 1, 2
"""
TOP = 8


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
    tool_errors: int
    p50: float | None
    p95: float | None
    #: which of them are exactly that, and not near it
    exact: tuple[bool, ...] = ()


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
    waiting = attention.attention(request.user)
    shown = {
        "title": "Overview",
        "ranges": [(word, label) for word, (label, _, _) in RANGES.items()],
        "chosen": chosen,
        "events_url": reverse("admin:audit_auditevent_changelist"),
        "series": [(name, label) for name, (label, _) in SERIES.items()],
        **numbers,
        **waiting,
        "state": attention.pulse(),
    }
    return render(request, "admin/overview.html", context | shown)


def read(chosen: str, now: datetime) -> dict[str, Any]:
    _, span, minutes = RANGES[chosen]
    bucket = timedelta(minutes=minutes)
    last = ORIGIN + ((now - ORIGIN) // bucket) * bucket
    first = last - span + bucket
    # From here on minutes are read themselves; what lies before was summed once.
    settled = first if minutes < 15 else max(first, _slot(now - SETTLED))
    timeline, stored, latencies = _settled_part(first, settled, minutes)
    sums: dict[tuple[str, str, str], list[Any]] = {}
    for row in stored:
        _add(sums, row)
    with connection.cursor() as cursor:
        cursor.execute(RECENT, [minutes, ORIGIN, settled])
        timeline = [*timeline, *cursor.fetchall()]
        cursor.execute(LATENCIES, [settled, now + bucket])
        latencies = [*latencies, *cursor.fetchall()]
        cursor.execute(SUMS.format(time="NULL::timestamptz"), [settled, now + bucket])
        for _, *row in cursor.fetchall():
            _add(sums, row)
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
        link = f"{events}?{urlencode({'from': absolute(at), 'to': absolute(at + bucket)})}"
        words = ", ".join(f"{parts[name]:,} {SERIES[name][0]}" for name in SERIES if parts.get(name))
        bar = charts.Bar(parts, link, f"{local:%a %H:%M} to {ends:%H:%M}: {words or 'nothing'}")
        bars.append(bar)
        if parts:
            # As text: a template would word each of some hundred numbers by the rules of the language.
            numbers = [_exact(parts.get(name, 0)) for name in SERIES]
            table.append((f"{local:%Y-%m-%d %H:%M}", link, numbers, _exact(bar.total)))
        at += bucket
    total = sum(totals.values())
    failed = sum(held[3] for (kind, _, _), held in sums.items() if kind == "upstream")
    return {
        "chart": charts.stacked(bars, list(SERIES), f"Requests over the last {RANGES[chosen][0]} by outcome"),
        "chart_top": charts.ceiling(max((bar.total for bar in bars), default=0)),
        "chart_ticks": _ticks(first, last + bucket, chosen),
        "table": table[::-1],
        "total": total,
        "totals": totals,
        "shares": {name: _share(totals.get(name, 0), total) for name in SERIES},
        "figures": _figures(totals, total, failed, events, chosen),
        **_lists(sums, latencies, events, chosen),
    }


def _figures(totals: Mapping[str, int], total: int, failed: int, events: str, chosen: str) -> list[dict[str, Any]]:
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
    query = urlencode([("range", chosen), ("tool_error", "true")])
    figures.append({"name": "Tool errors", "value": failed, "note": _share(failed, total), "link": f"{events}?{query}"})
    return figures


def _exact(number: int) -> str:
    return f"{number:,}".replace(",", "\u2009")


def _share(part: int, whole: int) -> str:
    if not whole:
        return ""
    share = part / whole * 100
    return "0 %" if part == 0 else "under 0.1 %" if share < 0.1 else f"{share:.1f} %"


def _ticks(first: datetime, end: datetime, chosen: str) -> list[str]:
    form = "%a %d" if chosen == "7d" else "%H:%M"
    return [f"{timezone.localtime(first + (end - first) * number / 4):{form}}" for number in range(5)]


def _slot(moment: datetime) -> datetime:
    return ORIGIN + ((moment - ORIGIN) // SLOT) * SLOT


# The settled part of a range is the same for a quarter of an hour; it is read again each minute all the same, for late events.
KEEP_SECONDS = 60.0
_kept: dict[tuple[datetime, datetime], tuple[float, tuple[list[Any], list[Any], list[Any]]]] = {}


def _settled_part(first: datetime, settled: datetime, minutes: int) -> tuple[list[Any], list[Any], list[Any]]:
    """Return timeline, sums and latencies of the slots of [first, settled)."""
    if first >= settled:
        return [], [], []
    place = (first, settled)
    kept = _kept.get(place)
    if kept is not None and time.monotonic() - kept[0] < KEEP_SECONDS:
        return kept[1]
    fill(first, settled)
    with connection.cursor() as cursor:
        cursor.execute(TIMELINE, [minutes, ORIGIN, first, settled])
        timeline = cursor.fetchall()
        cursor.execute(STORED, [first, settled])
        rows = cursor.fetchall()
    stored = [row for row in rows if row[0] != "latency"]
    found = timeline, stored, [(row[1], int(row[3]), *row[4:7]) for row in rows if row[0] == "latency"]
    if len(_kept) >= 8:
        _kept.clear()
    _kept[place] = (time.monotonic(), found)
    return found


def fill(first: datetime, end: datetime) -> None:
    """Sum the slots of [first, end) that have not been summed yet."""
    first, end = _slot(first), _slot(end)
    if first >= end:
        return
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(KNOWN, [first, end])
        known = {slot for (slot,) in cursor.fetchall()}
        missing = [
            first + SLOT * number for number in range((end - first) // SLOT) if first + SLOT * number not in known
        ]
        if not missing:
            return
        # Marked first: events that arrive while we sum remove the mark, and the slot is summed again.
        cursor.execute(DONE, [missing])
        for start, stop in _runs(missing):
            cursor.execute(FILL, [start, stop])
            cursor.execute(FILL_LATENCIES, [start, stop])


def _runs(slots: list[datetime]) -> list[tuple[datetime, datetime]]:
    runs: list[tuple[datetime, datetime]] = []
    for slot in slots:
        if runs and runs[-1][1] == slot:
            runs[-1] = (runs[-1][0], slot + SLOT)
        else:
            runs.append((slot, slot + SLOT))
    return runs


def _add(sums: dict[tuple[str, str, str], list[Any]], row: Sequence[Any]) -> None:
    """Add one summed line to what is known of its name."""
    kind, name, label, outcome, *numbers, counts = row
    held = sums.setdefault((kind, name, outcome), ["", 0, 0, 0, 0, [0] * len(BOUNDS)])
    held[0] = held[0] or label
    held[1:5] = [one + other for one, other in zip(held[1:5], numbers, strict=True)]
    held[5] = [one + (other or 0) for one, other in zip(held[5], counts or [], strict=False)] or held[5]


def _lists(
    sums: Mapping[tuple[str, str, str], list[Any]], latencies: list[Any], events: str, chosen: str
) -> dict[str, Any]:
    tools: list[tuple[str, int, str]] = []
    keys: list[tuple[str, int, str]] = []
    reasons: list[tuple[str, int, str]] = []
    upstreams: list[UpstreamLine] = []

    def link(**query: str) -> str:
        return f"{events}?{urlencode({'range': chosen, **query})}"

    for (kind, name, outcome), (label, requests, errors, failed, timed, counts) in sums.items():
        if not name:
            continue
        if kind == "tool":
            tools.append((name, requests, link(tool=name)))
        elif kind == "key":
            keys.append((label or name, requests, link(key=name)))
        elif kind == "upstream" and timed:
            spans = [*_coarse(counts), *_spans(name, latencies)]
            found = [percentile(spans, share) for share in (0.5, 0.95)]
            p50, p95 = (one and one.value for one in found)
            exact = tuple(one is not None and one.exact for one in found)
            upstreams.append(UpstreamLine(name, link(upstream=name), requests, errors, failed, p50, p95, exact))
        elif kind == "reason" and outcome in ("denied", "unauthenticated", "limited", "invalid"):
            reasons.append((name, requests, link(reason=name)))
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


def _spans(upstream: str, latencies: list[Any]) -> list[Span]:
    """Give the latencies of one upstream, in milliseconds; those of one bucket are one span, wherever they were kept."""
    found: dict[int, Span] = {}
    for name, bucket, number, least, most in latencies:
        if name == upstream:
            one = found.get(bucket, Span(0, least / 1000, most / 1000))
            found[bucket] = Span(one.number + number, min(one.least, least / 1000), max(one.most, most / 1000))
    return [*found.values()]


def _coarse(counts: list[int]) -> list[Span]:
    """Give what rollups from before `Latency` counted: bounds that are far apart, and nothing that lies between them."""
    return [
        Span(count, low, high, known=False)
        for low, high, count in zip((0, *BOUNDS), BOUNDS, counts, strict=False)
        if count
    ]
