"""What every page of the admin has in common: headers, time zone, the second factor, and refusals as events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone

from audit.journal.flood import source_of
from audit.services.acts import record
from core.access.actors import client_ip
from sentinel.refused_acts import RefusedActs
from sentinel.users import second_factor

Handler = Callable[[HttpRequest], HttpResponseBase]

POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "font-src 'self'",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "form-action 'self'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "X-Content-Type-Options": "nosniff",
}


class SecurityHeadersMiddleware:
    """Sets the content security policy and its relatives on everything Django answers."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response


class ViewerMiddleware:
    """Shows times in the zone of whoever looks."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        user = getattr(request, "user", None)
        if user is None or not user.is_authenticated:
            return self.get_response(request)
        with timezone.override(zone_of(user)):
            return self.get_response(request)


def zone_of(user: object) -> ZoneInfo:
    """Return a person's time zone; an unknown name means UTC, never an error."""
    try:
        return ZoneInfo(getattr(user, "time_zone", "") or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


class SecondFactorMiddleware:
    """Asks for the second factor before anything else of whoever has one, and where a person's group demands one."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        user: Any = getattr(request, "user", None)
        if user is None or not request.path.startswith("/admin/") or not second_factor.owed(user):
            return self.get_response(request)
        if request.path in {reverse("admin:second_factor"), reverse("admin:logout"), reverse("admin:login")}:
            return self.get_response(request)
        if request.method == "GET" and "text/event-stream" not in request.headers.get("Accept", ""):
            request.session[second_factor.NEXT] = request.get_full_path()[:2000]
        return redirect("admin:second_factor")


class RefusalsMiddleware:
    """Leaves an event for everything the admin refuses."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response
        self._flood = RefusedActs()

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        if response.status_code == 403 and request.path.startswith("/admin/") and isinstance(response, HttpResponse):
            user = getattr(request, "user", None)
            who = user.pk if user is not None and user.is_authenticated else None
            dropped = self._flood.admit(who or source_of(client_ip(request)), "refused", known=who is not None)
            if dropped is not None:
                details: dict[str, object] = {"http": {"verb": request.method, "path": request.path[:300]}}
                if dropped:
                    details["not_recorded_before"] = dropped
                record("admin.refused", request, target=request.path[:300], details=details, status_code=403)
        return response
