"""What every address of the API has in common.

A view says in one table, `operations`, for each of its methods: who may, which parameters and members it takes, what it
answers. The same table refuses what does not fit, and is what the description (OpenAPI) is written from.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast
from urllib.parse import urlencode
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from core.access.actors import Actor, client_ip
from core.access.actors import actor as person
from core.api.fields import read_moment
from core.api.json import dumps
from core.api.permissions import HoldsPermissions
from core.api.problems import Problem, invalid, wrong

__all__ = [
    "FIELDS", "LIMIT", "ApiView", "HoldsPermissions", "Operation", "Parameter", "absolute", "actor_of", "etag", "paging",
]  # fmt: skip

MAX_INTEGER = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One query parameter."""

    name: str
    description: str
    kind: str = "string"  # string, integer, number, boolean, uuid, date-time
    many: bool = False
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None
    default: Any = None
    longest: int = 300

    def read(self, text: str) -> Any:
        """Read one value; ValueError says what is wrong with it."""
        if self.kind == "integer":
            if not re.fullmatch(r"-?\d{1,19}", text) or not text.isascii():
                raise ValueError("It is a whole number.")
            number = int(text)
            low, high = self.minimum if self.minimum is not None else -MAX_INTEGER, self.maximum or MAX_INTEGER
            if not low <= number <= high:
                raise ValueError(f"It is from {low} to {high}.")
            return number
        if self.kind == "boolean":
            if text not in ("true", "false"):
                raise ValueError("It is true or false.")
            return text == "true"
        if self.kind == "uuid":
            if len(text) != 36:
                raise ValueError("It is a UUID.")
            return UUID(text)
        if self.kind == "date-time":
            found = read_moment(text.replace(" ", "+"))
            if found is None:
                raise ValueError("It is a moment like 2026-12-24T18:00:00Z, with its offset.")
            return found
        if "\0" in text or not text.strip() or len(text) > self.longest:
            raise ValueError(f"It has 1 to {self.longest} characters, not blanks alone, and no NUL.")
        if self.choices and text not in self.choices:
            raise ValueError(f"It is one of {', '.join(self.choices)}.")
        return text


LIMIT = Parameter(
    name="limit", description="How many at most on a page.", kind="integer", minimum=1, maximum=1000, default=50
)
FIELDS = Parameter(
    name="fields", description="Only these members of what is answered, separated by commas.", longest=2000
)


def paging(kind: str = "integer") -> tuple[Parameter, ...]:
    """Return the parameters of a list in the order of its ids."""
    return (
        LIMIT,
        Parameter(name="after", description="Those that come after this id; see `next`.", kind=kind, minimum=0),
        Parameter(name="before", description="Those that come before this id; see `previous`.", kind=kind, minimum=0),
        FIELDS,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one address."""

    id: str
    summary: str
    description: str = ""
    permissions: tuple[str, ...] = ()
    query: tuple[Parameter, ...] = ()
    request: type[serializers.Serializer[Any]] | None = None
    #: media types of the request beside JSON
    request_types: tuple[str, ...] = ()
    response: type[serializers.Serializer[Any]] | None = None
    page: bool = False
    status: int = 200
    #: statuses that this operation answers beside those that any may
    problems: tuple[int, ...] = ()
    #: whether `Idempotency-Key` is heeded
    creates: bool = False
    #: whether `If-Match` is heeded
    conditional: bool = False
    #: media types of an answer that is streamed
    streams: tuple[str, ...] = ()
    tag: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)


class ApiView(APIView):
    """One address of the API."""

    http_method_names = ["get", "head", "post", "put", "patch", "delete"]
    permission_classes = [HoldsPermissions]
    operations: ClassVar[Mapping[str, Operation]] = {}
    #: members that no ETag covers, because nobody edits them: last uses, checks, counts
    volatile: ClassVar[frozenset[str]] = frozenset()
    query: dict[str, Any]

    @property
    def operation(self) -> Operation | None:
        """Return what is asked for; None where this address has no such method."""
        method = str(self.request.method or "").lower()
        return self.operations.get("get" if method == "head" else method)

    def demand(self, *permissions: str) -> None:
        """Refuse whoever lacks one of these permissions."""
        user: Any = self.request.user
        for permission in permissions:
            if not user.has_perm(permission):
                raise Problem("permission_denied", f"This needs the permission {permission}.", permission=permission)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Find out who it is and whether they may; then read the parameters."""
        super().initial(request, *args, **kwargs)
        self.query = {}
        if self.operation is not None:
            self.query = self.read_query(request, self.operation)

    def read_query(self, request: Request, operation: Operation) -> dict[str, Any]:
        """Read every parameter, and refuse strangers."""
        known = {parameter.name: parameter for parameter in operation.query}
        given = request.query_params
        strangers = [name for name in given if name not in known]
        if strangers:
            errors = [wrong(name[:100], "There is no such parameter.", "unknown_parameter") for name in strangers[:20]]
            there = ", ".join(known) or "none"
            words = f"There is no parameter {strangers[0][:100]!r}; there are: {there}."
            raise Problem("unknown_parameter", words, errors=errors)
        found: dict[str, Any] = {name: one.default for name, one in known.items() if one.default is not None}
        errors = []
        for name in given:
            parameter, texts = known[name], given.getlist(name)
            try:
                if len(texts) > 1 and not parameter.many:
                    raise ValueError("It is given once.")
                if len(texts) > 20:
                    raise ValueError("It is given at most 20 times.")
                values = [parameter.read(text) for text in texts]
            except ValueError as error:
                errors.append(wrong(name, str(error)))
            else:
                found[name] = values if parameter.many else values[0]
        if "fields" in found and operation.response is not None:
            members = operation.response().fields
            errors += [
                wrong("fields", f"There is no member {name[:60]!r}.")
                for name in named(found["fields"])
                if name not in members
            ]
        if errors:
            raise invalid(*errors)
        return found

    def finalize_response(self, request: Request, response: HttpResponseBase, *args: Any, **kwargs: Any) -> Any:
        """Say how much of the rate limit is left; answers are nobody else's to keep."""
        answer: Any = super().finalize_response(request, cast(Response, response), *args, **kwargs)
        for name, value in getattr(request, "rate_headers", {}).items():
            answer.headers[name] = value
        answer.headers.setdefault("Cache-Control", "no-store")
        return answer

    # -- answers

    def members(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Keep the members that `fields` names."""
        wanted = self.query.get("fields")
        return {name: data[name] for name in named(wanted) if name in data} if wanted else data

    def one(self, data: Mapping[str, Any], *, status: int = 200, location: str = "", tag: bool = True) -> Response:
        response = Response(self.members(data), status)
        if tag:
            response.headers["ETag"] = etag(data, self.volatile)
        if location:
            response.headers["Location"] = absolute(self.request, location)
        return response

    def made(self, data: Mapping[str, Any], name: Any) -> Response:
        """Answer with what was made, and where it stands below this address."""
        return self.one(data, status=201, location=f"{self.request.path}{name}/")

    def many(self, results: list[Any], *, next: Any = None, previous: Any = None, older: str = "after") -> Response:
        """Answer with one page; `next` and `previous` are cursors."""
        newer = "before" if older == "after" else "after"
        return Response(
            {
                "results": [self.members(result) for result in results],
                "next": self.neighbour(older, next),
                "previous": self.neighbour(newer, previous),
            }
        )

    def neighbour(self, name: str, cursor: Any) -> str | None:
        """Return the address of another page of the same list."""
        if cursor is None:
            return None
        given = self.request.query_params
        pairs = [(key, value) for key in given for value in given.getlist(key) if key not in ("before", "after")]
        return f"{absolute(self.request, self.request.path)}?{urlencode([*pairs, (name, str(cursor))])}"

    def page_of(self, source: Any, form: Any, *, key: str = "pk") -> Response:
        """Answer with one page of a queryset or a sequence, in the order of its ids."""
        limit, after, before = self.query["limit"], self.query.get("after"), self.query.get("before")
        if after is not None and before is not None:
            raise invalid(wrong("before", "Give one of the two."), detail="Give after or before, not both.")
        backwards = before is not None
        if hasattr(source, "filter"):
            if after is not None:
                source = source.filter(**{f"{key}__gt": after})
            if before is not None:
                source = source.filter(**{f"{key}__lt": before})
            rows = list(source.order_by(f"-{key}" if backwards else key)[: limit + 1])
        else:
            rows = [
                row
                for row in sorted(source, key=lambda row: row.id)
                if (after is None or row.id > after) and (before is None or row.id < before)
            ]
            rows = (rows[::-1] if backwards else rows)[: limit + 1]
        more, rows = len(rows) > limit, rows[:limit]
        if backwards:
            rows.reverse()
        ids = [getattr(row, "pk", None) or row.id for row in rows]
        ahead = ids[-1] if ids and (more or backwards) else None
        behind = ids[0] if ids and (more if backwards else after is not None) else None
        return self.many([form(row) for row in rows], next=ahead, previous=behind)

    def check_match(self, data: Mapping[str, Any]) -> None:
        """Refuse a change of what has changed since it was read."""
        wanted = self.request.headers.get("If-Match")
        if wanted is None or wanted.strip() == "*":
            return
        present = etag(data, self.volatile)
        if present not in [tag.strip() for tag in wanted.split(",")]:
            raise Problem("precondition_failed", headers={"ETag": present})


def named(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def etag(data: Mapping[str, Any], volatile: frozenset[str] = frozenset()) -> str:
    """Return the entity tag of what can be changed of a thing: what comes and goes by itself does not count."""
    lasting = {name: value for name, value in data.items() if name not in volatile}
    return f'"{hashlib.sha256(dumps(lasting, sort=True)).hexdigest()[:32]}"'


def absolute(request: HttpRequest | Request, path: str) -> str:
    """Return an address as the outside knows it."""
    public = str(settings.SENTINEL.public_url or "").rstrip("/")
    return f"{public}{path}" if public else request.build_absolute_uri(path)


def actor_of(request: Request) -> Actor:
    """Return who acts: the administrative key, or the person whose session it is."""
    key = getattr(request.user, "key", None)
    plain: Any = request._request
    if key is None:
        return person(plain, request.user)
    return Actor(
        kind="key",
        name=key.name,
        key_id=key.id,
        key_prefix=key.prefix,
        ip=client_ip(plain) or None,
        user_agent=plain.META.get("HTTP_USER_AGENT", "")[:500],
        via=getattr(request.user, "via", "bearer"),
    )
