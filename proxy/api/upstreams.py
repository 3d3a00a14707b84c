"""Upstreams for programs."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from rest_framework.request import Request
from rest_framework.response import Response

from audit.export.formats import moment
from core.access import members
from core.api.fields import read
from core.api.problems import Problem, wrong
from core.api.views import FIELDS, ApiView, Operation, Parameter, absolute, actor_of, paging
from policies.api.idempotency import once
from proxy.api import serializers as forms
from proxy.api.parts import telling
from proxy.models import Upstream, UpstreamStatus
from proxy.services import catalogue
from proxy.services import upstreams as services

__all__ = ["OneUpstream", "UpstreamCheck", "Upstreams"]


def find_upstream(name: str, *, lock: bool = False) -> Upstream:
    """Return an upstream by its name, or by its number."""
    upstreams = Upstream.objects.select_for_update() if lock else Upstream.objects.all()
    found = upstreams.filter(slug=name).first()
    if found is None and name.isascii() and name.isdecimal() and len(name) <= 18:
        found = upstreams.filter(pk=int(name)).first()
    if found is None:
        raise Problem("not_found", "There is no such upstream.")
    return found


JUDGED = (
    "`catalogue_policy`, `dispatchers` and `audit_level` need the permission `proxy.judge_upstream` where they change."
)
HELD = (
    "Without that permission `catalogue_policy` is `quarantine` for what is {act}: its tools are hidden and refused until they "
    "are approved."
)


class _UpstreamView(ApiView):
    volatile = frozenset(("status",))

    def form(self, upstream: Upstream) -> dict[str, Any]:
        """Return an upstream as it is answered."""
        status = UpstreamStatus.objects.filter(upstream=upstream).first()
        return {
            "id": upstream.pk,
            **services.describe(upstream),
            "address": absolute(self.request, f"/mcp/{upstream.slug}"),
            "created_at": moment(upstream.created_at),
            "status": {
                "ok": status.ok,
                "checked_at": moment(status.checked_at),
                "era": status.era,
                "versions": status.versions,
                "server_info": status.server_info,
                "steps": status.steps,
                "calls_ok": status.calls_ok,
                "calls_at": moment(status.calls_at),
                "calls_reason": status.calls_reason,
            }
            if status
            else None,
        }


class Upstreams(_UpstreamView):
    """All upstreams."""

    operations = {
        "get": Operation(
            id="listUpstreams",
            tag="upstreams",
            summary="List upstreams, without their secrets",
            permissions=("proxy.view_upstream",),
            query=(*paging(), Parameter(name="enabled", description="Only those switched on, or off.", kind="boolean")),
            response=forms.UpstreamViewSerializer,
            page=True,
        ),
        "post": Operation(
            id="createUpstream",
            tag="upstreams",
            summary="Add an upstream",
            description="By its URL. A stdio upstream is a command that the gateway starts, and is never added here. "
            f"{JUDGED} {HELD.format(act='added')}",
            permissions=("proxy.add_upstream",),
            request=forms.UpstreamCreationSerializer,
            response=forms.UpstreamViewSerializer,
            status=201,
            creates=True,
        ),
    }

    def get(self, request: Request) -> Response:
        upstreams = Upstream.objects.all()
        if "enabled" in self.query:
            upstreams = upstreams.filter(enabled=self.query["enabled"])
        return self.page_of(upstreams, self.form)

    def post(self, request: Request) -> Response:
        _refuse_commands(request)
        asked = read(forms.UpstreamCreationSerializer, request.data)
        may_judge = request.user.has_perm(members.JUDGE)
        beginning = services.describe(services.beginning(may_judge))
        self.demand(*members.demanded("upstream", asked, beginning), "proxy.add_upstream")

        def act() -> Response:
            with telling():
                made = services.create_upstream(actor=actor_of(request), may_judge=may_judge, **asked)
            return self.made(self.form(made), made.slug)

        return once(request, act)


def _refuse_commands(request: Request, present: str = "") -> None:
    """Refuse whatever would give the gateway a program to start, whoever asks."""
    data: Any = request.data
    given = [name for name in ("command", "environment", "working_directory", "process_mode") if name in data]
    if given or (data.get("transport") == "stdio" and present != "stdio"):
        field = given[0] if given else "transport"
        words = "Commands can be given only from the command line, or in the admin with the permission for it."
        raise Problem("command_refused", words, errors=[wrong(field, words, "refused")])


class OneUpstream(_UpstreamView):
    """One upstream."""

    operations = {
        "get": Operation(
            id="getUpstream",
            tag="upstreams",
            summary="Read one upstream, without its secrets",
            permissions=("proxy.view_upstream",),
            query=(FIELDS,),
            response=forms.UpstreamViewSerializer,
            problems=(404,),
        ),
        "patch": Operation(
            id="changeUpstream",
            tag="upstreams",
            summary="Change an upstream",
            description=f"Needs the permission `proxy.change_upstream` for all other members. {JUDGED} "
            f"{HELD.format(act='given another URL or transport')}",
            permissions=("proxy.view_upstream",),
            request=forms.UpstreamChangeSerializer,
            response=forms.UpstreamViewSerializer,
            problems=(404,),
            conditional=True,
        ),
        "delete": Operation(
            id="removeUpstream",
            tag="upstreams",
            summary="Remove an upstream and its catalogue",
            description="Its events stay. It is refused while rules, limits, audit levels or keys name it. One that something was"
            " decided of also needs the permission `proxy.judge_upstream`.",
            permissions=("proxy.delete_upstream",),
            status=204,
            problems=(404,),
            conditional=True,
        ),
    }

    def get(self, request: Request, slug: str) -> Response:
        return self.one(self.form(find_upstream(slug)))

    @transaction.atomic
    def patch(self, request: Request, slug: str) -> Response:
        if not members.owned(request.user, "upstream"):
            self.demand("proxy.change_upstream")
        upstream = find_upstream(slug, lock=True)
        _refuse_commands(request, upstream.transport)
        asked = read(forms.UpstreamChangeSerializer, request.data, partial=True)
        needed = members.demanded("upstream", asked, services.describe(upstream))
        self.demand(*(needed or ["proxy.change_upstream"]))
        self.check_match(self.form(upstream))
        with telling():
            changed = services.update_upstream(
                actor=actor_of(request), slug=upstream.slug, may_judge=request.user.has_perm(members.JUDGE), **asked
            )
        return self.one(self.form(changed))

    @transaction.atomic
    def delete(self, request: Request, slug: str) -> Response:
        upstream = find_upstream(slug, lock=True)
        self.check_match(self.form(upstream))
        if services.judged(upstream):
            self.demand(members.JUDGE)
        with telling("refused"):
            services.remove_upstream(actor=actor_of(request), slug=upstream.slug)
        return Response(status=204)


class UpstreamCheck(ApiView):
    """An upstream's connection."""

    operations = {
        "post": Operation(
            id="checkUpstream",
            tag="upstreams",
            summary="Check an upstream step by step, and read its lists again",
            permissions=("proxy.check_upstream",),
            response=forms.CheckReportSerializer,
            problems=(404,),
        )
    }

    def post(self, request: Request, slug: str) -> Response:
        """Connect, initialise and list, now."""
        upstream = find_upstream(slug)
        with telling("not_found"):
            report, changes = catalogue.check_upstream(slug=upstream.slug, actor=actor_of(request))
        return Response(
            {
                "ok": report.ok,
                "cause": report.cause,
                "steps": [step.as_json() for step in report.steps],
                "changes": changes.as_json(),
            }
        )
