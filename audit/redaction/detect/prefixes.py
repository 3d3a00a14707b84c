"""How a pattern begins (pure): a pattern without counts that matches wherever the whole one can begin to.

>>> opening(r"gh[pousr]_[A-Za-z0-9]{16,}")
'gh[pousr]_[A-Za-z0-9][A-Za-z0-9][A-Za-z0-9]'
"""

from __future__ import annotations

import re

__all__ = ("opening",)

_PART = re.compile(r"\\.|\[(?:\\.|[^\]\\])+\]|\(\?[a-zA-Z\-]*:|\(|\)|\||[*+?]\??|\{\d+(?:,\d*)?\}|.", re.S)
_COPIES = 3


def opening(pattern: str) -> str:
    """Give the beginning of a pattern in RE2's syntax: all up to its first count, of which three repetitions at most."""
    return _alternatives(_PART.findall(pattern), 0)[0]


def _alternatives(parts: list[str], at: int) -> tuple[str, int, bool]:
    """Read alternatives: their openings, where they end, and whether the openings are all there is."""
    made, complete = [], True
    while True:
        text, at, whole = _sequence(parts, at)
        made.append(text)
        complete = complete and whole
        if at >= len(parts) or parts[at] != "|":
            return "|".join(made), at, complete
        at += 1


def _sequence(parts: list[str], at: int) -> tuple[str, int, bool]:
    made: list[str] = []
    while at < len(parts) and parts[at] not in ("|", ")"):
        part, at, whole = parts[at], at + 1, True
        if part.startswith("("):
            inner, at, whole = _alternatives(parts, at)
            at += 1
            part = (part if part != "(" else "(?:") + inner + ")"
        count = parts[at] if at < len(parts) and _counts(parts[at]) else ""
        at += bool(count)
        if count == "?" and whole:
            made.append(part + "?")
            continue
        least = _least(count)
        made.append(part * min(least, _COPIES if whole else 1))
        if count or not whole:
            return "".join(made), _end_of_alternative(parts, at), False
    return "".join(made), at, True


def _counts(part: str) -> bool:
    return part[0] in "*+?" or (part[0] == "{" and len(part) > 1)


def _least(count: str) -> int:
    if not count or count[0] == "+":
        return 1
    return int(re.findall(r"\d+", count)[0]) if count[0] == "{" else 0


def _end_of_alternative(parts: list[str], at: int) -> int:
    depth = 0
    while at < len(parts):
        part = parts[at]
        if part.startswith("("):
            depth += 1
        elif depth == 0 and part in ("|", ")"):
            return at
        elif part == ")":
            depth -= 1
        at += 1
    return at
