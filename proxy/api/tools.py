"""The catalogue of tools, prompts and resources for programs."""

from __future__ import annotations

from typing import Any

import orjson
from django.db import transaction
from rest_framework.request import Request
from rest_framework.response import Response

from audit.export.formats import moment
from core.api.fields import read
from core.api.problems import Problem
from core.api.views import FIELDS, ApiView, Operation, Parameter, actor_of, etag, paging
from proxy.api import serializers as forms
from proxy.api.parts import telling
from proxy.mcp import definitions
from proxy.models import CatalogueItem
from proxy.services import catalogue
from proxy.services.errors import locked

__all__ = ["OneTool", "ToolApproval", "ToolQuarantine", "Tools"]


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
            response=forms.ToolSerializer,
            page=True,
        )
    }

    def get(self, request: Request) -> Response:
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
            response=forms.WholeToolSerializer,
            problems=(404,),
        )
    }

    def get(self, request: Request, pk: int) -> Response:
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
            request=forms.ApprovalSerializer,
            response=forms.ToolSerializer,
            problems=(404, 409),
            conditional=True,
        )
    }

    @transaction.atomic
    def post(self, request: Request, pk: int) -> Response:
        asked = read(forms.ApprovalSerializer, request.data)
        item = _locked(self, pk)
        place = (item.kind, item.name)
        hashes = {place: asked["hash"]} if "hash" in asked else None
        if "hash" in asked and asked["hash"] != item.hash:
            raise Problem("conflict", "This definition has changed since you read it.")
        with telling("conflict"):
            catalogue.approve(actor=actor_of(request), slug=item.upstream.slug, items=[place], hashes=hashes)
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
            request=forms.QuarantineSerializer,
            response=forms.ToolSerializer,
            problems=(404,),
            conditional=True,
        )
    }

    @transaction.atomic
    def post(self, request: Request, pk: int) -> Response:
        asked = read(forms.QuarantineSerializer, request.data)
        item = _locked(self, pk)
        with telling("not_found"):
            catalogue.quarantine(
                actor=actor_of(request), slug=item.upstream.slug, item=(item.kind, item.name), reason=asked["reason"]
            )
        return self.one(tool_form(find_tool(pk)))


def _locked(view: ApiView, pk: int) -> CatalogueItem:
    """Lock in the order in which the services do: the upstream, then the item."""
    slug = find_tool(pk).upstream.slug
    with telling("not_found"):
        locked(slug)
    item = find_tool(pk)
    view.check_match(tool_form(item))
    return item
