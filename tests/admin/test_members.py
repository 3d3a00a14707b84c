"""Duties hold against each other: each member of each object, each way to change it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from django import forms
from django.db import connection
from django.test import Client
from django.utils import timezone

from core.access.duties import DUTIES
from core.access.members import JUDGE, MEMBERS
from core.api.fields import Strict
from proxy.admin import WAITS
from proxy.forms import HELD
from proxy.models import CatalogueItem, Upstream
from proxy.upstreams import specs
from sentinel.api.urls import v1
from tests.admin.conftest import acts

pytestmark = pytest.mark.django_db

# Every form of a page and every request of the API: which object it changes. "" changes nothing that a duty decides.
FORMS = {
    "UpstreamForm": "upstream", "JudgementForm": "upstream", "UpstreamChangeSerializer": "upstream", "UpstreamCreationSerializer": "upstream",
    "ApprovalSerializer": "catalogueitem", "QuarantineSerializer": "catalogueitem",
    "KeyForm": "apikey", "NewKeyForm": "apikey", "RotateForm": "apikey", "RevokeForm": "apikey",
    "KeyChangeSerializer": "apikey", "KeyCreationSerializer": "apikey", "RotationSerializer": "apikey", "RevocationSerializer": "apikey",
    "RoleChangeSerializer": "role", "RuleForm": "rule", "ConditionForm": "rule", "RuleChangeSerializer": "rule", "LimitForm": "ratelimit",
    "LimitChangeSerializer": "ratelimit", "DraftSerializer": "policy", "ReplayForm": "replay", "ReplayRequestSerializer": "replay", "ExplainForm": "question",
    "QuestionSerializer": "question", "RedactionRuleForm": "redactionrule", "RedactionRuleChangeSerializer": "redactionrule", "ReasonForm": "payload",
    "PersonForm": "user", "NewPersonForm": "user", "PreferencesForm": "", "OwnPasswordForm": "", "ProofForm": "",
}  # fmt: skip
MODULES = (
    "audit.admin.erasing", "core.access.reauthentication", "audit.admin.redaction", "audit.api.serializers", "policies.forms.keys", "policies.forms.rules",
    "policies.admin.explain", "policies.api.serializers.keys", "policies.api.serializers.policy", "policies.api.serializers.replays",
    "policies.api.serializers.rules", "proxy.forms", "proxy.api.serializers", "sentinel.forms", "sentinel.site.pages", "sentinel.users.pages",
)  # fmt: skip


def changing() -> dict[str, Any]:
    """Find every form and request there is."""
    found: dict[str, Any] = {}
    for module in map(import_module, MODULES):
        for name, kind in inspect.getmembers(module, inspect.isclass):
            if kind.__module__ == module.__name__ and issubclass(kind, (forms.BaseForm, Strict)):
                key = f"{module.__name__.partition('.')[0]}.{name}"
                found[key if key in FORMS else name] = kind
    return found


def test_every_member_of_every_form_has_an_owner():
    found = changing()
    nested = {"ConditionSerializer": "rule", "WindowSerializer": "rule"}
    assert set(found) == set(FORMS) | set(nested)
    for name, kind in found.items():
        thing = {**FORMS, **nested}[name]
        if not thing:
            continue
        fields = kind.base_fields if issubclass(kind, forms.BaseForm) else kind().fields
        writable = [field for field, one in fields.items() if not getattr(one, "read_only", False)]
        if name in nested:
            writable = [field for field in writable if field not in ("zone",)]
        assert not set(writable) - set(MEMBERS[thing]), (name, set(writable) - set(MEMBERS[thing]))


def test_no_form_is_overlooked():
    """Whatever an operation of the API takes stands among the forms."""
    known = set(changing().values())
    for pattern in _patterns(v1):
        for operation in getattr(getattr(pattern.callback, "cls", None), "operations", {}).values():
            assert operation.request is None or operation.request in known, operation.id


def _patterns(holder: Any) -> Any:
    for one in holder.url_patterns:
        yield from _patterns(one) if hasattr(one, "url_patterns") else [one]


def test_every_permission_of_the_table_belongs_to_a_duty():
    held = {permission for duty in DUTIES.values() for permission in duty.permissions}
    assert {permission for members in MEMBERS.values() for permission in members.values()} <= held
    assert JUDGE in DUTIES["policy-manager"].permissions and JUDGE not in DUTIES["operator"].permissions


# -- an upstream, between the operator and the policy manager --------------------------------------------------------------

JUDGED = {"catalogue_policy": "allow", "dispatchers": {}, "audit_level": "none"}
OPERATED = {
    "name": "another", "description": "x", "refusals": "http", "max_concurrent": 7, "connect_timeout": 2.0, "idle_timeout": 30.0,
    "first_byte_timeout": 3.0, "max_answer_bytes": 4096, "enabled": False, "url": "https://127.0.0.1:9/other", "networks": ["127.0.0.0/8"],
    "headers": {"X-A": "b"}, "transport": "sse", "tool_timeouts": {"export_*": 1800.0},
}  # fmt: skip


@pytest.fixture
def upstream(db: None, settings: Any) -> Upstream:
    import dataclasses
    import ipaddress

    settings.SENTINEL = dataclasses.replace(settings.SENTINEL, upstream_networks=(ipaddress.ip_network("127.0.0.0/8"),))
    return Upstream.objects.create(
        slug="crm", url="https://127.0.0.1:9/mcp", catalogue_policy="quarantine", dispatchers={"call_tool": "name"}, audit_level="full"
    )  # fmt: skip


@pytest.fixture
def by(as_duty: Callable[..., Client]) -> dict[str, Client]:
    return {duty: as_duty(duty, username=duty) for duty in DUTIES}


def patch(client: Client, body: dict[str, Any]) -> Any:
    return client.patch("/api/v1/upstreams/crm/", json.dumps(body), content_type="application/json")


@pytest.mark.parametrize("member", JUDGED)
def test_what_may_be_used_is_not_the_operators(member, upstream, by):
    answer = patch(by["operator"], {member: JUDGED[member]})
    assert (answer.status_code, answer.json()["permission"]) == (403, JUDGE)
    mixed = patch(by["operator"], {"name": "x", member: JUDGED[member]})
    assert mixed.status_code == 403
    assert patch(by["operator"], {"name": "y", member: getattr(upstream, member)}).status_code == 200  # as it is
    before = getattr(upstream, member)
    upstream.refresh_from_db()
    assert getattr(upstream, member) == before and upstream.name == "y"
    assert acts("api.refused")
    assert patch(by["policy-manager"], {member: JUDGED[member]}).status_code == 200
    upstream.refresh_from_db()
    assert getattr(upstream, member) == JUDGED[member]
    for duty in ("viewer", "auditor"):
        assert patch(by[duty], {member: before}).status_code == 403


@pytest.mark.parametrize("member", OPERATED)
def test_where_it_is_is_not_the_policy_managers(member, upstream, by):
    answer = patch(by["policy-manager"], {member: OPERATED[member]})
    assert (answer.status_code, answer.json()["permission"]) == (403, "proxy.change_upstream")
    answer = patch(by["operator"], {member: OPERATED[member]})
    assert answer.status_code == 200, answer.content


def test_every_member_of_the_api_is_tried(upstream):
    from proxy.api.serializers import UpstreamChangeSerializer

    certificates = {"ca_pem", "client_cert_pem", "client_key"}  # need a certificate; the table says whose they are
    assert set(UpstreamChangeSerializer().fields) == {*JUDGED, *OPERATED} | certificates


def test_nor_when_an_upstream_is_made(upstream, by):
    body = {"slug": "other", "url": "https://127.0.0.1:9/mcp"}
    for member, value in (("catalogue_policy", "allow"), ("dispatchers", {"a": "b"}), ("audit_level", "none")):
        made = by["operator"].post("/api/v1/upstreams/", json.dumps({**body, member: value}), content_type="application/json")  # fmt: skip
        assert (made.status_code, made.json()["permission"]) == (403, JUDGE)
    assert not Upstream.objects.filter(slug="other").exists()
    made = by["operator"].post("/api/v1/upstreams/", json.dumps({**body, "catalogue_policy": "quarantine"}), content_type="application/json")  # fmt: skip
    assert made.status_code == 201


def load() -> dict[str, specs.UpstreamSpec]:
    return specs.load(connection.connection)


FORM = {"transport": "streamable-http", "enabled": "on", "max_concurrent": "5", "process_mode": "shared"}


def listed(slug: str) -> str:
    """Give the state of the one tool that the server at any address lists, after a check of this upstream."""
    from proxy.services import catalogue
    from proxy.upstreams.catalogue import FoundDefinitions

    found = [FoundDefinitions("tool", "delete_customer", "{}", "a" * 64, ())]
    now = timezone.now()
    upstream = Upstream.objects.get(slug=slug)
    catalogue._store(upstream, found, ("tool",), first=not upstream.catalogue.exists(), now=now)
    return CatalogueItem.objects.get(upstream=upstream).status


@pytest.mark.parametrize("way", ["api", "admin"])
@pytest.mark.parametrize(("duty", "state"), [("operator", "quarantined"), ("administrator", "pinned")])
def test_nor_by_adding_the_server_a_second_time(way, duty, state, upstream, by):
    if way == "api":
        body = json.dumps({"slug": "again", "url": upstream.url})
        assert by[duty].post("/api/v1/upstreams/", body, content_type="application/json").status_code == 201
    else:
        fields = {**FORM, "slug": "again", "url": upstream.url, "catalogue_policy": "allow", "dispatchers": ""}
        page = by[duty].get("/admin/proxy/upstream/add/").content.decode()
        assert (HELD in page) == (duty == "operator")
        assert by[duty].post("/admin/proxy/upstream/add/", fields).status_code == 302
    assert Upstream.objects.get(slug="again").catalogue_policy == ("quarantine" if duty == "operator" else "allow")
    assert listed("again") == state
    assert load()["again"].blocked("tool", "delete_customer") == (duty == "operator")
    assert load()["again"].blocked("tool", "never_listed") == (duty == "operator")


MOVES = [
    {"url": "https://127.0.0.1:9/other"}, {"url": "https://127.0.0.1:10/mcp"}, {"url": "https://127.0.0.1:9/mcp?tenant=2"}, {"transport": "sse"},
]  # fmt: skip


@pytest.mark.parametrize("way", ["api", "admin"])
@pytest.mark.parametrize("move", MOVES)
def test_nor_by_pointing_another_upstream_at_the_server(way, move, upstream, by):
    """What was approved of one server, in the same words too, is not approved of another."""
    for policy in ("allow", "quarantine"):
        Upstream.objects.update(catalogue_policy="allow")
        CatalogueItem.objects.all().delete()
        assert listed("crm") == "pinned"
        start = {"url": "https://127.0.0.1:9/mcp", "transport": "streamable-http"}
        Upstream.objects.update(catalogue_policy=policy, **start)
        if way == "api":
            assert patch(by["operator"], move).status_code == 200
        else:
            page = f"/admin/proxy/upstream/{upstream.pk}/change/"
            fields = {**FORM, **start, "catalogue_policy": "allow", **move}
            answer = by["operator"].post(page, fields, follow=True)
            assert answer.status_code == 200
            assert (WAITS in answer.content.decode()) == (policy == "allow")
        upstream.refresh_from_db()
        assert upstream.catalogue_policy == "quarantine"
        assert load()["crm"].blocked("tool", "delete_customer")
        assert listed("crm") == "quarantined"
    approved = CatalogueItem.objects.get(upstream=upstream)
    assert (approved.pinned_hash, approved.approved_by, approved.present) == ("", "", True)


def test_what_stays_where_it_is_keeps_its_approvals(upstream, by):
    Upstream.objects.update(catalogue_policy="allow")
    assert listed("crm") == "pinned"
    assert patch(by["operator"], {"name": "renamed", "url": upstream.url, "headers": {"X-A": "b"}}).status_code == 200
    assert patch(by["administrator"], {"url": "https://127.0.0.1:9/other"}).status_code == 200  # holds the duty
    upstream.refresh_from_db()
    assert upstream.catalogue_policy == "allow" and listed("crm") == "pinned"


def test_an_operators_slip_can_be_taken_back(upstream, by):
    body = json.dumps({"slug": "slip", "url": "https://127.0.0.1:9/msp"})
    assert by["operator"].post("/api/v1/upstreams/", body, content_type="application/json").status_code == 201
    assert by["operator"].delete("/api/v1/upstreams/slip/").status_code == 204


def test_nor_by_removing_it_and_adding_it_again(upstream, by):
    assert by["operator"].delete("/api/v1/upstreams/crm/").status_code == 403
    assert by["operator"].post(f"/admin/proxy/upstream/{upstream.pk}/delete/").status_code == 403
    Upstream.objects.update(catalogue_policy="allow", dispatchers={}, audit_level="")
    item = CatalogueItem.objects.create(
        upstream=upstream, kind="tool", name="t", definition="{}", hash="a" * 64, status="quarantined", held=True
    )
    assert by["operator"].delete("/api/v1/upstreams/crm/").status_code == 403
    item.delete()
    assert by["operator"].delete("/api/v1/upstreams/crm/").status_code == 204
    body = json.dumps({"slug": "crm", "url": "https://127.0.0.1:9/mcp"})
    assert by["operator"].post("/api/v1/upstreams/", body, content_type="application/json").status_code == 201
    assert listed("crm") == "quarantined"


def test_nor_by_the_form_of_the_admin(upstream, by):
    page = f"/admin/proxy/upstream/{upstream.pk}/change/"
    fields = {
        "name": "renamed", "transport": "streamable-http", "url": upstream.url, "enabled": "on", "catalogue_policy": "allow",
        "dispatchers": "", "audit_level": "none", "max_concurrent": "5", "process_mode": "shared",
    }  # fmt: skip
    assert by["operator"].post(page, fields).status_code == 302
    upstream.refresh_from_db()
    assert (upstream.name, upstream.max_concurrent) == ("renamed", 5)
    assert (upstream.catalogue_policy, upstream.dispatchers, upstream.audit_level) == (
        "quarantine", {"call_tool": "name"}, "full",
    )  # fmt: skip
    assert "Decided by whoever manages the policy." in by["operator"].get(page).content.decode()
    assert by["policy-manager"].post(page, fields).status_code == 403
    by["administrator"].post(page, fields)
    upstream.refresh_from_db()
    assert upstream.catalogue_policy == "allow"


def test_the_policy_manager_has_a_page_of_their_own(upstream, by):
    page = f"/admin/proxy/upstream/{upstream.pk}/policy/"
    fields = {
        "catalogue_policy": "allow",
        "dispatchers": "run = tool",
        "audit_level": "digest",
        "url": "https://elsewhere.example/mcp",
    }
    for duty in ("viewer", "auditor", "operator"):
        assert by[duty].get(page).status_code == by[duty].post(page, fields).status_code == 403
    assert by["policy-manager"].get(page).status_code == 200
    assert by["policy-manager"].post(page, fields).status_code == 302
    upstream.refresh_from_db()
    assert (upstream.catalogue_policy, upstream.dispatchers, upstream.audit_level) == (
        "allow",
        {"run": "tool"},
        "digest",
    )
    assert upstream.url == "https://127.0.0.1:9/mcp"
    assert acts("admin.upstream.updated")[0]["key_name"] == "policy-manager"
    assert page in by["policy-manager"].get(f"/admin/proxy/upstream/{upstream.pk}/change/").content.decode()


# -- keys, people ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("duty", ["administrator", "operator", "auditor"])
def test_nobody_makes_a_key_that_is_worth_more_than_they_are(duty, by):
    body = json.dumps({"name": "mine", "duty": duty})
    assert by["policy-manager"].post("/api/v1/keys/", body, content_type="application/json").status_code == 403
    fields = {"name": "mine", "holds": "duty", "duty": duty, "expires": "90d"}
    by["policy-manager"].post("/admin/policies/apikey/add/", fields)
    from policies.models import ApiKey

    assert not ApiKey.objects.exists()


def test_what_was_answered_to_another_is_not_repeated(upstream, by):
    headers = {"Idempotency-Key": "same"}
    body = json.dumps({"name": "a-role"})
    first = by["policy-manager"].post("/api/v1/roles/", body, content_type="application/json", headers=headers)
    assert first.status_code == 201
    for duty in ("operator", "viewer", "auditor"):
        assert (
            by[duty].post("/api/v1/roles/", body, content_type="application/json", headers=headers).status_code == 403
        )
    other = by["administrator"].post("/api/v1/roles/", body, content_type="application/json", headers=headers)
    assert "Idempotency-Replayed" not in other.headers
