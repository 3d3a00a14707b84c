"""A filtered view of the log as a stream, for the admin and the API; who took what, and how much arrived, is an event."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.db import transaction
from django.http import HttpRequest, StreamingHttpResponse
from django.utils import timezone

from audit.filters import Filters
from audit.models import AuditEvent
from audit.services.acts import record_act
from core.access.actors import Actor

__all__ = ["FORMATS", "PERMISSIONS", "as_file", "matching", "stream"]

FORMATS = {
    "ndjson": ("NDJSON", "application/x-ndjson", "One JSON object a line, exactly as stored. For tools and archives."),
    "csv": (
        "CSV",
        "text/csv; charset=utf-8",
        "For spreadsheets; cells that could be read as formulas are neutralised.",
    ),
    "ocsf": ("OCSF", "application/x-ndjson", "API Activity of the Open Cybersecurity Schema Framework. For a SIEM."),
}
# A file holds arguments and results: whoever takes it must be allowed to see them.
PERMISSIONS = ("audit.view_auditevent", "audit.export_auditevent", "audit.view_payload")


def stream(
    request: HttpRequest, filters: Filters, fmt: str, who: Actor, stands: Callable[[], bool]
) -> StreamingHttpResponse:
    """Stream the events of a view in constant memory, oldest first, for as long as whoever takes them may."""
    from audit.export import formats

    about = {"filter": filters.describe(), "format": fmt}
    with transaction.atomic():
        record_act(method="admin.events.exported", actor=who, target=fmt, details=about)
    counted = _Counted(formats.rows(matching(filters)), formats.FORMATS[fmt], stands)

    def finished() -> None:
        done = {**about, "bytes": counted.bytes, "count": counted.events, "complete": counted.complete}
        record_act(method="admin.events.export.ended", actor=who, target=fmt, details=done)

    # Under ASGI a plain iterator would be read whole before the first byte leaves.
    content: Any = _async(counted, finished) if hasattr(request, "scope") else _sync(counted, finished)
    response = StreamingHttpResponse(content, content_type=FORMATS[fmt][1])
    return as_file(response, fmt, timezone.now())


def as_file(response: StreamingHttpResponse, fmt: str, made: datetime) -> StreamingHttpResponse:
    """Give an answer the name of a file of this moment; it is kept nowhere on its way."""
    name = f"mcp-sentinel-events-{made.astimezone(UTC):%Y%m%dT%H%M%SZ}.{'csv' if fmt == 'csv' else 'ndjson'}"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.headers["X-Accel-Buffering"] = "no"
    response.headers["Cache-Control"] = "no-store"
    return response


def matching(filters: Filters) -> Any:
    """Return the events of a view as a queryset, oldest first."""
    low, high = filters.bounds()
    events: Any = AuditEvent.objects.order_by("id")
    if low:
        events = events.filter(id__gte=low)
    if high:
        events = events.filter(id__lt=high)
    conditions, params = filters.where()
    return events.extra(where=conditions, params=params)  # noqa: S610 - constants of audit.filters


class StreamEnded(Exception):
    """Whoever takes a stream may no longer: it is cut, so that the file does not look complete."""


class _Counted:
    """Writes events in one form, and counts what passes."""

    def __init__(
        self,
        rows: Iterator[Any],
        write: Callable[[Iterator[Any]], Iterator[bytes]],
        stands: Callable[[], bool] = lambda: True,
    ) -> None:
        from audit.export import formats

        self.stands = stands
        self.rows, self.bytes, self.events, self.complete = rows, 0, 0, False
        self.chunks = formats.gathered(write(self._counted()))

    def _counted(self) -> Iterator[Any]:
        for row in self.rows:
            self.events += 1
            yield row

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self.stands():
            raise StreamEnded
        try:
            chunk = next(self.chunks)
        except StopIteration:
            self.complete = True
            raise
        self.bytes += len(chunk)
        return chunk

    def take(self) -> bytes | None:
        """Return the next chunk, or None at the end; StopIteration cannot cross a thread."""
        return next(self, None)

    def close(self) -> None:
        """Let go of the database's cursor."""
        for generator in (self.chunks, self.rows):
            close = getattr(generator, "close", None)
            if close:
                close()


def _sync(counted: _Counted, finished: Callable[[], None]) -> Iterator[bytes]:
    try:
        yield from counted
    finally:
        _ended(counted, finished)


async def _async(counted: _Counted, finished: Callable[[], None]) -> AsyncIterator[bytes]:
    take, end = sync_to_async(counted.take), sync_to_async(_ended)
    try:
        while (chunk := await take()) is not None:
            yield chunk
    finally:
        await end(counted, finished)


def _ended(counted: _Counted, finished: Callable[[], None]) -> None:
    counted.close()
    finished()
