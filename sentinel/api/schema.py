"""The description of the API (OpenAPI 3.1), written from the same tables that the views decide by."""

from __future__ import annotations

from typing import Any

from django.urls import URLResolver
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import force_instance

from core.api.fields import Strict
from core.api.problems import CODES, MEDIA_TYPE
from core.api.views import ApiView, Operation, Parameter

__all__ = ["Described", "described"]

ALWAYS = (400, 401, 403, 429, 503)
TAGS = {
    "events": "What happened: every request to the gateway, and every act of an administrator.",
    "redaction": "What is kept out of events, beside what always is.",
    "keys": "Who may call: agents' keys and administrative ones.",
    "roles": "What a key may be.",
    "rules": "What a role may do. A refusal beats every allowance; what nothing allows is refused.",
    "limits": "How many requests, how soon.",
    "policy": "Roles, rules and limits as one document.",
    "upstreams": "The MCP servers behind the gateway.",
    "tools": "What upstreams define, and which definitions are approved.",
    "health": "The state of the installation.",
}
PROBLEM = {
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "required": ["type", "title", "status", "detail", "instance", "code"],
    "properties": {
        "type": {"type": "string", "description": "Where the code is explained."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong with this request."},
        "instance": {"type": "string", "description": "The address that was asked."},
        "code": {"type": "string", "enum": sorted(CODES), "description": "Stable: programs decide by this."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "message", "code"],
                "properties": {
                    "field": {"type": "string", "description": "Which member or parameter, like conditions[0].value."},
                    "message": {"type": "string"},
                    "code": {"type": "string"},
                },
            },
        },
        "permission": {"type": "string", "description": "The permission that is lacking."},
        "retry_after": {"type": "integer", "description": "Seconds to wait."},
    },
}
HEADERS = {
    "RateLimit-Limit": "Requests in any minute.",
    "RateLimit-Remaining": "How many of them are left.",
    "RateLimit-Reset": "Seconds until there is room again.",
}


class Described(AutoSchema):
    """Describes an operation from its table; whatever has none is not described."""

    view: ApiView  # type: ignore[override]

    @property
    def operation(self) -> Operation:
        """Return the table's entry."""
        return self.view.operations[self.method.lower()]

    def is_excluded(self) -> bool:
        """Leave out what has no entry."""
        return self.method.lower() not in getattr(self.view, "operations", {})

    def get_operation_id(self) -> str:
        """Return the operation's name."""
        return self.operation.id

    def get_summary(self) -> str:
        return self.operation.summary

    def get_description(self) -> str:  # type: ignore[override]  # spectacular asks without what DRF passes
        """Say what it does and who may."""
        needs = ", ".join(f"`{name}`" for name in self.operation.permissions)
        needed = f"Needs {'the permission' if len(self.operation.permissions) == 1 else 'the permissions'} {needs}."
        return " ".join(part for part in (self.operation.description, needed if needs else "") if part)

    def get_tags(self) -> list[str]:
        return [self.operation.tag]

    def get_operation(self, *args: Any, **kwargs: Any) -> Any:
        written = super().get_operation(*args, **kwargs)
        if written is None:
            return None
        operation = self.operation
        written["parameters"] = [
            *(_path_parameter(one) for one in written.get("parameters", []) if one["in"] == "path"),
            *(_parameter(one) for one in operation.query),
            *_header_parameters(operation),
        ]
        written["responses"] = self._answers(operation)
        written["security"] = [{"bearer": []}, {"header": []}, {"session": []}]
        if "requestBody" in written:
            needed = [one for one in self.get_request_serializer().fields.values() if one.required]
            written["requestBody"]["required"] = bool(needed) and self.method != "PATCH"
            content = written["requestBody"]["content"]
            for kind in operation.request_types:
                content[kind] = {"schema": {"description": "The policy itself, in YAML."}}
        if not written["parameters"]:
            del written["parameters"]
        return written

    def get_request_serializer(self) -> Any:
        request = self.operation.request
        if request is None:
            return None
        return request(partial=True) if self.method == "PATCH" else request()

    def get_response_serializers(self) -> Any:
        return self.operation.response

    def _get_request_body(self, direction: Any = "request") -> Any:
        if self.operation.request is None:
            return None
        component = self._of(self.get_request_serializer(), "request")
        return {"content": {"application/json": {"schema": component}}, "required": True}

    def get_filter_backends(self) -> list[Any]:
        """There are none: the table names every parameter."""
        return []

    def _of(self, serializer: Any, direction: Any) -> Any:
        return self.resolve_serializer(force_instance(serializer), direction).ref  # type: ignore[no-untyped-call]

    def _answers(self, operation: Operation) -> dict[str, Any]:
        headers = {name: {"schema": {"type": "integer"}, "description": words} for name, words in HEADERS.items()}
        good: dict[str, Any] = {
            "description": "What was asked for." if operation.status != 204 else "It is gone.",
            "headers": headers,
        }
        if operation.response is not None:
            inner = self._of(operation.response, "response")
            schema: Any = _page(inner, operation) if operation.page else inner
            if any(one.name == "fields" for one in operation.query):
                schema = _chosen(schema) if not operation.page else schema
            good["content"] = {"application/json": {"schema": schema}}
        elif operation.streams:
            good["content"] = {kind: {"schema": {"type": "string"}} for kind in operation.streams}
        answers = {str(operation.status): good}
        statuses = {*ALWAYS, *operation.problems}
        if operation.request is not None:
            statuses |= {409, 413, 415}
        if operation.creates:
            statuses |= {409, 422}
        if operation.conditional:
            statuses.add(412)
        reference = {"content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
        for status in sorted(statuses):
            titles = [title for number, title, _ in CODES.values() if number == status]
            codes = ", ".join(f"`{code}`" for code, (number, _, _) in CODES.items() if number == status)
            answers[str(status)] = {"description": f"{'; '.join(titles)}. Codes: {codes}.", **reference}
        return answers


def _page(inner: Any, operation: Operation) -> dict[str, Any]:
    results: dict[str, Any] = {"type": "array", "items": _chosen(inner)}
    members: dict[str, Any] = {
        "results": results,
        "next": {"type": ["string", "null"], "format": "uri", "description": "The following page; null at the end."},
        "previous": {"type": ["string", "null"], "format": "uri", "description": "The page before; null at the start."},
    }
    required = ["results", "next", "previous"]
    if operation.id == "listEvents":
        words = "How far was looked when the time ran out; null when everything was seen."
        members["searched_to"] = {"type": ["string", "null"], "format": "date-time", "description": words}
        required.append("searched_to")
    return {"type": "object", "required": required, "properties": members}


def _chosen(inner: Any) -> Any:
    """With `fields` any member may be absent, so that nothing is required of the answer."""
    return {"anyOf": [inner, {"type": "object", "description": "Only the members that `fields` names."}]}


PLACES = {
    "id": ("Its id.", {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}),
    "number": ("The version's number.", {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}),
    "slug": ("The upstream's name, or its id.", {"type": "string", "minLength": 1, "maxLength": 63}),
    "key_id": ("The key's id.", {"type": "string", "format": "uuid"}),
    "job_id": ("The replay's id.", {"type": "string", "format": "uuid"}),
    "event": ("The event's id.", {"type": "string", "format": "uuid"}),
}


def _path_parameter(one: dict[str, Any]) -> dict[str, Any]:
    words, schema = PLACES[one["name"]]
    return {"name": one["name"], "in": "path", "required": True, "description": words, "schema": schema}


def _parameter(one: Parameter) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": one.kind}
    if one.kind in ("uuid", "date-time"):
        schema = {"type": "string", "format": one.kind}
    elif one.kind == "string":
        schema |= {"minLength": 1, "maxLength": one.longest} if not one.choices else {"enum": list(one.choices)}
    if one.minimum is not None and one.kind == "integer":
        schema["minimum"] = one.minimum
    if one.maximum is not None:
        schema["maximum"] = one.maximum
    if one.default is not None:
        schema["default"] = one.default
    if one.many:
        schema = {"type": "array", "items": schema, "maxItems": 20}
    return {"name": one.name, "in": "query", "description": one.description, "schema": schema}


def _header_parameters(operation: Operation) -> list[dict[str, Any]]:
    found = []
    if operation.creates:
        words = (
            "Any text of 1 to 255 printable characters: the same request sent again with it within a day happens once."
        )
        schema = {"type": "string", "minLength": 1, "maxLength": 255}
        found.append({"name": "Idempotency-Key", "in": "header", "description": words, "schema": schema})
    if operation.conditional:
        words = (
            "The ETag of what was read: refused with 412 when it has changed since. Not given: changed whatever it is."
        )
        found.append({"name": "If-Match", "in": "header", "description": words, "schema": {"type": "string"}})
    return found


class _Key(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "sentinel.api.authentication.AdministrativeKey"
    name = ["bearer", "header"]

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, Any]]:
        """Describe the two headers a key may come in."""
        return [
            {"type": "http", "scheme": "bearer", "description": "An administrative key."},
            {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key, in another header."},
        ]


class _Session(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "sentinel.api.authentication.AdminSession"
    name = "session"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        from django.conf import settings

        words = f"A session of the admin ({settings.SESSION_COOKIE_NAME.rsplit('_', 1)[0]}_…), with the CSRF token where something changes."
        return {"type": "apiKey", "in": "cookie", "name": "sentinel_session", "description": words}


SUFFIX = "Serializer"  # a class's name has it, a component of the description does not


def finished(result: Any, **kwargs: Any) -> Any:
    """Add what no single operation says."""
    result["components"]["schemas"]["Problem"] = PROBLEM
    result["components"]["schemas"] = dict(sorted(result["components"]["schemas"].items()))
    result["tags"] = [{"name": name, "description": words} for name, words in TAGS.items()]
    result["servers"] = [{"url": "/"}]
    strict = {f"{prefix}{one.__name__.removesuffix(SUFFIX)}" for one in _all(Strict) for prefix in ("", "Patched")}
    for name, schema in result["components"]["schemas"].items():
        if name in strict:
            schema["additionalProperties"] = False
    _tidy(result)
    return result


def _all(base: type[Any]) -> list[type[Any]]:
    return [kind for one in base.__subclasses__() for kind in (one, *_all(one))]


def _tidy(value: Any) -> None:
    """Say what JSON Schema means by null, and leave out what is for the generator alone."""
    if isinstance(value, list):
        for one in value:
            _tidy(one)
    if not isinstance(value, dict):
        return
    value.pop("x-spec-enum-id", None)
    if value.get("oneOf") == [{}, {"type": "null"}]:
        del value["oneOf"]  # anything, null among it
    kinds = value.get("type")
    if isinstance(kinds, list) and "null" in kinds and None not in value.get("enum", [None]):
        value["enum"] = [*value["enum"], None]
    for one in value.values():
        _tidy(one)


def described(address: URLResolver) -> dict[str, Any]:
    """Return the description of what lies under an address, as plain values."""
    generator = SchemaGenerator(patterns=[address], api_version=None)  # type: ignore[no-untyped-call]
    found: dict[str, Any] = generator.get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return found
