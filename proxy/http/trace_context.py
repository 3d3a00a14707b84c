"""Trace context of a request (W3C Trace Context and Baggage): parsed by its grammar, and written anew (pure).

What does not parse is left out, as the standards want it: a trace is never worth a refusal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from core.types import Headers

TRACEPARENT, TRACESTATE, BAGGAGE = b"traceparent", b"tracestate", b"baggage"

MAX_STATE, MAX_STATES = 512, 32
MAX_BAGGAGE, MAX_ENTRIES = 2048, 64

_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_STATE = re.compile(
    rb"((?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}))=([ -+\--<>-~]{0,255}[!-+\--<>-~])"
)
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_VALUE = rb"[!#-+\--:<-\[\]-~]*"
_PROPERTY = rb"[ \t]*;[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*" + _VALUE + rb")?"
_ENTRY = re.compile(rb"(" + _TOKEN + rb")[ \t]*=[ \t]*" + _VALUE + rb"(?:" + _PROPERTY + rb")*")


def parent(values: Sequence[bytes]) -> bytes:
    """Give the traceparent of a request, b"" when there is none, more than one, or one that is none.

    A later version may be longer: what this one knows of it is passed on, as the standard says.
    """
    if len(values) != 1:
        return b""
    value = values[0].strip(b" \t")
    match = _TRACEPARENT.match(value)
    if match is None or (len(value) > 55 and (value[:2] == b"00" or value[55:56] != b"-")):
        return b""
    return b"00" + match[0][2:]


def state(values: Iterable[bytes]) -> bytes:
    """Give the tracestate, its lines joined; b"" when an entry is none."""
    found: dict[bytes, bytes] = {}
    for entry in b",".join(values).split(b","):
        if entry := entry.strip(b" \t"):
            match = _STATE.fullmatch(entry)
            if match is None:
                return b""
            found.setdefault(match[1], match[2])  # an entry stands once; the first is the newest
    written = b",".join(key + b"=" + value for key, value in found.items())
    return written if len(found) <= MAX_STATES and len(written) <= MAX_STATE else b""


def baggage(values: Iterable[bytes]) -> bytes:
    """Give the baggage, its lines joined and without spaces; b"" when an entry is none."""
    found: dict[bytes, bytes] = {}
    for entry in b",".join(values).split(b","):
        if entry := entry.strip(b" \t"):
            match = _ENTRY.fullmatch(entry)
            if match is None:
                return b""
            found.setdefault(match[1], entry.translate(None, b" \t"))
    written = b",".join(found.values())
    return written if len(found) <= MAX_ENTRIES and len(written) <= MAX_BAGGAGE else b""


def written(lines: Sequence[tuple[bytes, bytes]]) -> Headers:
    """Write the trace context of a request's headers anew; without a parent there is no state."""
    if not lines:
        return []
    found: Headers = []
    if value := parent([value for name, value in lines if name == TRACEPARENT]):
        found.append((TRACEPARENT, value))
        if value := state(value for name, value in lines if name == TRACESTATE):
            found.append((TRACESTATE, value))
    if value := baggage(value for name, value in lines if name == BAGGAGE):
        found.append((BAGGAGE, value))
    return found
