"""The description: it is current, it is true, and a program can live by it alone."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections, connections
from jsonschema_rs import Draft202012Validator
from schemathesis import engine
from schemathesis.engine import events

from core.api.problems import CODES
from sentinel.api import urls
from tests.api.client import DESCRIPTION, ApiClient, Refused
from tests.api.conftest import Caller, event
from tests.api.conftest import events as several

pytestmark = pytest.mark.django_db


def test_what_is_committed_is_current():
    """Write it again with `manage.py openapi docs/openapi.json`."""
    assert json.loads(DESCRIPTION.read_text(encoding="utf-8")) == json.loads(json.dumps(urls.document()))


def test_everything_has_words():
    found = urls.document()
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
    for name, one in urls.document()["components"]["schemas"].items():
        Draft202012Validator({**one, "components": urls.document()["components"]}), name


# -- a client that knows nothing else


@pytest.fixture
def client(admin: Caller) -> ApiClient:
    """The client, in process."""

    def send(
        method: str, address: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        more: dict[str, Any] = {} if body is None else {"data": body, "content_type": headers["content-type"]}
        answer = Caller(None).client.generic(
            method, address, headers={k: v for k, v in headers.items() if k != "content-type"}, **more
        )
        content = b"".join(answer.streaming_content) if answer.streaming else answer.content
        return answer.status_code, dict(answer.headers), content

    return ApiClient(send, admin.secret or "")


def test_a_portal_lives_by_the_description_alone(client):
    role = client.createRole(body={"name": "support", "description": "Reads and refunds."})
    rule = client.createRule(
        body={
            "effect": "allow",
            "roles": ["support"],
            "pattern": "refund",
            "conditions": [{"path": "amount", "operator": "le", "value": 100}],
        }
    )
    client.createLimit(body={"requests": 5, "window_seconds": 60, "per": ["key"], "role": "support"})
    key = client.createKey(body={"name": "bot", "role": "support"}, idempotency_key="portal-1")
    assert client.createKey(body={"name": "bot", "role": "support"}, idempotency_key="portal-1")["key"] is None
    assert (
        client.explainPolicy(body={"key": key["id"], "name": "refund", "arguments": {"amount": 5}})["allowed"] is True
    )
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
    rows = several(25)
    found = list(client.pages("listEvents", limit=10, outcome=["denied"]))
    assert [one["id"] for one in found] == [str(row.id) for row in reversed(rows)]
    lines = client.exportEvents(format="ndjson", outcome="denied").splitlines()
    assert len(lines) == 25
    assert client.getEvent(event=found[0]["id"], include="payloads")["request_json"] is None


# -- schemathesis: no answer that is not described, no error of ours


@pytest.fixture
def application(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The application in process, on the test's own connection in whatever thread; it reaches no network and starts no process."""
    from policies.simulate import jobs
    from proxy.services import catalogue, upstreams
    from proxy.services.catalogue import Changes
    from proxy.upstreams.catalogue import CheckReport

    monkeypatch.setattr(upstreams, "check_address", lambda *args, **more: None)
    monkeypatch.setattr(catalogue, "check_upstream", lambda **more: (CheckReport(), Changes()))
    monkeypatch.setattr(jobs, "start", lambda job: None)
    inner, shared = get_wsgi_application(), connections["default"]

    def application(environ: Any, start_response: Any) -> Any:
        connections["default"] = shared
        return inner(environ, start_response)

    shared.inc_thread_sharing()
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield application
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)
    shared.dec_thread_sharing()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_answer_that_is_not_described(application: Any, admin: Caller) -> None:
    """Examples, coverage, fuzzing and sequences of calls, bounded; `SENTINEL_TEST_EXAMPLES` looks longer."""
    event()
    event(outcome="limited", request_json={"params": {"arguments": {"a": [1, None]}}})
    examples = int(os.environ.get("SENTINEL_TEST_EXAMPLES", "3"))
    config = schemathesis.Config.from_dict(
        {
            "headers": {"Authorization": f"Bearer {admin.secret}"},
            "workers": 1,
            "continue-on-failure": True,
            "generation": {
                "max-examples": examples,
                "deterministic": True,
                "no-shrink": True,
                "database": "none",
                "with-security-parameters": False,
            },
            # What a schema cannot say (that a role exists) is refused too; who is let in is test_access.py's matter.
            "checks": {"positive_data_acceptance": {"enabled": False}, "ignored_auth": {"enabled": False}},
            "phases": {"coverage": {"unexpected-methods": ["PUT", "TRACE"]}, "stateful": {"max-steps": 5}},
        }
    )
    found = schemathesis.openapi.from_wsgi(
        "/api/schema/?format=json", application, config=config, headers={"Authorization": f"Bearer {admin.secret}"}
    )
    failures, phases, cases = [], set(), 0
    for one in engine.from_schema(found).execute():
        if isinstance(one, events.ScenarioFinished):
            phases.add(one.phase.name)
            for case_id, checks in one.recorder.checks.items():
                cases += 1
                for check in checks:
                    if check.failure_info is not None:
                        request = (
                            one.recorder.interactions[case_id].request if case_id in one.recorder.interactions else None
                        )
                        where = f"{request.method} {request.uri} {(request.body or b'')[:300]!r}" if request else ""
                        failures.append(f"{one.label}: {check.name}: {check.failure_info.failure}: {where}")
        elif isinstance(one, events.NonFatalError | events.FatalError):
            failures.append(f"{getattr(one, 'label', '')}: {one!r}")
    assert not failures, f"{len(failures)} of {cases}\n" + "\n".join(dict.fromkeys(failures[:60]))
    assert cases > 500
    assert {"COVERAGE", "FUZZING"} <= phases
