"""Taking a filtered view of the log out as a file; who took what is an event."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotAllowed, StreamingHttpResponse
from django.shortcuts import render
from django.utils import timezone

from audit.acts import record_act
from audit.filters import Filters
from audit.models import AuditEvent
from audit.people import actor, record
from audit.search import _pattern

FORMATS = {
    "ndjson": ("NDJSON", "application/x-ndjson", "One JSON object a line, exactly as stored. For tools and archives."),
    "csv": (
        "CSV",
        "text/csv; charset=utf-8",
        "For spreadsheets; cells that could be read as formulas are neutralised.",
    ),
    "ocsf": ("OCSF", "application/x-ndjson", "API Activity of the Open Cybersecurity Schema Framework. For a SIEM."),
}


def page(request: HttpRequest) -> HttpResponse:
    """Ask for the format and say what will be in the file."""
    _demand(request)
    from audit.admin import read_filters, suggestions

    known = suggestions()
    filters = read_filters(request, known)
    context = {
        **admin.site.each_context(request),
        "title": "Export events",
        "filters": filters,
        "problems": filters.problems,
        "chips": filters.chips(dict(known.get("key", []))),
        "pairs": filters.pairs(),
        "query": filters.query(),
        "formats": [(name, *about) for name, about in FORMATS.items()],
        "payloads": request.user.has_perm("audit.view_payload"),
        "preset": filters.preset,
    }
    return render(request, "admin/audit/export.html", context)


def download(request: HttpRequest) -> HttpResponseBase:
    """Stream the file in constant memory; an event says who took it, with which filter, and how much arrived."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    _demand(request)
    from audit import export

    fmt = request.POST.get("format", "")
    if fmt not in FORMATS:
        raise PermissionDenied
    filters = Filters.read(request.POST)
    if filters.problems:
        return render(request, "admin/audit/export.html", {"problems": filters.problems}, status=400)
    about = {"filter": filters.describe(), "format": fmt}
    with transaction.atomic():
        record("admin.events.exported", request, target=fmt, details=about)
    who = actor(request)
    counted = _Counted(export.export(matching(filters), fmt))

    def finished() -> None:
        done = {**about, "bytes": counted.bytes, "lines": counted.lines, "complete": counted.complete}
        record_act(method="admin.events.export.ended", actor=who, target=fmt, details=done)

    content: Any = _async(counted, finished) if hasattr(request, "scope") else _sync(counted, finished)
    response = StreamingHttpResponse(content, content_type=FORMATS[fmt][1])
    name = f"mcp-sentinel-events-{timezone.now():%Y%m%dT%H%M%SZ}.{'csv' if fmt == 'csv' else 'ndjson'}"
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    response.headers["X-Accel-Buffering"] = "no"
    return response


def matching(filters: Filters) -> Any:
    """Return the events of a view as a queryset, oldest first."""
    low, high = filters.bounds()
    events = AuditEvent.objects.order_by("id")
    if low:
        events = events.filter(id__gte=low)
    if high:
        events = events.filter(id__lt=high)
    for name in filters.values:
        sql, params = filters.conditions(name)
        events = events.extra(where=[sql], params=params)
    if filters.text:
        events = events.extra(where=["search ILIKE %s"], params=[_pattern(filters.text)])
    return events


def _demand(request: HttpRequest) -> None:
    # A file holds arguments and results: whoever takes it must be allowed to see them.
    if not request.user.has_perms(["audit.view_auditevent", "audit.export_auditevent", "audit.view_payload"]):
        raise PermissionDenied


class _Counted:
    """Counts what passes."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks, self.bytes, self.lines, self.complete = iter(chunks), 0, 0, False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            chunk = next(self.chunks)
        except StopIteration:
            self.complete = True
            raise
        self.bytes += len(chunk)
        self.lines += chunk.count(b"\n")
        return chunk

    def take(self) -> bytes | None:
        """Return the next chunk, or None at the end; StopIteration cannot cross a thread."""
        return next(self, None)

    def close(self) -> None:
        """Let go of the database's cursor."""
        close = getattr(self.chunks, "close", None)
        if close:
            close()


def _sync(counted: _Counted, finished: Any) -> Iterator[bytes]:
    try:
        yield from counted
    finally:
        counted.close()
        finished()


async def _async(counted: _Counted, finished: Any) -> AsyncIterator[bytes]:
    take, end = sync_to_async(counted.take), sync_to_async(_ended)
    try:
        while (chunk := await take()) is not None:
            yield chunk
    finally:
        await end(counted, finished)


def _ended(counted: _Counted, finished: Any) -> None:
    counted.close()
    finished()
