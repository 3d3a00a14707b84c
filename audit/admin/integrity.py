"""Is the log whole? Shows what the last verification found, whoever asked for it, and has another one made."""

from __future__ import annotations

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from audit.models import Tombstone, WriterPosition
from audit.services import verification
from core.access import actors

__all__ = ["page"]


def page(request: HttpRequest) -> HttpResponse:
    """Show what proves the log whole, and verify it when asked."""
    if not request.user.has_perm("audit.verify_auditevent"):
        raise PermissionDenied
    if request.method == "POST":
        verification.ask(actors.actor(request))
        return redirect("admin:audit_integrity")
    running, last = verification.latest()
    context = {
        **admin.site.each_context(request),
        "title": "Integrity",
        "running": running,
        "share": 100 * running.done / running.of if running and running.of else 0.0,
        "last": last,
        "report": last.report if last else None,
        "writers": WriterPosition.objects.count(),
        "tombstones": Tombstone.objects.count(),
    }
    return render(request, "admin/audit/integrity.html", context)
