"""How a payload is made to fit (pure).

What is kept of a long payload is the head and the tail of its redacted canonical text, as valid JSON that says how much
there was:

    {"_truncated": true, "_bytes": 123456, "_digest": "…", "_head": "{\\"jsonrpc\\":…", "_tail": "…}"}

Limits are in bytes of compact UTF-8 JSON, since that is what is stored: a quote counts twice once it stands in a string.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson

__all__ = (
    "HEAD_BYTES",
    "MAX_BYTES",
    "TAIL_BYTES",
    "cut_bytes",
    "head_and_tail",
    "head_of_text",
    "head_within",
    "prune",
    "tail_within",
)

MAX_BYTES = 8_192
HEAD_BYTES = 6_144
TAIL_BYTES = 1_024

# An escape or a replacement that the cut went through; what is left of it would say nothing or be read as something else.
_OPEN_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3}|u\{[0-9A-F]{0,6})?\Z")
_OPEN_REPLACEMENT = re.compile(r"\[R?E?D?A?C?T?E?D?:?[a-z0-9\-]{0,32}:?[0-9a-f]{0,8}\Z")
_REST_OF_REPLACEMENT = re.compile(r"\A[A-Z]{0,8}:?[a-z0-9\-]{0,32}:?[0-9a-f]{0,8}\]")


def cut_bytes(text: str, limit: int) -> str:
    """Keep at most `limit` UTF-8 bytes from the front, on a code-point boundary."""
    if len(text) * 4 <= limit:
        return text
    encoded = text.encode("utf-8", "replace")
    return text if len(encoded) <= limit else encoded[:limit].decode("utf-8", "ignore")


def head_of_text(text: str, limit: int) -> str:
    """Keep the front of a text within `limit` UTF-8 bytes, without half a replacement or escape at its end."""
    kept = cut_bytes(text, max(0, limit))
    if len(kept) == len(text):
        return text
    return _OPEN_ESCAPE.sub("", _OPEN_REPLACEMENT.sub("", kept))


def _fits(text: str, limit: int) -> bool:
    return len(orjson.dumps(text)) - 2 <= limit


def head_within(text: str, limit: int = HEAD_BYTES) -> str:
    """Keep the front of a text, within a limit that counts it as JSON."""
    low, high = 0, min(len(text), limit)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _fits(text[:middle], limit) else (low, middle - 1)
    head = text[:low]
    if low < len(text):
        head = _OPEN_REPLACEMENT.sub("", head)
        head = _OPEN_ESCAPE.sub("", head)
    return head


def tail_within(text: str, limit: int = TAIL_BYTES) -> str:
    """Keep the end of a text, within a limit that counts it as JSON."""
    low, high = 0, min(len(text), limit)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _fits(text[-middle:], limit) else (low, middle - 1)
    tail = text[len(text) - low :] if low else ""
    return _REST_OF_REPLACEMENT.sub("", tail) if low < len(text) else tail


def head_and_tail(head_of: str, tail_of: str, size: int, digest: str) -> str:
    """Word what is kept of a payload too long to keep, as compact JSON of at most MAX_BYTES."""
    envelope = {
        "_truncated": True,
        "_bytes": size,
        "_digest": digest,
        "_head": head_within(head_of),
        "_tail": tail_within(tail_of),
    }
    return orjson.dumps(envelope).decode()


Describe = Callable[[dict[str, Any]], dict[str, Any]]


def prune(value: Any, budget: int, from_end: bool = False, describe: Describe | None = None) -> tuple[Any, bool]:
    """Copy so much of a plain JSON value as could show within the first (or last) `budget` bytes of its text.

    What lies beyond is left out before it costs anything, so a million members are no more work than a thousand; also say
    whether anything was. A small object is kept whole, since a name in it may say what its value is. `describe` may put
    something shorter in the place of an object that holds a file.
    """
    pruner = _Pruner(budget, from_end, describe)
    return pruner.copy(value, 0), pruner.dropped


_WORD = 2_048
_BLANKS = " \n\t\r"


def _without_last_word(text: str) -> str:
    kept = len(text) - _WORD
    end = max(text.rfind(blank, max(0, kept)) for blank in _BLANKS)
    return text[: end if end >= 0 else max(0, kept)]


def _without_first_word(text: str) -> str:
    places = [at for blank in _BLANKS if (at := text.find(blank, 0, _WORD)) >= 0]
    return text[min(places) if places else _WORD :]


class _Pruner:
    def __init__(self, budget: int, from_end: bool, describe: Describe | None) -> None:
        self.left = budget
        self.from_end = from_end
        self.describe = describe
        self.dropped = False

    def copy(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return self._string(value)
        if isinstance(value, dict):
            return self._dict(value, depth)
        if isinstance(value, list):
            return self._list(value, depth)
        self.left -= 8
        return value

    def _string(self, value: str) -> str:
        room = max(self.left, 256)
        self.left -= len(value) + 3
        if len(value) <= room:
            return value
        self.dropped = True
        # The word that the cut went through is dropped: half a secret is no longer recognised as one.
        return _without_first_word(value[-room:]) if self.from_end else _without_last_word(value[:room])

    def _dict(self, value: dict[Any, Any], depth: int) -> dict[Any, Any]:
        if self.describe is not None:
            value = self.describe(value)
        small = len(value) <= 16
        kept: list[tuple[Any, Any]] = []
        for key in reversed(value) if self.from_end else value:
            if self.left <= 0 and not (small and not isinstance(value[key], (dict, list))):
                self.dropped = True
                if small:
                    continue
                break
            self.left -= len(key) + 4 if isinstance(key, str) else 8
            kept.append(
                (
                    self._string(key) if isinstance(key, str) and len(key) > 256 else key,
                    self.copy(value[key], depth + 1),
                )
            )
        if self.from_end:
            kept.reverse()
        return dict(kept)

    def _list(self, value: list[Any], depth: int) -> list[Any]:
        kept = []
        for item in reversed(value) if self.from_end else value:
            if self.left <= 0:
                self.dropped = True
                break
            self.left -= 1
            kept.append(self.copy(item, depth + 1))
        if self.from_end:
            kept.reverse()
            # One element more in front, whole or not at all: it may be the flag that makes the next one a secret.
            index = len(value) - len(kept) - 1
            if index >= 0 and isinstance(value[index], str) and len(value[index]) <= 256:
                kept.insert(0, value[index])
        return kept
