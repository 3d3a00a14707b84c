"""Upstreams and their catalogue for programs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from django.db import transaction
from rest_framework.request import Request
from rest_framework.response import Response

from audit.api.base import FIELDS, ApiView, Operation, Parameter, absolute, actor_of, etag, paging
from audit.api.fields import read
from audit.api.problems import Problem
from audit.export import moment
from policies.api.idempotency import once
from proxy import catalogue_services, definitions, services
from proxy.api import serializers as forms
from proxy.models import CatalogueItem, Upstream, UpstreamStatus
from proxy.services import ServiceError

__all__ = ["OneTool", "OneUpstream", "ToolApproval", "ToolQuarantine", "Tools", "UpstreamCheck", "Upstreams"]


@contextmanager
def telling(code: str = "invalid") -> Iterator[None]:
    """Say what a service refuses, and which member is meant."""
    try:
        yield
    except ServiceError as error:
        errors = [{"field": error.field, "message": error.message, "code": "refused"}]
        if error.field == "command":
            raise Problem("command_refused", error.message, errors=errors) from None
        raise Problem(code, error.message, errors=errors) from None


def find_upstream(name: str, *, lock: bool = False) -> Upstream:
    """Return an upstream by its name, or by its number."""
    upstreams = Upstream.objects.select_for_update() if lock else Upstream.objects.all()
    found = upstreams.filter(slug=name).first()
    if found is None and name.isascii() and name.isdecimal() and len(name) <= 18:
        found = upstreams.filter(pk=int(name)).first()
    if found is None:
        raise Problem("not_found", "There is no such upstream.")
    return found


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
            response=forms.UpstreamView,
            page=True,
        ),
        "post": Operation(
            id="createUpstream",
            tag="upstreams",
            summary="Add an upstream",
            description="By its URL. A stdio upstream is a command that the gateway starts, and is never added here.",
            permissions=("proxy.add_upstream",),
            request=forms.UpstreamCreation,
            response=forms.UpstreamView,
            status=201,
            creates=True,
        ),
    }

    def get(self, request: Request) -> Response:
        """Return one page."""
        upstreams = Upstream.objects.all()
        if "enabled" in self.query:
            upstreams = upstreams.filter(enabled=self.query["enabled"])
        return self.page_of(upstreams, self.form)

    def post(self, request: Request) -> Response:
        """Add one."""
        _refuse_commands(request)
        asked = read(forms.UpstreamCreation, request.data)

        def act() -> Response:
            with telling():
                made = services.create_upstream(actor=actor_of(request), **asked)
            return self.one(self.form(made), status=201, location=f"{request.path}{made.slug}/")

        return once(request, act)


def _refuse_commands(request: Request, present: str = "") -> None:
    """Refuse whatever would give the gateway a program to start, whoever asks."""
    data: Any = request.data
    given = [name for name in ("command", "environment", "working_directory", "process_mode") if name in data]
    if given or (data.get("transport") == "stdio" and present != "stdio"):
        field = given[0] if given else "transport"
        words = "Commands can be given only from the command line, or in the admin with the permission for it."
        raise Problem("command_refused", words, errors=[{"field": field, "message": words, "code": "refused"}])


class OneUpstream(_UpstreamView):
    """One upstream."""

    operations = {
        "get": Operation(
            id="getUpstream",
            tag="upstreams",
            summary="Read one upstream, without its secrets",
            permissions=("proxy.view_upstream",),
            query=(FIELDS,),
            response=forms.UpstreamView,
            problems=(404,),
        ),
        "patch": Operation(
            id="changeUpstream",
            tag="upstreams",
            summary="Change an upstream",
            permissions=("proxy.change_upstream",),
            request=forms.UpstreamChange,
            response=forms.UpstreamView,
            problems=(404,),
            conditional=True,
        ),
        "delete": Operation(
            id="removeUpstream",
            tag="upstreams",
            summary="Remove an upstream and its catalogue",
            description="Its events stay.",
            permissions=("proxy.delete_upstream",),
            status=204,
            problems=(404,),
            conditional=True,
        ),
    }

    def get(self, request: Request, slug: str) -> Response:
        """Return it."""
        return self.one(self.form(find_upstream(slug)))

    @transaction.atomic
    def patch(self, request: Request, slug: str) -> Response:
        """Change it."""
        upstream = find_upstream(slug, lock=True)
        _refuse_commands(request, upstream.transport)
        asked = read(forms.UpstreamChange, request.data, partial=True)
        self.check_match(self.form(upstream))
        with telling():
            changed = services.update_upstream(actor=actor_of(request), slug=upstream.slug, **asked)
        return self.one(self.form(changed))

    @transaction.atomic
    def delete(self, request: Request, slug: str) -> Response:
        """Remove it."""
        upstream = find_upstream(slug, lock=True)
        self.check_match(self.form(upstream))
        with telling():
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
            response=forms.CheckReport,
            problems=(404,),
        )
    }

    def post(self, request: Request, slug: str) -> Response:
        """Connect, initialise and list, now."""
        upstream = find_upstream(slug)
        with telling("not_found"):
            report, changes = catalogue_services.check_upstream(slug=upstream.slug, actor=actor_of(request))
        return Response(
            {
                "ok": report.ok,
                "cause": report.cause,
                "steps": [step.as_json() for step in report.steps],
                "changes": changes.as_json(),
            }
        )


def tool_form(item: CatalogueItem) -> dict[str, Any]:
    """Return an item of the catalogue as it is answered."""
    return {
        "id": item.pk,
        "upstream": item.upstream.slug,
        "kind": item.kind,
        "name": item.name,
        "status": item.status,
        "held": item.held,
        "present": item.present,
        "hash": item.hash,
        "pinned_hash": item.pinned_hash,
        "flags": item.flags,
        "first_seen_at": moment(item.first_seen_at),
        "changed_at": moment(item.changed_at),
        "approved_at": moment(item.approved_at),
        "approved_by": item.approved_by,
    }


def whole_form(item: CatalogueItem) -> dict[str, Any]:
    """Return an item with its definitions, as they were stored."""
    changed = item.pinned_hash and item.pinned_hash != item.hash
    return {
        **tool_form(item),
        "definition": orjson.Fragment(item.definition),
        "pinned_definition": orjson.Fragment(item.pinned_definition) if item.pinned_definition else None,
        "diff": definitions.diff(item.pinned_definition, item.definition) if changed else [],
    }


def find_tool(pk: int) -> CatalogueItem:
    """Return an item of the catalogue, or say that there is none."""
    found = CatalogueItem.objects.select_related("upstream").filter(pk=pk).first()
    if found is None:
        raise Problem("not_found", "There is no such definition.")
    return found


class Tools(ApiView):
    """All tools, prompts and resources."""

    operations = {
        "get": Operation(
            id="listTools",
            tag="tools",
            summary="List tools, prompts and resources",
            permissions=("proxy.view_catalogueitem",),
            query=(
                *paging(),
                Parameter(name="upstream", description="Only of this upstream.", longest=63),
                Parameter(name="kind", description="Only of this kind.", choices=tuple(CatalogueItem.Kind.values)),
                Parameter(
                    name="status", description="Only with this status.", choices=tuple(CatalogueItem.Status.values)
                ),
                Parameter(name="present", description="Only those that the last list had, or had not.", kind="boolean"),
                Parameter(name="name", description="Only of this name.", longest=1024),
            ),
            response=forms.Tool,
            page=True,
        )
    }

    def get(self, request: Request) -> Response:
        """Return one page."""
        items = CatalogueItem.objects.select_related("upstream").defer("definition", "pinned_definition")
        for name, column in (
            ("upstream", "upstream__slug"), ("kind", "kind"), ("status", "status"), ("present", "present"), ("name", "name"),
        ):  # fmt: skip
            if name in self.query:
                items = items.filter(**{column: self.query[name]})
        return self.page_of(items, tool_form)


class OneTool(ApiView):
    """One tool, prompt or resource."""

    operations = {
        "get": Operation(
            id="getTool",
            tag="tools",
            summary="Read a definition, and what changed since it was approved",
            permissions=("proxy.view_catalogueitem",),
            query=(FIELDS,),
            response=forms.WholeTool,
            problems=(404,),
        )
    }

    def get(self, request: Request, pk: int) -> Response:
        """Return it."""
        item = find_tool(pk)
        response = self.one(whole_form(item), tag=False)
        response.headers["ETag"] = etag(tool_form(item))  # the definitions stand in it as hashes
        return response


class ToolApproval(ApiView):
    """A definition that is approved."""

    operations = {
        "post": Operation(
            id="approveTool",
            tag="tools",
            summary="Approve a definition as it now is",
            permissions=("proxy.approve_item",),
            request=forms.Approval,
            response=forms.Tool,
            problems=(404, 409),
            conditional=True,
        )
    }

    @transaction.atomic
    def post(self, request: Request, pk: int) -> Response:
        """Approve it."""
        asked = read(forms.Approval, request.data)
        item = _locked(self, pk)
        place = (item.kind, item.name)
        hashes = {place: asked["hash"]} if "hash" in asked else None
        if "hash" in asked and asked["hash"] != item.hash:
            raise Problem("conflict", "This definition has changed since you read it.")
        with telling("conflict"):
            catalogue_services.approve(actor=actor_of(request), slug=item.upstream.slug, items=[place], hashes=hashes)
        return self.one(tool_form(find_tool(pk)))


class ToolQuarantine(ApiView):
    """A definition that is withdrawn."""

    operations = {
        "post": Operation(
            id="quarantineTool",
            tag="tools",
            summary="Withdraw a definition",
            description="Hidden and refused until somebody approves it, whatever the upstream's policy says.",
            permissions=("proxy.approve_item",),
            request=forms.Quarantine,
            response=forms.Tool,
            problems=(404,),
            conditional=True,
        )
    }

    @transaction.atomic
    def post(self, request: Request, pk: int) -> Response:
        """Withdraw it."""
        asked = read(forms.Quarantine, request.data)
        item = _locked(self, pk)
        with telling("not_found"):
            catalogue_services.quarantine(
                actor=actor_of(request), slug=item.upstream.slug, item=(item.kind, item.name), reason=asked["reason"]
            )
        return self.one(tool_form(find_tool(pk)))


def _locked(view: ApiView, pk: int) -> CatalogueItem:
    """Lock in the order in which the services do: the upstream, then the item."""
    slug = find_tool(pk).upstream.slug
    with telling("not_found"):
        services.locked(slug)
    item = find_tool(pk)
    view.check_match(tool_form(item))
    return item
