"""Taking a filtered view of the log out as a file."""

from __future__ import annotations

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotAllowed
from django.shortcuts import render

from audit.exporting import FORMATS, PERMISSIONS, stream
from audit.filters import Filters
from audit.people import actor


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
    fmt = request.POST.get("format", "")
    if fmt not in FORMATS:
        raise PermissionDenied
    filters = Filters.read(request.POST)
    if filters.problems:
        return render(request, "admin/audit/export.html", {"problems": filters.problems}, status=400)
    return stream(request, filters, fmt, actor(request))


def _demand(request: HttpRequest) -> None:
    if not request.user.has_perms(PERMISSIONS):
        raise PermissionDenied
