"""The description: it is current, it is true, and a program can live by it alone."""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from hypothesis import HealthCheck
from jsonschema_rs import Draft202012Validator

from audit.api.problems import CODES
from sentinel.api import schema
from tests.api.client import DESCRIPTION, ApiClient, Refused
from tests.api.conftest import Caller, event, events

pytestmark = pytest.mark.django_db


def test_what_is_committed_is_current():
    """Write it again with `manage.py openapi docs/openapi.json`."""
    assert json.loads(DESCRIPTION.read_text(encoding="utf-8")) == json.loads(json.dumps(schema.document()))


def test_everything_has_words():
    found = schema.document()
    assert found["openapi"] == "3.1.1"
    names = []
    for path, methods in found["paths"].items():
        for operation in methods.values():
            names.append(operation["operationId"])
            assert operation["summary"], path
            assert all(one.get("description") for one in operation.get("parameters", ())), path
            assert {"400", "401", "403", "429", "503"} <= set(operation["responses"]), path
            assert all(answer["description"] for answer in operation["responses"].values()), path
    assert len(names) == len(set(names)) >= 45


def test_every_code_is_in_the_manual():
    manual = (DESCRIPTION.parent / "api.md").read_text(encoding="utf-8")
    for code, (status, title, _) in CODES.items():
        assert f"| `{code}` | {status} | {title} |" in manual, code


def test_the_schemas_are_schemas():
    for name, one in schema.document()["components"]["schemas"].items():
        Draft202012Validator({**one, "components": schema.document()["components"]}), name


# -- a client that knows nothing else


@pytest.fixture
def client(admin: Caller) -> ApiClient:
    """The client, in process."""

    def send(method: str, address: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        more: dict[str, Any] = {} if body is None else {"data": body, "content_type": headers["content-type"]}
        answer = Caller(None).client.generic(method, address, headers={k: v for k, v in headers.items() if k != "content-type"}, **more)
        content = b"".join(answer.streaming_content) if answer.streaming else answer.content
        return answer.status_code, dict(answer.headers), content

    return ApiClient(send, admin.secret or "")


def test_a_portal_lives_by_the_description_alone(client):
    role = client.createRole(body={"name": "support", "description": "Reads and refunds."})
    rule = client.createRule(body={"effect": "allow", "roles": ["support"], "pattern": "refund", "conditions": [{"path": "amount", "operator": "le", "value": 100}]})
    client.createLimit(body={"requests": 5, "window_seconds": 60, "per": ["key"], "role": "support"})
    key = client.createKey(body={"name": "bot", "role": "support"}, idempotency_key="portal-1")
    assert client.createKey(body={"name": "bot", "role": "support"}, idempotency_key="portal-1")["key"] is None
    assert client.explainPolicy(body={"key": key["id"], "name": "refund", "arguments": {"amount": 5}})["allowed"] is True
    changed = client.changeRule(id=rule["id"], if_match=rule["_etag"], body={"enabled": False})
    assert changed["enabled"] is False
    with pytest.raises(Refused) as lost:
        client.changeRule(id=rule["id"], if_match=rule["_etag"], body={"enabled": True})
    assert lost.value.code == "precondition_failed"
    with pytest.raises(Refused) as held:
        client.deleteRole(id=role["id"])
    assert held.value.status == 409
    client.revokeKey(key_id=key["id"], body={"reason": "done"})
    client.deleteRole(id=role["id"])
    text = client.exportPolicy()["document"]
    assert "support" not in text and client.checkPolicy(body={"document": text})["valid"]


def test_a_reader_of_events_lives_by_the_description_alone(client):
    rows = events(25)
    found = list(client.pages("listEvents", limit=10, outcome=["denied"]))
    assert [one["id"] for one in found] == [str(row.id) for row in reversed(rows)]
    lines = client.exportEvents(format="ndjson", outcome="denied").splitlines()
    assert len(lines) == 25
    assert client.getEvent(event=found[0]["id"], include="payloads")["request_json"] is None


# -- schemathesis: no answer that is not described, no error of ours

SETTINGS = hypothesis.settings(
    max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture
def described(callers: dict[str, Caller], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """The description as it is served, over an application that reaches no network and starts no process."""
    from policies.api import jobs
    from proxy import catalogue_services, services
    from proxy.catalogue import Report
    from proxy.catalogue_services import Changes

    monkeypatch.setattr(services, "check_address", lambda *args, **more: None)
    monkeypatch.setattr(catalogue_services, "check_upstream", lambda **more: (Report(), Changes()))
    monkeypatch.setattr(jobs, "start", lambda job: None)
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    request.addfinalizer(lambda: [signal.connect(close_old_connections) for signal in (request_started, request_finished)])
    for _ in range(3):
        event()
    headers = callers["administrator"].credential
    return schemathesis.openapi.from_wsgi("/api/schema/?format=json", get_wsgi_application(), headers=headers)


api = schemathesis.pytest.from_fixture("described")


@pytest.mark.slow
@pytest.mark.timeout(900)
@api.parametrize()
@SETTINGS
def test_no_answer_that_is_not_described(case: Any, callers: dict[str, Caller]) -> None:
    response = case.call(headers=callers["administrator"].credential)
    case.validate_response(response, headers=callers["administrator"].credential)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_sequence_of_calls_ends_in_an_error_of_ours(described: Any, callers: dict[str, Caller]) -> None:
    credential = callers["administrator"].credential

    class Machine(described.as_state_machine()):  # type: ignore[misc]
        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"headers": credential}

        def validate_response(self, response: Any, case: Any, **more: Any) -> None:
            assert response.status_code < 500

    Machine.run(settings=hypothesis.settings(SETTINGS, max_examples=15, stateful_step_count=8))


