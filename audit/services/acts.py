"""An administrator's act and its event commit together: the event waits in an outbox of the same transaction."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

import orjson
from django.db import transaction
from django.http import HttpRequest

from core.access.actors import Actor
from core.access.actors import actor as actor_of

__all__ = ["record", "record_act"]


def record_act(
    *,
    method: str,
    actor: Actor,
    target: str = "",
    before: Any = None,
    after: Any = None,
    details: dict[str, Any] | None = None,
    outcome: str = "changed",
    reason: str = "",
    status_code: int = 200,
    using: str = "default",
) -> UUID:
    """Write the event of an act into the outbox, inside the caller's transaction; both are kept or neither is.

    `method` is like `admin.key.revoked`; `before` and `after` are what changed (sanitised like every payload).
    """
    from audit.events.event import Event
    from audit.models import OutboxEvent
    from audit.redaction.loading import ensure
    from core.columns import JSONText
    from core.ids import uuid7

    about: dict[str, Any] = {"actor": {"kind": actor.kind, "name": actor.name}}
    if actor.user_id is not None:
        about["actor"]["user_id"] = actor.user_id
    if actor.host:
        about["actor"]["host"] = actor.host
    if before is not None:
        about["before"] = before
    if after is not None:
        about["after"] = after
    about.update(details or {})
    if actor.kind == "system":
        ensure(using)  # a command's process has no snapshot that knows what is redacted
    now = time.time_ns() // 1000
    event = Event(
        id=uuid7(now),
        ts=now,
        api_key_id=actor.key_id,
        key_prefix=actor.key_prefix,
        key_name=actor.name,
        role="",
        auth_method=actor.via or ("bearer" if actor.kind == "key" else "none"),
        client_ip=actor.ip,
        user_agent=actor.user_agent,
        method=method,
        tool_name=target or None,
        outcome=outcome,
        reason=reason,
        status_code=status_code,
        decision={},
        details=about,
    )
    with transaction.atomic(using=using):
        record = JSONText(orjson.dumps(event.as_record()).decode())
        OutboxEvent.objects.using(using).create(event_id=event.id, record=record)
    made: UUID = event.id
    return made


def record(
    method: str,
    request: HttpRequest,
    *,
    user: Any = None,
    target: str = "",
    before: Any = None,
    after: Any = None,
    details: dict[str, Any] | None = None,
    reason: str = "",
    status_code: int = 200,
) -> None:
    """Record an act of this request's person, inside the caller's transaction."""
    record_act(
        method=method,
        actor=actor_of(request, user),
        target=target,
        before=before,
        after=after,
        details=details,
        reason=reason,
        status_code=status_code,
    )
