"""The log in the admin: to be read, followed and taken out, never to be changed."""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.shortcuts import render
from django.urls import URLPattern, path, reverse

from audit.admin import erasing, exports, integrity, live
from audit.admin.redaction import RedactionRuleAdmin
from audit.events import act_kinds, sentences
from audit.filters import FIELDS, PRESETS, Filters, of_form
from audit.models import AuditEvent, OpenCall, Outcome
from audit.reasons import words
from audit.search import BUDGET_MS, search
from audit.services.acts import record
from core import registry
from core.admin.base import Pages
from core.ids import uuid7_floor

__all__ = ["AuditEventAdmin", "RedactionRuleAdmin"]

PAGE = 50
# How events end whose requests policy was asked about.
DECIDED = ("allowed", "denied", "limited", "upstream_error", "cancelled", "interrupted")
LONGER_MS = 2_000.0  # for those who ask for it: how long a search for something rare may take


@admin.register(AuditEvent)
class AuditEventAdmin(Pages):
    """Events: a list by key pages, one page for each, live view and export."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Events come from requests."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody changes what happened."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody deletes what happened."""
        return False

    def get_urls(self) -> list[URLPattern]:
        """Put live view and export before the page of one event."""
        wrap = self.admin_site.admin_view
        return [
            path("live/", wrap(live.page), name="audit_live"),
            path("live/stream/", live.stream, name="audit_live_stream"),
            path("integrity/", wrap(integrity.page), name="audit_integrity"),
            path("export/", wrap(exports.page), name="audit_export"),
            path("export/file/", wrap(exports.download), name="audit_export_file"),
            path("export/<uuid:job_id>/", wrap(exports.progress), name="audit_export_job"),
            path("export/<uuid:job_id>/file/", wrap(exports.fetch), name="audit_export_fetch"),
            path("export/<uuid:job_id>/cancel/", wrap(exports.cancel), name="audit_export_cancel"),
            path("<uuid:event_id>/erase/", wrap(erasing.page), name="audit_erase"),
            *super().get_urls(),
        ]

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Refuse, whoever asks, whether the event exists or not."""
        raise PermissionDenied

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """An event has no history: it is one."""
        raise Http404

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        if request.method == "POST":
            raise PermissionDenied  # there is no act on events
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET"])
        if not self.has_view_permission(request):
            raise PermissionDenied
        place = reverse("admin:audit_auditevent_changelist")
        asked = of_form(request.GET)
        if asked is not None:
            return HttpResponseRedirect(f"{place}?{asked.urlencode()}")
        known = registry.suggestions()
        filters = Filters.read(request.GET, besides=("before", "after", "longer"))
        problems = list(filters.problems)
        before, after = _cursor(request, "before", problems), _cursor(request, "after", problems)
        # Who looks at events leaves some: where nothing but a time is asked for, those that change nothing stay out of the way.
        quiet = not (filters.problems or filters.values or filters.text)
        chosen = replace(filters, values={**filters.values, "act": ("quiet",)}) if quiet else filters
        budget = LONGER_MS if request.GET.get("longer") else BUDGET_MS
        found = search(chosen, before=before, after=None if before else after, limit=PAGE, budget_ms=budget)
        labels = dict(known.get("key", []))
        labels |= {str(row.api_key_id): row.key_name for row in found.rows if row.api_key_id and row.key_name}
        context = {
            **self.admin_site.each_context(request),
            "title": "Events",
            "found": found,
            "filters": filters,
            "quiet": filters.query(act="all") if quiet else "",
            "problems": problems,
            "chips": filters.chips(labels),
            "presets": [(word, label, _preset(filters, word)) for word, (label, _) in PRESETS.items()],
            "ranged": filters.preset if not (filters.start or filters.end) else None,
            "fields": FIELDS,
            "hidden": [pair for pair in filters.pairs() if pair[0] not in ("q", "from", "to", "outcome", "act")],
            "chosen_outcomes": filters.values.get("outcome", ()),
            "outcomes": Outcome.choices,
            "acts": act_kinds.KINDS,
            "chosen_act": filters.values.get("act", ("",))[0],
            "known": known,
            "about": AuditEvent.objects.about_count() if filters.empty else None,
            "query": chosen.query() if quiet and not filters.empty else filters.query(),
            "older": filters.query(before=found.older) if found.older else "",
            "newer": filters.query(after=found.newer) if found.newer else "",
            "newest": filters.query() if before or after else "",
            "can_export": request.user.has_perm("audit.export_auditevent"),
            "views": registry.saved_views(request.user),
            "save_view": registry.save_view_page(),
            "new_key": registry.new_key_page(user=request.user),
            "clear": "" if filters.empty else place,
            # Links of the cells, as far as they are the same in every line.
            "place": place,
            "same_key": filters.without("key").query(key=""),
            "same_tool": filters.without("tool").query(tool=""),
        }
        return render(request, "admin/audit/events.html", context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show one event; looking at arguments and results is an event itself."""
        if request.method == "POST":
            raise PermissionDenied
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            wanted = UUID(object_id)
        except ValueError:
            raise Http404 from None
        payloads = request.user.has_perm("audit.view_payload")
        events = AuditEvent.objects.filter(pk=wanted)
        event: Any = (events.with_text() if payloads else events.without_payloads()).first()
        running = None if event else OpenCall.objects.filter(pk=wanted).first()
        if event is None and running is None:
            context = {**self.admin_site.each_context(request), "title": "No such event", "wanted": wanted}
            return render(request, "admin/audit/no_event.html", context, status=404)
        if event is None:
            until = datetime.fromtimestamp(running.until / 1e6, UTC) if running and running.until else None
            title = "Waiting call" if until else "Running call"
            context = {**self.admin_site.each_context(request), "title": title, "call": running, "until": until}
            return render(request, "admin/audit/running.html", context)
        if payloads and (event.request_text or event.response_text):
            with transaction.atomic():
                looked = {"first": str(event.id), "last": str(event.id), "count": 1}
                record("admin.payloads.viewed", request, target=str(event.id), details=looked)
        details = event.details if isinstance(event.details, dict) else {}
        context = {
            **self.admin_site.each_context(request),
            "title": f"Event {event.id}",
            "event": event,
            "sentence": sentences.sentence(event),
            "why": words(event.reason) if event.reason else "",
            "stages": sentences.stages(event),
            "decision_text": _json(event.decision),
            "payloads": payloads,
            "may_erase": request.user.has_perm(erasing.PERMISSION) and event.outcome != "changed",
            "act": act_kinds.kind_of(event.outcome, event.method, event.status_code),
            "details_text": _json(details) if details else "",
            "erasure": _erasure(event) if payloads else None,
            "neighbours": _neighbours(event),
            "explain": _explain_link(request, event),
            "links": _links(event),
            "key_page": registry.key_page(event.api_key_id, user=request.user) if event.api_key_id else "",
            "joined": _joined(details),
        }
        return render(request, "admin/audit/event.html", context)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _cursor(request: HttpRequest, name: str, problems: list[str]) -> UUID | None:
    value = request.GET.get(name, "")
    if not value:
        return None
    try:
        return UUID(value)
    except ValueError:
        problems.append("The place in the log could not be read; this is the newest page.")
        return None


def _preset(filters: Filters, word: str) -> str:
    pairs = {"preset": word, "start": None, "end": None}
    return Filters(values=filters.values, text=filters.text, **pairs).query()  # type: ignore[arg-type]


def _neighbours(event: Any) -> dict[str, list[Any]]:
    """Return the events just before and after in the same session, or of the same key where there is no session."""
    if event.session:
        kind, values = "session", {"session": (event.session,)}
    elif event.api_key_id:
        kind, values = "key", {"key": (str(event.api_key_id),)}
    else:
        return {}
    filters = Filters(values=values)
    before = search(filters, before=event.id, limit=4, budget_ms=25).rows
    after = search(filters, after=event.id, limit=4, budget_ms=25).rows
    return {"kind": [kind], "after": after, "before": before} if before or after else {}


def _links(event: Any) -> dict[str, str]:
    """Return the views that start from this event."""
    links: dict[str, str] = defaultdict(str)
    links["minute"] = Filters(
        start=event.ts.replace(second=0, microsecond=0),
        end=event.ts.replace(second=0, microsecond=0) + timedelta(minutes=1),
    ).query()
    for name, value in (
        ("key", event.api_key_id), ("tool", event.tool_name), ("upstream", event.upstream), ("session", event.session),
        ("reason", event.reason), ("role", event.role), ("ip", event.client_ip), ("outcome", event.outcome),
    ):  # fmt: skip
        if value:
            links[name] = Filters(values={name: (str(value),)}).query()
    links["around"] = f"?before={uuid7_floor(event.ts + timedelta(seconds=30))}"
    return links


def _erasure(event: Any) -> Any:
    """Return the event of whoever erased this one's payloads, where they are gone."""
    if event.request_text or event.response_text or not (event.request_digest or event.response_digest):
        return None
    erasures = AuditEvent.objects.filter(tool_name=str(event.id), method="admin.audit.payload_erased")
    found: Any = erasures.order_by("-id").first()
    if found is not None:
        found.why = (found.details or {}).get("reason", "")
    return found


def _joined(details: dict[str, Any]) -> list[tuple[str, UUID]]:
    """Return the events that this one is joined to by a resumed stream: what each is to it, and its id."""
    found: list[tuple[str, Any]] = []
    resumed, stream = details.get("resumed"), details.get("stream")
    if isinstance(resumed, dict):
        found.append(("Brought the answer of" if resumed.get("answered") else "Took up", resumed.get("call")))
    found += [
        (label, details[name])
        for name, label in (("asked_on", "Asked on"), ("answered_on", "Answered on"))
        if name in details
    ]
    if isinstance(stream, dict) and isinstance(stream.get("server_requests"), list):
        found += [("The server asked", one.get("event")) for one in stream["server_requests"] if isinstance(one, dict)]
    if isinstance(details.get("call"), str):
        found.append(("Answers", details["call"]))
    if isinstance(stream, dict) and isinstance(stream.get("resumed"), list):
        found += [("Taken up by", one) for one in stream["resumed"]]
    joined = []
    for label, value in found:
        with suppress(ValueError, TypeError, AttributeError):
            joined.append((label, UUID(value)))
    return joined


def _explain_link(request: HttpRequest, event: Any) -> str:
    if event.outcome not in DECIDED or not event.target_kind:
        return ""
    url = registry.explain_page(user=request.user)
    return url and f"{url}?event={event.id}"
