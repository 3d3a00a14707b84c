"""JSON whose numbers keep the digits they were sent with (pure).

A log that says 1.1 where 1.10 was sent, or 1.5e21 where an account's number stood, is no evidence. So a number that a double
would write otherwise is read as a `Digits`: a float that remembers its text and is written as that text again.

    >>> dumps(loads(b'{"a": 1.10, "b": 12345678901234567.89, "c": 0.5}'))
    b'{"a":1.10,"b":12345678901234567.89,"c":0.5}'

Few bodies have such a number, and the fast reader settles all others: what it wrote again is what it read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Final

import orjson
import re2

__all__ = ["LONGEST", "Digits", "dumps", "exact", "loads", "marked", "same"]

#: longer numbers are text that says how long they are
LONGEST: Final = 100

_SPACE = b" \t\r\n"
# A number that may be written in more than one way, or any text that looks like one. In linear time, since a whole body is
# looked through; a boundary on its left, since most texts with digits in them are names and times.
_ODD = re2.compile(rb"[0-9][.eE]|[0-9]{15}|(?:^|[:,\[\s])-0")


class Digits(float):
    """A number and the text it was written as."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Digits:
        """Read a number's text."""
        made = super().__new__(cls, text)
        made.text = text
        return made

    def __repr__(self) -> str:
        return self.text

    __str__ = __repr__

    def __reduce__(self) -> tuple[type[Digits], tuple[str]]:
        return Digits, (self.text,)


def same(raw: bytes, written: bytes) -> bool:
    """Whether what the fast reader read and wrote again has every number as it stood."""
    # In this order: most bodies are what was written, but for white space, and only the last look is dear.
    return raw == written or raw.translate(None, _SPACE) == written.translate(None, _SPACE) or _ODD.search(raw) is None


def exact(raw: bytes, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Read JSON, each number with its digits; ValueError when it is none. Some ten times slower than `orjson.loads`."""
    return json.loads(
        raw.decode("utf-8-sig", "surrogatepass"),
        parse_int=_whole,
        parse_float=_decimal,
        parse_constant=str,
        object_pairs_hook=pairs,
    )


def loads(raw: bytes | str) -> Any:
    """Read JSON, each number with its digits; as fast as orjson where that loses none."""
    raw = raw.encode() if isinstance(raw, str) else raw
    value = orjson.loads(raw)
    return value if _ODD.search(raw) is None or same(raw, orjson.dumps(value)) else exact(raw)


def dumps(value: Any) -> bytes:
    """Write compact JSON; TypeError or ValueError for what orjson does not write."""
    return orjson.dumps(value, default=_default)


def marked(value: Any) -> Any:
    """Put text in the place of numbers that were read as doubles and may have been others."""
    if isinstance(value, dict):
        return {name: marked(item) for name, item in value.items()}
    if isinstance(value, list):
        return [marked(item) for item in value]
    return f"[NUMBER:about {value!r}]" if isinstance(value, float) and not isinstance(value, Digits) else value


def _default(value: Any) -> Any:
    if isinstance(value, Digits):
        return orjson.Fragment(value.text)
    raise TypeError(f"not JSON: {type(value).__name__}")


def _whole(text: str) -> Any:
    if len(text) <= 18 and text != "-0":
        return int(text)
    if len(text) > LONGEST:
        return f"[NUMBER:{len(text)} digits]"
    value = int(text)
    return value if -(1 << 63) <= value < 1 << 64 and value else Digits(text)


def _decimal(text: str) -> Any:
    """A float where it is written as it was, else its digits; text where no reader would agree on it."""
    if len(text) > LONGEST:
        return f"[NUMBER:{len(text)} characters]"
    value = float(text)
    if not math.isfinite(value):
        return text
    return value if repr(value) == text and "e" not in text else Digits(text)
