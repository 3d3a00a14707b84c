"""Tasks: what a call leaves behind to be asked for later (`tasks/get`, `tasks/result`, `tasks/cancel`, `tasks/update`).

A task is ruled by the call that made it: whoever made it may ask for it as long as its role has the tool, without a rule for
these methods; another key's task, one of another upstream and one that never was are the same 404. So it is written down
which key made which task by which tool, before the answer that names the task goes out. What the upstream calls a task
passes as it is.

    the call that makes it     `expect` (where it asked for a task), `note` (when the answer names one)
    who asks for it            `claim` looks it up, `ruling` gives the tools that decide
    tasks/list                 `TaskBook.mine`: the rest is cut out
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

from policies.engine.types import Target
from policies.vocabulary import TASK_METHODS
from proxy.call import Call
from proxy.follow_ups.task_book import LONGEST, SHORTEST, Made, of_call, of_task
from proxy.gateway import Gateway
from proxy.http.refusals import refuse
from proxy.mcp.targets import TargetName

log = logging.getLogger("sentinel.proxy")


def owner(call: Call) -> str:
    """Name whose tasks a call may speak of: its key's at this very upstream, whoever has its name later."""
    spec = call.spec
    return blake2b(f"{call.key_id} {call.slug} {spec.id if spec else 0}".encode(), digest_size=20).hexdigest()


# -- the call that makes a task


def asks(call: Call) -> bool:
    """Whether a call wants to be a task (legacy; in the modern era the server decides that)."""
    message = call.message
    return (
        message is not None and message.method == "tools/call" and isinstance((message.params or {}).get("task"), dict)
    )


async def expect(gateway: Gateway, call: Call) -> None:
    """Write down a call that wants to be a task: its answer may come on another stream, which knows the call's name alone."""
    if call.target is not None and call.message is not None:
        seconds = gateway.config.resume_wait + SHORTEST
        await _keep(gateway, call, of_call(call.id), _maker(call, call.target), seconds)


async def note(gateway: Gateway, call: Call, result: dict[str, Any] | None, *, known_by: str = "") -> None:
    """Write down the task that an answer names, before it goes out; `known_by` names the call that it answers, where that is
    another one than the stream's.
    """
    if result is None or not (found := _task(result)):
        return
    made: Made | None = None
    if known_by:
        made = await asyncio.to_thread(gateway.tasks.made, owner(call), known_by)
    elif call.target is not None and (asks(call) or (call.era is not None and call.era.modern and _calls(call))):
        made = _maker(call, call.target)
    if made is not None:
        await _keep(gateway, call, of_task(found[0]), made, found[1])


def _calls(call: Call) -> bool:
    return call.message is not None and call.message.method == "tools/call"


def _task(result: dict[str, Any]) -> tuple[str, float] | None:
    """Find the id of the task that a result names, and how long it lives."""
    task = result.get("task")
    if not isinstance(task, dict):
        if result.get("resultType") != "task":
            return None
        task = result
    name, life = task.get("taskId"), task.get("ttl", task.get("ttlMs"))
    if not isinstance(name, str) or not name:
        return None
    if not isinstance(life, int | float) or isinstance(life, bool):
        return name, LONGEST
    return name, min(max(life, SHORTEST * 1000), LONGEST * 1000) / 1000


def _maker(call: Call, target: Target) -> Made:
    return Made(target.name, tuple(dict.fromkeys(inner[0].name for inner in call.within)))


async def _keep(gateway: Gateway, call: Call, name: str, made: Made, seconds: float) -> None:
    try:
        await asyncio.to_thread(gateway.tasks.keep, owner(call), name, made, seconds)
    except OSError as error:  # then nobody may ask for it, which is what its maker is told
        log.warning("a task could not be written down: %s", error, extra={"audit_id": str(call.id)})


# -- who asks for one


async def claim(gateway: Gateway, call: Call) -> None:
    """Look up the tasks that a message names."""
    message = call.message
    if message is None or not any(name.kind == "method" and name.name in TASK_METHODS for name in message.targets):
        return
    params = message.params or {}
    names = [params["taskId"]] if message.method in TASK_METHODS else params["notifications"]["taskIds"]
    mine = owner(call)

    def find() -> list[Made | None]:
        return [gateway.tasks.made(mine, of_task(name)) for name in names]

    call.tasks = await asyncio.to_thread(find)


def ruling(call: Call) -> Iterator[TargetName]:
    """Give what decides about a message: what it names, and in place of a task the tools of the call that made it."""
    for name in call.message.targets if call.message is not None else ():
        if name.kind != "method" or name.name not in TASK_METHODS:
            yield name
            continue
        if not call.tasks or None in call.tasks:
            raise refuse("unknown_task", call=call)
        for made in dict.fromkeys(filter(None, call.tasks)):
            call.within += tuple((Target("tool", call.slug, inner),) for inner in made.within)
            yield from made.targets
