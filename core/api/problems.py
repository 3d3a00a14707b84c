"""Everything that can go wrong, as RFC 9457 problem details with a stable code."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import psycopg
from django.conf import settings
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation, ValidationError
from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, OperationalError
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response

from core import registry

log = logging.getLogger("sentinel.api")

MEDIA_TYPE = "application/problem+json"

# code -> (status, title, what to do about it); stable once released, and listed in docs/api.md.
CODES: dict[str, tuple[int, str, str]] = {
    "malformed": (400, "The request cannot be read", "Send one JSON value in UTF-8, without repeated members."),
    "invalid": (400, "A value cannot be accepted", "`errors` names each member and says what is wrong with it."),
    "refused": (400, "The act was refused", "`detail` says why; nothing was changed."),
    "unknown_parameter": (400, "A query parameter is not known", "`errors` names it; the description lists those there are."),
    "credential_ambiguous": (400, "More than one credential", "Send the key once, in one header."),
    "missing_credential": (401, "No credential", "Send an administrative key as `Authorization: Bearer KEY` or `X-API-Key: KEY`."),
    "invalid_credential": (401, "The credential is not valid", "It is wrong, expired or revoked, or may not be used from here."),
    "agent_key": (403, "An agent's key cannot administer", "Use an administrative key; agents' keys call tools."),
    "permission_denied": (403, "Not permitted", "`permission` names what is lacking; another duty has it."),
    "csrf_failed": (403, "The request may come from another site", "Send the CSRF token with a session, or use a key."),
    "second_factor_required": (403, "A second factor is demanded", "Give the second factor in the admin, or use a key."),
    "command_refused": (403, "Commands cannot be given here", "Add stdio upstreams from the command line or in the admin."),
    "not_found": (404, "There is no such thing", "It was removed, or never was."),
    "still_running": (404, "The call has not ended", "Its event is stored when it ends."),
    "method_not_allowed": (405, "Not this method", "The `Allow` header lists those there are."),
    "conflict": (409, "Its present state does not allow this", "`detail` says why; nothing was changed."),
    "precondition_failed": (412, "It was changed meanwhile", "Read it again, and decide again; `If-Match` takes the ETag of the answer."),
    "too_large": (413, "The request is too large", "Send less at once."),
    "unsupported_media_type": (415, "Not this media type", "Send `application/json`, or what the description names."),
    "idempotency_key_reused": (422, "The Idempotency-Key was used for something else", "Use a new key for each new creation."),
    "rate_limited": (429, "Too many requests", "Wait as long as `Retry-After` says."),
    "internal_error": (500, "Something went wrong here", "It was logged; the request was not carried out."),
    "unavailable": (503, "The database does not answer", "Try again in a moment."),
}  # fmt: skip


class Problem(Exception):
    """A refusal: its code says status and title, `errors` which members are meant.

    `actor` and `reason` are for the event alone: whose credential it was, and what exactly was wrong with it.
    """

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        errors: Iterable[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        reason: str = "",
        actor: Any = None,
        **more: Any,
    ) -> None:
        super().__init__(detail or code)
        self.status, self.title, _ = CODES[code]
        self.code, self.detail, self.errors, self.more = code, detail or self.title + ".", list(errors), more
        self.headers, self.reason, self.actor = dict(headers or {}), reason or code, actor

    def as_dict(self, instance: str = "") -> dict[str, Any]:
        base = str(settings.SENTINEL.public_url or "").rstrip("/")
        body: dict[str, Any] = {
            "type": f"{base}{registry.api_problem(self.code)}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
        }
        if self.errors:
            body["errors"] = self.errors
        return body | self.more


def wrong(field: str, message: str, code: str = "invalid") -> dict[str, str]:
    """Return one entry of `errors`: which member or parameter is meant, and what is wrong with it."""
    return {"field": field, "message": message, "code": code}


def invalid(*errors: Mapping[str, str], detail: str = "") -> Problem:
    """Return the refusal of values; unless told otherwise its detail says the first thing that is wrong."""
    first = errors[0]
    place = f"{first['field']}: " if first["field"] else ""
    return Problem("invalid", detail or f"{place}{first['message']}"[:2000], errors=errors)


def of(error: Exception) -> Problem | None:
    """Return the problem that an exception means; None where nobody foresaw it."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, exceptions.NotAuthenticated):
        return Problem("missing_credential", "This needs an administrative key, or a session of the admin.")
    if isinstance(error, exceptions.AuthenticationFailed):
        return Problem("invalid_credential")
    if isinstance(error, exceptions.PermissionDenied | PermissionDenied):
        csrf = str(error).startswith("CSRF Failed")
        return Problem("csrf_failed" if csrf else "permission_denied", str(error))
    if isinstance(error, exceptions.NotFound | Http404):
        return Problem("not_found")
    if isinstance(error, exceptions.MethodNotAllowed):
        return Problem("method_not_allowed", str(error.detail))
    if isinstance(error, exceptions.UnsupportedMediaType):
        return Problem("unsupported_media_type", str(error.detail))
    if isinstance(error, exceptions.Throttled):
        wait = max(1, int(-(-(getattr(error, "wait", None) or 1) // 1)))
        return Problem("rate_limited", f"Try again in {wait} s.", headers={"Retry-After": str(wait)}, retry_after=wait)
    if isinstance(error, exceptions.ValidationError):
        return invalid(*flattened(error.detail))
    if isinstance(error, ValidationError):
        return refused(error)
    if isinstance(error, RequestDataTooBig):
        return Problem("too_large")
    if isinstance(error, exceptions.ParseError | SuspiciousOperation):
        return Problem("malformed", str(error))
    if isinstance(error, OperationalError | InterfaceError | psycopg.OperationalError | psycopg.InterfaceError):
        log.warning("the database does not answer: %s", error)
        return Problem("unavailable", headers={"Retry-After": "5"})
    if isinstance(error, IntegrityError):
        log.info("the database refused a change: %s", error)
        return Problem("conflict", "Something that was changed meanwhile does not allow this.")
    if isinstance(error, DataError):
        log.info("the database refused a value: %s", error)
        return Problem("invalid", "A value cannot be stored.")
    return None


def refused(error: ValidationError, code: str = "refused") -> Problem:
    """Return what a service refuses, member by member where it says so."""
    if hasattr(error, "error_dict"):
        errors = [
            wrong("" if name == "__all__" else name, message)
            for name, messages in error.message_dict.items()
            for message in messages
        ]
        words = " ".join(entry["message"] for entry in errors)
    else:
        errors = [wrong("", message, "refused") for message in error.messages]
        words = " ".join(error.messages)
    return Problem(code, words[:2000], errors=errors)


def flattened(detail: Any, path: str = "") -> Iterable[dict[str, str]]:
    """List what serializers say as one error for each place, like `when[0].path`."""
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            at = f"[{name}]" if isinstance(name, int) else f".{name}" if path else str(name)
            yield from flattened(inner, path if name == "non_field_errors" else f"{path}{at}")
    elif isinstance(detail, list):
        for number, inner in enumerate(detail):
            yield from flattened(inner, f"{path}[{number}]" if isinstance(inner, Mapping | list) else path)
    else:
        yield wrong(path, str(detail), str(getattr(detail, "code", "invalid")))


def handle(error: Exception, context: Mapping[str, Any]) -> Response:
    """Answer an exception of a view; nothing leaves the API but problem details."""
    problem = of(error)
    request = context.get("request")
    if problem is None:
        kind = "the database refused a value" if isinstance(error, DatabaseError) else "an act of the API failed"
        log.error("%s", kind, exc_info=error)
        problem = Problem("internal_error")
    return respond(problem, request.path if request is not None else "")


def respond(problem: Problem, instance: str) -> Response:
    """Return a problem as an answer."""
    response = Response(problem.as_dict(instance), problem.status, content_type=MEDIA_TYPE)
    for name, value in problem.headers.items():
        response.headers[name] = value
    if problem.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="MCP Sentinel API"'
    return response
