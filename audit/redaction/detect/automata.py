"""RE2 for bytes (pure): patterns in linear time, and looks at a text that make no match object."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import re2

__all__ = ("Look", "compile_bytes", "finder", "options", "starter")

#: looks at text[begin:end], given (text, begin, end): the spans of the match and its groups, (-1, -1) for what there is not
Look = Callable[[bytes, int, int], Any]


def compile_bytes(pattern: str | bytes, *, case_sensitive: bool = True, captures: bool = True, memory: int = 16) -> Any:
    """Compile a pattern for bytes; `memory` in MiB."""
    data = pattern.encode("utf-8") if isinstance(pattern, str) else pattern
    return re2.compile(data, options(case_sensitive, captures, memory))


def options(case_sensitive: bool = True, captures: bool = True, memory: int = 16) -> Any:
    """Make the options of a pattern for bytes."""
    made = re2.Options()
    made.encoding = re2.Options.Encoding.LATIN1
    made.case_sensitive = case_sensitive
    made.never_capture = not captures
    made.log_errors = False
    made.max_mem = memory << 20
    return made


# What its own `search` and `match` do before they make objects: several times as dear as the look itself.
def finder(compiled: Any) -> Look:
    """Look for a pattern anywhere."""
    look: Look = partial(compiled._regexp.Match, re2._Anchor.UNANCHORED)
    return look


def starter(compiled: Any) -> Look:
    """Look for a pattern at the beginning alone."""
    look: Look = partial(compiled._regexp.Match, re2._Anchor.ANCHOR_START)
    return look
