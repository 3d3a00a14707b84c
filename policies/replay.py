"""Recorded events for a replay: groups counted by PostgreSQL, single events streamed through a server-side cursor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from audit.ids import uuid7_floor
from policies.compiled import PolicySet
from policies.document import parse
from policies.models import ApiKey
from policies.replaying import REPLAYED_REASONS, Group, Replay, Report, Single
from policies.specs import PolicySpec, numbered

Progress = Callable[[int, int], None]

_NAME = "coalesce(tool_name, CASE WHEN target_kind = 'method' THEN method ELSE '' END)"
_GROUP = f"key_prefix, key_name, role, upstream, target_kind, {_NAME}, decision->>'allowed', decision->>'reason'"
_WHERE = "id >= %s AND id < %s AND outcome <> 'changed' AND target_kind <> '' AND decision->>'reason' = ANY(%s)"
GROUPS = f"""
SELECT {_GROUP}, sum(count), max(id::text), min(id::text) FROM audit_auditevent WHERE {_WHERE} GROUP BY {_GROUP}
"""  # noqa: S608 - constants of this file
SINGLES = f"""
SELECT {_GROUP}, id, extract(epoch FROM ts)::float8, host(client_ip), request_json::text, count
FROM audit_auditevent
WHERE {_WHERE} AND (target_kind, {_NAME}) IN (SELECT * FROM unnest(%s::text[], %s::text[]))
"""  # noqa: S608 - constants of this file
BATCH = 2000


def replay(
    draft: str | PolicySpec | PolicySet,
    since: datetime,
    until: datetime | None = None,
    progress: Progress | None = None,
) -> Report:
    """Decide every recorded decision from `since` to `until` again under the draft (a document's text, or a policy);
    `progress(done, of)` is told as it goes.
    """
    spec = parse(draft).spec if isinstance(draft, str) else draft.spec if isinstance(draft, PolicySet) else draft
    upstreams = {key.prefix: frozenset(key.upstreams) for key in ApiKey.objects.exclude(upstreams=[])}
    again = Replay(PolicySet(numbered(spec)), upstreams)
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
    singles: set[Group] = set()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(GROUPS, span)
        for *head, count, newest, oldest in cursor.fetchall():
            group = _group(head)
            examples = [newest] if newest == oldest else [newest, oldest]
            if not again.settle(group, int(count), examples):
                singles.add(group)
    if not singles:
        return
    names = sorted({(group.kind, group.name) for group in singles})
    span += [[kind for kind, _ in names], [name for _, name in names]]
    for *head, id_, at, ip, request, count in _stream(SINGLES, span):
        group = _group(head)
        if group in singles:
            again.decide_one(group, Single(id_, at, ip, request, count))


def _stream(query: str, parameters: list[Any]) -> Iterator[tuple[Any, ...]]:
    with transaction.atomic():
        connection.ensure_connection()
        with connection.connection.cursor(name="sentinel_replay") as cursor:
            cursor.itersize = BATCH
            cursor.execute(query, parameters)
            yield from cursor


def _group(head: list[Any]) -> Group:
    key_prefix, key_name, role, upstream, kind, name, allowed, reason = head
    return Group(key_prefix, key_name, role, upstream, kind, name, allowed == "true", reason)
