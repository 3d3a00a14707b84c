"""The walk: everything that a server offers, step by step, and what came of each step.

A step gives what the server answered, what it asked and what it said meanwhile; None where the server does not offer it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from http.client import HTTPException
from typing import Any

from tests.interop.peers import Message, Peer, Silent
from tests.interop.servers import Server
from tests.support.clients import PATIENCE

#: what the client says that it can do
CAPABILITIES: Message = {"sampling": {}, "elicitation": {}, "roots": {"listChanged": True}}
BOUND = 20
#: what comes after an answer, on another stream or in another thread, comes within this
SETTLED = 0.4

#: what a step may meet that says only that its server does not answer as it should
BROKEN = (Silent, OSError, HTTPException, LookupError)

Steps = dict[str, Any]
Step = Callable[[Peer, Server, Message], Any]
STEPS: list[tuple[str, Step]] = []


def step(name: str) -> Callable[[Step], Step]:
    """Put a function into the walk; steps are walked in the order in which they stand here."""

    def register(function: Step) -> Step:
        STEPS.append((name, function))
        return function

    return register


def walk(peer: Peer, server: Server, modern: bool = False) -> Steps:
    """Walk a server from the first message to the last."""
    seen: Steps = {}
    try:
        capabilities = _begin(peer, seen, modern)
    except BROKEN:
        seen.setdefault("initialize", {"answer": "no answer"})
        return seen
    for name, function in STEPS:
        if server.steps is not None and name not in server.steps:
            continue
        del peer.notifications[:], peer.asked[:]
        try:
            answer = function(peer, server, capabilities)
        except BROKEN as error:
            answer = "no answer" if isinstance(error, Silent) else f"no answer: {type(error).__name__}"
        if answer is None:
            continue
        seen[name] = {"answer": answer}
        if name in PATIENT:
            time.sleep(SETTLED * PATIENCE)
        if peer.asked:
            seen[name]["asked"] = list(peer.asked)
        if peer.notifications and name in PATIENT:  # elsewhere it is what comes late from a step before
            seen[name]["said"] = sorted(map(_said, peer.notifications), key=repr)
    return seen


#: steps whose server may say something beside its answer
PATIENT = {"call", "progress", "sampling", "elicitation", "roots", "logging", "list changed", "subscribe"}


def _begin(peer: Peer, seen: Steps, modern: bool) -> Message:
    if modern:
        answer = peer.ask("server/discover", timeout=BOUND)
    else:
        client = {"name": "walker", "version": "1"}
        hello = {"protocolVersion": "2025-11-25", "capabilities": CAPABILITIES, "clientInfo": client}
        answer = peer.ask("initialize", hello, BOUND * 2)
    seen["initialize"] = {"answer": answer}
    if "result" not in answer:
        raise Silent
    if not modern:
        peer.notify("notifications/initialized")
        peer.listen(answer["result"]["protocolVersion"])
        time.sleep(3 * SETTLED * PATIENCE)  # servers then ask for roots, and offer more
    capabilities: Message = answer["result"].get("capabilities", {})
    return capabilities | {"modern": modern}


def _said(notification: Message) -> Any:
    return [
        notification.get("method"),
        notification.get("params"),
        *([] if "method" in notification else [notification]),
    ]


def _call(peer: Peer, target: tuple[str, Message] | None, meta: Message | None = None) -> Any:
    if target is None:
        return None
    name, arguments = target
    return peer.ask("tools/call", {"name": name, "arguments": arguments} | ({"_meta": meta} if meta else {}), BOUND)


def _pages(peer: Peer, method: str) -> Any:
    """Every page of a list."""
    pages, cursor = [], None
    while True:
        answer = peer.ask(method, {"cursor": cursor} if cursor else {}, BOUND)
        pages.append(answer)
        cursor = answer.get("result", {}).get("nextCursor")
        if not cursor or len(pages) > 20:
            return pages


@step("ping")
def _ping(peer: Peer, server: Server, able: Message) -> Any:
    return None if able["modern"] else peer.ask("ping", timeout=BOUND)


@step("list")
def _list(peer: Peer, server: Server, able: Message) -> Any:
    return _pages(peer, "tools/list") if "tools" in able else None


@step("call")
def _good(peer: Peer, server: Server, able: Message) -> Any:
    return _call(peer, server.good)


@step("tool error")
def _bad(peer: Peer, server: Server, able: Message) -> Any:
    return _call(peer, server.bad)


@step("unknown tool")
def _unknown(peer: Peer, server: Server, able: Message) -> Any:
    return _call(peer, ("no_such_tool", {})) if "tools" in able else None


@step("resources")
def _resources(peer: Peer, server: Server, able: Message) -> Any:
    if "resources" not in able:
        return None
    lists = _pages(peer, "resources/list"), _pages(peer, "resources/templates/list")
    found = [item["uri"] for page in lists[0] for item in page.get("result", {}).get("resources", [])]
    return lists, [peer.ask("resources/read", {"uri": uri}, BOUND) for uri in (*found[:2], "test://no/such")]


@step("subscribe")
def _subscribe(peer: Peer, server: Server, able: Message) -> Any:
    if not able.get("resources", {}).get("subscribe") or able["modern"]:
        return None
    uri = peer.ask("resources/list", {}, BOUND)["result"]["resources"][0]["uri"]
    return [peer.ask(method, {"uri": uri}, BOUND) for method in ("resources/subscribe", "resources/unsubscribe")]


@step("prompts")
def _prompts(peer: Peer, server: Server, able: Message) -> Any:
    if "prompts" not in able:
        return None
    pages = _pages(peer, "prompts/list")
    found = [item for page in pages for item in page.get("result", {}).get("prompts", [])]
    wanted = [(item["name"], {a["name"]: "1" for a in item.get("arguments") or []}) for item in found[:2]]
    wanted.append(("no_such_prompt", {}))
    return pages, [peer.ask("prompts/get", {"name": name, "arguments": given}, BOUND) for name, given in wanted]


@step("completion")
def _completion(peer: Peer, server: Server, able: Message) -> Any:
    if server.completes is None or "completions" not in able:
        return None
    prompt, argument = server.completes
    ref = {"type": "ref/prompt", "name": prompt}
    return peer.ask("completion/complete", {"ref": ref, "argument": {"name": argument, "value": "A"}}, BOUND)


@step("logging")
def _logging(peer: Peer, server: Server, able: Message) -> Any:
    if "logging" not in able or able["modern"]:
        return None
    return [peer.ask("logging/setLevel", {"level": level}, BOUND) for level in ("debug", "no such level", "info")]


@step("progress")
def _progress(peer: Peer, server: Server, able: Message) -> Any:
    return _call(peer, server.progress, {"progressToken": "walking"})


@step("sampling")
def _sampling(peer: Peer, server: Server, able: Message) -> Any:
    return _call(peer, server.sampling)


@step("elicitation")
def _elicitation(peer: Peer, server: Server, able: Message) -> Any:
    return _call(peer, server.elicitation)


@step("roots")
def _roots(peer: Peer, server: Server, able: Message) -> Any:
    return _call(peer, server.roots)


@step("tasks")
def _tasks(peer: Peer, server: Server, able: Message) -> Any:
    if server.task is None or "tasks" not in able:
        return None
    name, arguments = server.task
    made = peer.ask("tools/call", {"name": name, "arguments": arguments, "task": {"ttl": 60000}}, BOUND)
    task = made.get("result", {}).get("task", {}).get("taskId", "none")
    return made, peer.ask("tasks/get", {"taskId": task}, BOUND), peer.ask("tasks/result", {"taskId": task}, BOUND)


@step("list changed")
def _list_changed(peer: Peer, server: Server, able: Message) -> Any:
    return None if able["modern"] else _call(peer, server.announces)


@step("cancel")
def _cancel(peer: Peer, server: Server, able: Message) -> Any:
    """A cancelled call has no answer, and the session goes on; what an answer says is no matter.

    It stands late in the walk, since there are servers that it ends.
    """
    if server.slow is None or able["modern"]:
        return None
    name, arguments = server.slow
    number = peer.begin("tools/call", {"name": name, "arguments": arguments})
    time.sleep(1)
    peer.notify("notifications/cancelled", {"requestId": number, "reason": "changed my mind"})
    began = time.monotonic()
    try:
        answer: Any = sorted(peer.wait(number, 1))
    except Silent:
        answer = "no answer"
    alive = peer.ask("ping", timeout=BOUND)
    return answer, "late" if time.monotonic() - began > 10 else "at once", alive


@step("close")
def _close(peer: Peer, server: Server, able: Message) -> Any:
    status = peer.close()  # a second close, at the end, does nothing more
    return None if status is None else {"status": status}
