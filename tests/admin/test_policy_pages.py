"""Keys, roles, rules, limits, versions, explain and replay through their pages; each change leaves its event."""

from __future__ import annotations

import html
import re
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone

from core.access.actors import Actor
from policies.documents import reader
from policies.keys.credentials import parse
from policies.models import ApiKey, KeySecret, PolicyVersion, RateLimit, Revision, Role, Rule
from policies.services import keys as key_acts
from policies.services import policy as policy_acts
from policies.simulate.recorded import replay
from proxy.models import CatalogueItem, Upstream
from tests.admin.conftest import HOSTILE, acts

pytestmark = pytest.mark.django_db
KEYS = "/admin/policies/apikey/"


@pytest.fixture
def manager(as_duty) -> Client:
    return as_duty("policy-manager")


@pytest.fixture
def tools(db):
    upstream = Upstream.objects.create(slug="crm", url="https://crm.example.com/mcp")
    for name in ("list_customers", "delete_customer"):
        CatalogueItem.objects.create(
            upstream=upstream, kind="tool", name=name, definition=f'{{"name":"{name}"}}', hash="a" * 64, status="new"
        )


def make_key(manager: Client, **fields) -> tuple[str, str]:
    role = Role.objects.get(name="user").pk
    answer = manager.post(
        f"{KEYS}add/", {"name": "bot", "holds": "role", "role": role, "expires": "90d", "query_allowed": "on", **fields}
    )
    assert answer.status_code == 200, answer
    text = html.unescape(answer.content.decode())
    found = re.search(r"mcps_live_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}", text)
    assert found, re.findall(r"errorlist.*?</ul>", text)
    return found[0], text


def test_a_secret_is_shown_once_with_ready_lines(manager, tools):
    secret, text = make_key(manager)
    assert parse(secret)
    for line in (
        "curl -sS http://testserver/mcp/crm",
        "claude mcp add --transport http crm",
        "mcpServers",
        '"servers"',
        "mcp_servers.crm",
        "streamablehttp_client",
        "StreamableHTTPClientTransport",
    ):
        assert line in text
    key = ApiKey.objects.get(name="bot")
    assert key.created_by == "policy-manager"
    for page in (KEYS, f"{KEYS}{key.pk}/change/", "/admin/"):
        assert secret not in manager.get(page).content.decode()
    assert secret not in repr(acts())
    assert secret[-49:-6] not in repr(list(KeySecret.objects.values()))
    record = acts("admin.key.created")[0]
    assert (record["outcome"], record["key_name"], record["tool_name"]) == ("changed", "policy-manager", "bot")
    assert LogEntry.objects.filter(object_id=str(key.pk)).exists()


def test_the_answer_with_a_secret_is_never_kept_by_a_cache(manager):
    role = Role.objects.get(name="user").pk
    answer = manager.post(f"{KEYS}add/", {"name": "bot", "holds": "role", "role": role, "expires": ""})
    assert "no-store" in answer["Cache-Control"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"role": ""},
        {"expires": "date"},
        {"networks": "nonsense"},
        {"upstreams": "NOT A SLUG"},
        {"name": "a\u202eb"},
    ],
)
def test_a_key_that_cannot_be_is_explained(manager, wrong):
    role = Role.objects.get(name="user").pk
    answer = manager.post(f"{KEYS}add/", {"name": "bot", "holds": "role", "role": role, "expires": "90d", **wrong})
    assert b"errorlist" in answer.content or b"errornote" in answer.content
    assert not ApiKey.objects.exists()


def test_a_key_for_the_api_is_not_said_to_live_for_ever(as_duty):
    boss = as_duty("administrator", username="boss")
    assert "never (an agent&#x27;s key only)" in boss.get(f"{KEYS}add/").content.decode()
    fields = {"name": "portal", "holds": "duty", "duty": "viewer"}
    for never in ({"expires": ""}, {}):
        answer = boss.post(f"{KEYS}add/", {**fields, **never})
        assert b"A key for the API always ends; choose when." in answer.content
        assert not ApiKey.objects.exists()
    boss.post(f"{KEYS}add/", {**fields, "expires": "30d"})
    left = ApiKey.objects.get(name="portal").expires_at - timezone.now()
    assert timedelta(days=29) < left <= timedelta(days=30)


def test_rotating_shows_a_new_secret_and_ends_the_old_later(manager):
    first, _ = make_key(manager)
    key = ApiKey.objects.get(name="bot")
    answer = manager.post(f"{KEYS}{key.pk}/rotate/", {"overlap": "3600"})
    second = re.search(r"mcps_live_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}", answer.content.decode())[0]
    assert second != first
    assert key.secrets.order_by("generation").first().not_after is not None
    assert acts("admin.key.rotated")


def test_revoking_asks_why_and_is_for_good(manager):
    make_key(manager)
    key = ApiKey.objects.get(name="bot")
    assert manager.get(f"{KEYS}{key.pk}/revoke/").status_code == 200
    assert b"This field is required" in manager.post(f"{KEYS}{key.pk}/revoke/", {"reason": ""}).content
    assert manager.post(f"{KEYS}{key.pk}/revoke/", {"reason": "lost laptop"}).status_code == 302
    key.refresh_from_db()
    assert (key.revoked_by, key.revoked_reason) == ("policy-manager", "lost laptop")
    record = acts("admin.key.revoked")[0]
    assert record["details"]["reason"] == "lost laptop"
    text = manager.get(f"{KEYS}{key.pk}/change/").content.decode()
    assert "lost laptop" in text
    assert "/rotate/" not in text


def test_many_are_revoked_by_choice_and_by_filter(manager):
    for name in ("a-1", "a-2", "b-1"):
        key_acts.create_key(name=name, role="user", actor=Actor.system())
    chosen = [str(ApiKey.objects.get(name="b-1").pk)]
    asked = manager.post(f"{KEYS}revoke/", {"key": chosen})
    assert asked.status_code == 200
    assert not ApiKey.objects.exclude(revoked_at=None).exists()
    assert manager.post(f"{KEYS}revoke/", {"key": chosen, "reason": "old"}).status_code == 302
    asked = manager.post(f"{KEYS}revoke/", {"every": "1", "q": "a-"}).content.decode()
    every = re.findall(r'name="key" value="([0-9a-f-]{36})"', asked)
    assert len(every) == 2
    manager.post(f"{KEYS}revoke/", {"key": every, "reason": "old"})
    assert not ApiKey.objects.filter(revoked_at=None).exists()
    assert len(acts("admin.key.revoked")) == 3


def test_states_of_keys(manager):
    from datetime import timedelta

    from django.utils import timezone

    key_acts.create_key(name="soon", role="user", actor=Actor.system(), expires_at=timezone.now() + timedelta(days=3))
    key_acts.create_key(name="fresh", role="user", actor=Actor.system())
    gone = key_acts.create_key(name="gone", role="user", actor=Actor.system()).key
    key_acts.revoke_key(gone.pk, actor=Actor.system(), reason="x")
    ApiKey.objects.filter(name="fresh").update(created_at=timezone.now() - timedelta(days=200))

    def named(state):
        return set(re.findall(r"<strong>(\w+)</strong></a>", manager.get(f"{KEYS}?state={state}").content.decode()))

    assert named("") == {"soon", "fresh"}
    assert named("expiring") == {"soon"}
    assert named("unused") == {"fresh"}
    assert named("revoked") == {"gone"}
    assert named("all") == {"soon", "fresh", "gone"}


def test_a_key_is_changed_in_place(manager):
    make_key(manager)
    key = ApiKey.objects.get(name="bot")
    role = Role.objects.get(name="readonly").pk
    answer = manager.post(
        f"{KEYS}{key.pk}/change/",
        {
            "name": "bot 2",
            "role": role,
            "owner": "me",
            "networks": "10.1.2.3/8",
            "upstreams": "crm, files",
            "query_allowed": "on",
        },
    )
    assert answer.status_code == 302
    key.refresh_from_db()
    assert (key.name, key.role.name, key.upstreams) == ("bot 2", "readonly", ["crm", "files"])
    record = acts("admin.key.changed")[0]
    assert record["details"]["before"]["role"] == "user"
    assert record["details"]["after"]["role"] == "readonly"


FORM = {
    "when-TOTAL_FORMS": "2",
    "when-INITIAL_FORMS": "0",
    "effect": "deny",
    "roles": ["user"],
    "kinds": ["tool"],
    "pattern": "delete_*",
    "enabled": "on",
    "time_zone": "UTC",
}
CONDITION = {"when-0-subject": "arguments", "when-0-path": "amount", "when-0-operator": "gt", "when-0-value": "100"}


def test_a_rule_reads_back_before_it_is_saved(manager, tools):
    answer = manager.post("/admin/policies/rule/add/", {**FORM, **CONDITION, "preview": "1"})
    text = html.unescape(answer.content.decode())
    assert "Denies role user tools delete_* on every upstream when amount is greater than 100." in text
    assert "delete_customer" in text
    before = Rule.objects.count()
    saved = manager.post("/admin/policies/rule/add/", {**FORM, **CONDITION, "save": "1"})
    assert saved.status_code == 302
    assert Rule.objects.count() == before + 1
    record = acts("admin.rule.created")[0]
    assert record["details"]["policy_version"]
    rule = Rule.objects.latest("pk")
    assert rule.conditions.get().value == 100
    # It comes back as it was written.
    shown = html.unescape(manager.get(f"/admin/policies/rule/{rule.pk}/change/").content.decode())
    assert 'value="amount"' in shown
    assert 'value="100"' in shown
    again = manager.post(
        f"/admin/policies/rule/{rule.pk}/change/",
        {**FORM, **CONDITION, "when-0-value": "250", "reason": "Ask first.", "save": "1"},
    )
    assert again.status_code == 302
    rule.refresh_from_db()
    assert (rule.conditions.get().value, rule.reason) == (250, "Ask first.")
    assert manager.post(f"/admin/policies/rule/{rule.pk}/delete/").status_code == 302
    assert acts("admin.rule.deleted")


@pytest.mark.parametrize(
    "wrong",
    [
        {"roles": []}, {"pattern": ""}, {"kinds": []}, {"networks": "x"}, {"from_time": "08:00"}, {"when-0-path": "amount"},
        {"when-0-operator": "gt", "when-0-path": "amount", "when-0-value": "many"}, {"when-0-operator": "matches", "when-0-path": "a", "when-0-value": "(" },
        {"when-0-operator": "gt", "when-0-path": "]][", "when-0-value": "1"},
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_is_explained(manager, wrong):
    before = Rule.objects.count()
    answer = manager.post("/admin/policies/rule/add/", {**FORM, **wrong, "save": "1"})
    assert answer.status_code == 200
    assert b"errorlist" in answer.content or b"errornote" in answer.content
    assert Rule.objects.count() == before


def test_limits(manager):
    fields = {
        "requests": "3",
        "window_seconds": "60",
        "per": ["key"],
        "kind": "tool",
        "pattern": "public.echo",
        "enabled": "on",
    }
    text = manager.post("/admin/policies/ratelimit/add/", {**fields, "preview": "1"}).content.decode()
    assert "At most 3 calls of tool public.echo in any minute, for each key on its own." in text
    assert manager.post("/admin/policies/ratelimit/add/", {**fields, "save": "1"}).status_code == 302
    limit = RateLimit.objects.get()
    assert (limit.requests, limit.pattern) == (3, "public.echo")
    assert acts("admin.limit.created")
    assert (
        b"Not more than the requests"
        in manager.post("/admin/policies/ratelimit/add/", {**fields, "burst": "9", "save": "1"}).content
    )
    assert manager.post(f"/admin/policies/ratelimit/{limit.pk}/delete/").status_code == 302


def test_roles_and_their_matrix(manager, tools):
    assert manager.post("/admin/policies/role/add/", {"name": "ops", "description": "On call"}).status_code == 302
    role = Role.objects.get(name="ops")
    assert b"already exists" in manager.post("/admin/policies/role/add/", {"name": "ops"}).content
    text = manager.get("/admin/policies/role/matrix/").content.decode()
    for name in ("admin", "ops", "readonly", "user", "list_customers", "delete_customer"):
        assert name in text
    key_acts.create_key(name="held", role="ops", actor=Actor.system())
    assert b"held" in manager.post(f"/admin/policies/role/{role.pk}/delete/").content
    assert Role.objects.filter(name="ops").exists()


def test_versions_can_be_read_and_gone_back_to(manager):
    manager.post("/admin/policies/role/add/", {"name": "one"})
    Revision.objects.update(txid=0)  # as if the test's transaction had ended: a version is one transaction's work
    manager.post("/admin/policies/role/add/", {"name": "two"})
    listed = manager.get("/admin/policies/policyversion/").content.decode()
    assert "two:" in listed and 'class="esc"' not in listed and "@@" not in listed, "lines are lines, not escapes"
    older = PolicyVersion.objects.order_by("-number")[1]
    text = manager.get(f"/admin/policies/policyversion/{older.number}/change/").content.decode()
    assert "Go back to this version" in text
    Revision.objects.update(txid=0)
    place = f"/admin/policies/policyversion/{older.number}/change/"
    asked = manager.post(place).content.decode()
    assert "What changes" in asked
    assert "two" in asked
    assert Role.objects.filter(name="two").exists()
    assert manager.post(place, {"confirmed": "yes"}).status_code == 302
    assert set(Role.objects.filter(name__in=("one", "two")).values_list("name", flat=True)) == {"one"}


def test_explain_names_rule_near_misses_and_limits(manager, tools):
    text = html.unescape(
        manager.get("/admin/policies/rule/explain/?role=user&tool=list_customers&upstream=crm").content.decode()
    )
    assert "may use tool" in text
    assert "Allows role user tools list_* on every upstream." in text
    text = manager.get("/admin/policies/rule/explain/?role=user&tool=delete_customer&upstream=crm").content.decode()
    assert "may not use tool" in text
    assert "no_rule" in text
    wrong = manager.get(
        "/admin/policies/rule/explain/", {"role": "user", "tool": "t", "arguments": "{"}
    ).content.decode()
    assert "That is not JSON" in wrong
    assert (
        "There is no key"
        in manager.get("/admin/policies/rule/explain/", {"key": "nobody", "tool": "t"}).content.decode()
    )


def test_replay_tells_what_a_draft_would_change(manager, event):
    event(decision={"allowed": True, "reason": "allowed_by_rule", "rule": {"id": 1}}, tool_name="list_customers")
    draft = "roles:\n  user: {allow: [nothing_else]}\n"
    text = manager.post("/admin/policies/rule/replay/", {"document": draft, "since": "1"}).content.decode()
    assert "Newly denied" in text
    assert "list_customers" in text
    assert (
        "errornote"
        in manager.post("/admin/policies/rule/replay/", {"document": "roles: [", "since": "1"}).content.decode()
    )
    assert acts("admin.policy.replayed")


def test_hostile_names_are_inert(manager, tools):
    key = key_acts.create_key(name="bot", role="user", actor=Actor.system()).key
    ApiKey.objects.filter(pk=key.pk).update(name=HOSTILE[:100], owner=HOSTILE, description=HOSTILE)
    key_acts.revoke_key(key.pk, actor=Actor.system(), reason=HOSTILE)
    for page in (
        f"{KEYS}?state=all",
        f"{KEYS}{key.pk}/change/",
        f"{KEYS}?q=%3Cscript%3E",
        "/admin/policies/rule/explain/?tool=%22%3E%3Cscript%3Ealert(1)%3C/script%3E&role=user",
    ):
        text = manager.get(page).content.decode()
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "\u202e" not in text


def test_explain_says_that_a_tool_calls_others(manager):
    Upstream.objects.create(slug="hub", url="https://hub.example.com/mcp", dispatchers={"list_and_call": "name"})
    place = "/admin/policies/rule/explain/"
    asked = {"role": "user", "upstream": "hub", "tool": "list_and_call"}
    for inner, word in (("list_customers", "may"), ("delete_customer", "may not")):
        text = manager.get(place, {**asked, "arguments": f'{{"name": "{inner}"}}'}).content.decode()
        assert "It calls other tools by name (<code>name</code>)" in text
        assert re.search(rf"</strong> {word} use tool", text), inner


def test_a_secret_page_that_is_loaded_again_makes_no_second_secret(as_duty):
    manager = as_duty("policy-manager")
    role = Role.objects.get(name="user")

    def token(page: str) -> str:
        return re.search(r'name="once" value="([0-9a-f]+)"', manager.get(page).content.decode())[1]

    fields = {"name": "twice", "role": role.pk, "holds": "role", "expires": "", "once": token(f"{KEYS}add/")}
    refused = manager.post(f"{KEYS}add/", {**fields, "name": "\t"})
    assert refused.status_code == 200 and not ApiKey.objects.filter(name="twice").exists()
    assert b"mcps_live_" in manager.post(f"{KEYS}add/", fields).content
    again = manager.post(f"{KEYS}add/", fields, follow=True)
    assert b"was sent before" in again.content
    key = ApiKey.objects.get(name="twice")
    rotation = {"overlap": "3600", "once": token(f"{KEYS}{key.pk}/rotate/")}
    assert manager.post(f"{KEYS}{key.pk}/rotate/", rotation).status_code == 200
    assert b"was sent before" in manager.post(f"{KEYS}{key.pk}/rotate/", rotation, follow=True).content
    assert len(acts("admin.key.rotated")) == 1 and key.secrets.count() == 2


def test_replay_tells_the_draft_from_what_was_changed_since(manager, event):
    """Then allowed, denied by the present policy already: no work of the draft's; and the other three ways."""
    tools = ("since_only", "by_draft", "undone", "kept")
    for tool in tools:
        event(decision={"allowed": True, "reason": "allowed_by_rule", "rule": {"id": 1}}, tool_name=tool)
    policy_acts.apply_document(reader.parse("roles: {user: {allow: [by_draft, kept]}}"), actor=Actor.system())
    draft = "roles: {user: {allow: [kept, undone]}}"
    report = replay(draft, since=timezone.now() - timedelta(days=1)).as_dict()
    assert (report["decided"], report["changed"], report["newly_denied"]) == (4, 2, 2)
    assert (report["changed_by_draft"], report["changed_since"], report["present_undecidable"]) == (2, 2, 0)
    said = {group["name"]: (group["from"], group["now"], group["to"]) for group in report["groups"] + report["undone"]}
    assert [group["name"] for group in report["undone"]] == ["undone"]
    assert said == {
        "since_only": ("allowed", "denied", "denied"),
        "by_draft": ("allowed", "allowed", "denied"),
        "undone": ("allowed", "denied", "allowed"),
    }
    text = manager.post("/admin/policies/rule/replay/", {"document": draft, "since": "1"}).content.decode()
    rows = {name: text[text.index(f"<strong>{name}") :].split("</tr>")[0] for name in said}
    assert (
        "since then" in rows["since_only"] and "by the draft" in rows["by_draft"] and "by the draft" in rows["undone"]
    )


def test_replay_says_what_the_present_policy_cannot_decide(event):
    event(
        decision={"allowed": True, "reason": "allowed_by_rule", "rule": {"id": 1}}, tool_name="pay", request_json=None
    )
    rule = "{name: small, effect: allow, roles: [user], tool: pay, when: [{argument: amount, le: 5}]}"
    policy_acts.apply_document(reader.parse(f"roles: {{user: {{}}}}\nrules:\n  - {rule}\n"), actor=Actor.system())
    report = replay("roles: {user: {}}", since=timezone.now() - timedelta(days=1)).as_dict()
    assert (report["decided"], report["changed"], report["present_undecidable"], report["changed_by_draft"]) == (
        1,
        1,
        1,
        0,
    )
    assert report["groups"][0]["now"] is None


def test_going_back_makes_the_same_rules_again(manager, event):
    """A rule that was removed, one that was changed, one that stays, and twins: each has its number again."""
    text = """
roles: {{user: {{}}}}
rules:
  - {{effect: allow, roles: [user], tool: {first}}}
  - {{effect: allow, roles: [user], tool: kept}}
  - {{effect: allow, roles: [user], tool: twin}}
  - {{effect: allow, roles: [user], tool: twin}}
"""
    policy_acts.apply_document(reader.parse(text.format(first="removed")), actor=Actor.system())
    before = {rule.pk: rule.pattern for rule in Rule.objects.all()}
    version = PolicyVersion.objects.latest("number")
    removed, kept = (Rule.objects.get(pattern=name).pk for name in ("removed", "kept"))
    event(decision={"rule": {"id": removed, "effect": "allow"}, "policy_version": version.number})
    Revision.objects.update(txid=0)
    policy_acts.delete_rule(removed, actor=Actor.system())
    Revision.objects.update(txid=0)
    Rule.objects.filter(pk=kept).update(pattern="changed")
    Rule.objects.create(effect="allow", any_role=True, any_key=True, kinds=["tool"], pattern="added since")
    Revision.objects.update(txid=0)
    policy_acts.roll_back(version.number, actor=Actor.system())
    assert {rule.pk: rule.pattern for rule in Rule.objects.all()} == before
    page = manager.get(f"/admin/policies/rule/{removed}/change/")
    assert page.status_code == 200 and f"?rule={removed}" in page.content.decode()
    assert "list_customers" in manager.get(f"/admin/audit/auditevent/?rule={removed}").content.decode()
    # A new rule takes no number that another had.
    Revision.objects.update(txid=0)
    policy_acts.apply_document(reader.parse(text.format(first="new one")), actor=Actor.system())
    assert Rule.objects.get(pattern="new one").pk not in before


def test_going_back_to_a_version_that_kept_no_numbers_still_works():
    policy_acts.apply_document(reader.parse("roles: {user: {allow: [a]}}"), actor=Actor.system())
    PolicyVersion.objects.update(rules={})
    version = PolicyVersion.objects.latest("number").number
    Revision.objects.update(txid=0)
    policy_acts.apply_document(reader.parse("roles: {user: {allow: [b]}}"), actor=Actor.system())
    Revision.objects.update(txid=0)
    policy_acts.roll_back(version, actor=Actor.system())
    assert list(Rule.objects.values_list("pattern", flat=True)) == ["a"]
