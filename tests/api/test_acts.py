"""Keys, roles, rules, limits, policy, upstreams and tools: each act by the same service, each with its event."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.utils.dateparse import parse_datetime

from core.access.actors import Actor
from policies.models import ApiKey, PolicyVersion, ReplayJob
from policies.services import keys as key_acts
from policies.simulate import jobs
from policies.simulate.replay import ReplayReport
from proxy.mcp.definitions import canonical, digest
from proxy.models import CatalogueItem, Upstream
from tests.api.conftest import Caller, event, recorded

pytestmark = pytest.mark.django_db


# -- keys


def test_the_life_of_an_agents_key(admin):
    made = admin.post(
        "keys/", {"name": "agent", "role": "user", "owner": "team", "networks": ["10.0.0.0/8"], "upstreams": ["crm"]}
    )
    assert made.status_code == 201 and made.data["expires_at"] is None and made.data["role"] == "user"
    path = f"keys/{made.data['id']}/"
    assert made.headers["Location"] == f"http://testserver/api/v1/{path}"
    changed = admin.patch(path, {"role": "readonly", "query_allowed": False})
    assert changed.data["role"] == "readonly" and changed.data["query_allowed"] is False and "key" not in changed.data
    rotated = admin.post(f"{path}rotate/", {"overlap_seconds": 3600})
    assert rotated.data["key"] != made.data["key"] and rotated.data["key_already_shown"] is False
    assert [one["generation"] for one in rotated.data["secrets"]] == [2, 1] and rotated.data["secrets"][1]["not_after"]
    revoked = admin.post(f"{path}revoke/", {"reason": "left"})
    assert revoked.data["state"] == "revoked" and revoked.data["revoked_reason"] == "left"
    assert admin.post(f"{path}revoke/", {}).status_code == 200
    for act, body in (("rotate/", {}),):
        assert admin.post(path + act, body).data["code"] == "conflict"
    assert admin.patch(path, {"owner": "x"}).status_code == 409
    assert admin.delete(path).status_code == 405
    methods = [one["method"] for one in recorded() if one["tool_name"] == "agent"]
    assert methods == ["admin.key.created", "admin.key.changed", "admin.key.rotated", "admin.key.revoked"]
    assert made.data["key"] not in json.dumps(recorded())
    (one,) = recorded("admin.key.revoked")
    assert one["key_name"] == admin.name and one["details"]["actor"]["kind"] == "key" and one["outcome"] == "changed"
    assert one["api_key_id"] == str(ApiKey.objects.get(name=admin.name).pk)


def test_administrative_keys_expire_in_90_days_when_not_said(admin):
    for body in ({"name": "a", "duty": "viewer"}, {"name": "b", "duty": "viewer", "expires_at": None}):
        made = admin.post("keys/", body)
        left = parse_datetime(made.data["expires_at"]) - datetime.now(UTC)
        assert timedelta(days=89, hours=23) < left <= timedelta(days=90)
        assert admin.patch(f"keys/{made.data['id']}/", {"expires_at": None}).status_code == 400
        assert Caller(made.data["key"]).get("events/").status_code == 200


def test_a_role_or_a_duty_and_not_both(admin):
    for body in ({"name": "x"}, {"name": "x", "role": "user", "duty": "viewer"}):
        assert admin.post("keys/", body).data["errors"][0]["field"] == "role"
    assert admin.post("keys/", {"name": "x", "role": "nobody"}).data["code"] == "refused"


def test_nobody_gives_or_handles_more_than_they_hold(callers):
    manager = callers["policy-manager"]
    for duty, may in (
        ("viewer", True),
        ("policy-manager", True),
        ("auditor", False),
        ("operator", False),
        ("administrator", False),
    ):
        assert (manager.post("keys/", {"name": "x", "duty": duty}).status_code == 201) == may
    other = ApiKey.objects.get(duty="administrator", name=callers["administrator"].name)
    for act in ("rotate/", "revoke/"):
        assert manager.post(f"keys/{other.pk}/{act}", {}).status_code == 403
    assert manager.patch(f"keys/{other.pk}/", {"owner": "me"}).status_code == 403
    assert ApiKey.objects.get(pk=other.pk).revoked_at is None


def test_keys_are_listed_by_state_and_never_with_a_secret(admin):
    made = admin.post("keys/", {"name": "one", "role": "user"})
    gone = admin.post("keys/", {"name": "two", "role": "user"})
    admin.post(f"keys/{gone.data['id']}/revoke/", {})
    names = {
        state: {one["name"] for one in admin.get(f"keys/?state={state}").data["results"]}
        for state in ("live", "revoked", "expired")
    }
    assert names == {"live": {admin.name, "one"}, "revoked": {"two"}, "expired": set()}
    assert [one["name"] for one in admin.get("keys/?role=user&name=one").data["results"]] == ["one"]
    assert [one["name"] for one in admin.get("keys/?duty=administrator").data["results"]] == [admin.name]
    text = admin.get("keys/").content.decode()
    assert made.data["key"] not in text and made.data["key"][-49:] not in text


def test_another_worker_knows_a_key_as_soon_as_it_is_made(admin, settings):
    """The snapshot in memory may be half a second old; the answer to a fresh key must not be 401."""
    from policies.snapshot import snapshot

    holder = snapshot.SnapshotHolder("dbname=nowhere", peppers=settings.SENTINEL.key_peppers)
    from policies.engine.compiled import PolicySet
    from policies.keys.index import KeyRing
    from policies.specs import PolicySpec

    holder.current = snapshot.Snapshot(1, {}, KeyRing({}, settings.SENTINEL.key_peppers), PolicySet(PolicySpec()))
    holder.confirmed_age = lambda: 0.1
    snapshot.install(holder)
    try:
        assert admin.get("events/").status_code == 200
    finally:
        snapshot.install(None)


# -- roles, rules, limits


def test_a_role_that_live_keys_hold_stays(admin):
    made = admin.post("roles/", {"name": "temp", "description": "for now"})
    assert made.data["live_keys"] == 0
    key = admin.post("keys/", {"name": "k", "role": "temp"}).data
    path = f"roles/{made.data['id']}/"
    assert admin.get(path).data["live_keys"] == 1
    refused = admin.delete(path)
    assert refused.status_code == 409 and "k (" in refused.data["detail"]
    admin.post(f"keys/{key['id']}/revoke/", {})
    assert admin.delete(path).status_code == 204
    assert admin.get(f"keys/{key['id']}/").data["role"] == "temp"
    assert admin.post("roles/", {"name": "user"}).status_code == 400


RULE = {
    "name": "small refunds", "effect": "allow", "roles": ["user"], "kinds": ["tool"], "pattern": "refund", "upstreams": ["crm"],
    "conditions": [{"subject": "arguments", "path": "amount", "operator": "le", "value": 100},
                   {"path": "tags[]", "quantifier": "every", "operator": "in", "value": ["a", "b"]}],
    "window": {"days": ["mon"], "from_time": "09:00", "to_time": "17:00", "zone": "Europe/Berlin", "valid_until": "2040-01-01T00:00:00Z"},
    "networks": ["10.0.0.0/8"], "reason": "Ask your manager.", "note": "n", "enabled": True, "observe": False,
}  # fmt: skip


def test_a_rule_comes_back_as_it_was_sent(admin):
    made = admin.post("rules/", RULE)
    assert made.status_code == 201, made.content
    path = f"rules/{made.data['id']}/"
    for name, value in RULE.items():
        if name not in ("conditions", "window"):
            assert made.data[name] == value
    assert made.data["conditions"][0] == {
        "subject": "arguments",
        "path": "amount",
        "quantifier": "",
        "operator": "le",
        "value": 100,
    }
    assert made.data["window"]["from_time"] == "09:00:00" and made.data["sentence"].startswith("Allows role user")
    sent_back = {name: made.data[name] for name in RULE}
    assert admin.patch(path, sent_back).data == made.data
    assert not recorded("admin.rule.changed")
    changed = admin.patch(path, {"conditions": [], "keys": [], "roles": None})
    assert changed.data["conditions"] == [] and changed.data["keys"] == [] and changed.data["roles"] is None
    assert changed.data["id"] == made.data["id"]
    assert admin.delete(path).status_code == 204 and admin.get(path).status_code == 404
    assert [one["method"] for one in recorded() if ".rule." in one["method"]] == [
        "admin.rule.created",
        "admin.rule.changed",
        "admin.rule.deleted",
    ]


@pytest.mark.parametrize(
    "change",
    [{"roles": ["nobody"]}, {"keys": ["mcps_live_AAAAAAAAAAAA"]}, {"keys": ["x"]}, {"kinds": []}, {"pattern": ""}, {"window": {"from_time": "09:00"}},
     {"window": {"zone": "Mars/Olympus"}}, {"window": {"zone": "../../etc/passwd"}}, {"window": {"from_time": "25:00", "to_time": "26:00"}},
     {"conditions": [{"operator": "lt", "path": "a", "value": "x"}]}, {"conditions": [{"operator": "matches", "path": "a", "value": "("}]},
     {"conditions": [{"operator": "eq", "value": 1}]}, {"conditions": [{"operator": "eq", "path": "a[]", "value": 1}]},
     {"conditions": [{"operator": "eq", "path": "a", "value": 2**60}]}, {"conditions": [{"operator": "in", "path": "a", "value": [[1]]}]},
     {"conditions": [{"operator": "present", "path": "a", "value": 1}]}, {"networks": ["10.0.0.1/8"]}, {"upstreams": ["NO"]}, {"effect": "maybe"}],
)  # fmt: skip
def test_rules_that_cannot_be(admin, change):
    answer = admin.post("rules/", {**RULE, **change})
    assert answer.status_code == 400, answer.content
    made = admin.post("rules/", RULE)
    assert admin.patch(f"rules/{made.data['id']}/", change).status_code == 400
    assert admin.get(f"rules/{made.data['id']}/").data == made.data


def test_two_rules_of_one_name(admin):
    admin.post("rules/", RULE)
    assert admin.post("rules/", RULE).data["errors"][0]["field"] == "name"


def test_rules_are_listed_by_role_and_effect(admin):
    admin.post("rules/", {"effect": "deny", "roles": None, "pattern": "drop_*"})
    assert [one["pattern"] for one in admin.get("rules/?effect=deny").data["results"]] == ["drop_*"]
    assert {one["pattern"] for one in admin.get("rules/?role=readonly").data["results"]} == {"list_customers", "drop_*"}


def test_limits(admin):
    key = admin.post("keys/", {"name": "k", "role": "user"}).data["prefix"]
    made = admin.post(
        "limits/",
        {"requests": 10, "window_seconds": 60, "per": ["tool", "key"], "kind": "tool", "key": key, "burst": 2},
    )
    assert (
        made.status_code == 201
        and made.data["per"] == ["key", "tool"]
        and made.data["key"] == key
        and made.data["pattern"] is None
    )
    path = f"limits/{made.data['id']}/"
    assert admin.patch(path, {"requests": 20, "burst": None}).data["burst"] is None
    for bad in (
        {"kind": None},
        {"is_default": True, "pattern": "x"},
        {"burst": 21},
        {"key": "mcps_live_AAAAAAAAAAAA"},
        {"role": "nobody"},
    ):
        assert admin.patch(path, bad).status_code == 400, bad
    assert admin.delete(path).status_code == 204


# -- the policy as a whole

DOCUMENT = """\
roles:
  admin: {allow: ["*"]}
  user: {allow: ["refund"]}
  readonly: {allow: []}
"""


def test_export_change_and_apply_it_back(admin):
    start = admin.get("policy/")
    assert start.data["document"].startswith("roles:") and start.data["version"] >= 1
    tried = admin.post("policy/apply/?dry_run=true", {"document": DOCUMENT})
    assert tried.data["changed"] and tried.data["dry_run"] and admin.get("policy/").data == start.data
    assert tried.data["changes"] == admin.post("policy/diff/", {"document": DOCUMENT}).data["changes"]
    done = admin.put("policy/", {"document": DOCUMENT}, headers={"if-match": start.headers["ETag"]})
    assert done.status_code == 200 and done.data["policy_version"] > start.data["version"] and "-" in done.data["diff"]
    assert admin.put("policy/", {"document": DOCUMENT}, headers={"if-match": start.headers["ETag"]}).status_code == 412
    assert admin.post("policy/apply/", {"document": DOCUMENT}).data["changed"] is False
    back = admin.call("POST", "policy/apply/", start.data["document"].encode(), content_type="application/yaml")
    assert back.status_code == 200 and admin.get("policy/").data["document"] == start.data["document"]
    PolicyVersion.objects.create(number=900, author="ada", origin="admin", document=DOCUMENT, diff="+ x")
    versions = admin.get("policy/versions/").data["results"]
    assert [one["version"] for one in versions] == [1, done.data["policy_version"], 900] and "document" not in versions[
        0
    ]
    assert versions[1]["author"] == admin.name and versions[1]["origin"] == "API"
    whole = admin.get("policy/versions/900/").data
    assert whole["document"] == DOCUMENT and whole["diff"] == "+ x"
    restored = admin.post("policy/versions/900/restore/")
    assert restored.data["changed"] and "refund" in admin.get("policy/").data["document"]
    assert admin.post("policy/versions/999999/restore/").status_code == 404


def test_what_cannot_be_applied(admin):
    key_acts.create_key(name="holder", actor=Actor.system(), role="user")
    held = admin.post("policy/apply/", {"document": "roles: {admin: {allow: ['*']}}"})
    assert held.status_code == 409 and "holder" in held.data["detail"]
    for document in ("roles: [", "rules: 1", "nonsense: {}", "roles: &a {}", "\tx"):
        for path in ("policy/apply/", "policy/check/", "policy/diff/", "policy/replays/"):
            answer = admin.post(path, {"document": document})
            assert answer.status_code == 400 and answer.data["errors"][0]["field"] == "document", (document, path)
    assert "line 1" in admin.post("policy/check/", {"document": "nonsense: {}"}).data["errors"][0]["message"]
    assert admin.post("policy/check/", {"document": DOCUMENT}).data == {
        "valid": True,
        "roles": 3,
        "rules": 2,
        "limits": 0,
        "audit": 0,
    }


def test_explain(admin):
    told = admin.post("policy/explain/", {"role": "user", "name": "list_orders", "upstream": "crm"})
    assert told.data["allowed"] is True and told.data["rule"]["effect"] == "allow" and told.data["policy_version"] >= 1
    denied = admin.post("policy/explain/", {"role": "user", "name": "page_1_secret"}).data
    assert denied["allowed"] is False and denied["reason"] == "no_rule"
    key = key_acts.create_key(name="k", actor=Actor.system(), role="user", upstreams=["crm"]).key
    for reference in (str(key.pk), key.prefix, "k"):
        answer = admin.post("policy/explain/", {"key": reference, "name": "list_x", "upstream": "other"})
        assert answer.data["allowed"] is False, answer.content
    admin.post("rules/", RULE)
    small = {
        "role": "user",
        "name": "refund",
        "upstream": "crm",
        "client_ip": "10.0.0.1",
        "at": "2026-11-23T10:00:00+01:00",
    }
    assert admin.post("policy/explain/", {**small, "arguments": {"amount": 5, "tags": ["a"]}}).data["allowed"] is True
    assert (
        admin.post("policy/explain/", {**small, "arguments": {"amount": 500, "tags": ["a"]}}).data["allowed"] is False
    )
    for bad in (
        {"name": "x"},
        {"name": "x", "role": "nobody"},
        {"name": "x", "key": "nothing"},
        {"role": "user", "name": "x", "arguments": []},
    ):
        assert admin.post("policy/explain/", bad).status_code == 400


def test_explain_knows_what_waits_for_approval(admin):
    upstream = Upstream.objects.create(slug="held", url="http://127.0.0.1:9/mcp", catalogue_policy="quarantine")
    tool(upstream, "list_x", status="quarantined")
    told = admin.post("policy/explain/", {"role": "user", "name": "list_x", "upstream": "held"}).data
    assert (told["allowed"], told["reason"]) == (False, "tool_definition_changed")


def test_a_replay_is_a_job_that_says_how_far_it_is(admin, monkeypatch, django_capture_on_commit_callbacks):
    at = datetime.now(UTC) - timedelta(hours=1)
    decision = {"allowed": True, "reason": "allowed_by_rule", "stage": "authorize", "rule": None, "policy_version": 1}
    for number in range(3):
        event(
            at + timedelta(seconds=number),
            outcome="upstream_error",
            tool_name="list_orders",
            reason="allowed_by_rule",
            decision=decision,
            key_prefix="mcps_live_x",
        )
    started, seen = [], []
    monkeypatch.setattr(jobs, "start", lambda job: started.append(job.pk))
    with django_capture_on_commit_callbacks(execute=True):
        answer = admin.post("policy/replays/", {"document": DOCUMENT})
    assert answer.status_code == 202 and answer.data["state"] == "waiting" and answer.data["progress"] == 0
    path = answer.headers["Location"]
    assert str(started[0]) in path and admin.get(path).data["report"] is None
    real = jobs.replay

    def watched(document, since, until, progress):
        def told(done, of):
            progress(done, of)
            seen.append(admin.get(path).data["progress"])

        return real(document, since, until, told)

    monkeypatch.setattr(jobs, "replay", watched)
    jobs.run(started[0])
    assert seen == sorted(seen) and len(set(seen)) >= 20
    done = admin.get(path).data
    assert done["state"] == "done" and done["progress"] == 1 and done["finished_at"]
    assert done["report"]["decided"] == 3 and done["report"]["newly_denied"] == 3
    assert done["report"]["groups"][0]["name"] == "list_orders" and done["report"]["groups"][0]["to"] == "denied"
    assert [one["id"] for one in admin.get("policy/replays/").data["results"]] == [done["id"]]
    assert recorded("admin.policy.replayed")[0]["key_name"] == admin.name
    assert admin.delete(path).status_code == 204 and admin.get(path).status_code == 404


def test_a_replay_can_be_cancelled_and_one_whose_process_ended_has_failed(
    admin, monkeypatch, django_capture_on_commit_callbacks
):
    monkeypatch.setattr(jobs, "start", lambda job: None)
    with django_capture_on_commit_callbacks(execute=True):
        paths = [admin.post("policy/replays/", {"document": DOCUMENT}).headers["Location"] for _ in range(2)]
    assert admin.post("policy/replays/", {"document": DOCUMENT}).status_code == 409
    first, second = ReplayJob.objects.order_by("created_at")
    real, steps = jobs.replay, []

    def cancelled(document, since, until, progress):
        def told(done, of):
            steps.append(done)
            if done == 3:
                assert admin.delete(paths[0]).status_code == 204
            progress(done, of)

        return real(document, since, until, told)

    monkeypatch.setattr(jobs, "replay", cancelled)
    jobs.run(first.pk)
    assert steps == [1, 2, 3]
    ReplayJob.objects.filter(pk=second.pk).update(state="running", beat_at=datetime.now(UTC) - timedelta(minutes=5))
    gone = admin.get(paths[1]).data
    assert gone["state"] == "failed" and "ended" in gone["error"]


def test_a_replay_that_looked_at_arguments_is_for_those_who_may_see_them(callers, monkeypatch):
    monkeypatch.setattr(jobs, "start", lambda job: None)
    seen = callers["administrator"].post("policy/replays/", {"document": DOCUMENT})
    blind = callers["policy-manager"].post("policy/replays/", {"document": DOCUMENT})
    assert (seen.data["payloads"], blind.data["payloads"]) == (True, False)
    asked: list[object] = []
    monkeypatch.setattr(jobs, "replay", lambda *_, **more: asked.append(more) or ReplayReport())
    for job in ReplayJob.objects.order_by("created_at"):
        jobs.run(job.pk)
    assert asked == [{}, {"payloads": False}]
    manager = callers["policy-manager"]
    for answer in (manager.get(seen.headers["Location"]), manager.delete(seen.headers["Location"])):
        assert answer.status_code == 403 and answer.data["permission"] == "audit.view_payload"
    assert [one["id"] for one in manager.get("policy/replays/").data["results"]] == [blind.data["id"]]
    assert manager.get(blind.headers["Location"]).data["report"]["decided"] == 0
    assert len(callers["administrator"].get("policy/replays/").data["results"]) == 2


# -- upstreams and tools


def test_the_life_of_an_upstream(admin):
    made = admin.post(
        "upstreams/",
        {
            "slug": "crm",
            "url": "http://127.0.0.1:9/mcp",
            "headers": {"Authorization": "Bearer very-secret", "X-Env": "env:MCP_UPSTREAM_CRM"},
        },
    )
    assert made.status_code == 201, made.content
    assert made.data["headers"] == {"Authorization": "(stored, encrypted)", "X-Env": "env:MCP_UPSTREAM_CRM"}
    assert (
        made.data["address"].endswith("/mcp/crm")
        and "very-secret" not in json.dumps(recorded()) + made.content.decode()
    )
    same = admin.get(f"upstreams/{made.data['id']}/")
    assert same.data == admin.get("upstreams/crm/").data
    changed = admin.patch("upstreams/crm/", {"enabled": False, "headers": {"Authorization": "(stored, encrypted)"}})
    assert changed.data["enabled"] is False and changed.data["headers"] == {"Authorization": "(stored, encrypted)"}
    assert [one["slug"] for one in admin.get("upstreams/?enabled=false").data["results"]] == ["crm"]
    report = admin.post("upstreams/crm/check/")
    assert report.status_code == 200 and report.data["ok"] is False and report.data["steps"][0]["step"] == "connect"
    assert admin.get("upstreams/crm/").data["status"]["ok"] is False
    assert admin.delete("upstreams/crm/").status_code == 204
    assert [one["method"] for one in recorded() if one["tool_name"] == "crm"][:2] == [
        "admin.upstream.created",
        "admin.upstream.updated",
    ]


def test_an_operator_reads_a_stored_credential_at_no_address_of_his_own(admin, callers):
    kept = {"headers": {"Authorization": "(stored, encrypted)"}}
    admin.post("upstreams/", {"slug": "crm", "url": "http://127.0.0.1:9/mcp", "headers": {"Authorization": "Bearer s"}})
    for change in ({}, kept, {**kept, "transport": "sse"}):
        answer = callers["operator"].patch("upstreams/crm/", {"url": "http://127.0.0.1:10/mcp", **change})
        assert answer.status_code == 400 and "enter it again" in answer.content.decode(), answer.content
    assert Upstream.objects.get().url == "http://127.0.0.1:9/mcp"
    assert callers["operator"].patch("upstreams/crm/", {"url": "http://127.0.0.1:9/other", **kept}).status_code == 200
    own = callers["operator"].post(
        "upstreams/", {"slug": "own", "url": "http://127.0.0.1:10/", "headers": {"X": "env:SENTINEL_SECRET_KEY"}}
    )
    assert own.status_code == 400 and "SENTINEL_UPSTREAM_ENV" in own.content.decode()


@pytest.mark.parametrize(
    "body",
    [{"slug": "x", "transport": "stdio", "command": "id"}, {"slug": "x", "transport": "stdio"}, {"slug": "x", "command": "id"},
     {"slug": "x", "url": "http://127.0.0.1:9/", "environment": {"A": "b"}}, {"slug": "x", "transport": "stdio", "url": "http://127.0.0.1:9/"}],
)  # fmt: skip
def test_commands_can_never_be_given_here(callers, body):
    for duty in ("operator", "administrator"):
        answer = callers[duty].post("upstreams/", body)
        assert answer.status_code == 403 and answer.data["code"] == "command_refused"
    assert not Upstream.objects.exists()


def test_what_a_command_is_cannot_be_changed_here(admin):
    from proxy.services import upstreams

    upstreams.create_upstream(
        actor=Actor.system(), slug="tool", transport="stdio", command="cat", may_start_commands=True
    )
    for change in ({"command": "id"}, {"environment": {}}, {"working_directory": "/"}, {"process_mode": "session"}):
        assert admin.patch("upstreams/tool/", change).status_code == 403
    assert admin.patch("upstreams/tool/", {"enabled": False}).data["enabled"] is False
    admin.post("upstreams/", {"slug": "web", "url": "http://127.0.0.1:9/mcp"})
    assert admin.patch("upstreams/web/", {"transport": "stdio"}).status_code == 403
    assert Upstream.objects.get(slug="tool").command == "cat"


@pytest.mark.parametrize("style", ["", "auto", "http", "in-band", "tool-result"])
def test_an_upstream_says_how_its_refusals_go_out(admin, style):
    made = admin.post("upstreams/", {"slug": "u", "url": "http://127.0.0.1:9/mcp", "refusals": style})
    assert (made.status_code, made.data["refusals"]) == (201, style)
    assert admin.patch("upstreams/u/", {"refusals": "tool-result"}).data["refusals"] == "tool-result"


@pytest.mark.parametrize(
    "change", [{"url": "http://169.254.169.254/"}, {"url": "ftp://x/"}, {"url": ""}, {"slug": "UPPER"}, {"headers": {"Host": "x"}}, {"headers": {"A\nB": "x"}},
               {"headers": {"A": 1}}, {"networks": ["x"]}, {"client_key": "x"}, {"connect_timeout": 0}, {"max_concurrent": 0}, {"refusals": "loud"}],
)  # fmt: skip
def test_upstreams_that_cannot_be(admin, change):
    answer = admin.post("upstreams/", {"slug": "u", "url": "http://127.0.0.1:9/mcp", **change})
    assert answer.status_code == 400 and not Upstream.objects.exists(), answer.content


def tool(upstream, name="refund", **fields):
    text = canonical({"name": name, "description": "x", "inputSchema": {"type": "object", "n": 1.10}})
    return CatalogueItem.objects.create(
        upstream=upstream, kind="tool", name=name, definition=text, hash=digest(text), **{"status": "new", **fields}
    )


def test_tools_are_read_approved_and_withdrawn(callers):
    manager = callers["policy-manager"]
    upstream = Upstream.objects.create(slug="crm", url="http://127.0.0.1:9/mcp")
    item = tool(upstream)
    path = f"tools/{item.pk}/"
    read = manager.get(path)
    assert read.data["definition"]["inputSchema"]["n"] == 1.1 and read.data["pinned_definition"] is None
    assert manager.post(f"{path}approve/", {"hash": "0" * 64}).data["code"] == "conflict"
    approved = manager.post(f"{path}approve/", {"hash": read.data["hash"]}, headers={"if-match": read.headers["ETag"]})
    assert approved.data["status"] == "pinned" and approved.data["approved_by"] == manager.name
    assert manager.post(f"{path}quarantine/", {}, headers={"if-match": read.headers["ETag"]}).status_code == 412
    withdrawn = manager.post(f"{path}quarantine/", {"reason": "looks odd"})
    assert withdrawn.data["status"] == "quarantined" and withdrawn.data["held"] is True
    assert [one["id"] for one in manager.get("tools/?status=quarantined&upstream=crm&kind=tool").data["results"]] == [
        item.pk
    ]
    (one,) = recorded("admin.catalogue.quarantined")
    assert (
        one["tool_name"] == "crm/tool/refund"
        and one["details"]["reason"] == "looks odd"
        and one["key_name"] == manager.name
    )
    assert callers["operator"].post(f"{path}approve/", {}).status_code == 403
    assert manager.post(f"{path}approve/", {}).data["held"] is False


def test_what_a_person_withdrew_stays_so_whatever_the_policy_says(admin):
    from proxy.services import catalogue
    from proxy.upstreams.catalogue import FoundDefinitions

    upstream = Upstream.objects.create(slug="crm", url="http://127.0.0.1:9/mcp")
    item = tool(upstream)
    admin.post(f"tools/{item.pk}/quarantine/", {})
    catalogue.apply_policy("crm")
    text = canonical({"name": "refund", "description": "changed"})
    catalogue._store(
        upstream,
        [FoundDefinitions("tool", "refund", text, digest(text), ())],
        ["tool"],
        first=False,
        now=datetime.now(UTC),
    )
    item.refresh_from_db()
    assert item.status == "quarantined" and item.held


# -- health


def test_health(callers):
    answer = callers["operator"].get("health/")
    assert answer.status_code == 200 and answer.data["postgres"] and answer.data["quarantined"] == 0
    assert callers["viewer"].get("health/").status_code == 403
