"""The admin's own small pages: preferences, health, and what is said to someone who is refused."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.utils import timezone

from core.admin.base import page
from core.admin.zones import ZoneField
from sentinel.site.settings import COOLOFF


class PreferencesForm(forms.Form):
    """How the admin looks to one person."""

    theme = forms.ChoiceField(choices=[("auto", "As the system"), ("light", "Light"), ("dark", "Dark")])
    time_zone = ZoneField()


def preferences(request: HttpRequest) -> HttpResponseBase:
    """Let a person choose theme and time zone."""
    user: Any = request.user
    form = PreferencesForm(request.POST or None, initial={"theme": user.theme, "time_zone": user.time_zone})
    if request.method == "POST" and form.is_valid():
        user.theme, user.time_zone = form.cleaned_data["theme"], form.cleaned_data["time_zone"]
        user.save(update_fields=["theme", "time_zone"])
        messages.success(request, "Preferences saved.")
        return redirect("admin:preferences")
    return page(request, "admin/preferences.html", {"title": "Preferences", "form": form})


def save_view(request: HttpRequest) -> HttpResponseBase:
    """Keep a view of the log under a name, or forget one."""
    from django.http import HttpResponseNotAllowed, QueryDict
    from django.urls import reverse

    from audit.filters import FIELDS, SINGLE, Filters
    from sentinel.models import SavedView

    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    if not request.user.has_perm("audit.view_auditevent"):
        raise PermissionDenied
    user: Any = request.user
    events = reverse("admin:audit_auditevent_changelist")
    forget = request.POST.get("forget", "")
    if forget.isdecimal() and len(forget) < 18:
        SavedView.objects.filter(user=user, pk=int(forget)).delete()
        return redirect(events)
    name = request.POST.get("name", "").replace("\0", "").strip()[:80]
    asked = QueryDict(request.POST.get("query", "").removeprefix("?")[:4000], mutable=True)
    strangers = [name for name in asked if name not in FIELDS and name not in SINGLE]
    if len(strangers) < len(asked):  # what is no filter is no part of a view, unless nothing else was asked for
        for stranger in strangers:
            del asked[stranger]
    filters = Filters.read(asked)
    query = filters.query().removeprefix("?")
    if filters.problems:
        messages.warning(request, f"The view was not saved. {filters.problems[0]}")
    elif not name:
        messages.warning(request, "Give the view a name.")
    elif user.saved_views.count() >= 50:
        messages.warning(request, "Fifty views are kept for each person; remove one first.")
    else:
        SavedView.objects.update_or_create(user=user, name=name, defaults={"query": query})
        messages.success(request, f"The view “{name}” was saved.")
    return redirect(f"{events}?{query}" if query else events)


def components(request: HttpRequest) -> HttpResponseBase:
    from sentinel.templatetags.ui import OUTCOMES

    hostile = "<script>alert(1)</script> \u202egnp.exe\u200b \x1b[31m {{7*7}}"
    sample = (
        '{"query": "select *", "limit": 10.50, "token": "[REDACTED:api_key:0a1b2c3d]", "rows": [1, {"deep": null}]}'
    )
    context = {"title": "Components", "outcomes": list(OUTCOMES), "hostile": hostile, "sample": sample}
    return page(request, "admin/components.html", context | {"now": timezone.now()})


def health(request: HttpRequest) -> HttpResponseBase:
    """Show the state of the installation to whoever minds it."""
    if not request.user.has_perm("sentinel.view_health"):
        raise PermissionDenied
    from sentinel.site import attention

    return page(request, "admin/health.html", {"title": "Health", "state": attention.read()})


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Say that there is nothing under an address, as a page of the admin where it is one of its addresses."""
    if request.path.startswith("/admin/"):
        return page(request, "404.html", {"title": "Not found"}, status=404)
    where = "There is nothing here. Agents call /mcp/{upstream}, people log in at /admin/, and /api/docs/ describes the API.\n"
    return HttpResponse(where, status=404, content_type="text/plain; charset=utf-8")


def front(request: HttpRequest) -> HttpResponseBase:
    """Take a browser that was given the bare address to the admin; whatever else comes is at the wrong address."""
    if request.method in ("GET", "HEAD") and "text/html" in request.headers.get("Accept", ""):
        return redirect("admin:index")
    return not_found(request)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Say in one sentence what a missing or foreign form token means, and what to do."""
    context = {
        "title": "This form could not be accepted",
        "detail": "It was opened in another session, is too old, or came from another site. Go back, reload the page and send it again.",
        "technical": reason,
    }
    return page(request, "403.html", context, status=403)


def locked_out(request: HttpRequest, credentials: Any = None, *args: Any, **kwargs: Any) -> HttpResponse:
    """Tell someone who guessed too often how long to wait."""
    seconds = int(COOLOFF.total_seconds())
    context = {"title": "Log in", "locked": f"{seconds // 60} minutes", "has_permission": False}
    response = page(request, "admin/login.html", context, status=429)
    response.headers["Retry-After"] = str(seconds)
    return response
