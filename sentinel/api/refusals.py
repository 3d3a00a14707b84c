"""What the API refuses leaves an event; a flood of refusals does not become a flood of rows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from django.db import DatabaseError, transaction
from rest_framework.request import Request
from rest_framework.response import Response

from audit.journal.flood import source_of
from audit.services.acts import record_act
from core.access.actors import Actor, client_ip
from core.api import problems
from core.api.views import actor_of
from sentinel.refused_acts import RefusedActs

log = logging.getLogger("sentinel.api")

RECORDED = frozenset((401, 403, 429))
_flood = RefusedActs()


def handle(error: Exception, context: Mapping[str, Any]) -> Response:
    """Answer an exception of a view, and record it where somebody was refused."""
    response = problems.handle(error, context)
    request = context.get("request")
    if response.status_code in RECORDED and request is not None:
        problem = problems.of(error)
        if problem is not None:
            record(request, problem)
    return response


def record(request: Request, problem: problems.Problem) -> None:
    """Leave the event; one that cannot be written must not turn a refusal into something else."""
    actor = problem.actor or _actor(request, problem)
    who = actor.key_id or actor.user_id
    dropped = _flood.admit(who or source_of(actor.ip), problem.reason or str(problem.status), known=bool(who))
    if dropped is None:
        return
    details: dict[str, Any] = {"http": {"verb": request.method, "path": request.path[:300]}}
    if "permission" in problem.more:
        details["permission"] = problem.more["permission"]
    if dropped:
        details["not_recorded_before"] = dropped
    try:
        with transaction.atomic():
            record_act(
                method="api.refused",
                actor=actor,
                target=request.path[:300],
                details=details,
                reason=problem.reason,
                status_code=problem.status,
            )
    except DatabaseError as failure:
        log.warning("a refusal could not be recorded: %s", failure)


def _actor(request: Request, problem: problems.Problem) -> Actor:
    if problem.status != 401 and getattr(request, "_user", None) is not None:
        return actor_of(request)
    return Actor(
        kind="anonymous",
        ip=client_ip(request._request) or None,
        user_agent=request.META.get("HTTP_USER_AGENT", "")[:500],
    )
