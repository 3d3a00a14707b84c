"""What the tests of the API share: a caller for each duty, events to read, what was recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from audit.models import AuditEvent, OutboxEvent
from core.access.actors import Actor
from core.ids import uuid7
from policies import vocabulary
from policies.services import keys as key_acts
from sentinel.api import refusals
from sentinel.refused_acts import RefusedActs

V1 = "/api/v1/"


@pytest.fixture(autouse=True)
def no_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals of other tests in the same second do not count."""
    monkeypatch.setattr(refusals, "_flood", RefusedActs(per_second=10_000))


class Caller:
    """A client with one key, and JSON both ways."""

    def __init__(self, secret: str | None, name: str = "", via: str = "bearer") -> None:
        self.secret, self.name = secret, name
        self.client = Client(raise_request_exception=False)
        self.credential = (
            {}
            if secret is None
            else {"x-api-key": secret}
            if via == "header"
            else {"authorization": f"Bearer {secret}"}
        )

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, **more: Any) -> Any:
        """Send one request; `json` of what comes back is read already, as `data`."""
        extra: dict[str, Any] = {}
        if body is not None:
            extra = {
                "data": body if isinstance(body, str | bytes) else json.dumps(body),
                "content_type": "application/json",
            }
        path = path if path.startswith(("/", "http")) else V1 + path
        answer = self.client.generic(method, path, headers={**self.credential, **(headers or {})}, **{**extra, **more})
        kind = answer.headers.get("Content-Type", "")
        answer.data = json.loads(answer.content) if "json" in kind and not answer.streaming and answer.content else None
        return answer

    def get(self, path: str, **more: Any) -> Any:
        return self.call("GET", path, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> Any:
        return self.call("POST", path, {} if body is None else body, **more)

    def patch(self, path: str, body: Any, **more: Any) -> Any:
        return self.call("PATCH", path, body, **more)

    def put(self, path: str, body: Any, **more: Any) -> Any:
        return self.call("PUT", path, body, **more)

    def delete(self, path: str, **more: Any) -> Any:
        return self.call("DELETE", path, **more)


@pytest.fixture
def caller(db: None) -> Callable[..., Caller]:
    """Make a caller with an administrative key of a duty."""

    def make(duty: str, **more: Any) -> Caller:
        made = key_acts.create_key(name=f"{duty} of tests", actor=Actor.system(), duty=duty, **more)
        return Caller(made.secret, made.key.name)

    return make


@pytest.fixture
def callers(caller: Callable[..., Caller]) -> dict[str, Caller]:
    """A caller for each duty."""
    return {duty: caller(duty) for duty in vocabulary.DUTIES}


@pytest.fixture
def admin(caller: Callable[..., Caller]) -> Caller:
    """Who may do everything."""
    return caller("administrator")


@pytest.fixture
def agent(db: None) -> Caller:
    """An agent's key."""
    return Caller(key_acts.create_key(name="an agent", actor=Actor.system(), role="admin").secret)


def recorded(method: str = "") -> list[dict[str, Any]]:
    """The events of acts, the newest last."""
    found = [dict(row.record) for row in OutboxEvent.objects.order_by("number")]
    for one in found:
        if isinstance(one.get("details"), str):
            one["details"] = json.loads(one["details"])
    return [one for one in found if not method or one["method"] == method]


def event(at: datetime | None = None, **fields: Any) -> AuditEvent:
    """Store one event."""
    at = at or datetime.now(UTC)
    micro = int(at.timestamp() * 1e6)
    values = {
        "id": uuid7(micro), "ts": micro, "outcome": "denied", "method": "tools/call", "tool_name": "page_1_secret", "target_kind": "tool",
        "reason": "no_rule", "status_code": 403, "upstream": "crm", "role": "user", "latency_ms": 1.5,
        "request_json": {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "x", "arguments": {"n": 10.50}}},
    }  # fmt: skip
    row = AuditEvent(**{**values, **fields})
    row.save(force_insert=True)
    return row


def events(number: int, **fields: Any) -> list[AuditEvent]:
    """Store several events, a millisecond apart, the oldest first."""
    start = datetime.now(UTC) - timedelta(seconds=number // 500 + 5)
    rows = []
    for at in range(number):
        moment = int((start + timedelta(milliseconds=at)).timestamp() * 1e6)
        rows.append(
            AuditEvent(
                **{
                    "id": uuid7(moment),
                    "ts": moment,
                    "outcome": "denied",
                    "method": "tools/call",
                    "tool_name": "t",
                    **fields,
                }
            )
        )
    AuditEvent.objects.bulk_create(rows)
    return rows
