"""How a pattern begins (pure): a pattern without counts that matches wherever the whole one can begin to.

>>> opening(r"gh[pousr]_[A-Za-z0-9]{16,}")
'gh[pousr]_[A-Za-z0-9][A-Za-z0-9][A-Za-z0-9]'
"""

from __future__ import annotations

import re

__all__ = ("opening",)

_TOKEN = re.compile(r"\\.|\[(?:\\.|[^\]\\])+\]|\(\?[a-zA-Z\-]*:|\(|\)|\||[*+?]\??|\{\d+(?:,\d*)?\}|.", re.S)
_COPIES = 3


def opening(pattern: str) -> str:
    """Give the beginning of a pattern in RE2's syntax: all up to its first count, of which three repetitions at most."""
    return _alternatives(_TOKEN.findall(pattern), 0)[0]


def _alternatives(tokens: list[str], at: int) -> tuple[str, int, bool]:
    """Read alternatives: their openings, where they end, and whether the openings are all there is."""
    made, complete = [], True
    while True:
        text, at, whole = _sequence(tokens, at)
        made.append(text)
        complete = complete and whole
        if at >= len(tokens) or tokens[at] != "|":
            return "|".join(made), at, complete
        at += 1


def _sequence(tokens: list[str], at: int) -> tuple[str, int, bool]:
    made: list[str] = []
    while at < len(tokens) and tokens[at] not in ("|", ")"):
        token, at, whole = tokens[at], at + 1, True
        if token.startswith("("):
            inner, at, whole = _alternatives(tokens, at)
            at += 1
            token = (token if token != "(" else "(?:") + inner + ")"
        count = tokens[at] if at < len(tokens) and _counts(tokens[at]) else ""
        at += bool(count)
        if count == "?" and whole:
            made.append(token + "?")
            continue
        least = _least(count)
        made.append(token * min(least, _COPIES if whole else 1))
        if count or not whole:
            return "".join(made), _end_of_alternative(tokens, at), False
    return "".join(made), at, True


def _counts(token: str) -> bool:
    return token[0] in "*+?" or (token[0] == "{" and len(token) > 1)


def _least(count: str) -> int:
    if not count or count[0] == "+":
        return 1
    return int(re.findall(r"\d+", count)[0]) if count[0] == "{" else 0


def _end_of_alternative(tokens: list[str], at: int) -> int:
    depth = 0
    while at < len(tokens):
        token = tokens[at]
        if token.startswith("("):
            depth += 1
        elif depth == 0 and token in ("|", ")"):
            return at
        elif token == ")":
            depth -= 1
        at += 1
    return at
