"""People, events and a real browser for the admin's tests."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import Client

from audit.models import AuditEvent, OutboxEvent
from core.access import duties
from sentinel.models import User
from sentinel.site import overview

PASSWORD = "correct-horse-battery-7"
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}} \u202egnp\u200b \x1b[31mred {% now 'Y' %} javascript:alert(3)"


@pytest.fixture(autouse=True)
def _afresh(settings: Any) -> None:
    """Forget what was kept of another test, and hash passwords cheaply: these tests make many people."""
    overview._kept.clear()
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def person(db: None) -> Callable[..., User]:
    """Make a person with duties."""
    duties.sync_groups()

    def make(*names: str, username: str = "", **fields: Any) -> User:
        user = User(username=username or "-".join(names) or "nobody", is_staff=True, **fields)
        user.set_password(PASSWORD)
        user.save()
        user.groups.set(Group.objects.filter(name__in=names))
        return user

    return make


@pytest.fixture
def as_duty(person: Callable[..., User]) -> Callable[..., Client]:
    """Return a client logged in as somebody with these duties."""

    def log_in(*names: str, **fields: Any) -> Client:
        client = Client()
        client.force_login(person(*names, **fields), backend="django.contrib.auth.backends.ModelBackend")
        return client

    return log_in


@pytest.fixture
def admin_client(person: Callable[..., User]) -> Client:
    """Return a client of somebody who may do everything."""
    client = Client()
    client.force_login(person(username="root", is_superuser=True), backend="django.contrib.auth.backends.ModelBackend")
    return client


@pytest.fixture
def event(db: None) -> Callable[..., AuditEvent]:
    """Store an event."""

    def make(**fields: Any) -> AuditEvent:
        values: dict[str, Any] = {
            "api_key_id": uuid.UUID(int=7, version=4), "key_name": "ci-bot", "key_prefix": "mcps_live_0123456789AB", "role": "user",
            "upstream": "crm", "method": "tools/call", "tool_name": "list_customers", "target_kind": "tool", "outcome": "allowed",
            "reason": "allowed_by_rule", "status_code": 200, "latency_ms": 12.5, "auth_method": "bearer",
            "decision": {
                "allowed": True, "stage": "forward", "reason": "allowed_by_rule", "rule": {"id": 12, "name": "lists", "effect": "allow"},
                "policy_version": 41, "stages": [{"stage": "authenticate", "result": "ok", "us": 9}],
            },
            "request_json": {"name": "list_customers", "arguments": {"limit": 10}}, "response_json": {"content": []},
        }  # fmt: skip
        made = AuditEvent(**{**values, **fields})
        made.save(force_insert=True)
        return made

    return make


def acts(method: str = "") -> list[dict[str, Any]]:
    """Return the records of people's acts, oldest first."""
    found = [dict(row.record) for row in OutboxEvent.objects.order_by("number")]
    for record in found:
        for name in ("details", "decision"):
            if isinstance(record.get(name), str):
                record[name] = json.loads(record[name])
    return [record for record in found if not method or record.get("method") == method]
