"""Every duty x page cell: what each may open, and what not."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group

from core.access import duties
from policies.models import PolicyVersion, Role, Rule
from policies.services import keys as key_acts
from proxy.models import CatalogueItem, Upstream
from tests.admin.conftest import acts

pytestmark = pytest.mark.django_db

V, A, P, OP, X = "viewer", "auditor", "policy-manager", "operator", "administrator"
EVERYONE = {V, A, P, OP, X}
# page -> who may open it
PAGES = {
    "/admin/": EVERYONE,
    "/admin/audit/auditevent/": EVERYONE,
    "/admin/audit/auditevent/{event}/change/": EVERYONE,
    "/admin/audit/auditevent/live/": EVERYONE,
    "/admin/audit/auditevent/{event}/delete/": set(),
    "/admin/audit/auditevent/add/": set(),
    "/admin/audit/auditevent/export/": {A, X},
    "/admin/audit/auditevent/{event}/erase/": {X},
    "/admin/audit/auditevent/integrity/": {A, X},
    "/admin/audit/redactionrule/": {A, X},
    "/admin/audit/redactionrule/add/": {X},
    "/admin/audit/redactionrule/{redaction}/change/": {A, X},
    "/admin/audit/redactionrule/{redaction}/delete/": {X},
    "/admin/health/": {OP, X},
    "/admin/policies/apikey/": {P, X},
    "/admin/policies/apikey/add/": {P, X},
    "/admin/policies/apikey/{key}/change/": {P, X},
    "/admin/policies/apikey/{key}/rotate/": {P, X},
    "/admin/policies/apikey/{key}/revoke/": {P, X},
    "/admin/policies/apikey/{key}/delete/": set(),
    "/admin/policies/role/": {P, X},
    "/admin/policies/role/add/": {P, X},
    "/admin/policies/role/{role}/change/": {P, X},
    "/admin/policies/role/{role}/delete/": {P, X},
    "/admin/policies/role/matrix/": {P, X},
    "/admin/policies/rule/": {P, X},
    "/admin/policies/rule/add/": {P, X},
    "/admin/policies/rule/{rule}/change/": {P, X},
    "/admin/policies/rule/{rule}/delete/": {P, X},
    "/admin/policies/rule/explain/": {P, X},
    "/admin/policies/rule/replay/": {P, X},
    "/admin/policies/ratelimit/": {P, X},
    "/admin/policies/ratelimit/add/": {P, X},
    "/admin/policies/policyversion/": {P, X},
    "/admin/proxy/upstream/": {P, OP, X},
    "/admin/proxy/upstream/add/": {OP, X},
    "/admin/proxy/upstream/{upstream}/change/": {P, OP, X},
    "/admin/proxy/upstream/{upstream}/delete/": {OP, X},
    "/admin/proxy/upstream/{upstream}/policy/": {P, X},
    "/admin/proxy/catalogueitem/": {P, OP, X},
    "/admin/proxy/catalogueitem/{item}/change/": {P, OP, X},
    "/admin/sentinel/user/": {X},
    "/admin/sentinel/user/add/": {X},
    "/admin/sentinel/user/{user}/change/": {X},
    "/admin/sentinel/user/{user}/password/": {X},
    "/admin/sentinel/user/{user}/delete/": set(),
    "/admin/preferences/": EVERYONE,
    "/admin/components/": EVERYONE,
}
# act (a POST) -> who may; everyone else is refused before anything is looked at
ACTS = {
    "/admin/audit/auditevent/": set(),
    "/admin/audit/auditevent/{event}/change/": set(),
    "/admin/audit/auditevent/{event}/delete/": set(),
    "/admin/audit/auditevent/export/file/": {A, X},
    "/admin/audit/auditevent/{event}/erase/": {X},
    "/admin/policies/policyversion/{version}/change/": {P, X},
    "/admin/audit/redactionrule/": {A, X},
    "/admin/audit/redactionrule/add/": {X},
    "/admin/audit/redactionrule/{redaction}/change/": {X},
    "/admin/policies/apikey/add/": {P, X},
    "/admin/policies/apikey/{key}/change/": {P, X},
    "/admin/policies/apikey/{key}/rotate/": {P, X},
    "/admin/policies/apikey/{key}/revoke/": {P, X},
    "/admin/policies/apikey/revoke/": {P, X},
    "/admin/policies/role/add/": {P, X},
    "/admin/policies/rule/add/": {P, X},
    "/admin/policies/ratelimit/add/": {P, X},
    "/admin/proxy/upstream/add/": {OP, X},
    "/admin/proxy/upstream/{upstream}/change/": {OP, X},
    "/admin/proxy/upstream/{upstream}/check/": {OP, X},
    "/admin/proxy/catalogueitem/approve/": {P, X},
    "/admin/sentinel/user/add/": {X},
    "/admin/sentinel/user/{user}/change/": {X},
    "/admin/sentinel/user/{user}/second-factor/": {X},
}


@pytest.fixture
def places(event, person, monkeypatch):
    from core.access.actors import Actor
    from proxy.services import catalogue
    from proxy.services.catalogue import Changes
    from proxy.upstreams.catalogue import CheckReport

    monkeypatch.setattr(catalogue, "check_upstream", lambda **_: (CheckReport(), Changes()))
    upstream = Upstream.objects.create(slug="crm", url="https://crm.example.com/mcp")
    definition = '{"name":"delete_customer"}'
    item = CatalogueItem.objects.create(
        upstream=upstream, kind="tool", name="delete_customer", definition=definition, hash="a" * 64, status="new"
    )
    key = key_acts.create_key(name="bot", role="user", actor=Actor.system()).key
    version = PolicyVersion.objects.order_by("-number").values_list("number", flat=True).first()
    from audit.models import RedactionRule

    redaction = RedactionRule.objects.create(kind="name", value="badge")
    return {
        "redaction": redaction.pk, "event": event().id, "key": key.pk, "role": Role.objects.get(name="readonly").pk, "rule": Rule.objects.first().pk,
        "upstream": upstream.pk, "item": item.pk, "version": version, "user": person("viewer", username="somebody").pk,
    }  # fmt: skip


@pytest.mark.parametrize("duty", [*duties.DUTIES, ""])
def test_pages(duty, places, as_duty):
    client = as_duty(*filter(None, [duty]), username="me")
    wrong = []
    for page, allowed in PAGES.items():
        status = client.get(page.format(**places)).status_code
        expected = (
            200 if duty in allowed or (not duty and page in ("/admin/preferences/", "/admin/components/")) else 403
        )
        if status != expected:
            wrong.append((page, status, expected))
    assert wrong == []


@pytest.mark.parametrize("duty", [*duties.DUTIES, ""])
def test_acts(duty, places, as_duty):
    client = as_duty(*filter(None, [duty]), username="me")
    before = len(acts("admin.refused"))
    refused = 0
    wrong = []
    for page, allowed in ACTS.items():
        status = client.post(page.format(**places)).status_code
        refused += status == 403
        fine = status in (200, 302, 400) if duty in allowed else status == 403
        # An export with no format named is refused to those who may export as well.
        if not fine and not (page.endswith("export/file/") and duty in allowed):
            wrong.append((page, status))
    assert wrong == []
    assert min(len(acts("admin.refused")) - before, 20) == min(refused, 20)


def test_a_stranger_sees_the_log_in_only(client, places):
    for page in PAGES:
        answer = client.get(page.format(**places))
        assert answer.status_code == 302
        assert answer["Location"].startswith("/admin/login/")


def test_groups_are_made_equal_to_the_table():
    duties.sync_groups()
    group = Group.objects.get(name="viewer")
    group.permissions.clear()
    duties.sync_groups()
    for duty in duties.DUTIES.values():
        held = {f"{p.content_type.app_label}.{p.codename}" for p in Group.objects.get(name=duty.name).permissions.all()}
        assert held == duty.permissions


def test_payloads_are_for_those_who_may_see_them_and_looking_is_an_event(event, as_duty):
    made = event(request_json={"name": "get_customer", "arguments": {"note": "only-for-auditors"}})
    page = f"/admin/audit/auditevent/{made.id}/change/"
    for duty in (V, P, OP):
        assert "only-for-auditors" not in as_duty(duty).get(page).content.decode()
    assert acts("admin.payloads.viewed") == []
    assert "only-for-auditors" in as_duty(A).get(page).content.decode()
    record = acts("admin.payloads.viewed")[0]
    assert record["key_name"] == A
    assert record["details"]["count"] == 1
    assert record["details"]["first"] == record["details"]["last"] == str(made.id)


def test_nobody_grants_more_than_they_hold(person, as_duty):
    client = as_duty(P, username="manager")
    answer = client.post("/admin/policies/apikey/add/", {"name": "up", "holds": "duty", "duty": X, "expires": "30d"})
    assert b"is not one of the available choices" in answer.content
    made = client.post("/admin/policies/apikey/add/", {"name": "same", "holds": "duty", "duty": P, "expires": "30d"})
    assert b"mcps_live_" in made.content
    boss = person(username="boss", is_superuser=True)
    other = as_duty(X, username="other")
    assert other.post(f"/admin/sentinel/user/{boss.pk}/change/", {"username": "boss"}).status_code == 403
    assert other.get(f"/admin/sentinel/user/{boss.pk}/password/").status_code == 403


def test_an_administrative_key_is_out_of_reach_of_a_smaller_duty(as_duty):
    from core.access.actors import Actor

    key = key_acts.create_key(name="root-key", duty=X, actor=Actor.system()).key
    client = as_duty(P)
    assert client.post(f"/admin/policies/apikey/{key.pk}/rotate/", {"overlap": "0"}).status_code == 403
    assert client.post("/admin/policies/apikey/revoke/", {"key": [str(key.pk)], "reason": "x"}).status_code == 403
    key.refresh_from_db()
    assert key.revoked_at is None
