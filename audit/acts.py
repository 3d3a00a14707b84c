"""An administrator's act and its event commit together: the event waits in an outbox of the same transaction."""

from __future__ import annotations

import getpass
import os
import platform
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from django.db import transaction

__all__ = ["Actor", "record_act"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acted: a person in the admin, an administrative key of the API, a command, or somebody not known (a failed log-in)."""

    kind: str  # user | key | system | anonymous
    name: str = ""
    user_id: int | None = None
    key_id: UUID | None = None
    key_prefix: str = ""
    ip: str | None = None
    host: str = ""
    user_agent: str = ""
    via: str = ""  # how a key came: bearer or header

    @classmethod
    def system(cls) -> Actor:
        """Name the system's user and host, for acts by command."""
        try:
            name = getpass.getuser()
        except (KeyError, OSError):  # a uid without a name
            name = f"uid {os.getuid()}"
        return cls(kind="system", name=name, host=platform.node())


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
    from audit.event import Event
    from audit.fields import JSONText
    from audit.ids import uuid7
    from audit.models import OutboxEvent
    from audit.taking_over import ensure

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
