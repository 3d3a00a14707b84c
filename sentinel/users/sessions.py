"""Whether a session still stands: streams that outlive the request which opened them ask again and again."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user

from sentinel.users import second_factor

__all__ = ["stands"]


def stands(session_key: str, permissions: Iterable[str]) -> bool:
    """Tell whether a session is there, not expired and not ended by log-out or a new password, and opens this to its person."""
    request: Any = SimpleNamespace(session=import_module(settings.SESSION_ENGINE).SessionStore(session_key))
    user: Any = get_user(request)
    if not user.is_authenticated or not user.is_active or not user.is_staff:
        return False
    return user.has_perms(list(permissions)) and second_factor.stands(request.session, user)
