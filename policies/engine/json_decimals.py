"""JSON read as conditions want it: a decimal that a double cannot hold stays what was written (pure).

The gateway reads calls strictly on its own; this is for arguments that come another way: from an event, from a command.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import orjson

__all__ = ["doubtful", "loads"]

# What may not survive the fast reader: many digits after the point, exponents, integers beyond 64 bits.
_HARD: Final = re.compile(r"\.\d{15}|\d[eE]|\d{17}")


def loads(text: str) -> Any:
    """Read one JSON text; ValueError when it is none."""
    return json.loads(text, parse_float=_number) if doubtful(text) else orjson.loads(text)


def doubtful(text: str) -> bool:
    """Tell whether the fast reader may alter a number of this text (it then reads it as a float)."""
    return _HARD.search(text) is not None


def _number(text: str) -> float | Decimal:
    """A float where one holds what was written, else the Decimal that does."""
    near = float(text)
    try:
        exact = Decimal(text)
        return near if Decimal(repr(near)) == exact else exact
    except InvalidOperation:
        return near
