"""Server-sent events read as they come: every byte kept, every border between chunks allowed, nothing without a bound.

    reader = SseReader(max_event=...)
    for event in reader.feed(chunk):      event.data is what a client would be handed
        frame(event)                      what may be written to a client
    reader.rest()                         what came after the last whole event

The `raw` of all events and the rest, joined, is exactly the stream. An event is handed out with its blank line; when that
ends in CR, a LF that follows in the next chunk comes out by itself, so that no event waits for it.

Readers differ: some take the last data line alone, know field names in any case, split lines at other characters. So an
event is written on as it came only when it is *plain*, which all of them read alike, and else in a form that is.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["KEEP_ALIVE", "EventTooLarge", "SseEvent", "SseReader", "bare", "encode", "frame", "presentable", "with_id"]

KEEP_ALIVE: Final = b": keep-alive\n\n"

# Two line ends in a row, the second of which begins a blank line. CR LF is one line end.
_BLANK = re.compile(rb"\n[\r\n]|\r\r")
_LINE_END = re.compile(rb"\r\n|\r|\n")
_LINES = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z")
_BOM: Final = b"\xef\xbb\xbf"
#: what a comment or an id may consist of: neither can hold JSON, however it is read
_PRINTABLE = re.compile(rb"[ !#-Z\\-z|}~]*")
_RETRY = re.compile(rb"[0-9]{1,10}")
_OPENS = re.compile(rb"\n[ \t]*[{\[]")
_FIELD = re.compile(rb"(?:id|retry)[:\r\n]")
_SILENT = re.compile(rb"(?:id|retry|event|data)[:\r\n]")
#: an upstream's id that may stand in a header; an event with another one goes on without
_ID = re.compile(rb"[\x21-\x7e\x80-\xff](?:[\x20-\x7e\x80-\xff]{0,510}[\x21-\x7e\x80-\xff])?\Z")
#: the names of events that carry messages
_NAMES = frozenset({"", "message"})


class EventTooLarge(Exception):
    """An event is longer than the bound."""


class SseEvent(NamedTuple):
    """One event: its bytes as they came, and what they say. A block without data (a comment) has `data` b""."""

    raw: bytes
    event: str
    id: bytes | None
    data: bytes
    retry: bytes | None = None
    #: every reader reads its bytes as these fields
    plain: bool = False

    @property
    def message(self) -> bytes:
        """The data of an event that a client would take for a message, else b""."""
        return self.data if self.event in _NAMES and not self.data.isspace() else b""


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
                match = self._blank(max(start, search))
                if match is None:
                    break
                end = self._line_end(match.end(), buffer[match.end() - 1])
            with memoryview(buffer) as view:
                raw = bytes(view[start:end])
            events.append(self._event(raw))
            self._after_cr = buffer[end - 1] == 13
            start = search = end
        if start:
            del buffer[:start]
        self._searched = max(len(buffer) - 1, 0)
        if len(buffer) > self.max_event:
            raise EventTooLarge
        return events

    def _blank(self, place: int) -> re.Match[bytes] | None:
        """The next blank line. Most of a large event is one long line, through which `find` is a hundred times as fast."""
        if self._buffer.find(b"\n", place) < 0 and self._buffer.find(b"\r", place) < 0:
            return None
        return _BLANK.search(self._buffer, place)

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
        retry: bytes | None = None
        data: list[bytes] = []
        fields = 0  # those that are plain
        lines = _LINE_END.split(text) if b"\r" in text else text.split(b"\n")
        for line in lines:
            if line[:5] == b"data:":
                data.append(line[6:] if line[5:6] == b" " else line[5:])
                fields += 1
            elif not line:
                fields += 1
            elif line[:6] == b"event:":
                fields += not name
                name = line[6:].removeprefix(b" ").decode("utf-8", "replace")
            elif line[:1] == b":":
                fields += _PRINTABLE.fullmatch(line) is not None
            elif line[:3] == b"id:":
                if b"\0" not in line:
                    fields += event_id is None
                    event_id = line[3:].removeprefix(b" ")
            elif line[:6] == b"retry:":
                fields += retry is None
                retry = line[6:].removeprefix(b" ")
            elif line == b"data":
                data.append(b"")
        joined = data[0] if len(data) == 1 else b"\n".join(data)
        plain = fields == len(lines) and text is raw and name in _NAMES and _alike(raw)
        if event_id is not None and _PRINTABLE.fullmatch(event_id) is None:
            plain = False
        if retry is not None and _RETRY.fullmatch(retry) is None:
            retry, plain = None, False
        if plain and len(data) > 1 and _OPENS.search(joined) is not None:
            plain = False  # a line of it may be a message to those who take lines one by one
        return SseEvent(raw, name, event_id, joined, retry, plain)

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
    lines.extend(b"data: " + line for line in (_LINE_END.split(data) if b"\n" in data or b"\r" in data else [data]))
    return b"\n".join(lines) + b"\n\n"


def _alike(raw: bytes) -> bool:
    """Whether all lines end alike, in LF or in CR LF (of which the last LF may be still to come)."""
    if b"\r" not in raw:
        return True
    lines = raw.count(b"\n")
    return raw.count(b"\r\n") == lines == raw.count(b"\r") - (raw[-1:] == b"\r")


def with_id(event: SseEvent, event_id: bytes | None) -> SseEvent:
    """Give an event another id, or none; every other byte stays."""
    kept: list[bytes] = []
    place = -1
    end = b""
    for line in _LINES.findall(event.raw):
        text = line.rstrip(b"\r\n").removeprefix(_BOM)
        if text != b"id" and text[:3] != b"id:":
            kept.append(line)
        elif place < 0:
            place, end = len(kept), line[len(line.rstrip(b"\r\n")) :]
    if event_id is not None and place >= 0:
        kept.insert(place, b"id: %b%b" % (event_id, end))  # lines of one event end alike, or readers cut it differently
    return event._replace(raw=b"".join(kept), id=event_id)


def presentable(event_id: bytes) -> bool:
    """Whether an upstream's event id may stand in a header."""
    return _ID.match(event_id) is not None


def bare(event: SseEvent) -> bytes:
    """Give an event's bytes without its id, its retry time and data that is blank; b"" when it says nothing else."""
    left_out = _FIELD if event.data.strip() else _SILENT
    lines = [line for line in _LINES.findall(event.raw) if left_out.match(line.removeprefix(_BOM)) is None]
    return b"".join(lines) if any(line.strip(b"\r\n") for line in lines) else b""


def frame(event: SseEvent) -> bytes:
    """Write an event for a client: as it came when it is plain, else what is to be kept of it (b"" for nothing).

    The JSON of its data stays byte for byte, but for line breaks between its tokens.
    """
    if event.plain:
        return event.raw
    lines: list[bytes] = []
    data = event.message
    if data and event.event:
        lines.append(b"event: " + event.event.encode())
    if event.id is not None and _PRINTABLE.fullmatch(event.id) is not None:
        lines.append(b"id: " + event.id)
    if event.retry is not None:
        lines.append(b"retry: " + event.retry)
    if data:
        lines.append(b"data: " + data.replace(b"\n", b" "))
    return b"\n".join(lines) + b"\n\n" if lines else b""
