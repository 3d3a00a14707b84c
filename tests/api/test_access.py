"""Who may: every permission and every address; every credential that is none."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.test import Client
from django.utils import timezone

from core.access.actors import Actor
from core.access.duties import DUTIES
from policies import vocabulary
from policies.services import keys as key_acts
from sentinel.api import urls
from tests.api.conftest import Caller, event, recorded

pytestmark = pytest.mark.django_db

UUID = "01890000-0000-7000-8000-000000000000"


def cells():
    """Every operation with the permissions its table names, read from the description itself."""
    from django.urls import resolve

    for path, methods in urls.document()["paths"].items():
        real = path
        for name, value in (
            ("{id}", "999999999"),
            ("{number}", "999999999"),
            ("{slug}", "nothing"),
            ("{key_id}", UUID),
            ("{job_id}", UUID),
            ("{event}", UUID),
        ):
            real = real.replace(name, value)
        view = resolve(real).func
        operations = view.initkwargs.get("operations", view.cls.operations)
        for method in methods:
            yield method.upper(), real, operations[method].permissions


CELLS = list(cells())


def test_every_address_is_in_the_table():
    assert len(CELLS) >= 45
    assert all(permissions for _, _, permissions in CELLS)
    known = {permission for duty in DUTIES.values() for permission in duty.permissions}
    assert {one for _, _, permissions in CELLS for one in permissions} <= known


def test_every_cell_of_duties_and_addresses(callers):
    """A duty that holds what an operation needs comes further than 403; any other does not."""
    for method, path, needed in CELLS:
        for duty in vocabulary.DUTIES:
            answer = callers[duty].call(method, path, None if method in ("GET", "DELETE") else {"nonsense": 1})
            may = set(needed) <= DUTIES[duty].permissions
            assert (answer.status_code != 403) == may, (duty, method, path, answer.status_code)
            assert answer.status_code < 500
            if not may:
                assert answer.data["code"] == "permission_denied" and answer.data["permission"] in needed
            if answer.streaming:
                list(answer.streaming_content)


def test_without_a_credential_everything_is_401(db):
    nobody = Caller(None)
    for method, path, _ in CELLS:
        answer = nobody.call(method, path, None if method in ("GET", "DELETE") else {})
        assert answer.status_code == 401 and answer.data["code"] == "missing_credential", (method, path)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert answer.headers["Content-Type"] == "application/problem+json"


def test_an_agents_key_never_administers(agent):
    for method, path, _ in CELLS:
        answer = agent.call(method, path, None if method in ("GET", "DELETE") else {})
        assert answer.status_code == 403 and answer.data["code"] == "agent_key", (method, path)
    for path in ("/api/schema/?format=json", "/api/docs/"):
        assert agent.get(path).status_code == 403
    refused = recorded("api.refused")
    assert (
        refused[0]["reason"] == "agent_key"
        and refused[0]["key_name"] == "an agent"
        and refused[0]["status_code"] == 403
    )


def test_keys_that_are_none(caller, admin):
    bad = [
        "nonsense", "", "mcps_live_AAAAAAAAAAAA_" + "A" * 49, admin.secret[:-1] + ("A" if admin.secret[-1] != "A" else "B"),
        admin.secret + "x", "x" * 100_000, "é" * 20,
    ]  # fmt: skip
    for secret in bad:
        answer = Caller(secret).get("events/")
        assert answer.status_code == 401 and answer.data["code"] == "invalid_credential", secret[:60]
        assert secret[:40] not in answer.content.decode() or not secret
    plain = Client().get("/api/v1/events/", headers={"authorization": f"Basic {admin.secret}"})
    assert plain.status_code == 401


def test_both_headers_carry_a_key_and_two_are_refused(admin):
    other = Caller(admin.secret, via="header")
    assert other.get("events/").status_code == 200
    both = admin.get("events/", headers={"x-api-key": admin.secret})
    assert both.status_code == 400 and both.data["code"] == "credential_ambiguous"
    other.post("roles/", {"name": "by-header"})
    assert recorded("admin.role.created")[0]["auth_method"] == "header"


def test_a_key_ends_when_it_is_revoked_expired_or_elsewhere(caller):
    made = key_acts.create_key(name="short", actor=Actor.system(), duty="viewer", networks=["10.0.0.0/8"])
    here = Caller(made.secret)
    assert here.get("events/").status_code == 401
    assert here.get("events/", REMOTE_ADDR="10.1.2.3").status_code == 200
    key_acts.revoke_key(made.key.pk, actor=Actor.system())
    assert here.get("events/", REMOTE_ADDR="10.1.2.3").status_code == 401
    old = key_acts.create_key(
        name="old", actor=Actor.system(), duty="viewer", expires_at=timezone.now() + timedelta(seconds=60)
    )
    old.key.created_at = timezone.now() - timedelta(days=2)
    old.key.expires_at = timezone.now() - timedelta(days=1)
    old.key.save()
    assert Caller(old.secret).get("events/").status_code == 401
    reasons = [one["reason"] for one in recorded("api.refused")]
    assert reasons == ["wrong_network", "revoked_key", "expired_key"]


def test_a_key_in_the_address_never_counts(admin):
    answer = Caller(None).get(f"events/?api_key={admin.secret}")
    assert answer.status_code == 401


def test_refusals_are_recorded_with_who_was_refused(callers):
    callers["viewer"].get("keys/")
    (one,) = recorded("api.refused")
    assert one["key_name"] == callers["viewer"].name and one["reason"] == "permission_denied"
    assert one["details"]["permission"] == "policies.view_apikey" and one["tool_name"] == "/api/v1/keys/"


def test_a_flood_of_refusals_is_no_flood_of_rows(db, monkeypatch):
    from sentinel.api import refusals
    from sentinel.refused_acts import RefusedActs

    monkeypatch.setattr(refusals, "_flood", RefusedActs(per_second=5))
    nobody = Caller("nonsense")
    for _ in range(60):
        assert nobody.get("events/").status_code == 401
    assert len(recorded("api.refused")) < 60


# -- sessions


def person(*groups, **fields):
    user = get_user_model().objects.create_user("ada", password="pw-of-ada-123", is_staff=True, **fields)
    user.groups.set(Group.objects.filter(name__in=groups))
    return user


def test_a_session_of_the_admin_is_as_good_as_its_duties(db):
    client = Client()
    client.force_login(person("policy-manager"), backend="django.contrib.auth.backends.ModelBackend")
    assert client.get("/api/v1/keys/").status_code == 200
    assert client.get("/api/v1/upstreams/").status_code == 200
    assert client.post("/api/v1/upstreams/", {}, content_type="application/json").status_code == 403
    made = client.post("/api/v1/roles/", json.dumps({"name": "by-ada"}), content_type="application/json")
    assert made.status_code == 201
    (one,) = recorded("admin.role.created")
    assert (
        one["key_name"] == "ada"
        and one["details"]["actor"]["kind"] == "user"
        and one.get("auth_method", "none") == "none"
    )


def test_a_session_needs_the_csrf_token_where_something_changes(db):
    client = Client(enforce_csrf_checks=True)
    client.force_login(person("administrator"), backend="django.contrib.auth.backends.ModelBackend")
    assert client.get("/api/v1/roles/").status_code == 200
    refused = client.post("/api/v1/roles/", json.dumps({"name": "x"}), content_type="application/json")
    assert refused.status_code == 403 and refused.json()["code"] == "csrf_failed"
    client.get("/admin/login/")
    client.cookies["csrftoken"] = "a" * 32
    made = client.post(
        "/api/v1/roles/", json.dumps({"name": "x"}), content_type="application/json", headers={"x-csrftoken": "a" * 32}
    )
    assert made.status_code == 201


def test_whoever_may_not_log_in_to_the_admin_has_no_session_here(db):
    user = person("administrator")
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    user.is_staff = False
    user.save()
    assert client.get("/api/v1/roles/").status_code == 401


def test_a_demanded_second_factor_is_demanded_here_too(db, settings):
    import dataclasses

    settings.SENTINEL = dataclasses.replace(settings.SENTINEL, second_factor_groups=("auditor",))
    client = Client()
    client.force_login(person("auditor"), backend="django.contrib.auth.backends.ModelBackend")
    answer = client.get("/api/v1/events/")
    assert answer.status_code == 403 and answer.json()["code"] == "second_factor_required"


# -- description and page


def test_the_description_is_for_every_administrative_key(callers):
    for caller in callers.values():
        answer = caller.get("/api/schema/?format=json")
        assert answer.status_code == 200 and answer.data["openapi"].startswith("3.1")
        assert caller.get("/api/schema/?format=yaml").content.startswith(b"openapi: 3.1")
        assert caller.get("/api/docs/").status_code == 200
    assert callers["viewer"].get("/api/schema/?format=xml").status_code == 400


def test_the_page_shows_every_operation_and_problem_and_no_script(admin):
    from core.api.problems import CODES

    text = admin.get("/api/docs/").content.decode()
    for methods in urls.document()["paths"].values():
        for operation in methods.values():
            assert f'id="{operation["operationId"]}"' in text
    for code in CODES:
        assert f'id="problem-{code}"' in text
    assert "<script" not in text and " style=" not in text and "http-equiv" not in text


def test_a_person_without_a_session_is_sent_to_the_log_in(db):
    answer = Client().get("/api/docs/", headers={"accept": "text/html"})
    assert answer.status_code == 302 and answer.headers["Location"] == "/admin/login/?next=/api/docs/"
    assert Client().get("/api/docs/").status_code == 401


def test_what_there_is_not(admin):
    for path in ("/api/", "/api/v1/", "/api/v1/nothing/", "/api/v2/events/", "/api/v1/keys/nothing/"):
        answer = admin.get(path)
        assert answer.status_code == 404 and answer.data["code"] == "not_found", path
        assert answer.headers["Content-Type"] == "application/problem+json"


def test_limits_are_per_caller_and_told(caller, settings):
    import dataclasses

    settings.SENTINEL = dataclasses.replace(settings.SENTINEL, api_rate=3)
    one, other = caller("viewer"), caller("auditor")
    left = [one.get("events/").headers["RateLimit-Remaining"] for _ in range(3)]
    assert left == ["2", "1", "0"]
    refused = one.get("events/")
    assert refused.status_code == 429 and refused.data["code"] == "rate_limited"
    assert 1 <= int(refused.headers["Retry-After"]) <= 61 and refused.headers["RateLimit-Limit"] == "3"
    assert other.get("events/").status_code == 200
    assert recorded("api.refused")[-1]["reason"] == "rate_limited"


def test_answers_are_nobodys_to_keep(admin):
    row = event()
    for path in ("events/", f"events/{row.id}/", "keys/"):
        assert admin.get(path).headers["Cache-Control"] == "no-store"
