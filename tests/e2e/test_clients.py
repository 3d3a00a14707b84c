"""Real SDK clients, in both eras, list and call through the gateway against a real SDK server."""

from __future__ import annotations

import json

import pytest

from tests.support import clients
from tests.support.clients import Kind
from tests.support.fixtures import Everything, Stage
from tests.support.upstream import FakeUpstream, sse, status

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("stage")]

PAIRS = [(kind, era) for kind in clients.KINDS for era in kind.eras]
IDS = [f"{kind.name}-{era}" for kind, era in PAIRS]


def play(stage: Stage, kind: Kind, era: str, role: str, steps: list[clients.Step]) -> dict:
    headers = {"Authorization": f"Bearer {stage.keys[role].key}"}
    outcome = clients.run(kind, f"{stage.gateway.url}/mcp/everything", steps, era=era, headers=headers)
    assert "failed" not in outcome, outcome
    return outcome


def text(step: dict) -> str:
    return step["ok"]["content"][0]["text"]


@pytest.mark.parametrize(("kind", "era"), PAIRS, ids=IDS)
def test_a_whole_session(stage: Stage, everything: Everything, kind: Kind, era: str) -> None:
    since = stage.gateway.now()
    outcome = play(
        stage,
        kind,
        era,
        "admin",
        [
            {"do": "list_tools"},
            {"do": "call", "name": "public.echo", "arguments": {"text": "grüß dich"}},
            {"do": "call", "name": "test_tool_with_progress", "progress": True},
            {"do": "list_prompts"},
            {"do": "prompt", "name": "test_prompt_with_arguments", "arguments": {"arg1": "a", "arg2": "b"}},
            {"do": "list_resources"},
            {"do": "read", "uri": "test://static-text"},
            {"do": "call", "name": "test_error_handling"},
            {"do": "call", "name": "no_such_tool"},
            {"do": "call", "name": "whoami"},
        ],
    )
    assert outcome["version"] == ("2025-11-25" if era == "legacy" else "2026-07-28")
    tools, echo, progress, prompts, prompt, resources, resource, failing, missing, headers = outcome["steps"]
    assert {"public.echo", "json_schema_2020_12_tool"} <= {tool["name"] for tool in tools["ok"]["tools"]}
    assert text(echo) == "grüß dich"
    assert progress["ok"]["progress"] == [0, 50, 100]
    assert len(prompts["ok"]["prompts"]) == 5
    assert "arg1='a'" in prompt["ok"]["messages"][0]["content"]["text"]
    assert len(resources["ok"]["resources"]) == 3
    assert resource["ok"]["contents"][0]["text"].startswith("This is the content")
    assert failing["ok"]["isError"] is True
    assert missing["error"]["code"] == -32602
    sent = {name.lower(): value for name, value in json.loads(text(headers)).items()}
    assert "authorization" not in sent
    assert stage.keys["admin"].key not in json.dumps(everything.seen())

    # What the upstream saw is what was let through: each has its event, and there is no other.
    seen = everything.seen()["requests"]
    events = stage.gateway.events(since, upstream="everything")
    outcomes = {(event["outcome"], event["reason"]) for event in events if event["outcome"] != "allowed"}
    # Some servers refuse an unknown tool, and a stream that they do not offer, with a status.
    assert outcomes <= {
        ("cancelled", "cancelled"),
        ("cancelled", "client_gone"),
        ("upstream_error", "upstream_refused"),
    }, events
    # A GET for a stream the upstream does not offer in the modern era is answered here.
    assert len(events) >= len(seen), (len(events), len(seen))
    calls = [event["tool_name"] for event in events if event["method"] == "tools/call"]
    assert calls == ["public.echo", "test_tool_with_progress", "test_error_handling", "no_such_tool", "whoami"]


@pytest.mark.parametrize(("kind", "era"), PAIRS, ids=IDS)
def test_a_refusal_is_told_and_the_client_lives_on(stage: Stage, everything: Everything, kind: Kind, era: str) -> None:
    since = stage.gateway.now()
    outcome = play(
        stage,
        kind,
        era,
        "user",
        [
            {"do": "list_tools"},
            {"do": "call", "name": "delete_customer", "arguments": {"customer_id": "1"}},
            {"do": "call", "name": "public.echo", "arguments": {"text": "still here"}},
        ],
    )
    tools, refused, echo = outcome["steps"]
    assert {tool["name"] for tool in tools["ok"]["tools"]} == {"public.echo", "list_customers"}
    if outcome["version"] == "2025-11-25":  # a live session: the model reads it as it reads any tool that failed
        assert refused["ok"]["isError"] is True
        says = text(refused)
    else:
        says = refused["error"]["message"]
        # In the modern era the TypeScript SDK shows a status other than 200 as a text only.
        assert kind is clients.TYPESCRIPT2 or refused["error"]["code"] == 403, refused
    event = stage.gateway.event(since, tool_name="delete_customer")
    assert f"No policy rule allows this request. (audit id {event['id']})" in says, refused
    assert event["status_code"] == 403 and not event["details"].get("tool_error")
    assert text(echo) == "still here"
    assert "delete_customer" not in json.dumps(everything.seen())


@pytest.mark.parametrize("kind", clients.KINDS, ids=[kind.name for kind in clients.KINDS])
def test_a_failure_of_the_upstream_is_told_and_the_session_lives_on(
    stage: Stage, fake: FakeUpstream, kind: Kind
) -> None:
    fake.script(status(500, b"boom"), method="tools/call", name="get_customer")
    fake.script(sse([b"data: {broken\n\n"]), method="tools/call", name="delete_customer")
    headers = {"Authorization": f"Bearer {stage.keys['admin'].key}"}
    names = ("get_customer", "delete_customer", "public.echo")
    steps = [{"do": "call", "name": name, "arguments": {"text": "x"}} for name in names]
    failed, broken, echo = clients.run(kind, f"{stage.gateway.url}/mcp/fake", steps, era="legacy", headers=headers)[
        "steps"
    ]
    assert failed["ok"]["isError"] is True and text(failed).startswith(
        "The upstream failed. It may have run. (audit id "
    )
    assert broken["ok"]["isError"] is True and text(broken).startswith(
        "The upstream's answer cannot be read. It may have run. (audit "
    )
    assert "isError" not in echo["ok"] or echo["ok"]["isError"] is False
    assert text(echo) == '{"text": "x"}'


@pytest.mark.parametrize(("kind", "era"), PAIRS, ids=IDS)
def test_a_wrong_key_cannot_connect(stage: Stage, everything: Everything, kind: Kind, era: str) -> None:
    headers = {"Authorization": "Bearer wrong"}
    outcome = clients.run(kind, f"{stage.gateway.url}/mcp/everything", [{"do": "list_tools"}], era=era, headers=headers)
    assert "failed" in outcome or "error" in outcome["steps"][0], outcome
    assert not everything.seen()["requests"]


@pytest.mark.parametrize(
    ("kind", "era"), [pair for pair in PAIRS if pair[0] in (clients.PYTHON2, clients.PYTHON1, clients.FAST)], ids=str
)
def test_servers_that_ask_back(stage: Stage, everything: Everything, kind: Kind, era: str) -> None:
    modern = era != "legacy"
    steps = (
        [{"do": "call", "name": f"test_input_required_result_{what}"} for what in ("elicitation", "sampling")]
        if modern
        else [
            {"do": "call", "name": "test_elicitation", "arguments": {"message": "who?"}},
            {"do": "call", "name": "test_sampling", "arguments": {"prompt": "say"}},
        ]
    )
    elicited, sampled = play(stage, kind, era, "admin", steps)["steps"]
    assert "Ada" in text(elicited)
    assert "sampled by the client" in text(sampled)


def test_a_subscription(stage: Stage, everything: Everything) -> None:
    outcome = play(stage, clients.PYTHON2, "modern", "admin", [{"do": "listen"}])
    assert outcome["steps"][0] == {"ok": {"event": "ToolsListChanged"}}
