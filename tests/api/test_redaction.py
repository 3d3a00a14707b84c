"""Redaction rules: the same acts as in the admin, each with its event."""

from __future__ import annotations

import pytest

from audit.models import RedactionRule
from audit.services import redaction_rules
from tests.api.conftest import recorded

pytestmark = pytest.mark.django_db

PLACE = "redaction-rules/"
BADGE = {"kind": "pattern", "value": r"BDG-\d{6}", "label": "badge", "note": "staff", "enabled": True}


def test_the_life_of_a_rule(admin):
    made = admin.post(PLACE, BADGE)
    assert made.status_code == 201 and made.data | BADGE == made.data, made.content
    path = f"{PLACE}{made.data['id']}/"
    assert made.headers["Location"] == f"http://testserver/api/v1/{path}"
    assert admin.get(path).data == made.data and made.data["created_at"].endswith("Z")
    assert admin.patch(path, BADGE).data == made.data and not recorded("admin.redaction.changed")
    changed = admin.patch(path, {"enabled": False, "label": ""})
    assert changed.data == {**made.data, "enabled": False, "label": ""}
    assert admin.delete(path).status_code == 204 and not RedactionRule.objects.exists()
    for answer in (admin.get(path), admin.patch(path, {"note": "x"}), admin.delete(path)):
        assert answer.status_code == 404 and answer.data["code"] == "not_found"
    acts = [one for one in recorded() if ".redaction." in one["method"]]
    assert [one["method"] for one in acts] == [
        "admin.redaction.created",
        "admin.redaction.changed",
        "admin.redaction.deleted",
    ]
    assert {one["key_name"] for one in acts} == {admin.name} and acts[0]["details"]["after"] == BADGE
    assert (acts[1]["details"]["before"]["enabled"], acts[1]["details"]["after"]["enabled"]) == (True, False)


def test_what_is_not_said_is_as_in_the_admin(admin):
    made = admin.post(PLACE, {"kind": "personal", "value": "email"})
    assert (made.data["label"], made.data["note"], made.data["enabled"]) == ("", "", True)


def test_auditors_look_and_administrators_change(callers):
    path = f"{PLACE}{callers['administrator'].post(PLACE, BADGE).data['id']}/"
    for duty, looks in (("auditor", True), ("viewer", False), ("policy-manager", False), ("operator", False)):
        one = callers[duty]
        assert (one.get(PLACE).status_code == 200) == (one.get(path).status_code == 200) == looks, duty
        for answer in (one.post(PLACE, BADGE), one.patch(path, {"enabled": False}), one.delete(path)):
            assert answer.status_code == 403 and answer.data["code"] == "permission_denied", duty
    assert RedactionRule.objects.get().enabled


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"value": "("}, "value"),
        ({"value": "a*"}, "value"),
        ({"value": r"\w+"}, "value"),
        ({"value": ""}, "value"),
        ({"value": "x" * 1_001}, "value"),
        ({"kind": "name", "value": "--"}, "value"),
        ({"kind": "colour"}, "kind"),
        ({"kind": "personal", "value": "shoe-size", "label": ""}, "value"),
        ({"kind": "personal", "value": "email"}, "label"),
        ({"label": "Not A Label"}, "label"),
        ({"label": "badge\n"}, "label"),
        ({"enabled": "yes"}, "enabled"),
        ({"created_at": "2026-01-01T00:00:00Z"}, "created_at"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_cannot_be_used_is_refused_where_it_stands(admin, change, place):
    answer = admin.post(PLACE, {**BADGE, **change})
    assert answer.status_code == 400 and [one["field"] for one in answer.data["errors"]] == [place], answer.content
    made = admin.post(PLACE, BADGE)
    path = f"{PLACE}{made.data['id']}/"
    assert admin.patch(path, change).status_code == 400 and admin.get(path).data == made.data
    assert len(recorded("admin.redaction.created")) == 1 and not recorded("admin.redaction.changed")


def test_twice_the_same_and_too_many_are_refused(admin, monkeypatch):
    admin.post(PLACE, BADGE)
    again = admin.post(PLACE, BADGE)
    assert again.status_code == 400 and again.data["detail"] == "There is such a rule already."
    monkeypatch.setattr(redaction_rules, "MOST_RULES", 1)
    more = admin.post(PLACE, {"kind": "name", "value": "locker"})
    assert more.status_code == 400 and more.data["code"] == "refused" and RedactionRule.objects.count() == 1


def test_a_creation_sent_twice_happens_once(admin):
    first, again = (admin.post(PLACE, BADGE, headers={"idempotency-key": "badges"}) for _ in range(2))
    assert first.status_code == again.status_code == 201 and first.data == again.data
    assert again.headers["Idempotency-Replayed"] == "true" and again.headers["ETag"] == first.headers["ETag"]
    assert len(recorded("admin.redaction.created")) == 1
    other = admin.post(PLACE, {**BADGE, "note": "other"}, headers={"idempotency-key": "badges"})
    assert other.status_code == 422


def test_the_list_pages_and_chooses(admin):
    ids = [admin.post(PLACE, {"kind": "name", "value": word}).data["id"] for word in ("zebra", "badge", "locker")]
    page = admin.get(f"{PLACE}?limit=2&fields=id,value").data
    assert page["results"] == [{"id": ids[0], "value": "zebra"}, {"id": ids[1], "value": "badge"}]
    rest = admin.get(page["next"]).data
    assert [one["id"] for one in rest["results"]] == ids[2:] and rest["next"] is None
    assert admin.get(f"{PLACE}?kind=name").data["code"] == "unknown_parameter"
