"""JSON read so that no other reader can read it otherwise: bytes in, a value out, or Unreadable.

How duplicates are found at C speed: the parsed value (in which the last duplicate won) is serialised again. If that equals
the body but for white space, nothing was lost and every number is what was written. Else the colons are counted on both
sides: every dropped member drops at least the colon after its name, and an escaped colon (\\u003a) is the only way to gain
one; so equal counts without such an escape prove that no member was lost. All other bodies are read by the slow, exact
reader.

Numbers come out as int, as float where a double holds exactly what was written (0.1, 1.50), else as Decimal.
"""

from __future__ import annotations

import json
import re
from array import array
from decimal import Decimal, InvalidOperation
from itertools import accumulate
from typing import Any, Final, NoReturn

import orjson

__all__ = ["MAX_DEPTH", "PROTOTYPE", "SURROGATE", "Unreadable", "parse", "too_deep"]

MAX_DEPTH: Final = 128
#: the member that JavaScript takes for an object's prototype, in which other members are then found
PROTOTYPE: Final = "__proto__"
MAX_NUMBER: Final = 400  # characters; the longest text of a finite double without an exponent has 309 digits


class Unreadable(Exception):
    """What is wrong with a body: the reason, and a sentence."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


_INEXACT = re.compile(rb"[0-9](?:[.eE]|[0-9]{15})")
_SPACE = b" \t\r\n"
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_AT_ONCE = 1 << 14
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
SURROGATE = re.compile("[\ud800-\udfff]")


def too_deep(body: bytes) -> bool:
    """Whether containers nest deeper than MAX_DEPTH; one linear look, without recursion, on any bytes."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    # Each bracket is a step up (1) or down (-1 as a signed byte); how high the steps lead is how deep the text nests.
    steps = array("b", _STRINGS.sub(b"", body).translate(_STEPS, _NOT_BRACKETS))
    depth = 0
    for place in range(0, len(steps), _AT_ONCE):  # in pieces, between which other threads have their turn
        heights = list(accumulate(steps[place : place + _AT_ONCE], initial=depth))
        if max(heights) > MAX_DEPTH:
            return True
        depth = heights[-1]
    return False


def _integer(text: str) -> int:
    if len(text) > MAX_NUMBER:
        raise Unreadable("invalid_request", "The message has a number that is too long.")
    number = int(text)
    try:
        float(number)
    except OverflowError:
        raise Unreadable("invalid_request", "The message has a number beyond the range of a double.") from None
    return number


def _decimal(text: str) -> float | Decimal:
    """A float where one holds what was written, else the Decimal that does (no condition may read it)."""
    if len(text) > MAX_NUMBER:
        raise Unreadable("invalid_request", "The message has a number that is too long.")
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise Unreadable("invalid_request", "The message has a number beyond the range of a double.")
    try:
        exact = Decimal(text)
    except InvalidOperation:
        raise Unreadable("invalid_request", "The message has a number with an absurd exponent.") from None
    return number if exact == Decimal(repr(number)) else exact


def _constant(text: str) -> NoReturn:
    raise Unreadable("not_json", f"The body is not JSON: {text} is not a value.")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Unreadable("duplicate_member", "An object in the message has the same member twice.")
    for name in members:
        if SURROGATE.search(name) is not None:
            raise Unreadable("lone_surrogate", "A member's name in the message has half a surrogate pair.")
    return members


_EXACT = json.JSONDecoder(
    object_pairs_hook=_members, parse_float=_decimal, parse_int=_integer, parse_constant=_constant
)


def _refuse_prototype(value: Any) -> None:
    """Refuse a member that JavaScript takes for an object's prototype: some servers drop it, some read through it."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if PROTOTYPE in item:
                raise Unreadable("reserved_member", f"An object in the message has the member {PROTOTYPE!r}.")
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def _exact(body: bytes) -> Any:
    """Read what the fast reader would not settle; exact, and some four times slower."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Unreadable("not_utf8", "The body is not UTF-8.") from None
    if too_deep(body):
        raise Unreadable("too_deep", f"The message nests deeper than {MAX_DEPTH} levels.")
    try:
        return _EXACT.decode(text)
    except ValueError as error:
        raise Unreadable("not_json", "The body is not JSON.") from error


def parse(body: bytes) -> Any:
    """Read one JSON text; raises Unreadable. Some 2 us for a call of 400 bytes."""
    return parse_compact(body)[0]


def parse_compact(body: bytes) -> tuple[Any, bytes]:
    """The same, and the text without its white space where that is all that was between the two readings, else b""."""
    value, compact = _parse(body)
    if b"__proto__" in body or b"\\u00" in body:  # as it is, or with a letter of it escaped
        _refuse_prototype(value)
    return value, compact


def _parse(body: bytes) -> tuple[Any, bytes]:
    if body[:3] == b"\xef\xbb\xbf":
        raise Unreadable("byte_order_mark", "The body begins with a byte order mark.")
    try:
        value = orjson.loads(body)
    except ValueError:
        return _exact(body), b""  # not JSON, or JSON with half surrogate pairs or huge numbers
    if too_deep(body):
        raise Unreadable("too_deep", f"The message nests deeper than {MAX_DEPTH} levels.")
    again = orjson.dumps(value)
    if again == body or again.translate(None, _SPACE) == body.translate(None, _SPACE):
        return value, again
    if again.count(b":") != body.count(b":") or b"\\u003a" in body or b"\\u003A" in body:
        return _exact(body), b""
    if _INEXACT.search(body) is not None and _has_float(value):
        return _exact(body), b""
    return value, b""


def _has_float(value: Any) -> bool:
    """Whether any number was read as a float (as integers beyond 64 bits are too)."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, float):
            return True
    return False
