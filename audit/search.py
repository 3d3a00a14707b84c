"""Finding events among tens of millions: one page by key, in a bounded time, and honest about how far it looked.

Conditions with an index of their own (key, tool, outcome) are walked in the order of the index, which is the order of time.
Anything else is looked for backwards from the cursor in windows whose size follows the speed seen, until the time allowed
is used; then the answer says how far it came, and the next page goes on from there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db import OperationalError, connection, transaction

from audit.events import tool_errors
from audit.filters import INDEXED, Filters
from core.ids import ts_of

__all__ = ["EventLine", "FoundEvents", "newest", "search"]

COLUMNS = (
    "id, ts, api_key_id, key_prefix, key_name, role, upstream, method, tool_name, target_kind, outcome, reason, status_code,"
    f" latency_ms, count, truncated, redactions, {tool_errors.SQL} AS tool_error"
)
FIRST_WINDOW = 3_000
WIDEST_WINDOW = 400_000
BUDGET_MS = 55.0
ATTEMPT_MS = 45


class EventLine(NamedTuple):
    """What a line of the list shows."""

    id: UUID
    ts: datetime
    api_key_id: UUID | None
    key_prefix: str
    key_name: str
    role: str
    upstream: str
    method: str
    tool_name: str | None
    target_kind: str
    outcome: str
    reason: str
    status_code: int
    latency_ms: float
    count: int  # type: ignore[assignment]  # a line's own count, not the tuple's method
    truncated: bool
    redactions: int
    tool_error: bool


@dataclass(frozen=True, slots=True)
class FoundEvents:
    """One page, newest first, the cursors of its neighbours, and how far was looked when the time ran out."""

    rows: list[EventLine]
    older: UUID | None
    newer: UUID | None
    searched_to: datetime | None = None


def search(
    filters: Filters,
    *,
    before: UUID | None = None,
    after: UUID | None = None,
    limit: int = 50,
    budget_ms: float = BUDGET_MS,
) -> FoundEvents:
    """Return one page of events: older than `before`, or the next newer than `after`, or the newest."""
    if filters.problems:
        return FoundEvents([], None, None)
    walk = _SearchWalk(filters, before, after, limit)
    rows, reached = walk.run(budget_ms)
    more = len(rows) > limit
    rows = rows[:limit]
    if after is not None:
        rows.reverse()
        newer = rows[0].id if more else reached
        back: UUID | None = rows[-1].id if rows else after
        return FoundEvents(rows, back, newer, _moment(reached) if not more else None)
    older = rows[-1].id if more else reached
    newer = (rows[0].id if rows else before) if before is not None else None
    return FoundEvents(rows, older, newer, _moment(reached) if not more else None)


def newest(filters: Filters, after: UUID, limit: int) -> list[EventLine]:
    """Return the newest events behind one, newest first, whatever that takes: so near the end of the log it is little."""
    conditions, params = filters.where()
    low, high = filters.bounds()
    for sql, value in (("id > %s", after), ("id >= %s", low), ("id < %s", high)):
        if value is not None:
            conditions, params = [*conditions, sql], [*params, value]
    where = " AND ".join(conditions)
    sql = f"SELECT {COLUMNS} FROM audit_auditevent WHERE {where} ORDER BY id DESC LIMIT %s"  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(sql, [*params, limit])
        return [EventLine(*row) for row in cursor.fetchall()]


def _moment(cursor: UUID | None) -> datetime | None:
    return datetime.fromtimestamp(ts_of(cursor) / 1e6, UTC) if cursor is not None else None


class _SearchWalk:
    """One search in one direction."""

    def __init__(self, filters: Filters, before: UUID | None, after: UUID | None, limit: int) -> None:
        self.filters, self.limit = filters, limit
        self.forward = after is not None
        low, high = filters.bounds()
        if before is not None and not self.forward:
            high = min(high, before) if high else before
        self.low, self.high, self.after = low, high, after
        # The condition whose index gives the order; the others are looked at row by row.
        # A key's name has no such order: its events may be those of several keys, and of keys that are gone.
        indexed = [name for name in INDEXED if name != "key" or not filters.named]
        self.driver = next((name for name in indexed if name in filters.values), None)
        self.rest = [name for name in filters.values if name != self.driver]
        self.order = "ASC" if self.forward else "DESC"

    def run(self, budget_ms: float) -> tuple[list[EventLine], UUID | None]:
        """Return up to one row more than a page, and the id the search came to when it had to stop early."""
        start = time.perf_counter()
        if not self.rest and not self.filters.text:
            return self._execute(self._window_sql(COLUMNS, self.limit + 1)), None
        if self.filters.text or any(name in INDEXED for name in self.rest):
            try:
                return self._attempt(), None
            except OperationalError:
                pass  # too common for an index; what is common is found soon by walking
        rows: list[EventLine] = []
        window, cursor = FIRST_WINDOW, None
        while True:
            began = time.perf_counter()
            sql, params = self._window_sql(f"{COLUMNS}, {self._extra()}", window, cursor)
            where, more = self._rest_sql()
            needed = self.limit + 1 - len(rows)
            rows += self._execute(
                (
                    f"SELECT {COLUMNS} FROM ({sql}) w WHERE {where} ORDER BY id {self.order} LIMIT %s",  # noqa: S608
                    [*params, *more, needed],
                )
            )
            if len(rows) > self.limit:
                return rows, None
            ends = self._execute_raw(self._window_sql("id", window, cursor, offset=window - 1))
            if not ends:
                return rows, None  # the log, or the time range, has no more
            cursor = ends[0][0]
            now = time.perf_counter()
            left_ms = budget_ms - (now - start) * 1000
            per_row_ms = (now - began) * 1000 / window
            window = min(int(left_ms * 0.6 / max(per_row_ms, 1e-5)), WIDEST_WINDOW)
            if window < FIRST_WINDOW:
                return rows, cursor

    def _attempt(self) -> list[EventLine]:
        """Let the planner choose among the indexes, for a moment only."""
        conditions, params = self._bounds(None)
        own, values = self.filters.where()
        where, params = " AND ".join([*conditions, *own]) or "true", params + values
        with transaction.atomic(), connection.cursor() as cursor:
            # Both statements in one round trip; the second is what is read.
            cursor.execute(
                f"SET LOCAL statement_timeout = {ATTEMPT_MS};"  # noqa: S608
                f" SELECT {COLUMNS} FROM audit_auditevent WHERE {where} ORDER BY id {self.order} LIMIT %s",
                [*params, self.limit + 1],
            )
            cursor.nextset()
            rows = [EventLine(*row) for row in cursor.fetchall()]
            if connection.in_atomic_block and connection.savepoint_ids:
                cursor.execute("SET LOCAL statement_timeout = DEFAULT")
        return rows

    def _bounds(self, cursor: UUID | None) -> tuple[list[str], list[Any]]:
        low, high, after = self.low, self.high, self.after
        if cursor is not None:
            if self.forward:
                after = cursor
            else:
                high = cursor
        conditions: list[str] = []
        params: list[Any] = []
        for sql, value in (("id >= %s", low), ("id < %s", high), ("id > %s", after)):
            if value is not None:
                conditions.append(sql)
                params.append(value)
        return conditions, params

    def _window_sql(
        self, columns: str, size: int, cursor: UUID | None = None, offset: int = 0
    ) -> tuple[str, list[Any]]:
        """Return the next `size` events that the driving condition lets through, in order."""
        conditions, params = self._bounds(cursor)
        limit = f"LIMIT {1 if offset else size} OFFSET {offset}"
        values: tuple[tuple[str, ...] | None, ...] = (None,)
        if self.driver:
            # One ordered walk for each value: an index cannot give several values in one order.
            values = tuple((value,) for value in self.filters.values[self.driver])
        parts, all_params = [], []
        for value in values:
            own, own_params = list(conditions), list(params)
            if self.driver:
                sql, more = self.filters.conditions(self.driver, value)
                single = self.driver != "act"
                own.append(sql.replace("= ANY(", "= (").replace("[]", "") if single else sql)
                own_params += more[0] if single else more
            where = " AND ".join(own) or "true"
            inner = limit if len(values) == 1 else f"LIMIT {size}"
            parts.append(f"SELECT {columns} FROM audit_auditevent WHERE {where} ORDER BY id {self.order} {inner}")  # noqa: S608
            all_params += own_params
        if len(parts) == 1:
            return parts[0], all_params
        union = " UNION ALL ".join(f"({part})" for part in parts)
        return f"SELECT * FROM ({union}) u ORDER BY id {self.order} {limit}", all_params  # noqa: S608

    def _extra(self) -> str:
        """Columns that the other conditions, and those shown, read beside themselves."""
        return "auth_method, client_ip, session, rpc_id, decision, search, details"

    def _rest_sql(self) -> tuple[str, list[Any]]:
        conditions, params = self.filters.where(self.rest)
        return " AND ".join(conditions), params

    def _execute(self, query: tuple[str, list[Any]]) -> list[EventLine]:
        return [EventLine(*row) for row in self._execute_raw(query)]

    def _execute_raw(self, query: tuple[str, list[Any]]) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(*query)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows
