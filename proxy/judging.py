"""The one rule for what comes back of an upstream, on every road: read whole and judged, or it does not pass.

    judged = await judge(gateway, call, data)      raises Broken; the event then keeps the head of what was refused

What is judged here is one message. Whether it may go out, and that its record comes first, is the relay's.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any, NamedTuple

from audit.redaction.sanitizer import MISSING
from policies.engine.decide import may_list
from policies.engine.types import ABSENT, Context, Target
from proxy.call import Call
from proxy.follow_ups.task_book import Mine
from proxy.follow_ups.tasks import owner
from proxy.gateway import Gateway
from proxy.mcp import replies
from proxy.mcp.listing import ItemKind, Unfilterable, filter_result, holds_list
from proxy.mcp.replies import Reply, Unreadable
from proxy.upstreams.transports.base import Broken

#: how much of an answer that is refused the event is made from
HEAD_BYTES = 64 * 1024
#: what servers tell of a task, in the one era and in the other
OF_TASKS = frozenset({"notifications/tasks/status", "notifications/tasks"})


class Judged(NamedTuple):
    """A message that may be passed on: what it says, and its bytes, without what the caller may not see."""

    reply: Reply
    data: bytes
    #: what the bytes were parsed to; MISSING where the two may differ
    value: Any
    #: the bytes without their white space, where that says the same to the letter
    compact: bytes = b""


async def judge(gateway: Gateway, call: Call, data: bytes) -> Judged:
    """Read one message of the upstream's, and take out of its lists what the caller may not call; raises Broken.

    What is large is read in a thread, in its caller's turn.
    """
    try:
        small = len(data) <= replies.LARGE_BYTES
        reply = replies.read(data) if small else await gateway.heavy.run(call.key_id, replies.read, data)
        result = reply.result
        # On a stream of the older transport nobody knows here what was asked.
        tasks = call.message is None or call.message.method == "tasks/list"
        if result is None or not holds_list(result, tasks=tasks):
            return Judged(reply, data, reply.value if reply.exact else MISSING, reply.compact)
        keep = _Keep(gateway, call)
        work = partial(filter_result, data, keep, tasks=tasks)
        found = work() if small else await gateway.heavy.run(call.key_id, work)
    except Unreadable as bad:
        await keep_head(gateway, call, data)
        raise Broken("The upstream's answer cannot be read.", detail=f"{bad.reason}: {bad.message}") from None
    except Unfilterable as error:
        await keep_head(gateway, call, data)
        raise Broken("The upstream's list cannot be read.", detail=str(error)) from None
    if keep.differs:
        gateway.registry.lists_changed(call.slug)
    call.details["list"] = {"kept": found.kept, "hidden": found.hidden}
    return Judged(reply, found.raw, MISSING)


async def withheld(gateway: Gateway, call: Call, reply: Reply) -> bool:
    """Tell whether a message speaks of a task that the caller may not ask for: a server that knows the gateway alone tells
    every stream, and a role may have lost the tool since. What a call's own stream says before its answer has named the task passes.
    """
    if reply.method not in OF_TASKS:
        return False
    if not call.answered and call.message is not None and call.message.method == "tools/call":
        return False
    params = reply.value.get("params")
    task = params.get("taskId") if isinstance(params, dict) else None
    if not isinstance(task, str):
        return True
    return not await asyncio.to_thread(_Keep(gateway, call), "task", task, {})


async def keep_head(gateway: Gateway, call: Call, data: bytes) -> None:
    """Have the event keep the beginning of what does not pass."""
    if call.event is not None and data:
        payload = await gateway.payload(data[:HEAD_BYTES], caller=call.key_id, level=call.level, side="response")
        call.event.complete(response_json=payload, response_bytes=len(data))


class _Keep:
    """Says of one list item whether the caller may see it: the same engine, snapshot and clock as for calls.

    Pure once it is made, so that a large list may be judged in a thread.
    """

    def __init__(self, gateway: Gateway, call: Call) -> None:
        self.snapshot = gateway.snapshot
        self.principal = call.principal
        self.spec = gateway.upstream(call.slug) or call.spec
        self.context = Context(now=datetime.now(UTC), client_ip=call.client_ip)
        self._book, self._call = gateway.tasks, call
        self.watched = self.spec is not None and gateway.registry.watched(self.spec)
        #: something is listed that the catalogue does not have so
        self.differs = False

    def _has(self, tool: str) -> bool:
        """Whether the caller has the tool that made a task."""
        if self.snapshot is None or self.principal is None or self.spec is None or self.spec.blocked("tool", tool):
            return False
        known = self.spec.definition("tool", tool)
        target = Target("tool", self.spec.slug, tool, ABSENT, known.annotations if known is not None else None)
        return may_list(self.snapshot.policy, self.principal, target, self.context)

    @cached_property
    def _tasks(self) -> Mine:
        return self._book.mine(owner(self._call))

    def __call__(self, kind: ItemKind, name: str, item: dict[str, Any]) -> bool:
        if self.snapshot is None or self.principal is None or self.spec is None:
            return False
        if kind == "task":
            made = self._tasks.made(name)
            return made is not None and all(self._has(tool) for tool in (made.name, *made.within))
        annotations = item.get("annotations")
        target = Target(kind, self.spec.slug, name, ABSENT, annotations if isinstance(annotations, dict) else None)
        if not may_list(self.snapshot.policy, self.principal, target, self.context):
            return False
        if self.watched and not self.differs:
            self.differs = self.spec.differs(kind, name, item)
        return not self.spec.blocked(kind, name, item)
