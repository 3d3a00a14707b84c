"""What log-in throttling may know of who tries: the address behind the proxies, and never a mistyped password."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from audit.people import client_ip


def axes_client_ip(request: HttpRequest) -> str:
    """Return the address that log-in throttling counts by."""
    return client_ip(request)


def axes_username(request: HttpRequest | None, credentials: dict[str, Any] | None) -> str:
    """Return what log-in throttling may keep of a name: people type passwords into the wrong field."""
    given = (credentials or {}).get("username") or (request.POST.get("username", "") if request else "")
    return login_name(str(given))


def login_name(given: str) -> str:
    """Return a known user's name as it is, and only a keyed fingerprint of an unknown one."""
    from django.contrib.auth import get_user_model

    given = given.replace("\0", "")[:300]
    if not given:
        return ""
    model = get_user_model()
    if model.objects.filter(**{model.USERNAME_FIELD: given}).exists():
        return given
    from audit.sanitizer import current

    return f"unknown:{current().fingerprint(given)}"
