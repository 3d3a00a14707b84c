"""Server-sent events read as they come: every byte kept, every border between chunks allowed, nothing without a bound.

    reader = SseReader(max_event=...)
    for event in reader.feed(chunk):      event.raw goes on as it came; event.data is what a client would be handed
    reader.rest()                         what came after the last whole event

The `raw` of all events and the rest, joined, is exactly the stream. An event is handed out with its blank line; when that
ends in CR, a LF that follows in the next chunk comes out by itself, so that no event waits for it.

`classify(data)` says what an event's JSON is to a client: a response, a request of the server, or a notification.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, Literal, NamedTuple

import orjson

__all__ = [
    "KEEP_ALIVE",
    "EventTooLarge",
    "Item",
    "SseEvent",
    "SseReader",
    "classify",
    "encode",
    "load",
    "same_id",
    "with_id",
]

KEEP_ALIVE: Final = b": keep-alive\n\n"

# Two line ends in a row, the second of which begins a blank line. CR LF is one line end.
_BLANK = re.compile(rb"\n[\r\n]|\r\r")
_LINE_END = re.compile(rb"\r\n|\r|\n")
_LINES = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z")
_BOM: Final = b"\xef\xbb\xbf"
_MEMBERS = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})


class EventTooLarge(Exception):
    """An event is longer than the bound."""


class SseEvent(NamedTuple):
    """One event: its bytes as they came, and what they say. A block without data (a comment) has `data` b""."""

    raw: bytes
    event: str
    id: bytes | None
    data: bytes


class SseReader:
    """Cuts a byte stream into events, in time linear in the bytes however they are chunked."""

    __slots__ = ("_after_cr", "_buffer", "_fresh", "_searched", "max_event")

    def __init__(self, max_event: int = 64 * 1024 * 1024) -> None:
        self.max_event = max_event
        self._buffer = bytearray()
        self._searched = 0  # up to here no blank line begins
        self._after_cr = False  # the last event ended in CR, so a LF now still belongs to it
        self._fresh = True  # nothing was handed out yet: a byte order mark may stand first

    @property
    def pending(self) -> int:
        """How many bytes of an unfinished event are held."""
        return len(self._buffer)

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """Take a chunk; give the events it completes. Raises EventTooLarge."""
        buffer = self._buffer
        buffer += chunk
        if not buffer:
            return []
        events: list[SseEvent] = []
        start = 0
        search = self._searched
        size = len(buffer)
        while start < size:
            first = buffer[start]
            if self._after_cr and first == 10:
                end = start + 1
            elif first == 10 or first == 13:
                end = self._line_end(start + 1, first)
            else:
                match = _BLANK.search(buffer, max(start, search))
                if match is None:
                    break
                end = self._line_end(match.end(), buffer[match.end() - 1])
            events.append(self._event(bytes(buffer[start:end])))
            self._after_cr = buffer[end - 1] == 13
            start = search = end
        if start:
            del buffer[:start]
        self._searched = max(len(buffer) - 1, 0)
        if len(buffer) > self.max_event:
            raise EventTooLarge
        return events

    def _line_end(self, end: int, last: int) -> int:
        """Past the LF of a CR LF, when it is here already."""
        return end + 1 if last == 13 and self._buffer[end : end + 1] == b"\n" else end

    def _event(self, raw: bytes) -> SseEvent:
        if len(raw) > self.max_event:
            raise EventTooLarge
        text = raw
        if self._fresh:
            self._fresh = False
            text = raw.removeprefix(_BOM)
        name = ""
        event_id: bytes | None = None
        data: list[bytes] = []
        for line in _LINE_END.split(text) if b"\r" in text else text.split(b"\n"):
            if line[:5] == b"data:":
                data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif line == b"data":
                data.append(b"")
            elif line[:6] == b"event:":
                name = line[6:].removeprefix(b" ").decode("utf-8", "replace")
            elif line[:3] == b"id:" and b"\0" not in line:
                event_id = line[3:].removeprefix(b" ")
        return SseEvent(raw, name, event_id, data[0] if len(data) == 1 else b"\n".join(data))

    def rest(self) -> bytes:
        """What came after the last whole event: a client would throw it away."""
        return bytes(self._buffer)


def encode(data: bytes, *, event: str = "", event_id: bytes | None = None) -> bytes:
    """An event of our own; line ends in the data cannot become fields, those in the name or the id are refused."""
    if "\n" in event or "\r" in event or (event_id is not None and _LINE_END.search(event_id) is not None):
        raise ValueError("an event's name and id are one line each")
    lines = []
    if event:
        lines.append(b"event: " + event.encode())
    if event_id is not None:
        lines.append(b"id: " + event_id)
    lines.extend(b"data: " + line for line in _LINE_END.split(data))
    return b"\n".join(lines) + b"\n\n"


def with_id(event: SseEvent, event_id: bytes | None) -> SseEvent:
    """Give an event another id, or none; every other byte stays."""
    kept: list[bytes] = []
    place = -1
    for line in _LINES.findall(event.raw):
        text = line.rstrip(b"\r\n").removeprefix(_BOM)
        if text != b"id" and text[:3] != b"id:":
            kept.append(line)
        elif place < 0:
            place = len(kept)
    if event_id is not None and place >= 0:
        kept.insert(place, b"id: %b\n" % event_id)
    return event._replace(raw=b"".join(kept), id=event_id)


# --- what an event's JSON is to the client ----------------------------------------------------------------------------


class Item(NamedTuple):
    """What a message of an upstream is: `value` is None when it needed no parsing to tell."""

    kind: Literal["response", "request", "notification", "other"]
    id: Any = None
    method: str = ""
    value: Any = None


def load(data: bytes) -> Any:
    """Parse an upstream's JSON as a lenient client would; None when nobody could."""
    try:
        return orjson.loads(data)
    except ValueError:
        pass
    try:
        return json.loads(data.decode("utf-8", "replace"))  # half surrogate pairs, NaN, numbers beyond a double
    except (ValueError, RecursionError):
        return None


_ID = re.compile(rb'"[iI][dD]"|\\u00')


def classify(data: bytes) -> Item:
    """Say what a message of an upstream is; notifications are told by their bytes alone."""
    if _ID.search(data) is None:
        # No member can be called "id" (some clients read it in any case), so this answers nobody and asks nothing.
        return Item("notification") if b'"method"' in data else Item("other")
    value = load(data)
    if isinstance(value, list):  # a batch, as 2025-03-26 had them: what matters is whether it holds a response
        items = [_item(member) for member in value]
        return next(
            (item._replace(value=value) for item in items if item.kind == "response"), Item("other", value=value)
        )
    return _item(value)


def _item(value: Any) -> Item:
    if not isinstance(value, dict):
        return Item("other", value=value)
    members = value if value.keys() <= _MEMBERS else {name.casefold(): member for name, member in value.items()}
    method = members.get("method")
    if isinstance(method, str):
        return Item("request" if members.get("id") is not None else "notification", members.get("id"), method, value)
    if "result" in members or "error" in members:
        return Item("response", members.get("id"), "", value)
    return Item("other", members.get("id"), "", value)


def same_id(one: Any, other: Any) -> bool:
    """Whether some client could take two ids for one: clients are known to read "1" as 1."""
    if isinstance(one, bool) or isinstance(other, bool) or one is None or other is None:
        return False
    if isinstance(one, float) and one.is_integer():
        one = int(one)
    if isinstance(other, float) and other.is_integer():
        other = int(other)
    return str(one) == str(other)
