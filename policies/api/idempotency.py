"""A creation that is sent twice under one Idempotency-Key happens once; the secret it showed is not shown again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import orjson
from django.db import IntegrityError, transaction
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from audit.redaction.sanitizer import current
from core.api.json import dumps
from core.api.problems import Problem
from policies.models import IdempotentRequest

__all__ = ["KEPT", "once"]

KEPT = timedelta(hours=24)
_HEADERS = ("ETag", "Location")


def once(request: Request, act: Callable[[], Response]) -> Response:
    """Do it, or answer as it was answered; the record and the act are one transaction, so that one of two wins."""
    key = request.headers.get("Idempotency-Key")
    with transaction.atomic():
        if key is None:
            return act()
        if not 1 <= len(key) <= 255 or not key.isprintable():
            raise Problem("invalid", "An Idempotency-Key has 1 to 255 printable characters.")
        caller, digest = _caller(request), _digest(request)
        IdempotentRequest.objects.filter(created_at__lt=timezone.now() - KEPT).delete()
        try:
            with transaction.atomic():  # waits for whoever was first to commit
                record = IdempotentRequest.objects.create(caller=caller, key=key, digest=digest)
        except IntegrityError:
            return _again(IdempotentRequest.objects.get(caller=caller, key=key), digest)
        response = act()
        record.status = response.status_code
        record.headers = {name: response.headers[name] for name in _HEADERS if name in response.headers}
        record.body = orjson.loads(dumps(_without_secret(response.data)))
        record.save()
    return response


def _again(record: IdempotentRequest, digest: str) -> Response:
    if record.digest != digest:
        raise Problem(
            "idempotency_key_reused", "This Idempotency-Key was sent with another request within the last day."
        )
    response = Response(record.body, record.status)
    for name, value in record.headers.items():
        response.headers[name] = value
    response.headers["Idempotency-Replayed"] = "true"
    return response


def _without_secret(data: Any) -> Any:
    return (
        {**data, "key": None, "key_already_shown": True}
        if isinstance(data, dict) and "key_already_shown" in data
        else data
    )


def _caller(request: Request) -> str:
    key = getattr(request.user, "key", None)
    return f"key {key.id}" if key is not None else f"user {request.user.pk}"


def _digest(request: Request) -> str:
    # Keyed: bodies may hold secrets that could be guessed.
    query = sorted((name, request.query_params.getlist(name)) for name in request.query_params)
    return str(current().digest(dumps([request.method, request.path, query, request.data], sort=True)))
