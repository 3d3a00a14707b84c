"""Upstreams and their catalogue in the admin: check a connection, read its lists, approve what is new or has changed."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import Count, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path

from audit.reasons import words
from core.access import members
from core.access.actors import actor
from core.admin.base import Pages, asked
from proxy.forms import REACH, JudgementForm, UpstreamForm, pairs_as_text
from proxy.mcp import definitions
from proxy.models import CatalogueItem, Upstream, UpstreamStatus
from proxy.services.errors import ServiceError
from proxy.upstreams import vault

PAGE = 50
STATES = {"waiting": "Waiting", "pinned": "Approved", "gone": "Gone", "": "All"}
WAITING = ("new", "changed", "quarantined")
WAITS = "Its tools, prompts and resources are hidden and refused until whoever manages the policy has approved them."


@admin.register(Upstream)
class UpstreamAdmin(Pages):
    """MCP servers behind the gateway."""

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        return [
            path("<int:pk>/check/", wrap(self.check_view), name="proxy_upstream_check"),
            path("<int:pk>/policy/", wrap(self.judge_view), name="proxy_upstream_policy"),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        tools = Count("catalogue", filter=Q(catalogue__present=True, catalogue__kind="tool"))
        waiting = Count(
            "catalogue", filter=Q(catalogue__present=True, catalogue__status__in=("changed", "quarantined"))
        )
        upstreams = Upstream.objects.select_related("status").annotate(tools=tools, waiting=waiting).order_by("slug")
        context = {
            **self.admin_site.each_context(request),
            "title": "Upstreams",
            "upstreams": list(upstreams[:500]),
            "may_add": self.has_add_permission(request),
        }
        return render(request, "admin/proxy/upstreams.html", context)

    def commands(self, request: HttpRequest) -> bool:
        """Whether this person may have the gateway start programs."""
        return bool(request.user.has_perm("proxy.start_command"))

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """Add an upstream; its connection is checked at once."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        commands = self.commands(request)
        form = UpstreamForm(
            request.POST or None, new=True, owned=members.owned(request.user, "upstream"), commands=commands
        )
        if request.method == "POST" and form.is_valid():
            from proxy.services import upstreams as services

            data = form.given()
            try:
                made = services.create_upstream(
                    actor=actor(request), may_start_commands=commands, may_judge=_judges(request), **data
                )
            except ServiceError as error:
                _blame(form, error)
            else:
                self.log_addition(request, made, "created")
                if not _judges(request):
                    messages.warning(request, WAITS)
                if request.user.has_perm("proxy.check_upstream"):
                    self._check(request, made)
                return redirect("admin:proxy_upstream_change", made.pk)
        context = {
            **self.admin_site.each_context(request),
            "title": "Add an upstream",
            "form": form,
            "may_check": request.user.has_perm("proxy.check_upstream"),
        }
        return render(request, "admin/proxy/upstream_new.html", context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show an upstream: is it there, what does it offer, how is a client pointed at it; and its settings."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        upstream = self.one(object_id)
        may_change = self.has_change_permission(request)
        commands = self.commands(request)
        form = UpstreamForm(
            request.POST or None,
            initial=_initial(upstream),
            owned=members.owned(request.user, "upstream"),
            commands=commands,
        )
        if request.method == "POST":
            if not may_change:
                raise PermissionDenied
            if form.is_valid():
                from proxy.services import upstreams as services

                data = form.given()
                policy = upstream.catalogue_policy
                try:
                    changed = services.update_upstream(
                        actor=actor(request),
                        slug=upstream.slug,
                        may_start_commands=commands,
                        may_judge=_judges(request),
                        **data,
                    )
                except ServiceError as error:
                    _blame(form, error)
                else:
                    self.log_change(request, upstream, [{"changed": {"fields": form.changed_data}}])
                    messages.success(request, f"{upstream.slug} was changed.")
                    if changed.catalogue_policy != policy and "catalogue_policy" not in data:
                        messages.warning(request, WAITS)
                    if (
                        changed.enabled
                        and REACH & {*form.changed_data}
                        and request.user.has_perm("proxy.check_upstream")
                    ):
                        self._check(request, changed)
                    return redirect("admin:proxy_upstream_change", upstream.pk)
        items = upstream.catalogue.filter(present=True).order_by("kind", "name").defer("pinned_definition")
        base = (settings.SENTINEL.public_url or request.build_absolute_uri("/")).rstrip("/")
        status = UpstreamStatus.objects.filter(upstream=upstream).first()
        context = {
            **self.admin_site.each_context(request),
            "title": upstream.slug,
            "upstream": upstream,
            "status": status,
            "items": [(item, _description(item)) for item in items[:300]],
            "form": form,
            "may_change": may_change,
            "may_check": request.user.has_perm("proxy.check_upstream"),
            "may_delete": self.has_delete_permission(request),
            "may_judge": _judges(request),
            "headers": [(name, vault.shown(value)) for name, value in upstream.headers.items()],
            "stderr": _stderr(request, upstream),
            "calls_reason": words(status.calls_reason) if status is not None else "",
            "address": f"{base}/mcp/{upstream.slug}",
            "line": f'claude mcp add --transport http {upstream.slug} {base}/mcp/{upstream.slug} --header "Authorization: Bearer KEY"',
        }
        return render(request, "admin/proxy/upstream.html", context)

    def judge_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Decide what of an upstream may be used, and what events keep of it."""
        if not _judges(request):
            raise PermissionDenied
        upstream = self.one(pk)
        form = JudgementForm(request.POST or None, initial=_initial(upstream))
        if request.method == "POST" and form.is_valid():
            from proxy.services import upstreams as services

            try:
                services.update_upstream(actor=actor(request), slug=upstream.slug, may_judge=True, **form.cleaned_data)
            except ServiceError as error:
                _blame(form, error)
            else:
                self.log_change(request, upstream, [{"changed": {"fields": form.changed_data}}])
                messages.success(request, f"The policy of {upstream.slug} was changed.")
                return redirect("admin:proxy_upstream_change", upstream.pk)
        context = {
            **self.admin_site.each_context(request),
            "title": f"Policy of {upstream.slug}",
            "upstream": upstream,
            "form": form,
        }
        return render(request, "admin/proxy/upstream_policy.html", context)

    def check_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Connect, initialise and list, now."""
        if request.method != "POST" or not request.user.has_perm("proxy.check_upstream"):
            raise PermissionDenied
        upstream = self.one(pk)
        self._check(request, upstream)
        return redirect("admin:proxy_upstream_change", upstream.pk)

    def _check(self, request: HttpRequest, upstream: Upstream) -> None:
        from proxy.services import catalogue

        try:
            report, changes = catalogue.check_upstream(slug=upstream.slug, actor=actor(request))
        except ServiceError as error:
            messages.error(request, error.message)
            return
        if not report.ok:
            said = " / ".join(line for step in report.steps for line in step.said.splitlines())
            reason = definitions.visible(report.cause)[:500] + (
                f" It said: {definitions.visible(said)[:500]}" if said else ""
            )
            messages.error(request, f"{upstream.slug} does not answer as an MCP server: {reason}")
            return
        words = [f"{len(names)} {word}" for word, names in vars_of(changes) if names]
        messages.success(
            request, f"{upstream.slug} answers." + (f" Its lists changed: {', '.join(words)}." if words else "")
        )

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Remove an upstream, having said what goes with it."""
        upstream = self.one(object_id)
        if not self.has_delete_permission(request):
            raise PermissionDenied
        from proxy.services import upstreams as services

        if services.judged(upstream) and not _judges(request):
            raise PermissionDenied  # a removal would undo what another duty decided
        if request.method == "POST":
            try:
                with transaction.atomic():
                    self.log_deletions(request, Upstream.objects.filter(pk=upstream.pk))
                    services.remove_upstream(actor=actor(request), slug=upstream.slug)
            except ServiceError as error:
                messages.error(request, error.message)
                return redirect("admin:proxy_upstream_change", upstream.pk)
            messages.success(request, f"{upstream.slug} was removed; its events stay.")
            return redirect("admin:proxy_upstream_changelist")
        context = {**self.admin_site.each_context(request), "title": f"Remove {upstream.slug}?", "upstream": upstream}
        return render(request, "admin/proxy/upstream_remove.html", context)


def _judges(request: HttpRequest) -> bool:
    """Tell whether this person decides what of an upstream may be used."""
    return bool(request.user.has_perm(members.JUDGE))


def vars_of(changes: Any) -> list[tuple[str, list[str]]]:
    return [(word, getattr(changes, word)) for word in ("new", "changed", "quarantined", "gone", "back")]


def _blame(form: UpstreamForm | JudgementForm, error: ServiceError) -> None:
    form.add_error(error.field if error.field in form.fields else None, error.message)


def _initial(upstream: Upstream) -> dict[str, Any]:
    fields = {name: getattr(upstream, name) for name in UpstreamForm.base_fields if name != "slug"}
    fields["headers"] = pairs_as_text({name: vault.shown(value) for name, value in upstream.headers.items()}, ": ")
    fields["environment"] = pairs_as_text(
        {name: vault.shown(value) for name, value in upstream.environment.items()}, "="
    )
    fields["dispatchers"] = pairs_as_text(upstream.dispatchers, " = ")
    fields["tool_timeouts"] = pairs_as_text(
        {name: f"{value:g}" for name, value in upstream.tool_timeouts.items()}, " = "
    )
    fields["networks"] = ", ".join(map(str, upstream.networks))
    fields["client_key"] = vault.HIDDEN if upstream.client_key else ""
    return fields


def _stderr(request: HttpRequest, upstream: Upstream) -> list[str] | None:
    """What a command last wrote to its standard error, for who may check it; None where there is no such thing."""
    if upstream.transport != "stdio" or not request.user.has_perm("proxy.check_upstream"):
        return None
    from proxy.services import catalogue

    return catalogue.stderr(upstream.slug)


def _description(item: CatalogueItem) -> str:
    """Return a definition's own description, shortened."""
    try:
        text = json.loads(item.definition).get("description", "")
    except (ValueError, AttributeError, RecursionError):
        return ""
    return text[:160] if isinstance(text, str) else ""


@admin.register(CatalogueItem)
class CatalogueItemAdmin(Pages):
    """Tools, prompts and resources, and which definition was approved."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Upstreams define them."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        return [path("approve/", wrap(self.approve_view), name="proxy_catalogueitem_approve"), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """List definitions by state, those that wait first."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        counts = dict(
            CatalogueItem.objects.filter(present=True)
            .values_list("status")
            .annotate(number=Count("pk"))
            .order_by("status")
        )
        upstreams = list(Upstream.objects.values_list("slug", flat=True))
        words, fits = asked(request, request.GET, {"state": STATES, "q": None, "upstream": upstreams})
        state, text, upstream = words["state"], words["q"], words["upstream"]
        if "state" not in request.GET and any(counts.get(word) for word in WAITING):
            state = "waiting"
        items = CatalogueItem.objects.select_related("upstream").defer("pinned_definition")
        if state == "waiting":
            items = items.filter(present=True, status__in=WAITING)
        elif state == "pinned":
            items = items.filter(present=True, status="pinned")
        elif state == "gone":
            items = items.filter(present=False)
        if not fits:
            items = items.none()
        if text:
            items = items.filter(name__icontains=text)
        if upstream:
            items = items.filter(upstream__slug=upstream)
        pages = Paginator(items.order_by("upstream__slug", "kind", "name", "pk"), PAGE)
        page = pages.get_page(request.GET.get("page"))
        context = {
            **self.admin_site.each_context(request),
            "title": "Tools",
            "page": page,
            "items": [(item, _description(item)) for item in page.object_list],
            "states": STATES.items(),
            "state": state,
            "waiting": sum(counts.get(word, 0) for word in WAITING),
            "number": pages.count,
            "text": text,
            "upstream": upstream,
            "upstreams": upstreams,
            "may_approve": request.user.has_perm("proxy.approve_item"),
            "may_check": request.user.has_perm("proxy.check_upstream"),
        }
        return render(request, "admin/proxy/tools.html", context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Show a definition, and what changed since it was approved."""
        if not self.has_view_permission(request) or request.method == "POST":
            raise PermissionDenied
        if not object_id.isdecimal() or len(object_id) > 18:
            raise Http404
        item = CatalogueItem.objects.select_related("upstream").filter(pk=int(object_id)).first()
        if item is None:
            raise Http404
        changed = item.pinned_hash and item.pinned_hash != item.hash
        lines = definitions.diff(item.pinned_definition, item.definition) if changed else []
        context = {
            **self.admin_site.each_context(request),
            "title": item.name,
            "item": item,
            "description": _description(item),
            "diff": [(line[:1], line[2:] if line[1:2] == " " else line[1:]) for line in lines],
            "waits": item.status in WAITING and item.present,
            "may_approve": request.user.has_perm("proxy.approve_item"),
        }
        return render(request, "admin/proxy/tool.html", context)

    def approve_view(self, request: HttpRequest) -> HttpResponse:
        """Approve definitions as they were read: one that has changed since is refused."""
        if request.method != "POST" or not request.user.has_perm("proxy.approve_item"):
            raise PermissionDenied
        from proxy.services import catalogue

        chosen: dict[str, list[tuple[CatalogueItem, str]]] = {}
        for value in request.POST.getlist("item")[:500]:
            pk, _, seen = value.partition(":")
            item = (
                CatalogueItem.objects.select_related("upstream").filter(pk=int(pk)).first() if pk.isdecimal() else None
            )
            if item is not None:
                chosen.setdefault(item.upstream.slug, []).append((item, seen))
        number = 0
        for slug, items in chosen.items():
            names = [(item.kind, item.name) for item, _ in items]
            hashes = {(item.kind, item.name): seen for item, seen in items}
            try:
                number += len(catalogue.approve(actor=actor(request), slug=slug, items=names, hashes=hashes))
            except ServiceError as error:
                messages.error(request, f"{error.message} Look at it again.")
        if number:
            messages.success(request, f"{number} definition{'' if number == 1 else 's'} approved.")
        elif not chosen:
            messages.warning(request, "Nothing was chosen.")
        return redirect("admin:proxy_catalogueitem_changelist")
