"""Who acts: a person in the admin, an administrative key, a command; and from where."""

from __future__ import annotations

import getpass
import os
import platform
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest

from core.access.addresses import client_address

__all__ = ["Actor", "actor", "client_ip"]


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

    def kept(self) -> dict[str, Any]:
        """Return it as JSON, without what is empty: for work that ends when its requester's request is long over."""
        return {name: value for name, value in asdict(self).items() if value and name != "key_id"}


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
