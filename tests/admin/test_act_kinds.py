"""Acts of administrators in the list: refused ones can be found and do not look like changes, looks do not push traffic away."""

from __future__ import annotations

import re

import pytest
from django.http import QueryDict

from audit.admin import live
from audit.admin.events import PAGE
from audit.events.act_kinds import ACCESS, KINDS
from audit.export.stream import matching
from audit.filters import Filters
from audit.models import AuditEvent
from tests.admin.test_filters import LIST, LONG_AGO

pytestmark = pytest.mark.django_db
NOBODY = {"api_key_id": None, "role": "", "upstream": "", "target_kind": "", "decision": {}, "outcome": "changed"}


@pytest.fixture
def several(event) -> dict[str, AuditEvent]:
    """One of each kind, and traffic."""

    def act(method: str, status: int = 200) -> AuditEvent:
        return event(**NOBODY, method=method, tool_name=f"target-{method}", status_code=status, reason="")

    return {
        "traffic": event(tool_name="target-traffic"),
        "denied": event(tool_name="target-denied", outcome="denied", reason="no_rule", status_code=403),
        "changed": act("admin.key.revoked"),
        "viewed": act("admin.payloads.viewed"),
        "exported": act("admin.events.exported"),
        "login": act("admin.login"),
        "failed": act("admin.login.failed", 401),
        "page": act("admin.refused", 403),
        "api": act("api.refused", 429),
    }


REFUSED, ACCESSED, REST = {"failed", "page", "api"}, {"viewed", "exported", "login"}, {"traffic", "denied"}


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("act=refused", REFUSED),
        ("act=accessed", ACCESSED),
        ("act=changed", {"changed"}),
        ("act=none", REST),
        ("act=quiet", REST | REFUSED | {"changed"}),
        ("act=all", REST | REFUSED | ACCESSED | {"changed"}),
        ("act=refused&act=changed", REFUSED | {"changed"}),
        ("act=refused&status=403", {"page"}),
        ("act=refused&method=admin.login.failed", {"failed"}),
        ("act=quiet&outcome=denied", {"denied"}),
        ("", REST | REFUSED | {"changed"}),
        ("range=1h", REST | REFUSED | {"changed"}),
        ("outcome=changed", ACCESSED | REFUSED | {"changed"}),
        ("method=admin.login", {"login"}),
        ("q=admin.payloads", {"viewed"}),
    ],
)
def test_each_kind_is_found(query, wanted, several, as_duty):
    text = as_duty("viewer").get(f"{LIST}?{query}").content.decode()
    ids = set(re.findall(r'<tr id="e([0-9a-f-]{36})"', text))
    assert {name for name, made in several.items() if str(made.id) in ids} == wanted
    assert ("are left out" in text) is (query in ("", "range=1h"))
    if "act=" not in query:
        return
    filters = Filters.read(QueryDict(query))
    expected = {several[name].id for name in wanted}
    assert set(matching(filters).values_list("id", flat=True)) == expected
    assert {row.id for row in live._fetch(filters, LONG_AGO)} == expected
    found = as_duty("auditor").get(f"/api/v1/events/?{query}").json()["results"]
    assert {one["id"] for one in found} == {str(id_) for id_ in expected}


def test_only_what_changed_something_looks_like_it(several, as_duty):
    text = as_duty("viewer").get(f"{LIST}?act=all").content.decode()
    badges = {
        name: re.search(
            rf'id="e{made.id}".*?<span class="badge (\w+)"[^>]*>.*?</svg>([^<]*)<', text, re.DOTALL
        ).groups()
        for name, made in several.items()
    }
    assert badges["changed"] == ("blue", "changed")
    assert {badges[name] for name in REFUSED} == {("red", "refused")}
    assert {badges[name] for name in ACCESSED} == {("grey", "accessed")}


def test_ones_own_looks_push_nothing_off_the_first_page(event, as_duty):
    kept = event(tool_name="a-call")
    for _ in range(PAGE + 10):
        event(**NOBODY, method="admin.payloads.viewed", tool_name="x", reason="")
    text = as_duty("viewer").get(LIST).content.decode()
    assert str(kept.id) in text
    everything = re.search(r'<a href="(\?act=all)">Show them</a>', text)[1]
    assert str(kept.id) not in as_duty("auditor").get(LIST + everything).content.decode()


def test_a_filtered_list_and_the_export_of_it_are_the_same(event, as_duty):
    event(**NOBODY, method="admin.login", reason="", tool_name="x")
    text = as_duty("auditor").get(f"{LIST}?from=2020-01-01T00:00:00Z").content.decode()
    (export,) = re.findall(r'href="/admin/audit/auditevent/export/([^"]*)"', text)
    assert "act=quiet" in export


def test_every_kind_of_act_has_words_and_every_quiet_one_is_recorded_somewhere() -> None:
    assert set(KINDS) >= {"changed", "accessed", "refused"} and len(set(ACCESS)) == len(ACCESS)
