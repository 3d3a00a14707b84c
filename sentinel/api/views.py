"""What belongs to no package: health, the description and its page, and whatever there is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import yaml
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from audit.export.formats import moment
from core.api.problems import CODES, Problem
from core.api.views import ApiView, Operation, Parameter
from sentinel.site import attention

Output = serializers.Serializer[Any]


class WriterSerializer(Output):
    """One writer of the journal, and how far it is stored."""

    writer = serializers.CharField()
    boot = serializers.IntegerField()
    seq = serializers.IntegerField(help_text="Stored so far.")
    reported_seq = serializers.IntegerField(help_text="Written so far.")
    reported_at = serializers.DateTimeField(allow_null=True)
    drained_at = serializers.DateTimeField(allow_null=True)
    closed_at = serializers.DateTimeField(allow_null=True)


class HealthReport(Output):
    """The way of events into the database, and what waits."""

    good = serializers.BooleanField()
    behind = serializers.IntegerField(help_text="Events that are written and not stored yet.")
    stale = serializers.BooleanField(help_text="Whether no writer was heard of for two minutes.")
    writers = serializers.IntegerField(help_text="Writers that report.")
    reported_at = serializers.DateTimeField(allow_null=True)
    drained_at = serializers.DateTimeField(allow_null=True)
    running = serializers.IntegerField(help_text="Calls that have not ended.")
    outbox = serializers.IntegerField(help_text="Administrators' acts whose events are on their way.")
    quarantined = serializers.IntegerField(help_text="Records that could not be stored.")
    database_bytes = serializers.IntegerField()
    events = serializers.IntegerField(help_text="About how many events the log holds.")
    postgres = serializers.CharField()
    audit_mode = serializers.CharField()
    fsync = serializers.BooleanField()
    retention_days = serializers.IntegerField()
    instance = serializers.CharField()
    positions = WriterSerializer(many=True)


class Health(ApiView):
    """The state of the installation."""

    operations = {
        "get": Operation(
            id="getHealth",
            tag="health",
            summary="Read the state of the installation",
            description="What the admin's page says; `/readyz` and `/metrics` are for machines that ask often.",
            permissions=("sentinel.view_health",),
            response=HealthReport,
        )
    }

    def get(self, request: Request) -> Response:
        found = attention.read()
        names = (
            "good", "behind", "stale", "writers", "running", "outbox", "quarantined", "database_bytes", "events", "postgres",
            "audit_mode", "fsync", "instance",
        )  # fmt: skip
        positions = [
            {
                "writer": one.writer, "boot": one.boot, "seq": one.seq, "reported_seq": one.reported_seq,
                "reported_at": moment(one.reported_at), "drained_at": moment(one.drained_at), "closed_at": moment(one.closed_at),
            }
            for one in found["positions"]
        ]  # fmt: skip
        told = {name: found[name] for name in names}
        told |= {"reported_at": moment(found["reported_at"]), "drained_at": moment(found["drained_at"])}
        return Response({**told, "retention_days": found["retention"], "positions": positions})


class Schema(ApiView):
    """The description, for every valid administrative key."""

    document: Callable[[], dict[str, Any]] = dict  # where the addresses are, it is told which
    operations = {
        "get": Operation(
            id="getSchema",
            tag="health",
            summary="Read this description",
            query=(Parameter(name="format", description="The form.", choices=("json", "yaml"), default="json"),),
            streams=("application/vnd.oai.openapi+json", "application/vnd.oai.openapi"),
        )
    }

    def get(self, request: Request) -> HttpResponse:
        found = self.document()
        if self.query["format"] == "yaml":
            text = yaml.safe_dump(json.loads(json.dumps(found)), sort_keys=False, allow_unicode=True)
            return HttpResponse(text, content_type="application/vnd.oai.openapi; charset=utf-8")
        return HttpResponse(json.dumps(found, ensure_ascii=False), content_type="application/json")


class Docs(ApiView):
    """The description as a page."""

    document: Callable[[], dict[str, Any]] = dict
    operations = {"get": Operation(id="getDocs", tag="health", summary="Read the description as a page")}

    def handle_exception(self, exc: Exception) -> Any:
        """Send a person without a session to the log-in."""
        request: HttpRequest = self.request
        wants = "text/html" in request.META.get("HTTP_ACCEPT", "")
        if wants and isinstance(exc, Problem) and exc.code == "second_factor_required":
            return redirect("admin:second_factor")
        if isinstance(exc, Problem) or not wants or getattr(request, "user", None) is not None:
            return super().handle_exception(exc)
        return redirect_to_login(request.path, "/admin/login/")

    def get(self, request: Request) -> HttpResponseBase:
        return render(request._request, "api/docs.html", page(self.document()))


def page(found: dict[str, Any]) -> dict[str, Any]:
    """Return the description as the page shows it."""
    components = found["components"]["schemas"]
    groups = [{**tag, "operations": []} for tag in found["tags"]]
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            for group in groups:
                if group["name"] == operation["tags"][0]:
                    group["operations"].append(_shown(path, method, operation, components))
    problems = [
        {"code": code, "status": status, "title": title, "advice": advice}
        for code, (status, title, advice) in CODES.items()
    ]
    return {"title": "REST API", "groups": groups, "problems": problems}


def _shown(path: str, method: str, operation: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    content = operation.get("requestBody", {}).get("content", {})
    answers = sorted(operation["responses"].items())
    good: dict[str, Any] = next((answer for status, answer in answers if status < "400"), {})
    return {
        "id": operation["operationId"],
        "method": method.upper(),
        "path": path,
        "summary": operation.get("summary", ""),
        "description": operation.get("description", ""),
        "parameters": [{**one, "type": _type(one["schema"], components)} for one in operation.get("parameters", [])],
        "members": _members(next((one["schema"] for one in content.values()), {}), components),
        "answer": _members(next((one["schema"] for one in good.get("content", {}).values()), {}), components),
        "statuses": [status for status, _ in answers],
    }


def _resolved(schema_: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    for _ in range(10):
        if "$ref" in schema_:
            schema_ = components[schema_["$ref"].rsplit("/", 1)[1]]
        elif "anyOf" in schema_ or "allOf" in schema_ or "oneOf" in schema_:
            schema_ = (schema_.get("anyOf") or schema_.get("allOf") or schema_["oneOf"])[0]
        elif "results" in schema_.get("properties", {}):
            schema_ = schema_["properties"]["results"]["items"]
        else:
            break
    return schema_


def _members(schema_: dict[str, Any], components: dict[str, Any]) -> list[dict[str, Any]]:
    found = _resolved(schema_, components)
    required = found.get("required", [])
    return [
        {
            "name": name,
            "type": _type(one, components),
            "description": one.get("description", ""),
            "required": name in required,
        }
        for name, one in found.get("properties", {}).items()
    ]


def _type(one: dict[str, Any], components: dict[str, Any]) -> str:
    one = _resolved(one, components)
    if "enum" in one:
        return " | ".join("null" if word is None else str(word) or '""' for word in one["enum"])
    kind = one.get("type", "any")
    kinds = [kind] if isinstance(kind, str) else list(kind)
    if "array" in kinds:
        kinds[kinds.index("array")] = f"list of {_type(one.get('items', {}), components)}"
    words = " | ".join(kinds)
    return f"{words} ({one['format']})" if "format" in one and one["format"] not in ("uri",) else words


class Nothing(ApiView):
    """Whatever else is asked for."""

    permission_classes = []
    authentication_classes = []
    throttle_classes = []

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Say that there is no such address."""
        raise Problem("not_found", "There is no such address in the API.")
