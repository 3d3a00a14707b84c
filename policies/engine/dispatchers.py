"""Tools that call or describe another tool by name: the policy rules them by the inner name too (pure).

An upstream's `dispatchers` say which they are: `{"call_tool": "name"}`, or `{"run_many": "calls.*.tool"}` where the argument
lies deeper (`*` stands for each item of a list). With the role allowed `call_tool` but not `delete_customer`, a call of
`call_tool` whose `name` is `delete_customer` is refused like one of `delete_customer` itself.

One level is looked into. A call that reaches a second such tool through the first is refused as that (`nested_call`): where that
one's arguments lie is the server's own affair. How the first one reads a name is not known either, so what denies or
calls others under a variant of it (case, white space, what follows `server/` or `server__`) does so under this one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from audit.reasons import REASONS
from policies.engine.folding import fold, varied
from policies.engine.types import NESTED, NO_RULE, Decision, Target

__all__ = ["PATH", "Inner", "dispatcher_path", "inner_calls", "inner_names", "refused_within"]

Inner = tuple[Target, ...]  # one tool that is called by name: as it is spelled, then what else the name may be read as

PATH: Final = re.compile(r"[^.\s*]{1,128}(?:\.(?:\*|[^.\s*]{1,128})){0,7}\Z")
MOST: Final = 100
LONGEST: Final = 512
MOST_PREFIXES: Final = 8
_PREFIX: Final = re.compile(r"/|\\|::?|__|\.")


def inner_names(arguments: Any, path: str) -> tuple[str, ...] | None:
    """The names that stand at a path of the arguments; None when what stands there names no tools, or too many."""
    found = [arguments]
    for part in path.split("."):
        deeper: list[Any] = []
        for value in found:
            if part == "*":
                if not isinstance(value, list):
                    return None
                deeper += value
            elif isinstance(value, dict) and part in value and not varied(value, part):
                deeper.append(value[part])
            else:
                return None
        found = deeper
        if len(found) > MOST:
            return None
    return tuple(found) if found and all(_is_name(name) for name in found) else None


def _is_name(value: Any) -> bool:
    """Whether a value can be a tool's name and no other in disguise: white space around it and what is unseen are none of it."""
    return isinstance(value, str) and 0 < len(value) <= LONGEST and value.isprintable() and value == value.strip()


def dispatcher_path(dispatchers: Mapping[str, str], name: str) -> str:
    """Where a tool's arguments name others, "" if it calls none; a variant of a name is that tool to some servers."""
    found = dispatchers.get(name)
    if found is None and dispatchers:
        folded = fold(name)
        found = next((path for tool, path in dispatchers.items() if fold(tool) == folded), None)
    return found or ""


def inner_calls(outer: Target, path: str, listed: Callable[[str], Sequence[str]]) -> tuple[Inner, ...] | None:
    """What a call of a dispatcher calls, each with all that its name may be read as; None where it names nothing.

    `listed` gives the tools that the upstream has of this name: itself, or those whose names fold alike.
    """
    names = inner_names(outer.arguments, path)
    if names is None:
        return None
    calls: list[Inner] = []
    for name in names:
        readings = [name]
        if name not in (known := listed(name)):
            tails = [name[found.end() :] for found in _PREFIX.finditer(name) if found.end() < len(name)]
            if len(tails) > MOST_PREFIXES:
                return None
            readings += [*known, *tails, *(alike for tail in tails for alike in listed(tail))]
        calls.append(tuple(Target("tool", outer.upstream, reading) for reading in dict.fromkeys(readings)))
    return tuple(calls)


def refused_within(
    outer: Target,
    path: str,
    calls: Sequence[Inner] | None,
    decide: Callable[[Target], Decision],
    nothing: Decision,
    nests: Callable[[str], bool],
) -> tuple[Target, Decision] | None:
    """What a call of a dispatcher may not have, of all that it calls; `nothing` is the answer where it names nothing.

    `nests` tells whether a tool calls others itself.
    """
    if calls is None:
        return outer, nothing
    given = not _bare(outer.arguments, path)
    for inner in dict.fromkeys(calls):
        for reading in inner:
            decision = decide(reading)
            if not decision.allowed and (reading is inner[0] or decision.reason != NO_RULE):
                return reading, decision
            if given and nests(reading.name):
                return reading, Decision(False, NESTED, None, REASONS[NESTED].message, decision.policy_version)
    return None


def _bare(arguments: Any, path: str) -> bool:
    """Whether arguments hold nothing but the names at a path, so that a tool that is called by them is given nothing."""
    if not path:
        return True
    part, _, rest = path.partition(".")
    if part == "*":
        return isinstance(arguments, list) and all(_bare(item, rest) for item in arguments)
    return isinstance(arguments, dict) and arguments.keys() == {part} and _bare(arguments[part], rest)
