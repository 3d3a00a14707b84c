"""From a journal's record to a row of the log, without cleaning twice what was cleaned when the event was made.

A frame's sum has shown that the record is what this installation's own process wrote. Whatever else is wrong with it, the
table refuses, and the frame goes to quarantine.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from time import gmtime, strftime
from typing import Any

from audit.events.event import EMPTY, row_values

__all__ = ["row_of"]

LAST = 253_402_300_799_999_999  # µs since 1970 at the end of the year 9999


def row_of(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """Give a record's values in the order of COLUMNS, for COPY: times as PostgreSQL reads them, JSON as text."""
    if not record.get("id") or not isinstance(record.get("ts"), int):
        raise ValueError("a record without an id or a time")
    return row_values({**EMPTY, **record}, _moment)


def _moment(ts: int) -> str:
    if not 0 <= ts <= LAST:
        raise ValueError("a time outside the years 1970 to 9999")
    second, micros = divmod(ts, 1_000_000)
    return f"{_second(second)}.{micros:06d}+00"


@lru_cache(maxsize=256)  # the events of a batch lie within a few seconds
def _second(second: int) -> str:
    return strftime("%Y-%m-%d %H:%M:%S", gmtime(second))
