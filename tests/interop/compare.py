"""What differs between two walks, once what differs by nature (times, ids, ports, sessions) is taken out."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.interop.walk import Steps

BY_NATURE = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.I), "<uuid>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"\b\d{1,2}:\d\d:\d\d( ?[AP]M)?\b"), "<time>"),
    (re.compile(r"\b[0-9a-f]{24,}\b", re.I), "<hex>"),
    (re.compile(r"\b(127\.0\.0\.1|localhost|\[::1\]):\d+"), "<here>"),
    (re.compile(r"\b\d+(\.\d+)? ?(ms|seconds)\b"), "<duration>"),
)
#: members of a message that say nothing of what it means
IDS = {"id", "jsonrpc", "audit_id"}


def normal(value: Any) -> Any:
    """A value without what differs by nature."""
    if isinstance(value, dict):
        return {name: normal(member) for name, member in sorted(value.items()) if name not in IDS}
    if isinstance(value, list | tuple):
        return [normal(member) for member in value]
    if isinstance(value, str):
        for pattern, instead in BY_NATURE:
            value = pattern.sub(instead, value)
    return value


def differences(direct: Steps, through: Steps) -> dict[str, str]:
    """The steps that differ, and in what."""
    if len(through) == 1 < len(direct):  # it went no further
        return {"initialize": _told(normal(direct["initialize"]), normal(through["initialize"]))}
    found = {}
    for name in (*direct, *(name for name in through if name not in direct)):
        if name == "close" and not (name in direct and name in through):
            continue  # not each transport can say how it ended
        here, there = normal(direct.get(name)), normal(through.get(name))
        if here != there:
            found[name] = _told(here, there)
    return found


def silent(direct: Steps) -> list[str]:
    """The steps that a server does not answer even directly."""
    if len(direct) == 1:  # it went no further
        return ["initialize"]
    return [name for name, seen in direct.items() if isinstance(a := seen["answer"], str | dict) and "no answer" in a]


def _told(here: Any, there: Any, path: str = "") -> str:
    """The first place where two values differ, and what each has there."""
    if isinstance(here, dict) and isinstance(there, dict):
        for name in sorted({*here, *there}):
            if here.get(name) != there.get(name):
                return _told(here.get(name), there.get(name), f"{path}.{name}")
    if isinstance(here, list) and isinstance(there, list) and len(here) == len(there):
        for place, (one, other) in enumerate(zip(here, there, strict=True)):
            if one != other:
                return _told(one, other, f"{path}[{place}]")
    return f"{path.lstrip('.') or 'answer'}: direct {_short(here)}, through the gateway {_short(there)}"


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= 160 else f"{text[:157]}..."
