"""Whether the tool or the upstream itself said that it failed: `tool_error` of an event.

It is noted where an answer is judged, in the event's details: `tool_error` for a result with `isError`, `rpc_error` for a
JSON-RPC error. What the gateway refuses, and what it says of an upstream that did not answer, is neither. A column holds
the one bit since there is one; in rows from before it is NULL, and their details are read instead, so that every row is
shown and found as what it is. There is no index: such events are common enough to be found by walking, and building
one would read every partition.
"""

from __future__ import annotations

from collections.abc import Container

__all__ = ["NOTES", "SQL", "said"]

#: the members of an event's details that say so
NOTES = ("tool_error", "rpc_error")
#: the same of a row; the details are looked at only where the column says nothing
SQL = "coalesce(tool_error, " + " OR ".join(f"details -> '{name}' IS NOT NULL" for name in NOTES) + ")"


def said(details: Container[str]) -> bool:
    """Tell whether an event's details say that the tool or the upstream failed."""
    return any(name in details for name in NOTES)
