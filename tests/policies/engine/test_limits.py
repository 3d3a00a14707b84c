"""Which limits count a request, and in which bucket."""

from policies.documents.reader import parse
from policies.engine.compiled import PolicySet
from policies.engine.limits import limits_for
from policies.engine.types import Principal, Target
from policies.specs import LimitSpec, PolicySpec, numbered

TEXT = """
roles: {user: {allow: ["*"]}, bot: {allow: ["*"]}}
rate_limits:
  per_api_key: {requests: 120, window_seconds: 60}
  per_tool:
    default: [{requests: 60, window_seconds: 60}, {requests: 5, window_seconds: 1}]
    overrides: {public.echo: {requests: 3, window_seconds: 60}, "@crm/del_*": {requests: 1, window_seconds: 60}}
  limits:
    - {name: bots, role: bot, per: [role], requests: 9, window_seconds: 60}
    - {name: one key, key: mcps_live_AAAAAAAAAAAA, requests: 8, window_seconds: 60}
    - {name: pay, upstream: pay, per: [upstream], requests: 7, window_seconds: 60}
    - {name: prompts, prompt: "a*", per: [key, tool], requests: 6, window_seconds: 60}
    - {name: methods, method: "*/list", per: [key], requests: 4, window_seconds: 60}
    - {name: own methods, method: "x/*", per: [key, tool], requests: 4, window_seconds: 60}
    - {name: off, requests: 1, window_seconds: 60, enabled: false}
"""
LIMITS = PolicySet(numbered(parse(TEXT).spec)).limits
A = Principal(None, "a", "mcps_live_AAAAAAAAAAAA", "user")
B = Principal(None, "b", "mcps_live_BBBBBBBBBBBB", "bot")


def rates(principal, *target):
    found = limits_for(LIMITS, principal, Target(*target))
    return sorted((ref.spec.requests, ref.spec.window_seconds) for ref in found)


def test_what_counts():
    # A method that executes and reads nothing counts where a limit speaks of methods, and nowhere else.
    assert rates(B, "method", "pay", "tools/list") == rates(A, "method", "crm", "x/own") == [(4, 60)]
    assert rates(B, "method", "crm", "ping") == rates(A, "method", "pay", "notifications/cancelled") == []
    assert rates(B, "tool", "crm", "get") == [(5, 1), (9, 60), (60, 60), (120, 60)]
    assert rates(B, "tool", "crm", "public.echo") == [(3, 60), (9, 60), (120, 60)]
    assert rates(B, "tool", "crm", "del_x") == [(1, 60), (9, 60), (120, 60)]
    assert rates(B, "tool", "pay", "del_x") == [(5, 1), (7, 60), (9, 60), (60, 60), (120, 60)]
    assert rates(B, "prompt", "crm", "ab") == [(6, 60), (9, 60), (120, 60)]
    assert rates(B, "resource", "crm", "public.echo") == [(9, 60), (120, 60)]


def test_buckets_are_apart_where_they_should_be():
    def buckets(principal, *target):
        return {ref.spec.requests: ref.bucket for ref in limits_for(LIMITS, principal, Target(*target))}

    one, two = buckets(A, "tool", "crm", "get"), buckets(B, "tool", "crm", "get")
    assert one[60] != two[60] and one[120] != two[120]
    other_tool, other_upstream = buckets(A, "tool", "crm", "set"), buckets(A, "tool", "pay", "get")
    assert one[120] == other_tool[120] == other_upstream[120]
    assert len({one[60], other_tool[60], other_upstream[60]}) == 3
    assert len({b for found in (one, two) for b in found.values()}) == len(one) + len(two)
    assert len(max(buckets(A, "tool", "crm", "x" * 10_000).values(), key=len)) <= 256


def test_no_limits_cost_nothing():
    empty = PolicySet(PolicySpec()).limits
    assert limits_for(empty, A, Target("tool", "crm", "x")) == ()


def test_the_memory_is_bounded():
    policy = PolicySet(PolicySpec(limits=(LimitSpec(1, 1, id=1, per=("key",)),)))
    for at in range(10_000):
        policy.limits.find("user", "", "tool", "crm", f"t{at}")
    assert len(policy.limits._cache) <= 4096


def test_a_tool_that_calls_others_counts_as_they_do():
    def within(*calls):
        inner = [tuple(Target("tool", "crm", name) for name in call) for call in calls]
        found = limits_for(LIMITS, B, Target("tool", "crm", "call_tool"), inner)
        return sorted(
            (ref.spec.requests, ref.spec.window_seconds, ref.count, ref.bucket.rpartition(b"\0")[2]) for ref in found
        )

    assert within(("public.echo",), ("public.echo",), ("get",)) == [
        (3, 60, 2, b"tool:public.echo"),
        (5, 1, 1, b"tool:call_tool"),
        (5, 1, 1, b"tool:get"),
        (9, 60, 3, b"bot"),
        (60, 60, 1, b"tool:call_tool"),
        (60, 60, 1, b"tool:get"),
        (120, 60, 3, b"mcps_live_BBBBBBBBBBBB"),
    ]
    # However a name is read, it counts in the bucket of that reading; once a call.
    read = within(("crm/del_x", "del_x"))
    assert (1, 60, 1, b"tool:del_x") in read and (120, 60, 1, b"mcps_live_BBBBBBBBBBBB") in read
    direct = limits_for(LIMITS, B, Target("tool", "crm", "del_x"))
    assert {ref.bucket for ref in direct} <= {
        ref.bucket
        for ref in limits_for(LIMITS, B, Target("tool", "crm", "call_tool"), [(Target("tool", "crm", "del_x"),)])
    }


def test_a_resource_counts_in_one_bucket_however_it_is_spelled():
    text = 'roles: {u: {allow: ["*"]}}\nrate_limits: {limits: [{resource: "file:///Big/*", per: [key, tool], requests: 1, window_seconds: 60}]}'
    index = PolicySet(numbered(parse(text).spec)).limits
    found = [
        limits_for(index, A, Target("resource", "x", uri))
        for uri in ("file:///Big/A b", "file:///big/a%20B", "file:///small/a")
    ]
    assert (
        len({ref.bucket for ref in found[0] + found[1]}) == 1 and len(found[0]) == len(found[1]) == 1 and found[2] == ()
    )


def test_names_that_a_caller_makes_up_are_the_callers_own_share():
    found = limits_for(LIMITS, B, Target("tool", "crm", "made up"))
    assert {(ref.namer, "tool" in ref.spec.per) for ref in found} == {(b"mcps_live_BBBBBBBBBBBB", True), (b"", False)}
