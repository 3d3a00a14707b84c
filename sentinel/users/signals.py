"""Log-in, failed log-in and log-out leave events of their own."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.http import HttpRequest

from audit.journal.flood import source_of
from audit.services.acts import record
from core.access import reauthentication
from core.access.actors import client_ip
from sentinel.refused_acts import RefusedActs
from sentinel.users import events, second_factor

_failures = RefusedActs()


def connect() -> None:
    """Connect the receivers; called once when the application is ready."""
    user_logged_in.connect(_logged_in, dispatch_uid="sentinel.logged_in")
    user_logged_out.connect(_logged_out, dispatch_uid="sentinel.logged_out")
    user_login_failed.connect(_login_failed, dispatch_uid="sentinel.login_failed")


def _logged_in(sender: Any, request: HttpRequest | None, user: Any, **kwargs: Any) -> None:
    if request is not None:
        reauthentication.note(request)
        details = {"second_factor": "asked for"} if second_factor.enrolled(user) else None
        record("admin.login", request, user=user, target=user.get_username(), details=details)


def _logged_out(sender: Any, request: HttpRequest | None, user: Any, **kwargs: Any) -> None:
    if request is not None and user is not None:
        record("admin.logout", request, user=user, target=user.get_username())


def _login_failed(sender: Any, credentials: dict[str, Any], request: HttpRequest | None = None, **kwargs: Any) -> None:
    if request is None:
        return
    dropped = _failures.admit(source_of(client_ip(request)), "login_failed")
    if dropped is not None:
        details = {"not_recorded_before": dropped} if dropped else None
        name = events.login_name(str(credentials.get("username", "")))
        record("admin.login.failed", request, target=name, details=details, status_code=401)
