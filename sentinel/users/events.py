"""People, as events and log-in throttling may know them: never a password, and never one that was mistyped for a name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db.models.signals import post_save
from django.http import HttpRequest

from audit.services.acts import record_act
from core.access.actors import Actor


def shown(user: Any, groups: list[str] | None = None) -> dict[str, Any]:
    """Return what events say of a person: never a password."""
    return {
        "username": user.username,
        "email": user.email,
        "active": user.is_active,
        "superuser": user.is_superuser,
        "duties": sorted(user.groups.values_list("name", flat=True)) if groups is None else groups,
    }


@contextmanager
def recorded(method: str) -> Iterator[None]:
    """Leave an event of every person whom a command makes or changes within."""
    from django.contrib.auth import get_user_model

    def saved(instance: Any, created: bool, **_: Any) -> None:
        after = shown(instance) if created else None
        record_act(method=method, actor=Actor.system(), target=instance.username, after=after)

    post_save.connect(saved, sender=get_user_model(), weak=False)
    try:
        yield
    finally:
        post_save.disconnect(saved, sender=get_user_model())


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
    from audit.redaction.sanitizer import current

    return f"unknown:{current().fingerprint(given)}"
