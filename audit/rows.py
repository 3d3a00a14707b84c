"""From a journal's record to a row of the log, without cleaning twice what was cleaned when the event was made.

A frame's sum has shown that the record is what this installation's own process wrote. Whatever else is wrong with it, the
table refuses, and the frame goes to quarantine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audit import event as events

__all__ = ["COLUMNS", "row_of"]

COLUMNS = events.COLUMNS


def row_of(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """Give a record's values in the order of COLUMNS."""
    if not record.get("id") or not isinstance(record.get("ts"), int):
        raise ValueError("a record without an id or a time")
    event = events.Event.__new__(events.Event)
    object.__setattr__(event, "_fields", {**events._EMPTY, **record})
    return event.as_row()
