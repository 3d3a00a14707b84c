"""Tools that call or describe another tool by name: the policy rules them by the inner name too (pure).

An upstream's `dispatchers` say which they are: `{"call_tool": "name"}`, or `{"run_many": "calls.*.tool"}` where the argument
lies deeper (`*` stands for each item of a list). With the role allowed `call_tool` but not `delete_customer`, a call of
`call_tool` whose `name` is `delete_customer` is refused like one of `delete_customer` itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from policies.engine import Decision, Target

__all__ = ["PATH", "inner_names", "refused_within"]

PATH: Final = re.compile(r"[^.\s*]{1,128}(?:\.(?:\*|[^.\s*]{1,128})){0,7}\Z")
MOST: Final = 100


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
            elif isinstance(value, dict) and part in value:
                deeper.append(value[part])
            else:
                return None
        found = deeper
        if len(found) > MOST:
            return None
    return tuple(found) if found and all(type(name) is str and name for name in found) else None


def refused_within(
    outer: Target, names: tuple[str, ...] | None, decide: Callable[[Target], Decision], nothing: Decision
) -> tuple[Target, Decision] | None:
    """What a call of a dispatcher may not have, of all that it names; `nothing` is the answer where it names nothing."""
    if names is None:
        return outer, nothing
    for name in names:
        inner = Target("tool", outer.upstream, name)
        decision = decide(inner)
        if not decision.allowed:
            return inner, decision
    return None
