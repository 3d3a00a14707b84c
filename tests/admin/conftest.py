"""People, events and a real browser for the admin's tests."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import Client

from audit.models import AuditEvent, OutboxEvent
from sentinel import duties
from sentinel.models import User
from tests.support.browser import chromium

PASSWORD = "correct-horse-battery-7"
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}} \u202egnp\u200b \x1b[31mred {% now 'Y' %} javascript:alert(3)"


@pytest.fixture(autouse=True)
def _quick_passwords(settings: Any) -> None:
    """Hash passwords cheaply: these tests make many people."""
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


class Server:
    """The Django side in this process, on a port of its own."""

    def __init__(self) -> None:
        import uvicorn
        from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
        from django.core.asgi import get_asgi_application

        class Static(ASGIStaticFilesHandler):
            """Serves static files as they lie in the source tree."""

            def serve(self, request: Any) -> Any:
                from django.contrib.staticfiles.views import serve

                return serve(request, self.file_path(request.path), insecure=True)

        config = uvicorn.Config(
            Static(get_asgi_application()), host="127.0.0.1", port=0, log_level="error", lifespan="off"
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        for _ in range(400):
            if self.server.started:
                break
            time.sleep(0.025)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Stop serving."""
        self.server.should_exit = True
        self.thread.join(10)


@pytest.fixture
def site(transactional_db: None) -> Iterator[Server]:
    """Serve the admin over HTTP on the test database."""
    server = Server()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Start one real Chromium for the tests of this worker."""
    from playwright.sync_api import sync_playwright

    found = chromium()
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found.executable, args=list(found.args), env=found.env)
        yield running
        running.close()


@pytest.fixture(scope="session")
def shots() -> Path:
    """Return the folder that keeps what the pages looked like."""
    folder = Path(__file__).resolve().parent.parent.parent / "out" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
