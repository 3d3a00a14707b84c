"""The front page."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


def page(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    """Show the overview."""
    return render(request, "admin/overview.html", context | {"title": "Overview"})
