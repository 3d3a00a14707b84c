"""Recorded events for a replay: groups counted by PostgreSQL, single events streamed as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import psycopg
from django.db import connection, transaction
from django.utils import timezone

from core.ids import uuid7_floor
from policies.documents.reader import parse
from policies.engine.compiled import PolicySet
from policies.models import ApiKey
from policies.services.policy import current_spec
from policies.simulate.replay import REPLAYED_REASONS, CallGroup, Replay, ReplayReport, Single
from policies.specs import PolicySpec, numbered
from policies.vocabulary import TASK_METHODS

Progress = Callable[[int, int], None]

_NAME = "coalesce(e.tool_name, CASE WHEN e.target_kind = 'method' THEN e.method ELSE '' END)"
# What was decided stands in columns of their own where the decision was the outcome, which is nearly always; only for the
# rest (failed, cancelled, limited) is the decision's JSON worth its reading.
_ALLOWED = "CASE e.outcome WHEN 'allowed' THEN 'true' WHEN 'denied' THEN 'false' ELSE coalesce(e.decision ->> 'allowed', '') END"
_REASON = "CASE WHEN e.outcome IN ('allowed', 'denied') THEN e.reason ELSE e.decision ->> 'reason' END"
_COLUMNS = ("e.key_prefix", "e.key_name", "e.role", "e.upstream", "e.target_kind", _NAME, _ALLOWED, _REASON)
# Who asks for a task is judged by the call that made it, which is replayed itself.
_TASKS = f"e.method NOT IN ({', '.join(repr(method) for method in sorted(TASK_METHODS))})"
# The C collation throughout: nobody reads this order, and comparing by a language's costs more.
_GROUP = ", ".join(f'({column}) COLLATE "C"' for column in _COLUMNS)
_WHERE = (
    f"e.id >= %s AND e.id < %s AND e.outcome <> 'changed' AND e.target_kind <> '' AND {_TASKS} AND {_REASON} = ANY(%s)"
)
GROUPS = f"""
SELECT {_GROUP}, sum(e.count), max(e.id::text COLLATE "C"), min(e.id::text COLLATE "C")
FROM audit_auditevent e WHERE {_WHERE} GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
"""  # noqa: S608 - constants of this file
_SAME = " AND ".join(f'({column}) COLLATE "C" = g.c{at}' for at, column in enumerate(_COLUMNS))
SINGLES = f"""
SELECT g.number, e.id::text, extract(epoch FROM e.ts)::float8, host(e.client_ip),
       CASE WHEN g.asks THEN e.request_json::text END, e.count::int8
FROM audit_auditevent e
JOIN unnest(%s::int[], %s::bool[], {", ".join(["%s::text[]"] * 8)}) AS g(number, asks, {", ".join(f"c{at}" for at in range(8))})
ON {_SAME}
WHERE {_WHERE}
"""  # noqa: S608 - constants of this file
# How many rows the client library hands over at a time: one at a time would cost as much as deciding about them.
CHUNK = 2000 if psycopg.pq.version() >= 170000 else 1
# Counted and joined in memory: the planner takes the groups for many more than they are, and would sort all events.
MEMORY = "SET LOCAL work_mem = '64MB'; SET LOCAL enable_mergejoin = off; SET LOCAL enable_nestloop = off"


def replay(
    draft: str | PolicySpec | PolicySet,
    since: datetime,
    until: datetime | None = None,
    progress: Progress | None = None,
    *,
    payloads: bool = True,
) -> ReplayReport:
    """Decide every recorded decision from `since` to `until` again under the draft (a document's text, or a policy);
    what it would decide otherwise than the present policy is told apart from what that decides otherwise by now.
    `progress(done, of)` is told as it goes. `payloads` says whether whoever asks may see arguments.
    """
    spec = parse(draft).spec if isinstance(draft, str) else draft.spec if isinstance(draft, PolicySet) else draft
    upstreams = {key.prefix: frozenset(key.upstreams) for key in ApiKey.objects.exclude(upstreams=[])}
    again = Replay(PolicySet(numbered(spec)), upstreams, payloads=payloads, present=PolicySet(current_spec()))
    slices = _slices(since, until or timezone.now() + timedelta(seconds=1))
    for done, (start, end) in enumerate(slices):
        _slice(again, start, end)
        if progress is not None:
            progress(done + 1, len(slices))
    return again.report


def _slices(since: datetime, until: datetime) -> list[tuple[datetime, datetime]]:
    """Spans of at most a day, and at least twenty of them, so that progress can be shown."""
    step = max(timedelta(seconds=1), min(timedelta(days=1), (until - since) / 20))
    found = []
    while since < until:
        found.append((since, min(since + step, until)))
        since += step
    return found


def _slice(again: Replay, start: datetime, end: datetime) -> None:
    span: list[Any] = [uuid7_floor(start), uuid7_floor(end), list(REPLAYED_REASONS)]
    singles: list[tuple[CallGroup, tuple[Any, ...]]] = []
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(MEMORY)
        cursor.execute(GROUPS, span)
        for *head, count, newest, oldest in cursor.fetchall():
            group = _group(head)
            examples = [newest] if newest == oldest else [newest, oldest]
            if not again.settle(group, int(count), examples):
                singles.append((group, tuple(head)))
    if not singles:
        return
    plans = [again.plan(group) for group, _ in singles]
    columns = [list(column) for column in zip(*(head for _, head in singles), strict=True)]
    asks = [again.payloads and plan.asks for plan in plans]
    for number, id_, at, ip, request, count in _stream(SINGLES, [list(range(len(plans))), asks, *columns, *span]):
        again.decide_one(plans[number], Single(id_, at, ip, request, count))


def _stream(query: str, parameters: list[Any]) -> Iterator[tuple[Any, ...]]:
    """Rows one at a time, as they come."""
    with transaction.atomic(), connection.cursor() as plain:
        plain.execute(MEMORY)
        with psycopg.Cursor(connection.connection) as cursor:  # Django's own binds on the client, and reads text
            yield from cursor.stream(query, parameters, binary=True, size=CHUNK)


def _group(head: list[Any]) -> CallGroup:
    key_prefix, key_name, role, upstream, kind, name, allowed, reason = head
    return CallGroup(key_prefix, key_name, role, upstream, kind, name, allowed == "true", reason)
