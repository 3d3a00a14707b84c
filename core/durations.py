"""Spans of time as people write them on a command line: 90s, 30m, 12h, 7d, 2w (pure)."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def parse_duration(text: str) -> timedelta:
    """Read a span such as `30d`; ValueError says how one is written."""
    found = re.fullmatch(r"(\d{1,9})([smhdw])", text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a span of time; write 90s, 30m, 12h, 7d or 2w")
    try:
        return timedelta(seconds=int(found[1]) * _UNITS[found[2]])
    except OverflowError:
        raise ValueError(f"{text!r} is too long a span of time") from None
