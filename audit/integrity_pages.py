"""Is the log whole? Walks every writer's numbers and names each hole, on request."""

from __future__ import annotations

import time
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from audit.models import Tombstone, WriterPosition
from audit.people import record
from audit.verify import Report, verify

__all__ = ["page"]

MOST_FINDINGS = 200


def page(request: HttpRequest) -> HttpResponse:
    """Show what proves the log whole, and verify it when asked."""
    if not request.user.has_perm("audit.verify_auditevent"):
        raise PermissionDenied
    report: Report | None = None
    seconds = 0.0
    if request.method == "POST":
        began = time.perf_counter()
        connection.ensure_connection()
        raw: Any = connection.connection
        report = verify(raw, settings.SENTINEL.var / "journal")
        seconds = time.perf_counter() - began
        lost = sum(not finding.explained for finding in report.findings)
        about = {"ok": report.ok, "events": report.events, "holes": len(report.findings), "lost": lost}
        record("admin.log.verified", request, details=about)
    context = {
        **admin.site.each_context(request),
        "title": "Integrity",
        "report": report,
        "findings": sorted(report.findings, key=lambda finding: finding.explained)[:MOST_FINDINGS] if report else [],
        "seconds": seconds,
        "writers": WriterPosition.objects.count(),
        "tombstones": Tombstone.objects.count(),
    }
    return render(request, "admin/audit/integrity.html", context)
