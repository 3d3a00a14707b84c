"""What waits for an upstream is judged again: by the stages that let it in, with the key, the policy and the upstream of now.

A call may outlive whatever gave it: its key is rotated or moved to another role, the role is narrowed, the upstream is
disabled. So each that is on its way goes through *authenticate* and *authorize* again, on a copy that leaves no trace in its
event, and ends with a reason or goes on as what its key is now. An upstream that is disabled answers what it was asked before.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from proxy.mcp.message import Refused
from proxy.pipeline import authenticate, authorize

if TYPE_CHECKING:
    from proxy.call import Call
    from proxy.gateway import Gateway

#: a policy that could not be confirmed lately refuses new calls, and ends none
_PASSING = frozenset({"policy_stale"})


def judge(gateway: Gateway, call: Call) -> str:
    """Judge a call that waits, or an open stream; "" when it goes on (as its key's principal of now), else why it ends."""
    spec = gateway.upstream(call.slug)
    if spec is None or call.spec is None or (call.listens and spec.way != call.spec.way):
        return "upstream_changed" if call.streaming else ""
    again = copy(call)
    again.spec, again.target, again.decision = spec, None, None
    again.stages, again.details = [], {}
    failure = authenticate(gateway, again)
    if failure is not None:
        return "" if failure.reason in _PASSING else "revoked_during_stream"
    try:
        authorize(gateway, again)
    except Refused as refused:
        return "" if refused.reason in _PASSING else "denied_during_stream"
    call.principal = again.principal
    return ""
