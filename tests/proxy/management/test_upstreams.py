"""`manage.py upstreams add` and `change` say the same things of an upstream, and a check waits for what must be fetched first."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from audit.models import OutboxEvent
from proxy.models import CatalogueItem, Upstream
from proxy.services import catalogue as catalogue_services
from proxy.upstreams import catalogue, client, options, vault

pytestmark = pytest.mark.django_db

URL = "http://127.0.0.1:9/mcp"
PEM = "-----BEGIN CERTIFICATE-----\n"


def upstreams(*arguments: str) -> str:
    out = io.StringIO()
    call_command("upstreams", *arguments, stdout=out, stderr=io.StringIO() if "--json" in arguments else out)
    return out.getvalue()


def described(*arguments: str) -> dict[str, Any]:
    return json.loads(upstreams(*arguments, "--json"))


@pytest.fixture
def crm() -> dict[str, Any]:
    return described(
        "add", "crm", "--url", URL, "--header", "Authorization=secret", "--header", "X-Team=env:MCP_UPSTREAM_TEAM",
        "--name", "CRM", "--dispatcher", "call_tool=name", "--idle-timeout", "90",
    )  # fmt: skip


# Each option that has a value of its own: what is said, the setting, and what it then is.
SAID = [
    (["--name", "Customers"], "name", "Customers"), (["--name", ""], "name", ""), (["--description", "x y"], "description", "x y"),
    (["--url", "http://127.0.0.1:9/other"], "url", "http://127.0.0.1:9/other"), (["--transport", "sse"], "transport", "sse"),
    (["--connect-timeout", "2.5"], "connect_timeout", 2.5), (["--first-byte-timeout", "600"], "first_byte_timeout", 600.0),
    (["--idle-timeout", "default"], "idle_timeout", None), (["--max-concurrent", "7"], "max_concurrent", 7),
    (["--max-answer-bytes", "4096"], "max_answer_bytes", 4096), (["--refusals", "in-band"], "refusals", "in-band"),
    (["--refusals", "default"], "refusals", ""), (["--audit-level", "digest"], "audit_level", "digest"),
    (["--catalogue-policy", "quarantine"], "catalogue_policy", "quarantine"), (["--quarantine"], "catalogue_policy", "quarantine"),
    (["--networks", "127.0.0.0/8,::1/128"], "networks", ["127.0.0.0/8", "::1/128"]), (["--disable"], "enabled", False), (["--enable"], "enabled", True),
    (["--dispatcher", "run=calls.*.tool"], "dispatchers", {"call_tool": "name", "run": "calls.*.tool"}),
    (["--remove-dispatcher", "call_tool"], "dispatchers", {}),
    (["--header", "X-New=env:MCP_UPSTREAM_NEW"], "headers", {"Authorization": vault.HIDDEN, "X-Team": "env:MCP_UPSTREAM_TEAM", "X-New": "env:MCP_UPSTREAM_NEW"}),
    (["--header", "x-team=env:MCP_UPSTREAM_2"], "headers", {"Authorization": vault.HIDDEN, "x-team": "env:MCP_UPSTREAM_2"}),
    (["--remove-header", "authorization"], "headers", {"X-Team": "env:MCP_UPSTREAM_TEAM"}),
    (["--remove-header", "X-TEAM", "--header", "A=env:MCP_UPSTREAM_A"], "headers", {"Authorization": vault.HIDDEN, "A": "env:MCP_UPSTREAM_A"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "setting", "value"), SAID, ids=lambda part: " ".join(part) if isinstance(part, list) else ""
)
def test_what_is_said_changes_and_nothing_else(crm, said, setting, value):
    changed = described("change", "crm", *said)
    assert changed == {**crm, setting: value}
    recorded = [
        row.record if isinstance(row.record, dict) else json.loads(row.record) for row in OutboxEvent.objects.all()
    ]
    acts = [record["method"] for record in recorded]
    assert acts == [
        "admin.upstream.created",
        *(["admin.upstream.updated"] if changed != crm or setting == "headers" else []),
    ]


def test_every_option_is_there_for_both(crm):
    """What `add` can say, `change` can, and each setting of the model that the API has can be said."""
    from proxy.api.serializers import UpstreamChangeSerializer

    settings = {option.setting for option in (*options.OPTIONS, *options.CHANGES)} | {
        "url",
        "command",
    }
    assert (
        set(UpstreamChangeSerializer().fields) | {"environment", "working_directory", "process_mode", "memory_limit_mb"}
        <= settings
    )
    for act in ("add", "change"):
        out = io.StringIO()
        with pytest.raises(SystemExit):
            sys.stdout, before = out, sys.stdout
            try:
                call_command("upstreams", act, "--help")
            finally:
                sys.stdout = before
        told = out.getvalue()
        assert all(option.flag in told for option in options.OPTIONS)
        assert all((option.flag in told) == (act == "change") for option in options.CHANGES)


def test_a_command_is_changed_likewise(tmp_path):
    added = described(
        "add",
        "tool",
        "--command",
        "cat -u",
        "--env",
        "A=one",
        "--env",
        "B=env:MCP_UPSTREAM_B",
        "--per-session",
        "--memory-mb",
        "64",
    )
    assert (added["process_mode"], added["memory_limit_mb"]) == ("session", 64)
    assert described("change", "tool", "--shared", "--memory-mb", "default") == {
        **added,
        "process_mode": "shared",
        "memory_limit_mb": None,
    }
    assert described("change", "tool", "--env", "A=two", "--remove-env", "B")["environment"] == {"A": vault.HIDDEN}
    with pytest.raises(CommandError, match="A: stored for the command it had"):
        upstreams("change", "tool", "--command", "cat -v")
    moved = described("change", "tool", "--command", "cat -v", "--env", "A=three", "--cwd", str(tmp_path))
    assert (moved["command"], moved["working_directory"], moved["environment"]) == (
        "cat -v",
        str(tmp_path),
        {"A": vault.HIDDEN},
    )


@pytest.mark.parametrize("address", ["https://127.0.0.1:9/mcp", "http://127.0.0.1:10/mcp", "http://[::1]:9/mcp"])
def test_another_origin_wants_its_secrets_again(crm, address):
    with pytest.raises(CommandError, match=r"Authorization: stored for http://127\.0\.0\.1:9"):
        upstreams("change", "crm", "--url", address)
    assert Upstream.objects.get().url == URL
    assert described("change", "crm", "--url", address, "--header", "authorization=again")["url"] == address


def test_what_belonged_to_the_other_kind_does_not_come_along(crm):
    tool = described("change", "crm", "--command", "cat")
    assert (tool["transport"], tool["url"], tool["headers"], tool["dispatchers"]) == (
        "stdio",
        "",
        {},
        {"call_tool": "name"},
    )
    described("change", "crm", "--env", "TOKEN=secret", "--per-session")
    back = described("change", "crm", "--url", URL, "--transport", "sse")
    assert (back["transport"], back["command"], back["environment"], back["process_mode"]) == ("sse", "", {}, "shared")


@pytest.mark.parametrize(("said", "why"), [
    ([], "Nothing was said"), (["--env", "A=b"], "with --command, not of one with --url"), (["--cwd", "/x", "--per-session"], "--cwd, --per-session can be said"),
    (["--command", "cat", "--header", "A=b"], "--header can be said"), (["--url", "ftp://x/"], "http"), (["--url", URL, "--command", "cat"], "not allowed with"),
    (["--header", "no-sign"], "NAME=VALUE"), (["--header", "=x"], "NAME=VALUE"), (["--header", "A=1", "--header", "a=2"], "given twice"), (["--header", "Host=x"], "set by the gateway"),
    (["--remove-header", "Nope"], "none of this name"), (["--remove-dispatcher", "nope"], "none of this name"), (["--enable", "--disable"], "something else"),
    (["--quarantine", "--catalogue-policy", "allow"], "something else"), (["--connect-timeout", "nan"], "not a span of time"), (["--idle-timeout", "0"], "not a time"),
    (["--max-concurrent", "9" * 30], "a number from"), (["--max-answer-bytes", "1"], "a number from"), (["--ca", "/nonexistent/ca.pem"], "cannot be read"),
    (["--tool-timeout", "a=-1s"], "not a span of time"), (["--tool-timeout", "1h"], "NAME=VALUE|TOOL=SPAN"), (["--networks", "10.0.0.1/8"], "not a network"), (["--refusals", "loud"], "invalid choice"), (["--dispatcher", "a=..b"], "argument is given"),
])  # fmt: skip
def test_what_cannot_be_is_one_line_and_changes_nothing(crm, said, why):
    with pytest.raises(CommandError, match=why):
        upstreams("change", "crm", *said)
    assert described("list")[0] | crm == described("list")[0]
    assert OutboxEvent.objects.count() == 1


def test_there_must_be_one_to_change():
    with pytest.raises(CommandError, match="There is no upstream nope"):
        upstreams("change", "nope", "--name", "x")


def test_a_policy_that_is_changed_holds_at_once(crm):
    upstream = Upstream.objects.get()
    item = CatalogueItem.objects.create(
        upstream=upstream, kind="tool", name="t", definition="{}", hash="a" * 64, status="new"
    )
    upstreams("change", "crm", "--catalogue-policy", "quarantine")
    item.refresh_from_db()
    assert item.status == "quarantined"


# -- the check of a command --------------------------------------------------------------------------------------------------

SERVER = """
import json, sys, time
{before}
for line in sys.stdin:
    asked = json.loads(line)
    method = asked["method"]
    if method == "initialize":
        info = {{"name": "slow", "version": "1"}}
        result = {{"protocolVersion": "2025-06-18", "capabilities": {{"tools": {{}}}}, "serverInfo": info}}
    elif method == "tools/list":
        result = {{"tools": [{{"name": "t", "inputSchema": {{"type": "object"}}}}]}}
    else:
        {otherwise}
        continue
    print(json.dumps({{"jsonrpc": "2.0", "id": asked["id"], "result": result}}), flush=True)
"""
FETCHING = "print('fetching token=hunter2-hunter2', file=sys.stderr, flush=True); time.sleep(3)"
REFUSE = 'asked.get("id") is not None and print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -32601, "message": "no"}}), flush=True)'


@pytest.fixture
def quick(monkeypatch):
    """What takes minutes takes seconds here."""
    for module in (client, catalogue, catalogue_services):
        monkeypatch.setattr(module, "TIMEOUT", 1.0)
    monkeypatch.setattr(catalogue_services, "FIRST_START_SECONDS", 8.0)
    monkeypatch.setattr(catalogue_services, "TELL_SECONDS", 0.4)


def program(tmp_path, before="", otherwise="pass") -> str:
    place = tmp_path / "server.py"
    place.write_text(SERVER.format(before=before, otherwise=otherwise))
    return f"{sys.executable} {place}"


def test_a_command_that_must_be_fetched_is_waited_for(quick, tmp_path):
    told = upstreams("add", "slow", "--command", program(tmp_path, FETCHING, REFUSE), "--check")
    assert "ok" in told and "1 tools" in told
    assert "slow: waiting for the command, " in told and "it says: fetching token=[REDACTED" in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    "otherwise", ["pass", '"id" in asked and sys.exit(1)', REFUSE], ids=["silent", "ends", "refuses"]
)
def test_older_commands_that_do_not_know_the_question_are_asked_again(quick, tmp_path, otherwise, monkeypatch):
    monkeypatch.setattr(catalogue_services, "FIRST_START_SECONDS", 4.0)
    found = described("add", "old", "--command", program(tmp_path, "", otherwise), "--check")
    assert found["ok"] and found["era"] == "legacy"


@pytest.mark.parametrize("end", ["time.sleep(60)", "sys.exit(3)"])
def test_one_that_never_answers_is_told_with_its_last_words(quick, tmp_path, end, monkeypatch):
    monkeypatch.setattr(catalogue_services, "FIRST_START_SECONDS", 3.0)
    words = "print('npm error 404 no such package\\npassword=hunter2-hunter2', file=sys.stderr, flush=True);"
    out = io.StringIO()
    with pytest.raises(CommandError, match="broken: "):
        call_command(
            "upstreams", "add", "broken", "--command", program(tmp_path, words + end), "--check", stdout=out, stderr=out
        )
    assert "it said: npm error 404 no such package" in out.getvalue() and "hunter2" not in out.getvalue()
    out = io.StringIO()
    with pytest.raises(CommandError):
        call_command("upstreams", "check", "broken", "--json", stdout=out, stderr=io.StringIO())
    last = json.loads(out.getvalue())
    assert last["ok"] is False and "npm error 404" in last["steps"][-1]["said"] and "hunter2" not in out.getvalue()


@pytest.mark.parametrize("act", ["add", "change"])
def test_the_help_does_not_show_where_values_are_kept(act: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call_command("upstreams", act, "--help")
    shown = capsys.readouterr().out
    assert "--url URL" in shown and "--command COMMAND" in shown
    assert "given_" not in shown.lower()
