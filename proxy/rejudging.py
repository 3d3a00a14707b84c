"""What is open is judged again: by the stages that let it in, with the key, the policy and the upstream of now.

A stream may outlive whatever gave it: its key is rotated or moved to another role, the role is narrowed, the upstream is
disabled. So every open stream goes through *authenticate* and *authorize* again, on a copy that leaves no trace in its
event, and ends with a reason or goes on as what its key is now.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from proxy.message import Refused
from proxy.pipeline import authenticate, authorize

if TYPE_CHECKING:
    from proxy.call import Call
    from proxy.gateway import Gateway

#: a policy that could not be confirmed lately refuses new calls, and ends none
_PASSING = frozenset({"policy_stale"})


def judge(gateway: Gateway, call: Call) -> str:
    """Judge an open stream; "" when it goes on (as its key's principal of now), else why it ends."""
    spec = gateway.upstream(call.slug)
    if spec is None or call.spec is None or (_listens(call) and spec.way != call.spec.way):
        return "upstream_changed"
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


def _listens(call: Call) -> bool:
    """Whether it waits for what the upstream will say some time; the answer to a call may still come the old way."""
    return call.verb == "GET" or (call.message is not None and call.message.method == "subscriptions/listen")
