"""Name patterns: `*` any characters, `?` one, all else literal, always the whole name, case-sensitive (pure).

Patterns without `?` become string methods, since a policy may have very many; the rest goes to RE2. Time is linear
whatever pattern meets whatever name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import re2


def is_literal(pattern: str) -> bool:
    return "*" not in pattern and "?" not in pattern


def literal_prefix(pattern: str) -> str:
    """What every matching name begins with."""
    return re.split(r"[*?]", pattern, maxsplit=1)[0]


def literal_suffix(pattern: str) -> str:
    """What every matching name ends with."""
    return re.split(r"[*?]", pattern)[-1]


def options() -> Any:
    """RE2's settings for everything that people write: no logging, bounded memory, dot matches newlines."""
    chosen = re2.Options()
    chosen.log_errors = False
    chosen.dot_nl = True
    chosen.max_mem = 1 << 20
    return chosen


def to_regex(pattern: str) -> str:
    """The pattern as a regular expression for a full match."""
    return "".join(".*" if c == "*" else "." if c == "?" else re2.escape(c) for c in re.sub(r"\*+", "*", pattern))


def _pieces(pattern: str) -> Callable[[str], bool]:
    """Match what stands between stars from left to right, each as early as it can be: no expression has to be compiled."""
    first, *between, last = pattern.split("*")
    inner = tuple(piece for piece in between if piece)
    least = len(pattern) - pattern.count("*")

    def match(name: str) -> bool:
        if len(name) < least or not name.startswith(first) or not name.endswith(last):
            return False
        at, end = len(first), len(name) - len(last)
        for piece in inner:
            found = name.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return at <= end

    return match


def matcher(pattern: str) -> Callable[[str], bool]:
    """Compile a pattern to a function from a name to yes or no."""
    if is_literal(pattern):
        return pattern.__eq__
    stars, rest = pattern.count("*"), pattern.strip("*")
    if is_literal(rest):
        if not rest:
            return lambda name: True
        if stars == 1:
            return (lambda name: name.startswith(rest)) if pattern[-1] == "*" else (lambda name: name.endswith(rest))
        if pattern[0] == "*" and pattern[-1] == "*":
            return lambda name: rest in name
        if pattern[-1] == "*":
            return lambda name: name.startswith(rest)
        return lambda name: name.endswith(rest)
    if "?" not in pattern:
        return _pieces(pattern)
    compiled = re2.compile(to_regex(pattern), options())

    def match(name: str) -> bool:
        try:
            return compiled.fullmatch(name) is not None
        except UnicodeEncodeError:
            return False

    return match
