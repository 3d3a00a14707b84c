"""The API of a running gateway: beside real calls, real workers, real processes."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any

import pytest

from tests.support.fixtures import Stage


class Api:
    """HTTP on one connection, with one key."""

    def __init__(self, stage: Stage, key: str) -> None:
        self.host, self.key = stage.gateway.url.removeprefix("http://"), key

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        connection = http.client.HTTPConnection(self.host, timeout=30)
        try:
            sent = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json", **headers}
            connection.request(method, path, None if body is None else json.dumps(body), sent)
            answer = connection.getresponse()
            content = answer.read()
            kind = answer.headers.get("Content-Type", "")
            value = json.loads(content) if "json" in kind and "ndjson" not in kind and content else content
            return answer.status, value, {name.lower(): text for name, text in answer.headers.items()}
        finally:
            connection.close()


@pytest.fixture(scope="module")
def api(stage: Stage) -> Api:
    """An administrator's."""
    told = json.loads(
        stage.gateway.manage("keys", "create", "of-api-tests", "--administrative", "administrator", "--json").stdout
    )
    return Api(stage, told["key"])


def test_a_key_is_known_as_soon_as_it_is_made_and_refused_soon_after_it_is_revoked(stage, api):
    assert api.call("GET", "/api/v1/events/?limit=1")[0] == 200
    status, made, _ = api.call("POST", "/api/v1/keys/", {"name": "by-the-api", "duty": "viewer"})
    assert status == 201
    fresh = Api(stage, made["key"])
    assert fresh.call("GET", "/api/v1/events/?limit=1")[0] == 200
    assert api.call("POST", f"/api/v1/keys/{made['id']}/revoke/", {})[0] == 200
    until = time.monotonic() + 3
    while fresh.call("GET", "/api/v1/events/?limit=1")[0] != 401:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_key_in_the_address_never_authenticates(stage, api):
    nobody = Api(stage, "")
    connection = http.client.HTTPConnection(nobody.host, timeout=30)
    connection.request("GET", f"/api/v1/events/?api_key={api.key}")
    answer = connection.getresponse()
    assert answer.status == 401 and json.loads(answer.read())["code"] == "missing_credential"
    connection.close()


def test_what_an_agent_did_is_there_to_read_and_so_is_who_read_it(stage, api):
    stage.fake.forget()
    stage.client("user").initialize().call("list_customers", {"region": "eu-api-test"})
    until = time.monotonic() + 10
    while True:
        _, page, _ = api.call("GET", "/api/v1/events/?tool=list_customers&limit=5&include=payloads")
        found = [one for one in page["results"] if "eu-api-test" in json.dumps(one["request_json"])]
        if found:
            break
        assert time.monotonic() < until
        time.sleep(0.1)
    assert found[0]["role"] == "user" and found[0]["key_name"] == "user-key"
    while True:
        _, page, _ = api.call("GET", "/api/v1/events/?outcome=changed&method=admin.payloads.viewed&limit=5")
        mine = [one for one in page["results"] if one["key_name"] == "of-api-tests"]  # others look at this log too
        if mine:
            break
        assert time.monotonic() < until
        time.sleep(0.1)
    assert mine[0]["auth_method"] == "bearer"


def test_export_arrives_as_chunks(api):
    status, content, headers = api.call("GET", "/api/v1/events/export/?format=ndjson")
    assert status == 200 and headers.get("transfer-encoding") == "chunked" and "content-length" not in headers
    assert all(json.loads(line)["id"] for line in content.splitlines())


def test_a_replay_runs_beside_the_gateway(api):
    status, job, _ = api.call("POST", "/api/v1/policy/replays/", {"document": "roles: {}"})
    assert status == 202
    path, until = f"/api/v1/policy/replays/{job['id']}/", time.monotonic() + 60
    while job["state"] in ("waiting", "running"):
        assert time.monotonic() < until, job
        time.sleep(0.2)
        _, job, _ = api.call("GET", path)
    assert job["state"] == "done" and job["progress"] == 1 and job["report"]["decided"] >= 0, job


def test_a_large_body_is_refused(api):
    status, problem, _ = api.call("POST", "/api/v1/policy/check/", {"document": "x" * (5 * 1024 * 1024)})
    assert status == 413 and problem["code"] == "too_large"
