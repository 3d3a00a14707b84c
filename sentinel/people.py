"""Who is behind an admin request: the actor of an event, and the address it came from."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.http import HttpRequest

if TYPE_CHECKING:
    from audit.acts import Actor


def client_ip(request: HttpRequest) -> str:
    """Return the caller's address: the right-most hop of X-Forwarded-For that no trusted proxy vouches for."""
    peer = request.META.get("REMOTE_ADDR") or ""
    hops = [hop.strip() for hop in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",") if hop.strip()]
    while hops and _trusted(peer):
        peer = hops.pop()
    try:
        return str(ip_address(peer))
    except ValueError:
        return ""


def _trusted(address: str) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in settings.SENTINEL.trusted_proxies)


def actor(request: HttpRequest, user: Any = None) -> Actor:
    """Return the actor that an event about this request names."""
    from audit.acts import Actor

    user = user or getattr(request, "user", None)
    ip = client_ip(request) or None
    if user is not None and user.is_authenticated:
        return Actor(kind="user", name=user.get_username(), user_id=user.pk, ip=ip)
    return Actor(kind="anonymous", name="", ip=ip)


def axes_client_ip(request: HttpRequest) -> str:
    """Return the address that log-in throttling counts by."""
    return client_ip(request)


def axes_username(request: HttpRequest | None, credentials: dict[str, Any] | None) -> str:
    """Return what log-in throttling may keep of a name: people type passwords into the wrong field."""
    given = str((credentials or {}).get("username") or (request.POST.get("username", "") if request else ""))
    return login_name(given)


def login_name(given: str) -> str:
    """Return a known user's name as it is, and only a keyed fingerprint of an unknown one."""
    from django.contrib.auth import get_user_model

    given = given.replace("\0", "")[:300]
    if not given:
        return ""
    model = get_user_model()
    known = model.objects.filter(**{model.USERNAME_FIELD: given}).exists()
    if known:
        return given
    from audit.sanitizer import current

    return f"unknown:{current().fingerprint(given)}"
