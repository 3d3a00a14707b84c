"""The pages of redaction rules: who, what is refused, and the box to try them."""

from __future__ import annotations

import pytest

from audit.models import RedactionRule
from audit.services import redaction_rules
from core.access.actors import Actor
from tests.admin.conftest import HOSTILE, acts

pytestmark = pytest.mark.django_db
PLACE = "/admin/audit/redactionrule/"


def rule(**fields):
    return redaction_rules.create_rule(**{"kind": "name", "value": "badge", "actor": Actor.system(), **fields})


def test_add_change_delete(admin_client):
    form = {"kind": "pattern", "value": r"BDG-\d{6}", "label": "badge", "note": HOSTILE, "enabled": "on", "save": "1"}
    assert admin_client.post(f"{PLACE}add/", form).status_code == 302
    made = RedactionRule.objects.get()
    listed = admin_client.get(PLACE).content.decode()
    assert "BDG-" in listed and "<script>alert(1)" not in listed
    assert admin_client.post(f"{PLACE}{made.pk}/change/", {**form, "enabled": "", "note": "n"}).status_code == 302
    made.refresh_from_db()
    assert not made.enabled
    assert "no longer" in admin_client.post(f"{PLACE}{made.pk}/delete/", follow=True).content.decode()
    assert not RedactionRule.objects.exists()
    assert [len(acts(f"admin.redaction.{act}")) for act in ("created", "changed", "deleted")] == [1, 1, 1]


def test_refusals_stand_beside_the_field(admin_client):
    for value, words in (("(", "not a pattern re2 takes"), (r"\w+", "nearly everything"), ("x*", "empty text")):
        page = admin_client.post(f"{PLACE}add/", {"kind": "pattern", "value": value, "save": "1"}).content.decode()
        assert words in page.lower()
    assert not RedactionRule.objects.exists()


def test_trying_keeps_nothing(admin_client):
    rule(label="staff")
    page = admin_client.post(PLACE, {"try": "badge=B1234x and <script>"}).content.decode()
    assert "badge=[REDACTED:staff:" in page and "<script> and" not in page
    form = {"kind": "pattern", "value": r"ORD-\d+", "label": "order", "try": "ORD-77 badge=B1234x", "test": "1"}
    page = admin_client.post(f"{PLACE}add/", form).content.decode()
    assert "[REDACTED:order:" in page and "badge=[REDACTED:staff:" in page
    assert RedactionRule.objects.count() == 1


def test_an_auditor_looks_and_changes_nothing(as_duty):
    made = rule()
    client = as_duty("auditor")
    assert client.get(f"{PLACE}{made.pk}/change/").status_code == 200
    assert client.post(f"{PLACE}{made.pk}/change/", {"save": "1"}).status_code == 403
    assert client.post(f"{PLACE}{made.pk}/delete/").status_code == 403
    assert client.get(f"{PLACE}99/change/").status_code == 404
