"""The commands as people type them: what they print, refuse and return."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import CommandError, call_command

from policies.models import ApiKey, PolicyVersion

pytestmark = pytest.mark.django_db
DEFAULTS = (
    'roles: {admin: {allow: ["*"]}, user: {allow: [public.echo, "list_*"]}, readonly: {allow: [list_customers]}}\n'
)


@pytest.fixture
def run(capsys, tmp_path):
    """Run a command line; FILE stands for a file of the given text."""

    def run(*words, file=""):
        path = tmp_path / "file.yaml"
        path.write_text(file)
        call_command(*[str(path) if word == "FILE" else word for word in words])
        return capsys.readouterr().out

    run("policy", "apply", "FILE", file=DEFAULTS)
    return run


def test_keys_from_birth_to_death(run):
    made = json.loads(run("keys", "create", "bot", "--role", "user", "--expires-in", "30d", "--json"))
    assert {"id", "key", "role", "expires_at"} <= set(made) and made["role"] == "user"
    assert abs(datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC) - timedelta(days=30)) < timedelta(
        minutes=1
    )
    told = run("keys", "create", "other", "--role", "admin")
    assert told.startswith("mcps_live_") and "not shown again" in told
    listed = json.loads(run("keys", "list", "--json"))
    assert {row["name"]: row["state"] for row in listed} == {"bot": "live", "other": "live"}
    assert made["key"] not in json.dumps(listed) and made["key"] not in run("keys", "list")
    again = json.loads(run("keys", "rotate", made["id"], "--overlap", "1h", "--json"))
    assert again["id"] == made["id"] and again["key"] != made["key"] and again["key"][:22] == made["key"][:22]
    assert "is revoked" in run("keys", "revoke", made["id"], "--reason", "lost")
    assert [row["name"] for row in json.loads(run("keys", "list", "--live", "--json"))] == ["other"]
    assert ApiKey.objects.get(pk=made["id"]).revoked_reason == "lost"


def test_administrative_keys_end_by_themselves(run):
    made = json.loads(run("keys", "create", "ops", "--administrative", "operator", "--json"))
    assert made["duty"] == "operator" and made["role"] is None
    assert abs(datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC) - timedelta(days=90)) < timedelta(
        minutes=1
    )


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["keys", "create", "x", "--role", "nobody"], "There is no role nobody"),
        (["keys", "create", "x", "--role", "user", "--expires-in", "soon"], "write 90s, 30m, 12h, 7d or 2w"),
        (["keys", "create", "x", "--role", "user", "--expires-in", "99999999w"], "."),
        (["keys", "create", "x", "--role", "user", "--network", "10.0.0.1/8"], "host bits"),
        (["keys", "create", "x"], "one of the arguments --role --administrative is required"),
        (["keys", "create", "x", "--role", "user", "--administrative", "viewer"], "not allowed with"),
        (["keys", "create", "x", "--administrative", "king"], "king"),
        (["keys", "revoke", "nobody"], "There is no key nobody."),
        (["keys", "rotate", "nobody", "--overlap", "8d"], "from nothing to 7 days"),
        (["policy", "apply", "/nowhere.yaml"], "/nowhere.yaml: No such file"),
        (["policy", "apply", "/dev/null"], "there is nothing in it"),
        (["policy", "explain", "--role", "nobody", "--tool", "x"], "there is no role nobody"),
        (["policy", "explain", "--role", "user", "--tool", "x", "--args", "{"], "--args is not JSON"),
        (["policy", "explain", "--role", "user", "--tool", "x", "--args", "[]"], "--args is a JSON object"),
        (["policy", "replay", "FILE", "--since", "yesterday"], "span of time"),
    ],
)
def test_what_is_refused_in_one_line(run, words, problem):
    with pytest.raises(CommandError, match=problem) as refused:
        run(*words)
    assert "\n" not in str(refused.value)


def test_policy_round_trip(run):
    exported = run("policy", "export")
    assert "Nothing to change" in run("policy", "apply", "FILE", file=exported)
    assert json.loads(run("policy", "export", "--json"))["roles"]["readonly"] == {"allow": ["list_customers"]}
    assert run("policy", "diff", "FILE", file=exported) == ""
    assert json.loads(run("policy", "diff", "FILE", "--json", file=exported)) == {"differs": False, "diff": []}
    changed = exported.replace("list_customers", "list_orders")
    assert "+  readonly: {allow: [list_orders]}" in run("policy", "diff", "FILE", file=changed)
    with pytest.raises(SystemExit):
        run("policy", "diff", "FILE", "--exit-code", file=changed)
    assert "Nothing was changed" in run("policy", "apply", "FILE", "--dry-run", file=changed)
    assert run("policy", "export") == exported
    told = json.loads(run("policy", "apply", "FILE", "--json", file=changed))
    assert told["changed"] and [c["change"] for c in told["changes"]] == ["add", "remove"]
    assert PolicyVersion.objects.get(number=told["policy_version"]).origin == "command"


def test_check_says_what_and_where(run):
    assert "3 roles, 4 rules, 0 limits" in run("policy", "check", "FILE", file=DEFAULTS)
    assert json.loads(run("policy", "check", "FILE", "--json", file=DEFAULTS))["valid"] is True
    with pytest.raises(CommandError, match=r"line 2, column 7: role a has no member 'alow'"):
        run("policy", "check", "FILE", file="roles:\n  a: {alow: []}")


def test_explain(run):
    told = json.loads(run("policy", "explain", "--role", "user", "--tool", "List_x", "--json"))
    assert {"allowed", "reason", "rule", "policy_version"} <= set(told)
    assert (told["allowed"], told["reason"], told["rule"]) == (False, "no_rule", None)
    assert any("does not match 'list_*'" in why for near in told["near"] for why in near["why"])
    told = json.loads(run("policy", "explain", "--role", "user", "--tool", "list_x", "--json"))
    assert told["allowed"] and told["rule"]["effect"] == "allow"
    made = json.loads(run("keys", "create", "bot", "--role", "user", "--upstream", "crm", "--json"))
    assert "Allowed" in run("policy", "explain", "--key", "bot", "--tool", "list_x", "--upstream", "crm")
    assert "it may reach only crm" in run(
        "policy", "explain", "--key", made["key"][:22], "--tool", "list_x", "--upstream", "pay"
    )
    assert "There is no upstream crm" in run(
        "policy", "explain", "--role", "user", "--tool", "list_x", "--upstream", "crm"
    )
    run("keys", "revoke", "bot")
    assert "is revoked: every call is refused" in run("policy", "explain", "--key", made["id"], "--tool", "list_x")


def test_cases(run, tmp_path):
    (tmp_path / "policy.yaml").write_text(DEFAULTS)
    good = "cases:\n  - {role: readonly, tool: list_customers, expect: allowed}\n  - {role: readonly, tool: x, expect: denied, reason: no_rule}\n"
    assert "2 of 2 cases passed" in run("policy", "test", "FILE", file="policy: policy.yaml\n" + good)
    assert "2 of 2 cases passed" in run("policy", "test", "FILE", file=good)
    with pytest.raises(CommandError, match="1 case failed"):
        run("policy", "test", "FILE", file=good.replace("expect: allowed", "expect: hidden"))
    with pytest.raises(CommandError, match="expect is one of"):
        run("policy", "test", "FILE", file=good.replace("expect: allowed", "expect: ok"))


@pytest.mark.parametrize("act", ["apply", "export", "check", "diff", "test", "explain", "replay"])
def test_every_act_has_help(run, act, capsys):
    with pytest.raises(SystemExit) as ended:
        run("policy", act, "--help")
    assert ended.value.code == 0 and "usage" in capsys.readouterr().out
