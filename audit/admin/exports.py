"""Taking a filtered view of the log out as a file: at once where it is small, through a file in the background where not."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotAllowed, QueryDict
from django.http import StreamingHttpResponse as Stream
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone

from audit.export import jobs as export_jobs
from audit.export.stream import FORMATS, PERMISSIONS, as_file, served, stream
from audit.filters import Filters, absolute
from audit.models import ExportJob
from audit.services.acts import record
from core import jobs, registry
from core.access import sessions
from core.access.actors import actor

PIECE = 256 * 1024
MOST_SHOWN = 20


def page(request: HttpRequest) -> HttpResponse:
    """Ask for the format and say what will be in the file."""
    _demand(request)
    return _ask(request, Filters.read(request.GET), registry.suggestions())


def download(request: HttpRequest) -> HttpResponseBase:
    """Stream a small view in constant memory, or have a large one made into a file; an event says who took what."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    _demand(request)
    fmt = request.POST.get("format", "")
    if fmt not in FORMATS:
        raise PermissionDenied
    filters = Filters.read(request.POST, besides=("csrfmiddlewaretoken", "format", "how"))
    if filters.problems:
        return _ask(request, filters, {}, status=400)
    about = export_jobs.estimate(filters)
    if about < export_jobs.LARGE or request.POST.get("how") == "stream":
        return stream(request, filters, fmt, actor(request), sessions.of_request(request, PERMISSIONS))
    try:
        job = export_jobs.ask(filters, fmt, actor(request), about)
    except export_jobs.TooManyExports:
        messages.warning(request, f"{export_jobs.MOST} exports are being made; wait for one to end, or cancel it.")
        return redirect(f"{reverse('admin:audit_export')}{filters.query()}")
    return redirect("admin:audit_export_job", job.pk)


def progress(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """Say how far an export is, and where its file is when it is done."""
    job = jobs.settle(_own(request, job_id))
    filters = Filters.read(_query(job))
    context = {
        **admin.site.each_context(request),
        "title": "Export",
        "job": job,
        "share": job.done / 10 if job.of else 0.0,
        "format": FORMATS[job.format][0],
        "chips": filters.chips(dict(registry.suggestions().get("key", []))),
        "file": _file(job),
        "ends": job.finished_at and job.finished_at + export_jobs.LIFE,
    }
    return render(request, "admin/audit/export_job.html", context)


def fetch(request: HttpRequest, job_id: UUID) -> HttpResponseBase:
    """Give out a finished file, to its requester only; that they take it is an event."""
    if request.method not in ("GET", "HEAD"):
        return HttpResponseNotAllowed(["GET"])
    job = _own(request, job_id)
    path = _file(job)
    if path is None:
        return redirect("admin:audit_export_job", job.pk)
    about = {"filter": job.filter, "format": job.format, "file": str(job.pk), "count": job.events, "bytes": job.bytes}
    with transaction.atomic():
        record("admin.events.export.fetched", request, target=job.format, details=about)
    response = as_file(
        Stream(served(request, _read(path)), content_type=FORMATS[job.format][1]), job.format, job.created_at
    )
    response.headers["Content-Length"] = str(job.bytes)
    return response


def cancel(request: HttpRequest, job_id: UUID) -> HttpResponseBase:
    """Stop an export, or delete its file."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    job = _own(request, job_id)
    export_jobs.cancel(job)
    messages.success(request, "The export was cancelled." if job.under_way else "The file was deleted.")
    return redirect("admin:audit_export")


def _ask(
    request: HttpRequest, filters: Filters, known: dict[str, list[tuple[str, str]]], status: int = 200
) -> HttpResponse:
    export_jobs.forget_old()
    about = None if filters.problems else export_jobs.estimate(filters)
    user: Any = request.user
    own = ExportJob.objects.filter(user_id=user.pk)[:MOST_SHOWN]
    context = {
        **admin.site.each_context(request),
        "title": "Export events",
        "filters": filters,
        "problems": filters.problems,
        "chips": filters.chips(dict(known.get("key", []))),
        "pairs": filters.pairs(),
        "query": filters.query(),
        "formats": [(name, *words) for name, words in FORMATS.items()],
        "preset": filters.preset,
        "about": about,
        "large": about is not None and about >= export_jobs.LARGE,
        "jobs": [(job, FORMATS[job.format][0], _file(job)) for job in map(jobs.settle, own)],
        "hours": int(export_jobs.LIFE.total_seconds() // 3600),
    }
    return render(request, "admin/audit/export.html", context, status=status)


def _demand(request: HttpRequest) -> None:
    if not request.user.has_perms(PERMISSIONS):
        raise PermissionDenied


def _own(request: HttpRequest, job_id: UUID) -> ExportJob:
    """Return an export of this person's own: nobody takes what another asked for."""
    _demand(request)
    job = ExportJob.objects.filter(pk=job_id).first()
    if job is None:
        raise Http404
    if job.user_id != request.user.pk:
        raise PermissionDenied
    return job


def _file(job: ExportJob) -> Path | None:
    """Return the file of an export while there is one; another machine's is not at hand."""
    path = export_jobs.path_of(job.pk)
    fresh = job.finished_at is not None and timezone.now() < job.finished_at + export_jobs.LIFE
    return path if job.state == "done" and fresh and path.is_file() else None


def _query(job: ExportJob) -> Any:
    """Return an export's conditions as a query, with the span it covers in place of a preset."""
    query = QueryDict(mutable=True)
    for name, value in job.filter.items():
        query.setlist(name, value if isinstance(value, list) else [value])
    query.pop("range", None)
    for name, moment in (("from", job.since), ("to", job.until)):
        query[name] = absolute(moment)
    return query


def _read(path: Path) -> Generator[bytes, None, None]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece
