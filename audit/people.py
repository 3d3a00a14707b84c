"""Acts of people in the admin: who is behind a request, from where, and their event."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest

from audit.acts import Actor, record_act
from audit.addresses import client_address

__all__ = ["actor", "client_ip", "record"]


def client_ip(request: HttpRequest) -> str:
    """Return the caller's address, behind the proxies that are trusted; "" when it is not known."""
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR")
    return client_address(
        request.META.get("REMOTE_ADDR"), [forwarded] if forwarded else [], settings.SENTINEL.trusted_proxies
    )


def actor(request: HttpRequest, user: Any = None) -> Actor:
    """Return the actor that an event about this request names."""
    user = user or getattr(request, "user", None)
    where = {"ip": client_ip(request) or None, "user_agent": request.META.get("HTTP_USER_AGENT", "")[:500]}
    if user is not None and user.is_authenticated:
        return Actor(kind="user", name=user.get_username(), user_id=user.pk, **where)
    return Actor(kind="anonymous", **where)


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
        actor=actor(request, user),
        target=target,
        before=before,
        after=after,
        details=details,
        reason=reason,
        status_code=status_code,
    )
