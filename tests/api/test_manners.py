"""Idempotency, ETags, problems, hostile values: what every creation and change has in common."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.utils.dateparse import parse_datetime

from policies.models import ApiKey, IdempotentRequest, Role
from tests.api.conftest import recorded

pytestmark = pytest.mark.django_db

KEY = {"name": "portal", "role": "user"}


def test_a_creation_sent_twice_with_one_key_happens_once(admin):
    headers = {"idempotency-key": "order-17"}
    first = admin.post("keys/", KEY, headers=headers)
    assert (
        first.status_code == 201
        and first.data["key"].startswith("mcps_live_")
        and first.data["key_already_shown"] is False
    )
    again = admin.post("keys/", KEY, headers=headers)
    assert again.status_code == 201 and again.data == {**first.data, "key": None, "key_already_shown": True}
    assert again.headers["Location"] == first.headers["Location"] and again.headers["ETag"] == first.headers["ETag"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert ApiKey.objects.filter(name="portal").count() == 1 == len(recorded("admin.key.created")) - 1
    stored = json.dumps([[one.body, one.headers, one.digest] for one in IdempotentRequest.objects.all()])
    assert first.data["key"] not in stored


def test_a_number_of_any_length_can_stand_in_what_is_sent_once(admin):
    when = [{"path": "amount", "operator": "lt", "value": 10**30}]
    rule = {"effect": "allow", "kinds": ["tool"], "pattern": "pay", "roles": ["user"], "conditions": when}
    answer = admin.post("rules/", rule, headers={"idempotency-key": "order-18"})
    assert answer.status_code == 400 and "2 to the 53rd" in answer.content.decode()


def test_another_body_under_the_same_key_is_refused(admin):
    headers = {"idempotency-key": "order-17"}
    admin.post("keys/", KEY, headers=headers)
    for path, body in (("keys/", {**KEY, "name": "other"}), ("roles/", {"name": "x"})):
        answer = admin.post(path, body, headers=headers)
        assert answer.status_code == 422 and answer.data["code"] == "idempotency_key_reused"
    # The order of members is no other body.
    assert admin.post("keys/", '{"role": "user", "name": "portal"}', headers=headers).status_code == 201


def test_keys_of_different_callers_do_not_meet(caller):
    one, other = caller("administrator"), caller("policy-manager")
    headers = {"idempotency-key": "same"}
    assert one.post("roles/", {"name": "a"}, headers=headers).status_code == 201
    assert other.post("roles/", {"name": "b"}, headers=headers).status_code == 201


def test_what_was_refused_may_be_sent_again(admin):
    headers = {"idempotency-key": "retry"}
    assert admin.post("keys/", {**KEY, "role": "nobody"}, headers=headers).status_code == 400
    assert admin.post("keys/", KEY, headers=headers).status_code == 201


def test_a_record_ends_after_a_day(admin):
    headers = {"idempotency-key": "old"}
    first = admin.post("keys/", KEY, headers=headers)
    IdempotentRequest.objects.update(created_at=datetime.now(UTC) - timedelta(hours=25))
    assert admin.post("keys/", KEY, headers=headers).data["id"] != first.data["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there"])
def test_a_key_is_short_printable_text(admin, key):
    answer = admin.post("keys/", KEY, headers={"idempotency-key": key})
    assert answer.status_code == 400 and not ApiKey.objects.filter(name="portal").exists()


def test_every_creation_heeds_the_key(admin):
    bodies = {
        "roles/": {"name": "r"}, "rules/": {"effect": "allow", "roles": ["user"], "pattern": "x*"},
        "limits/": {"requests": 1, "window_seconds": 1}, "upstreams/": {"slug": "u", "url": "http://127.0.0.1:9/mcp"},
        "redaction-rules/": {"kind": "name", "value": "badge"},
    }  # fmt: skip
    for path, body in bodies.items():
        first = admin.post(path, body, headers={"idempotency-key": path})
        again = admin.post(path, body, headers={"idempotency-key": path})
        assert first.status_code == again.status_code == 201, (path, first.content)
        assert first.data == again.data


# -- ETags


def thing(admin, kind):
    """Make one of a kind: its address, a change, and another."""
    body, first, second = {
        "keys": (KEY, {"owner": "a"}, {"owner": "b"}),
        "roles": ({"name": "r"}, {"description": "a"}, {"description": "b"}),
        "rules": ({"effect": "allow", "roles": ["user"], "pattern": "x*"}, {"note": "a"}, {"note": "b"}),
        "limits": ({"requests": 5, "window_seconds": 1}, {"requests": 6}, {"requests": 7}),
        "upstreams": ({"slug": "u", "url": "http://127.0.0.1:9/mcp"}, {"name": "a"}, {"name": "b"}),
        "redaction-rules": ({"kind": "name", "value": "badge"}, {"note": "a"}, {"note": "b"}),
    }[kind]
    made = admin.post(f"{kind}/", body)
    assert made.status_code == 201, made.content
    path = made.headers["Location"].removeprefix("http://testserver")
    return path, made, first, second


@pytest.mark.parametrize("kind", ["keys", "roles", "rules", "limits", "upstreams", "redaction-rules"])
def test_of_two_who_change_what_they_read_one_wins(admin, kind):
    path, made, first, second = thing(admin, kind)
    tag = admin.get(path).headers["ETag"]
    assert tag == made.headers["ETag"]
    assert tag == admin.get(f"{path}?fields=id").headers["ETag"]
    won = admin.patch(path, first, headers={"if-match": tag})
    assert won.status_code == 200 and won.headers["ETag"] != tag
    lost = admin.patch(path, second, headers={"if-match": tag})
    assert lost.status_code == 412 and lost.data["code"] == "precondition_failed"
    assert lost.headers["ETag"] == won.headers["ETag"] == admin.get(path).headers["ETag"]
    name, value = next(iter(first.items()))
    assert admin.get(path).data[name] == value
    assert admin.patch(path, second, headers={"if-match": f'"x", {won.headers["ETag"]}'}).status_code == 200
    assert admin.patch(path, first, headers={"if-match": "*"}).status_code == 200
    if kind != "keys":
        assert admin.delete(path, headers={"if-match": tag}).status_code in (200, 204, 412)


@pytest.mark.parametrize("kind", ["roles", "rules", "limits", "upstreams", "redaction-rules"])
def test_nothing_is_deleted_that_has_changed_since(admin, kind):
    path, made, first, _ = thing(admin, kind)
    admin.patch(path, first)
    assert admin.delete(path, headers={"if-match": made.headers["ETag"]}).status_code == 412
    assert admin.delete(path, headers={"if-match": admin.get(path).headers["ETag"]}).status_code == 204
    assert admin.get(path).status_code == 404 and admin.delete(path).status_code == 404


# -- problems and hostile values


def test_strangers_are_refused_by_name(admin):
    answer = admin.post("keys/", {**KEY, "rol": 1, "id": "x"})
    assert answer.status_code == 400 and answer.data["code"] == "invalid"
    assert {one["field"]: one["code"] for one in answer.data["errors"]} == {
        "rol": "unknown_member",
        "id": "unknown_member",
    }
    nested = admin.post(
        "rules/",
        {
            "effect": "allow",
            "roles": None,
            "pattern": "*",
            "conditions": [{"operator": "eq", "path": "a", "value": 1}, {"op": 1}],
        },
    )
    assert {one["field"] for one in nested.data["errors"]} == {"conditions[1].op"}


def test_a_problem_has_all_that_the_standard_says(admin):
    answer = admin.post("keys/", {})
    assert set(answer.data) >= {"type", "title", "status", "detail", "instance", "code", "errors"}
    assert answer.data["type"] == "/api/docs/#problem-invalid" and answer.data["instance"] == "/api/v1/keys/"


def test_the_detail_of_a_problem_names_the_first_place(admin):
    refused = admin.post("keys/", {"name": "a", "role": "user", "colour": "red"})
    assert refused.data["detail"] == "colour: There is no such member."


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'\xef\xbb\xbf{"name":"x"}', b'{"name":"a","name":"b"}', b'{"a":{"b":1,"b":2}}', b'{"name":NaN}',
     b'{"name":1e999}', b'{"name":"\\u0000"}', b'{"name":"\\ud800"}', b'{"\\u0000":1}', b'{"a":' * 100_000, b'{"a":' + b"[" * 70 + b"]" * 70 + b"}",
     b'{"name":' + b"9" * 5000 + b"}", b"{'name': 'x'}"],
)  # fmt: skip
def test_what_is_no_json_is_malformed(admin, body):
    answer = admin.post("keys/", body)
    assert answer.status_code == 400 and answer.data["code"] in ("malformed", "invalid"), answer.content
    assert answer.headers["Content-Type"] == "application/problem+json"


HOSTILE = [
    "", " ", "\u202egnp.exe", "<script>alert(1)</script>", "'; DROP TABLE policies_role;--", "x" * 100_000, "\x1b[31m", "é" * 600,
    0, -1, 1.5, 2**63, 10**400, True, None, [], {}, [[]], ["x"], {"x": 1},
]  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [
        "keys/",
        "roles/",
        "rules/",
        "limits/",
        "upstreams/",
        "redaction-rules/",
        "policy/explain/",
        "policy/check/",
        "policy/replays/",
    ],
)
def test_hostile_values_are_refused_and_never_an_error_of_ours(admin, path):
    from sentinel.api import urls

    operation = urls.document()["paths"][f"/api/v1/{path}"]["post"]
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
    members = urls.document()["components"]["schemas"][reference]["properties"]
    assert members
    good = {
        "keys/": KEY, "roles/": {"name": "r"}, "rules/": {"effect": "allow", "roles": ["user"], "pattern": "x*"},
        "limits/": {"requests": 5, "window_seconds": 1, "kind": "tool"}, "upstreams/": {"slug": "u", "url": "http://127.0.0.1:9/mcp"},
        "redaction-rules/": {"kind": "name", "value": "badge"},
        "policy/explain/": {"role": "user", "name": "x"}, "policy/check/": {"document": ""}, "policy/replays/": {"document": "", "since": "2026-01-01T00:00:00Z"},
    }[path]  # fmt: skip
    for member in members:
        for value in HOSTILE:
            answer = admin.post(path, {**good, member: value})
            assert answer.status_code < 500, (member, value, answer.content)
            assert answer.status_code in (200, 201, 202, 400, 403, 409), (member, value, answer.content)
            if answer.status_code >= 400:
                assert answer.data["code"] in ("invalid", "refused", "conflict", "command_refused")


def test_a_body_has_bounds(admin):
    answer = admin.post("policy/check/", json.dumps({"document": "x" * (4 * 1024 * 1024)}))
    assert answer.status_code == 413 and answer.data["code"] == "too_large"


def test_other_media_types_are_refused(admin):
    answer = admin.call("POST", "keys/", b"name=x", content_type="application/x-www-form-urlencoded")
    assert answer.status_code == 400 or answer.status_code == 415


def test_times_are_rfc_3339(admin):
    made = admin.post("keys/", {**KEY, "expires_at": "2030-05-01T12:00:00+02:00"})
    assert made.data["expires_at"] == "2030-05-01T10:00:00.000000Z"
    assert parse_datetime(made.data["created_at"]).tzinfo is not None
    for text in ("2030-05-01", "2030-05-01T12:00:00", "tomorrow", 1, "2030-13-01T00:00:00Z", "9999-99-99T99:99:99Z"):
        assert admin.post("keys/", {**KEY, "expires_at": text}).status_code == 400


def test_fields_choose_members(admin):
    answer = admin.get("roles/?fields=name&limit=2")
    assert answer.data["results"] == [{"name": "admin"}, {"name": "user"}]
    assert "fields=name" in answer.data["next"]
    assert admin.get("roles/?fields=nothing").status_code == 400


def test_lists_page_both_ways_while_rows_are_made(admin):
    Role.objects.bulk_create([Role(name=f"r{at}") for at in range(20)])
    wanted = list(Role.objects.order_by("pk").values_list("name", flat=True))
    path, seen = "roles/?limit=3", []
    while path:
        answer = admin.get(path)
        seen += [one["name"] for one in answer.data["results"]]
        last, path = path, answer.data["next"]
        if len(seen) < 12:
            wanted.append(Role.objects.create(name=f"late{len(seen)}").name)
    assert seen == wanted
    back, path = [], last
    while path:
        answer = admin.get(path)
        back = [one["name"] for one in answer.data["results"]] + back
        path = answer.data["previous"]
    assert back == wanted
    assert admin.get("roles/?after=1&before=2").status_code == 400


def test_the_database_is_down(admin, monkeypatch):
    from django.db import OperationalError

    from policies.api import roles

    def down(*_: object):
        raise OperationalError("connection refused: password=hunter2")

    monkeypatch.setattr(roles.RoleResource, "all", down)
    answer = admin.get("roles/")
    assert (
        answer.status_code == 503 and answer.data["code"] == "unavailable" and "hunter2" not in answer.content.decode()
    )


def test_what_nobody_foresaw_says_nothing_of_itself(admin, monkeypatch):
    from policies.api import roles

    def broken(*_: object):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(roles.RoleResource, "all", broken)
    answer = admin.get("roles/")
    assert answer.status_code == 500 and answer.data["code"] == "internal_error" and b"secret" not in answer.content
