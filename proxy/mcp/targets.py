"""What a message names: the tool, prompt, resource or method that a policy decides about.

Names are read only from members spelled exactly so. A member that is a case, width or invisible variant of one that decides
something is refused, since some parsers would take it for that one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal, NamedTuple

from policies.engine.folding import fold
from policies.engine.types import ABSENT
from policies.vocabulary import OPEN_METHODS, OPEN_NOTIFICATIONS, OPEN_REQUESTS, TASK_METHODS
from proxy.mcp.strict_json import SURROGATE, Unreadable

__all__ = [
    "ABSENT",
    "CLIENT_CAPABILITIES",
    "CLIENT_INFO",
    "ENVELOPE",
    "META",
    "OPEN_NOTIFICATIONS",
    "PARAMS",
    "PROTOCOL_VERSION",
    "REQUESTS",
    "TargetKind",
    "TargetName",
    "named",
    "refuse_variants",
]

TargetKind = Literal["tool", "prompt", "resource", "method"]

MOST_TASKS: Final = 1_000

PROTOCOL_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
CLIENT_INFO: Final = "io.modelcontextprotocol/clientInfo"
CLIENT_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"


class TargetName(NamedTuple):
    """What a message names: the thing a policy speaks of, spelled exactly as it was sent."""

    kind: TargetKind
    name: str
    arguments: Any = ABSENT  # an object, or ABSENT: not sent, which is not the same as an empty object


# Members that decide something, at the levels where a target or an era is read.
ENVELOPE = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
PARAMS = frozenset(
    "_meta name arguments uri ref argument context notifications cursor level requestId reason progressToken progress "
    "total message requestState inputResponses task taskId protocolVersion capabilities clientInfo roots".split()
)
META = frozenset(
    {PROTOCOL_VERSION, CLIENT_INFO, CLIENT_CAPABILITIES, "io.modelcontextprotocol/logLevel", "progressToken"}
)
_REF = frozenset({"type", "name", "uri"})
_FILTER = frozenset(
    {"toolsListChanged", "promptsListChanged", "resourcesListChanged", "resourceSubscriptions", "taskIds"}
)


def _reserved(names: frozenset[str]) -> dict[str, str]:
    return {fold(name): name for name in names}


_FOLDED = {names: _reserved(names) for names in (ENVELOPE, PARAMS, META, _REF, _FILTER)}


def refuse_variants(members: dict[str, Any], names: frozenset[str]) -> None:
    """Refuse a member that is a case, width or invisible variant of a reserved one."""
    if members.keys() <= names:
        return
    folded = _FOLDED[names]
    for name in members.keys() - names:
        meant = folded.get(name) or folded.get(fold(name)) or folded.get(fold(name.partition("\0")[0]))
        if meant is not None:
            raise Unreadable("reserved_member", f"A member of the message is a variant of {meant!r}.")


def _text(members: dict[str, Any], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not value:
        raise Unreadable("invalid_params", f"{name} must be a string that is not empty.")
    if not value.isascii() and SURROGATE.search(value) is not None:
        raise Unreadable("lone_surrogate", f"{name} has half a surrogate pair.")
    return value


def _arguments(params: dict[str, Any]) -> Any:
    arguments = params.get("arguments", ABSENT)
    if arguments is ABSENT or isinstance(arguments, dict):
        return arguments
    raise Unreadable("invalid_params", "arguments must be an object when present.")


def _tool(params: dict[str, Any]) -> tuple[TargetName, ...]:
    return (TargetName("tool", _text(params, "name"), _arguments(params)),)


def _prompt(params: dict[str, Any]) -> tuple[TargetName, ...]:
    return (TargetName("prompt", _text(params, "name"), _arguments(params)),)


def _resource(params: dict[str, Any]) -> tuple[TargetName, ...]:
    return (TargetName("resource", _text(params, "uri")),)


def _subscription(params: dict[str, Any]) -> tuple[TargetName, ...]:
    meta = params.get("_meta")
    if isinstance(meta, dict) and PROTOCOL_VERSION in meta and not isinstance(params.get("uri"), str):
        return ()  # the modern era has no such method, and refuses it as that whatever its params are
    return _resource(params)


def _completion(params: dict[str, Any]) -> tuple[TargetName, ...]:
    ref = params.get("ref")
    if not isinstance(ref, dict):
        raise Unreadable("invalid_params", "ref must be an object.")
    refuse_variants(ref, _REF)
    if ref.get("type") == "ref/prompt":
        return (TargetName("prompt", _text(ref, "name")),)
    if ref.get("type") == "ref/resource":
        return (TargetName("resource", _text(ref, "uri")),)
    raise Unreadable("invalid_params", "ref.type must be ref/prompt or ref/resource.")


def _listen(params: dict[str, Any]) -> tuple[TargetName, ...]:
    wanted = params.get("notifications")
    if wanted is None:
        return ()  # the upstream says what it thinks of that; nothing is named
    if not isinstance(wanted, dict):
        raise Unreadable("invalid_params", "notifications must be an object.")
    refuse_variants(wanted, _FILTER)
    targets: list[TargetName] = []
    uris = wanted.get("resourceSubscriptions", [])
    if not isinstance(uris, list):
        raise Unreadable("invalid_params", "resourceSubscriptions must be an array of URIs.")
    for uri in uris:
        targets.append(TargetName("resource", _text({"uri": uri}, "uri")))
    tasks = wanted.get("taskIds", [])
    if not isinstance(tasks, list) or len(tasks) > MOST_TASKS:
        raise Unreadable("invalid_params", f"taskIds must be an array of at most {MOST_TASKS} ids.")
    for task in tasks:
        _text({"taskId": task}, "taskId")
    if tasks:
        targets.append(TargetName("method", "tasks/get"))
    if not wanted.keys() <= _FILTER:
        targets.append(
            TargetName("method", "subscriptions/listen")
        )  # an extension's filter, which names who knows what
    return tuple(targets)


def _task(method: str, params: dict[str, Any]) -> tuple[TargetName, ...]:
    _text(params, "taskId")
    return (TargetName("method", method),)


_NAMES: Final[dict[str, Callable[[dict[str, Any]], tuple[TargetName, ...]]]] = {
    "tools/call": _tool,
    "prompts/get": _prompt,
    "resources/read": _resource,
    "resources/subscribe": _subscription,
    "resources/unsubscribe": _subscription,
    "completion/complete": _completion,
    "subscriptions/listen": _listen,
    **{method: partial(_task, method) for method in TASK_METHODS},
}
REQUESTS = OPEN_REQUESTS | _NAMES.keys()  # methods that make no sense without an id


def named(method: str, params: dict[str, Any]) -> tuple[TargetName, ...]:
    """What a method's params name: nothing for what clients send by themselves, the method itself for what is not known here."""
    reader = _NAMES.get(method)
    if reader is not None:
        return reader(params)
    return () if method in OPEN_METHODS else (TargetName("method", method),)
