"""Tools that call or describe another tool by name: the policy rules them by the inner name too (pure).

An upstream's `dispatchers` say which they are: `{"call_tool": "name"}`, or `{"run_many": "calls.*.tool"}` where the argument
lies deeper (`*` stands for each item of a list). With the role allowed `call_tool` but not `delete_customer`, a call of
`call_tool` whose `name` is `delete_customer` is refused like one of `delete_customer` itself.
"""

from __future__ import annotations

import re
from typing import Any, Final

__all__ = ["PATH", "inner_names"]

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
