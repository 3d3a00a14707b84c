"""Who calls the API: an administrative key, or a person with a session of the admin."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.db import connection
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.request import Request

from audit.redaction.sanitizer import current
from core.access.actors import Actor, client_ip
from core.access.duties import DUTIES
from core.api.problems import Problem
from policies.engine.conditions import YES
from policies.keys import credentials
from policies.keys.index import AuthResult, KeyRecord, KeyRing
from policies.snapshot import loading
from policies.snapshot.snapshot import shared
from proxy.http.credentials import SCOPE_KEY, presented
from sentinel.users import second_factor

__all__ = ["AdminSession", "AdministrativeKey", "KeyUser"]

FRESH = 2.0  # seconds for which the snapshot in memory is taken for the database's own word


class KeyUser:
    """The holder of an administrative key, as far as permissions ask."""

    is_authenticated, is_active, is_anonymous, is_staff, is_superuser, pk, id = (
        True,
        True,
        False,
        False,
        False,
        None,
        None,
    )

    def __init__(self, key: KeyRecord, via: str, generation: int, ip: str | None = None) -> None:
        self.key, self.via, self.generation, self.ip = key, via, generation, ip
        self.permissions = DUTIES[key.duty].permissions if key.duty in DUTIES else frozenset[str]()

    def stands(self) -> bool:
        """Tell whether the key, with the secret and from the address that were used, is still good for its duty: what it
        opened ends when it is not.
        """
        connection.ensure_connection()
        now = loading.load_keys(connection.connection, self.key.public_id).get(self.key.public_id)
        return (
            now is not None
            and now.duty == self.key.duty
            and now.is_live(time.time(), self.generation)
            and (now.in_network is None or now.in_network(self.ip) == YES)
        )

    def has_perm(self, permission: str, obj: Any = None) -> bool:
        """Tell whether the key's duty holds a permission."""
        return permission in self.permissions

    def has_perms(self, permissions: Iterable[str], obj: Any = None) -> bool:
        """Tell whether it holds all of these."""
        return all(permission in self.permissions for permission in permissions)

    def get_all_permissions(self, obj: Any = None) -> frozenset[str]:
        return self.permissions

    def get_username(self) -> str:
        """Return the key's name."""
        return self.key.name

    def __str__(self) -> str:
        return self.key.name


class AdministrativeKey(BaseAuthentication):
    """A key in a header; one in the address never counts here."""

    def authenticate(self, request: Request) -> tuple[KeyUser, KeyRecord] | None:
        """Return who it is; None where no key was sent."""
        headers = [
            (name, request.META[variable].encode("utf-8", "surrogateescape"))
            for name, variable in ((b"authorization", "HTTP_AUTHORIZATION"), (b"x-api-key", "HTTP_X_API_KEY"))
            if variable in request.META
        ]
        sent = presented(headers)
        in_address = getattr(request._request, "scope", {}).get(SCOPE_KEY)
        if sent.ambiguous or (in_address and sent.via != "none"):
            raise Problem("credential_ambiguous", "Two credentials were sent; send one.")
        if sent.via == "none":
            if in_address:
                raise Problem("missing_credential", "A key in the address is never accepted here; send it as a header.")
            return None
        ip = client_ip(request._request)
        result = identify(sent.value, ip or None, sent.via)
        key = result.key
        if key is not None and not result.failure:
            return KeyUser(key, sent.via, result.generation, ip or None), key
        agent = request.META.get("HTTP_USER_AGENT", "")[:500]
        actor = Actor(kind="anonymous", ip=ip or None, key_prefix=result.prefix, user_agent=agent, via=sent.via)
        if key is not None:
            actor = Actor(
                kind="key",
                name=key.name,
                key_id=key.id,
                key_prefix=key.prefix,
                ip=ip or None,
                user_agent=agent,
                via=sent.via,
            )
        if result.failure == "agent_key":
            raise Problem("agent_key", "This is an agent's key: it calls tools, and can never administer.", actor=actor)
        raise Problem("invalid_credential", reason=result.failure, actor=actor)

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="MCP Sentinel API"'


def identify(value: str, ip: str | None, via: str) -> AuthResult:
    """Find whose key it is: in memory where that is fresh, else in the database, which knows a key as soon as it is made."""
    now, holder = time.time(), shared()
    if holder is not None and holder.current is not None and holder.confirmed_age() < FRESH:
        result = holder.current.authenticate_administrator(value, now, ip, via)
        if result.failure != "invalid_credential" or not result.prefix:
            return result
    parsed = credentials.parse(value)
    connection.ensure_connection()
    keys = loading.load_keys(connection.connection, parsed.public_id) if parsed else {}
    ring = KeyRing(keys, settings.SENTINEL.key_peppers, fingerprint=current().fingerprint)
    return ring.authenticate_administrator(value, now, ip, via)


class AdminSession(SessionAuthentication):
    """The session of somebody who may log in to the admin, with the CSRF token where something changes."""

    def authenticate(self, request: Request) -> tuple[Any, None] | None:
        """Return who it is; None without a session."""
        user: Any = getattr(request._request, "user", None)
        if user is None or not user.is_active or not user.is_staff:
            return None
        self.enforce_csrf(request)
        if second_factor.owed(user):
            raise Problem("second_factor_required")
        return user, None
