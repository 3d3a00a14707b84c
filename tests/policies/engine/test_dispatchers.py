"""Names of tools within arguments: found where they were said to be, and nothing guessed."""

import pytest

from policies.documents.reader import parse
from policies.engine.compiled import PolicySet
from policies.engine.decide import decide_unseen
from policies.engine.dispatchers import PATH, dispatcher_path, inner_calls, inner_names, refused_within
from policies.engine.schemas import KnownTarget
from policies.engine.types import Context, Principal, Target
from policies.simulate.explain import explain
from policies.specs import numbered


@pytest.mark.parametrize(
    ("arguments", "path", "found"),
    [
        ({"name": "a"}, "name", ("a",)),
        ({"name": ["a"]}, "name", None),
        ({"name": ["a", "b"]}, "name.*", ("a", "b")),
        ({"call": {"tool": "a"}}, "call.tool", ("a",)),
        ({"calls": [{"tool": "a"}, {"tool": "b"}]}, "calls.*.tool", ("a", "b")),
        ({"calls": [{"tool": "a"}, {"other": "b"}]}, "calls.*.tool", None),
        ({"calls": []}, "calls.*.tool", None),
        ({"calls": [{"tool": "a"}] * 101}, "calls.*.tool", None),
        ({"name": ""}, "name", None),
        ({"name": 1}, "name", None),
        ({"name": None}, "name", None),
        ({"name": {"name": "a"}}, "name", None),
        ({"name": " a"}, "name", None),
        ({"name": "a\n"}, "name", None),
        ({"name": "a\u200b"}, "name", None),
        ({"name": "a\0"}, "name", None),
        ({"name": "a" * 513}, "name", None),
        ({"name": "a", "Name": "b"}, "name", None),
        ({"name": "a", "na\u200bme": "b"}, "name", None),
        ({"NAME": "b"}, "name", None),
        ({"calls": [{"tool": "a", "TOOL": "b"}]}, "calls.*.tool", None),
        ({"calls": [{"tool": "a"}], "Calls": []}, "calls.*.tool", None),
        ({}, "name", None),
        (None, "name", None),
        ("name", "name", None),
    ],
)
def test_what_stands_at_a_path(arguments, path, found):
    assert inner_names(arguments, path) == found


def test_paths():
    assert all(PATH.match(path) for path in ("name", "a.b", "calls.*.tool", "x-y_z"))
    assert not any(
        PATH.match(path) for path in ("", "*", "*.a", "a..b", ".a", "a.", "a b", "a*", ".".join("abcdefghi"))
    )


POLICY = PolicySet(
    numbered(
        parse(
            """
roles:
  user: {allow: ["*"], deny: [delete_customer, "drop_*"]}
  narrow: {allow: ["call_*", "list_*", "@crm/method:x"]}
rules:
  - {name: small, effect: allow, roles: [narrow], tool: refund, when: [{argument: amount, le: 5}]}
"""
        ).spec
    )
)
DISPATCHERS = {"call_tool": "name", "call_many": "calls.*.tool", "list_and_run": "run.name"}
LISTED = {
    "crm.list": ("crm.list",),
    "billing/delete_customer": ("billing/delete_customer",),
    "secretplan": ("SecretPlan",),
}
NOW = Context(0.0)


def ask(role, tool, arguments, blocked=()):
    """The decision about what a dispatcher calls, and its reason; the explanation must agree."""
    outer = Target("tool", "crm", tool, arguments)
    path = dispatcher_path(DISPATCHERS, tool)
    listed = lambda name: LISTED.get(name, ()) or LISTED.get(name.lower(), ())  # noqa: E731
    known = lambda name: KnownTarget(  # noqa: E731
        dispatches=dispatcher_path(DISPATCHERS, name), alike=listed(name), blocked=name in blocked
    )
    principal = Principal(None, "", "", role)
    told = explain(POLICY, principal, outer, NOW, known=known(tool), lookup=known).decision
    if blocked:
        return told.reason
    calls = inner_calls(outer, path, listed)
    found = refused_within(
        outer,
        path,
        calls,
        lambda inner: decide_unseen(POLICY, principal, inner, NOW),
        POLICY.nothing,
        lambda name: bool(dispatcher_path(DISPATCHERS, name)),
    )
    assert (found is None, found[1].reason if found else told.reason) == (told.allowed, told.reason)
    return told.reason


@pytest.mark.parametrize(
    ("role", "tool", "arguments", "reason"),
    [
        ("user", "call_tool", {"name": "list_x", "arguments": {"name": "delete_customer"}}, "allowed_by_rule"),
        ("user", "call_tool", {"name": "delete_customer"}, "denied_by_rule"),
        ("user", "call_tool", {"name": "call_tool", "arguments": {"name": "delete_customer"}}, "nested_call"),
        ("user", "call_tool", {"name": "call_tool", "arguments": '{"name": "delete_customer"}'}, "nested_call"),
        ("user", "call_tool", {"name": "Call_Tool", "arguments": {"name": "delete_customer"}}, "nested_call"),
        ("user", "call_tool", {"name": "crm/call_tool", "arguments": {}}, "nested_call"),
        ("user", "call_tool", {"name": "call_many", "calls": [{"tool": "delete_customer"}]}, "nested_call"),
        (
            "user",
            "call_many",
            {"calls": [{"tool": "list_x"}, {"tool": "call_tool", "with": ["delete_customer"]}]},
            "nested_call",
        ),
        ("user", "call_many", {"calls": [{"tool": "list_x"}, {"tool": "call_tool"}]}, "allowed_by_rule"),
        ("user", "list_and_run", {"run": {"name": "call_tool"}, "args": {}}, "nested_call"),
        ("user", "CALL_TOOL", {"name": "delete_customer"}, "denied_by_rule"),
        ("user", "call_tool", {"name": "DELETE_CUSTOMER"}, "denied_by_rule"),
        ("user", "call_tool", {"name": "delete\u200b_customer"}, "no_rule"),
        ("user", "call_tool", {"name": "\uff44elete_customer"}, "denied_by_rule"),
        ("user", "call_tool", {"name": "crm/delete_customer"}, "denied_by_rule"),
        ("user", "call_tool", {"name": "crm__Delete_Customer"}, "denied_by_rule"),
        ("user", "call_tool", {"name": "a::b.delete_customer"}, "denied_by_rule"),
        ("user", "call_tool", {"name": "mcp:crm:drop_all"}, "denied_by_rule"),
        ("user", "call_tool", {"name": "billing/delete_customer"}, "allowed_by_rule"),  # listed by exactly that name
        ("user", "call_tool", {"name": "/".join("abcdefghij")}, "no_rule"),
        ("narrow", "call_tool", {"name": "list_x"}, "allowed_by_rule"),
        ("narrow", "call_tool", {"name": "refund", "amount": 1}, "no_rule"),
        ("narrow", "call_tool", {"name": "crm.list"}, "no_rule"),
    ],
)
def test_what_a_tool_may_call_by_name(role, tool, arguments, reason):
    assert ask(role, tool, arguments) == reason


def test_a_definition_that_waits_is_not_reached_by_another_spelling():
    assert ask("user", "call_tool", {"name": "secretplan"}, blocked=("SecretPlan",)) == "tool_definition_changed"
    assert ask("user", "call_tool", {"name": "x/SECRETPLAN"}, blocked=("SecretPlan",)) == "tool_definition_changed"
