"""A filtered view of the log as a stream, for the admin and the API; who took what, and how much arrived, is an event."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from datetime import UTC, datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.db import transaction
from django.http import HttpRequest, StreamingHttpResponse
from django.utils import timezone

from audit.export import formats
from audit.filters import Filters
from audit.models import AuditEvent
from audit.services.acts import record_act
from core.access.actors import Actor

__all__ = ["FORMATS", "PERMISSIONS", "StreamEnded", "as_file", "matching", "served", "stream", "written"]

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
    about = {"filter": filters.describe(), "format": fmt}
    with transaction.atomic():
        record_act(method="admin.events.exported", actor=who, target=fmt, details=about)

    def ended(**how: Any) -> None:
        record_act(method="admin.events.export.ended", actor=who, target=fmt, details={**about, **how})

    pieces = written(formats.rows(matching(filters)), formats.FORMATS[fmt], stands, ended)
    response = StreamingHttpResponse(served(request, pieces), content_type=FORMATS[fmt][1])
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


def written(
    rows: Generator[Any, None, None],
    write: Callable[[Iterator[Any]], Iterator[bytes]],
    stands: Callable[[], bool],
    ended: Callable[..., Any],
) -> Generator[bytes, None, None]:
    """Write events in one form for as long as `stands` says so; `ended` is told how much it was, however it ends."""
    size = events = 0
    complete = False

    def counted() -> Iterator[Any]:
        nonlocal events
        for row in rows:
            events += 1
            yield row

    chunks = formats.gathered(write(counted()))
    try:
        while stands():
            chunk = next(chunks, None)
            if chunk is None:
                complete = True
                return
            size += len(chunk)
            yield chunk
        raise StreamEnded
    finally:
        rows.close()  # lets go of the database's cursor
        ended(bytes=size, count=events, complete=complete)


def served(request: HttpRequest, pieces: Generator[bytes, None, None]) -> Any:
    """Give what an answer can stream: under ASGI a plain iterator would be read whole before the first byte leaves."""
    return _in_threads(pieces) if hasattr(request, "scope") else pieces


async def _in_threads(pieces: Generator[bytes, None, None]) -> AsyncIterator[bytes]:
    take = sync_to_async(lambda: next(pieces, None))  # StopIteration cannot cross a thread
    try:
        while (piece := await take()) is not None:
            yield piece
    finally:
        await sync_to_async(pieces.close)()
