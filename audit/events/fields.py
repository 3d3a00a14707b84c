"""The kinds of fields that an event has: what each makes of whatever it is given, so that the table takes it (pure)."""

from __future__ import annotations

import ipaddress
import math
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Self, TypeVar, overload

from audit.redaction import json_digits
from audit.redaction.sanitizer import Sanitizer

__all__ = (
    "EPOCH",
    "MOST",
    "NAME_BYTES",
    "DocumentField",
    "Field",
    "Holder",
    "TextField",
    "address",
    "decision",
    "document",
    "flag",
    "identity",
    "maybe_milliseconds",
    "microseconds",
    "milliseconds",
    "moment",
    "name",
    "one_of",
    "text",
    "verdict",
    "whole",
)

T = TypeVar("T")
Clean = Callable[[Any, Sanitizer], Any]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOST = (1 << 63) - 1
NAME_BYTES = 512


class Holder:
    """What has fields: the values of those that were said, by name."""

    __slots__ = ("_fields", "_sanitizer")

    _fields: dict[str, Any]
    _sanitizer: Sanitizer

    def complete(self, **fields: Any) -> Any:
        """Take values, each through the `clean` of its field."""
        raise NotImplementedError


class Field(Generic[T]):
    """One field: `clean` makes its value of anything, `empty` is read where nothing was said; `shape` and `help` describe it."""

    name: str

    def __init__(self, clean: Clean, empty: Any, shape: str, help: str = "") -> None:
        self.clean, self.empty, self.shape, self.help = clean, empty, shape, help

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, holder: None, owner: type) -> Self: ...
    @overload
    def __get__(self, holder: Holder, owner: type) -> T: ...
    def __get__(self, holder: Holder | None, owner: type) -> Any:
        return self if holder is None else holder._fields.get(self.name, self.empty)

    def __set__(self, holder: Holder, value: Any) -> None:
        # Assigning is completing: there is no way around `clean`.
        holder.complete(**{self.name: value})


class TextField(Field[T]):
    """A text of others: what the sanitizer has seen before, and found nothing in, passes at once."""


class DocumentField(Field[Any]):
    """JSON, held as its text."""

    def __get__(self, holder: Holder | None, owner: type) -> Any:
        if holder is None:
            return self
        held = holder._fields.get(self.name, self.empty)
        return None if held is None else json_digits.loads(held)


def identity(value: Any, _: Sanitizer) -> uuid.UUID | None:
    """Take a UUID, or one that is written out."""
    if type(value) is uuid.UUID:
        return value
    if isinstance(value, str) and len(value) in (32, 36):
        try:
            return uuid.UUID(value)
        except ValueError:
            return None
    return None


def text(limit: int, help: str = "") -> TextField[str]:
    """Text of at most so many bytes."""

    def clean(value: Any, sanitizer: Sanitizer) -> str:
        return value if value == "" and type(value) is str else sanitizer.text(value, limit)

    return TextField(clean, "", "text", help)


def name(help: str = "") -> TextField[str | None]:
    """A name as it was sent, or that there was none."""

    def clean(value: Any, sanitizer: Sanitizer) -> str | None:
        return None if value is None else sanitizer.text(value, NAME_BYTES)

    return TextField(clean, None, "text", help)


def one_of(words: tuple[str, ...], otherwise: str, help: str = "") -> Field[str]:
    """One of our own words."""
    known = {word: word for word in words}

    def clean(value: Any, _: Sanitizer) -> str:
        return known.get(value, otherwise) if isinstance(value, str) else otherwise

    return Field(clean, otherwise, "text", help)


def address(value: Any, _: Sanitizer) -> str | None:
    """Take an IP address, without its zone."""
    if not isinstance(value, (str, ipaddress.IPv4Address, ipaddress.IPv6Address)):
        return None
    cached = _addresses.get(value) if isinstance(value, str) else None
    if cached is not None:
        return cached
    try:
        text = str(ipaddress.ip_address(str(value).strip()[:64].partition("%")[0]))
    except ValueError:
        return None
    if isinstance(value, str):
        if len(_addresses) > 4096:
            _addresses.clear()
        _addresses[value] = text
    return text


_addresses: dict[str, str] = {}


def whole(least: int, most: int, help: str = "") -> Field[int]:
    """A whole number within bounds; the least where there is none."""

    def clean(value: Any, _: Sanitizer) -> int:
        if type(value) is not int:
            try:
                value = int(value)
            except (TypeError, ValueError, OverflowError):
                return least
        return least if value < least else most if value > most else value

    return Field(clean, least, "whole", help)


def milliseconds(value: Any, _: Sanitizer) -> float:
    try:
        value = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return round(value, 3) if 0.0 <= value < 1e15 else 0.0


def maybe_milliseconds(value: Any, sanitizer: Sanitizer) -> float | None:
    """Take a duration, or that there was none."""
    return None if value is None else milliseconds(value, sanitizer)


def microseconds(value: Any, _: Sanitizer) -> int | None:
    """Take a moment, as microseconds since 1970."""
    if value is None:
        return None
    if isinstance(value, datetime):
        value = value if value.tzinfo else value.replace(tzinfo=UTC)
        delta: timedelta = value - EPOCH
        return max((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds, 0)
    if isinstance(value, str):
        try:
            return microseconds(datetime.fromisoformat(value), _)
        except ValueError:
            return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    try:
        return min(max(int(value), 0), 253_402_300_799_999_999)
    except (TypeError, ValueError, OverflowError):
        return None


def moment(help: str = "") -> Field[int | None]:
    """A moment, or that there was none."""
    return Field(microseconds, None, "time", help)


def flag(value: Any, _: Sanitizer) -> bool:
    """Take a yes or a no."""
    return bool(value)


def verdict(value: Any, _: Sanitizer) -> bool | None:
    """Take a yes or a no, or that nothing was said."""
    return None if value is None else bool(value)


def document(value: Any, sanitizer: Sanitizer) -> str:
    """Take small JSON of our own making, with names and texts of others in it: kept as text."""
    if value is None:
        return "{}"
    return sanitizer.document(value)


def decision(value: Any, sanitizer: Sanitizer) -> str:
    """Take a decision: what its stages took differs each time, while the rest is the same for every call under a rule."""
    stages = value.get("stages") if type(value) is dict else None
    if type(stages) is list and stages:
        try:
            alike = [
                (one["stage"], one["result"])
                for one in stages
                # No number that could be more than a duration.
                if len(one) == 3 and type(one["us"]) is int and 0 <= one["us"] < 10_000_000_000
            ]
        except (TypeError, KeyError):
            alike = []
        if len(alike) == len(stages):
            return sanitizer.document(value, {**value, "stages": alike})
    return document(value, sanitizer)
