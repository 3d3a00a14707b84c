"""Reading the log without ever counting or skipping it: pages by key, times as ranges of ids."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import connections, models
from django.db.models.functions import Cast

if TYPE_CHECKING:
    from audit.models import AuditEvent
else:
    AuditEvent = models.Model

__all__ = ["AuditEventQuerySet", "Page"]


class Page(list["AuditEvent"]):
    """One page of events, newest first, and the cursors of its neighbours (None where there is none)."""

    next: UUID | None = None  # pass as `before=`: the older page
    previous: UUID | None = None  # pass as `after=`: the newer page


class AuditEventQuerySet(models.QuerySet["AuditEvent"]):
    """The log: each method adds bounds on the id, so that only the partitions meant are read."""

    def between(self, start: datetime | None = None, end: datetime | None = None) -> AuditEventQuerySet:
        """Keep the events that started in [start, end)."""
        from core.ids import uuid7_floor

        found = self
        if start is not None:
            found = found.filter(id__gte=uuid7_floor(start))
        if end is not None:
            found = found.filter(id__lt=uuid7_floor(end))
        return found

    def search(self, text: str) -> AuditEventQuerySet:
        """Keep the events whose names, reason or ids contain the text, whatever its case."""
        escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        if not text:
            return self
        found: AuditEventQuerySet = self.extra(where=["search ILIKE %s"], params=[f"%{escaped}%"])  # type: ignore[assignment]
        return found

    def with_text(self) -> AuditEventQuerySet:
        """Add `request_text` and `response_text`: the payloads exactly as stored."""
        return self.annotate(
            request_text=Cast("request_json", models.TextField()),
            response_text=Cast("response_json", models.TextField()),
        )

    def without_payloads(self) -> AuditEventQuerySet:
        """Leave the payloads in the database until someone asks for them."""
        return self.defer("request_json", "response_json")

    def page(self, before: UUID | None = None, after: UUID | None = None, limit: int = 50, **filters: Any) -> Page:
        """Fetch one page, newest first: older than `before`, or just newer than `after`, or the newest of all."""
        found = self.filter(**filters) if filters else self
        if after is not None:
            rows = list(found.filter(id__gt=after).order_by("id")[: limit + 1])
            more, rows = len(rows) > limit, rows[:limit][::-1]
            page = Page(rows)
            page.next = rows[-1].id if rows else None
            page.previous = rows[0].id if more and rows else None
            return page
        if before is not None:
            found = found.filter(id__lt=before)
        rows = list(found.order_by("-id")[: limit + 1])
        more = len(rows) > limit
        page = Page(rows[:limit])
        page.next = page[-1].id if more and page else None
        page.previous = page[0].id if before is not None and page else None
        return page

    def about_count(self) -> int:
        """Estimate how many events the whole log holds, from the planner's statistics."""
        sql = (
            "SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint FROM pg_inherits i"
            " JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass(%s)"
        )
        with connections[self.db].cursor() as cursor:
            cursor.execute(sql, [self.model._meta.db_table])
            return int(cursor.fetchone()[0])
