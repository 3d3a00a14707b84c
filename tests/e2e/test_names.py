"""Names on the wire: what servers read otherwise than it is spelled is decided as they read it, or refused."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.fixtures import SETTINGS
from tests.support.gateway import Gateway, Key
from tests.support.upstream import TOOLS, FakeUpstream

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("names")]

POLICY = """\
roles:
  reader: {allow: ["resource:file:///public/*", "method:logging/setLevel"]}
  most: {allow: ["*"], deny: ["resource:file:///secret/*", "delete_customer"]}
  payer: {allow: [run_tool]}
rules:
  - {name: small, effect: allow, roles: [payer], tool: refund, when: [{argument: amount, le: 100}, {argument: "lines[].sku", items: every, eq: a}]}
  - {name: large, effect: deny, roles: [most], tool: refund, when: [{argument: amount, gt: 100}]}
rate_limits:
  per_tool:
    default: {requests: 5000, window_seconds: 60}
    overrides: {public.echo: {requests: 3, window_seconds: 3600}}
audit:
  - {level: none, tool: get_customer}
"""
ROLES = ("reader", "most", "payer")
MORE = [
    {"name": name, "description": name, "inputSchema": {"type": "object"}}
    for name in ("run_tool", "run_many", "refund")
]


@dataclass
class Scene:
    gateway: Gateway
    fake: FakeUpstream
    keys: dict[str, Key]

    def client(self, role: str, **options: Any) -> Any:
        return self.gateway.client(self.keys[role], **options)

    def explained(self, role: str, *arguments: str) -> dict[str, Any]:
        text = self.gateway.manage(
            "policy", "explain", "--role", role, "--upstream", "fake", "--json", *arguments
        ).stdout
        return json.loads(text)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with FakeUpstream() as fake, Gateway(workers=1, **SETTINGS) as gateway:
        fake.tools = [*TOOLS, *MORE]
        policy = gateway.home / "policy.yaml"
        policy.write_text(POLICY)
        _, _, *printed = gateway.commands(
            [
                "upstreams",
                "add",
                "fake",
                "--url",
                fake.url,
                "--dispatcher",
                "run_tool=name",
                "--dispatcher",
                "run_many=calls.*.tool",
            ],
            ["policy", "apply", str(policy)],
            *(["keys", "create", f"{role}-key", "--role", role, "--json"] for role in ROLES),
        )
        told = [json.loads(line) for line in printed]
        keys = {role: Key(one["id"], one["key"], role) for role, one in zip(ROLES, told, strict=True)}
        time.sleep(1.0)
        yield Scene(gateway, fake, keys)


@pytest.mark.parametrize(
    "uri",
    [
        "file:///public/../secret/b",
        "file:///public/%2e%2e/b",
        "file:///public//b",
        "file:///public/%73",
        "FILE:///public/b",
    ],
)
def test_a_uri_that_is_not_in_its_normal_form_is_refused_on_every_way(scene: Scene, uri: str) -> None:
    scene.fake.forget()
    for role in ("reader", "most"):
        old, new = scene.client(role), scene.client(role, era="modern")
        asked = [
            (old, "resources/read", {"uri": uri}), (new, "resources/read", {"uri": uri}), (old, "resources/subscribe", {"uri": uri}),
            (old, "resources/unsubscribe", {"uri": uri}), (new, "subscriptions/listen", {"notifications": {"resourceSubscriptions": [uri]}}),
            (old, "completion/complete", {"ref": {"type": "ref/resource", "uri": uri}, "argument": {"name": "a", "value": ""}}),
        ]  # fmt: skip
        for client, method, params in asked:
            answer = client.ask(method, params)
            assert (answer.status, answer.error["data"]["reason"]) == (403, "ambiguous_target"), (role, method)
    assert not scene.fake.requests


def test_ordinary_uris_pass_and_a_refusal_is_recorded_as_a_denial(scene: Scene) -> None:
    since = scene.gateway.now()
    reader = scene.client("reader")
    for uri in ("file:///public/a.txt", "file:///public/my%20file.txt", "file:///public/%E3%81%82"):
        assert reader.ask("resources/read", {"uri": uri}).status == 200
    assert reader.ask("resources/read", {"uri": "file:///public/../x"}).status == 403
    event = scene.gateway.event(since, reason="ambiguous_target")
    assert (event["outcome"], event["status_code"], event["tool_name"], event["target_kind"]) == (
        "denied",
        403,
        "file:///public/../x",
        "resource",
    )
    assert (
        scene.client("most").ask("resources/read", {"uri": "file:///SECRET/b"}).error["data"]["reason"]
        == "denied_by_rule"
    )


def test_a_condition_is_not_evaded_by_a_member_that_folds_alike(scene: Scene) -> None:
    payer, most = scene.client("payer"), scene.client("most")
    good = {"amount": 50, "lines": [{"sku": "a"}]}
    assert payer.call("refund", good).status == 200
    for bad in (
        {"Amount": 99_999},
        {"amoun\u1d57": 9},
        {"AMOUNT": 9},
        {"a_mount": 9},
        {"Lines": []},
        {"lines": [{"sku": "a", "S\u212aU": 1, "\u017fku": 2}]},
    ):
        assert payer.call("refund", good | bad).error["data"]["reason"] == "policy_error"
    assert most.call("refund", {"amount": 50}).status == 200
    for bad in ({"amount": 500}, {"Amount": 500}, {"amount": 50, "AMOUNT": 500}):
        assert most.call("refund", bad).error["data"]["reason"] == "denied_by_rule"


def test_one_tool_that_calls_others_is_not_called_through_another(scene: Scene) -> None:
    most = scene.client("most")
    inner = {"name": "run_tool", "arguments": {"name": "delete_customer"}}
    for name, arguments in (
        ("run_tool", inner),
        ("run_many", {"calls": [{"tool": "run_tool", "arguments": inner}]}),
        ("run_tool", {**inner, "name": "fake/run_tool"}),
    ):
        assert most.call(name, arguments).error["data"]["reason"] == "nested_call"
    for name in ("delete_customer", "DELETE_customer", "fake/delete_customer", "fake__delete_customer"):
        assert most.call("run_tool", {"name": name}).error["data"]["reason"] == "denied_by_rule"
    for arguments in (
        {"name": "list_customers", "Name": "delete_customer"},
        {"name": " delete_customer"},
        {"name": ["delete_customer"]},
        {"name": 5},
    ):
        assert most.call("run_tool", arguments).status == 403
    assert scene.client("payer").call("run_tool", {"name": "refund", "amount": 5}).status == 403


def test_limits_and_audit_level_of_what_is_called_hold_for_who_calls_it(scene: Scene) -> None:
    most, since = scene.client("most"), scene.gateway.now()
    assert most.call("run_many", {"calls": [{"tool": "public.echo"}] * 2}).status == 200
    assert most.call("run_many", {"calls": [{"tool": "public.echo"}] * 2}).status == 429  # all or none
    assert most.call("run_tool", {"name": "x/public.echo"}).status == 200
    for arguments in ({"name": "public.echo"}, {"name": "x/public.echo"}, {"name": "PUBLIC.echo"}):
        assert most.call("run_tool", arguments).status == 429
    assert most.call("public.echo", {}).status == 429
    assert most.call("run_tool", {"name": "get_customer", "note": "private-words"}).status == 200
    assert most.call("run_tool", {"name": "list_customers", "note": "open-words"}).status == 200
    events = [e for e in scene.gateway.events(since, 9) if e["method"] == "tools/call"]
    kept = {e["details"]["inner"][0]: json.dumps(e["request_json"]) for e in events if e["outcome"] == "allowed"}
    assert "open-words" in kept["list_customers"] and "private-words" not in kept["get_customer"]


def test_explain_decides_the_same(scene: Scene) -> None:
    inner = json.dumps({"name": "run_tool", "arguments": {"name": "delete_customer"}})
    for role, arguments, reason in (
        ("reader", ["--resource", "file:///public/../x"], "ambiguous_target"),
        ("payer", ["--tool", "refund", "--args", '{"amount": 5, "Amount": 1, "lines": []}'], "policy_error"),
        ("most", ["--tool", "run_tool", "--args", inner], "nested_call"),
    ):
        told = scene.explained(role, *arguments)
        assert (told["allowed"], told["reason"]) == (False, reason)


def test_an_upstream_that_rules_or_keys_name_is_not_removed(scene: Scene) -> None:
    gateway = scene.gateway
    gateway.add_upstream("gone", scene.fake.url)
    made = json.loads(gateway.manage("keys", "create", "tied", "--role", "most", "--upstream", "gone", "--json").stdout)
    refused = gateway.manage("upstreams", "remove", "gone", check=False)
    assert (
        refused.returncode != 0 and "is named by key mcps_live_" in refused.stderr and "Traceback" not in refused.stderr
    )
    gateway.manage("keys", "revoke", made["id"])
    gateway.manage("upstreams", "remove", "gone")
