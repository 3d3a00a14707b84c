"""Takes out of a list what the caller may not call, and leaves every other byte as the upstream sent it.

Parsing and serialising again would alter numbers, escapes and the order of schema members, so the answer is cut instead:
the parser only says where each item begins and ends. Where nothing is hidden, nothing changes; the one exception is the
`cacheScope`, which always becomes "private", since another role's list may be another.

An answer that cannot be read raises Unfilterable: it must not go out unfiltered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from proxy.message import TargetKind
from proxy.sse import SseEvent

__all__ = ["LIST_METHODS", "FilteredList", "Keep", "Unfilterable", "filter_event", "filter_result"]

#: decides on one item: its kind, its name (a resource's URI, a template's URI template), the item itself
Keep = Callable[[TargetKind, str, dict[str, Any]], bool]

LIST_METHODS: Final = frozenset({"tools/list", "prompts/list", "resources/list", "resources/templates/list"})

# The member that holds a list -> what its items are, and the member that names one. In lower case, since some clients read
# members in any case.
_LISTS: Final[dict[str, tuple[TargetKind, str]]] = {
    "tools": ("tool", "name"),
    "prompts": ("prompt", "name"),
    "resources": ("resource", "uri"),
    "resourcetemplates": ("resource", "uriTemplate"),
}


class Unfilterable(Exception):
    """A list that cannot be read, so that nobody can say what it shows."""


class FilteredList(NamedTuple):
    """A list as it goes out; `raw` is the very object that came in when nothing was changed."""

    raw: bytes
    kept: int
    hidden: int
    changed: bool


class _Cut(NamedTuple):
    start: int
    end: int
    text: str


_decode = json.JSONDecoder().raw_decode
_WHITE = re.compile(r"[ \t\n\r]*")


def _skip(text: str, place: int) -> int:
    match = _WHITE.match(text, place)
    return match.end() if match is not None else place


def _expect(text: str, place: int, character: str) -> int:
    if text[place : place + 1] != character:
        raise Unfilterable("not JSON")
    return place + 1


class _Filter:
    """One pass over an answer: each method reads the value at a place, notes what to cut, and returns where it ends."""

    def __init__(self, text: str, keep: Keep) -> None:
        self.text = text
        self.keep = keep
        self.cuts: list[_Cut] = []
        self.kept = 0
        self.hidden = 0

    def message(self, place: int) -> int:
        first = self.text[place : place + 1]
        if first == "{":
            return self._members(place, self._envelope)
        if first == "[":  # a batch, as 2025-03-26 had them
            return self._items(place, self.message)
        return _decode(self.text, place)[1]

    def _envelope(self, name: str, place: int) -> int:
        if name.casefold() == "result" and self.text[place : place + 1] == "{":
            return self._members(place, self._result)
        return _decode(self.text, place)[1]

    def _result(self, name: str, place: int) -> int:
        folded = name.casefold()
        if folded in _LISTS and self.text[place : place + 1] == "[":
            return self._list(place, *_LISTS[folded])
        value, end = _decode(self.text, place)
        if folded == "cachescope" and value != "private":
            self.cuts.append(_Cut(place, end, '"private"'))
        return end

    def _list(self, place: int, kind: TargetKind, naming: str) -> int:
        kept: list[str] = []
        hidden = 0

        def item(start: int) -> int:
            nonlocal hidden
            value, end = _decode(self.text, start)
            name = value.get(naming) if isinstance(value, dict) else None
            if isinstance(name, str) and self.keep(kind, name, value):
                kept.append(self.text[start:end])
            else:
                hidden += 1  # what has no name cannot be governed, and so is not shown
            return end

        end = self._items(place, item)
        self.kept += len(kept)
        self.hidden += hidden
        if hidden:
            self.cuts.append(_Cut(place, end, "[" + ",".join(kept) + "]"))
        return end

    def _members(self, place: int, member: Callable[[str, int], int]) -> int:
        text = self.text
        place = _skip(text, place + 1)
        if text[place : place + 1] == "}":
            return place + 1
        while True:
            _expect(text, place, '"')
            name, place = _decode(text, place)
            place = _skip(text, _expect(text, _skip(text, place), ":"))
            place = _skip(text, member(name, place))
            if text[place : place + 1] == "}":
                return place + 1
            place = _skip(text, _expect(text, place, ","))

    def _items(self, place: int, item: Callable[[int], int]) -> int:
        text = self.text
        place = _skip(text, place + 1)
        if text[place : place + 1] == "]":
            return place + 1
        while True:
            place = _skip(text, item(place))
            if text[place : place + 1] == "]":
                return place + 1
            place = _skip(text, _expect(text, place, ","))


def filter_result(raw: bytes, keep: Keep) -> FilteredList:
    """Filter the JSON answer to a list method; an error, or a message that is no answer, stays as it is."""
    try:
        text = raw.decode()
        work = _Filter(text, keep)
        end = work.message(_skip(text, 1 if text.startswith("\ufeff") else 0))
        if _skip(text, end) != len(text):
            raise Unfilterable("something follows the JSON value")
    except (ValueError, RecursionError) as error:
        raise Unfilterable(str(error)) from error
    if not work.cuts:
        return FilteredList(raw, work.kept, work.hidden, False)
    pieces: list[str] = []
    place = 0
    for cut in work.cuts:
        pieces += (text[place : cut.start], cut.text)
        place = cut.end
    pieces.append(text[place:])
    return FilteredList("".join(pieces).encode(), work.kept, work.hidden, True)


_LINES = re.compile(rb"([^\r\n]*)(\r\n|\r|\n|\Z)")


def filter_event(event: SseEvent, keep: Keep) -> FilteredList:
    """Filter the list in an event's data; all other lines of the event, and its kind of line ends, stay."""
    if not event.data:
        return FilteredList(event.raw, 0, 0, False)
    found = filter_result(event.data, keep)
    if not found.changed:
        return FilteredList(event.raw, found.kept, found.hidden, False)
    pieces: list[bytes] = []
    written = False
    for match in _LINES.finditer(event.raw):
        line, ending = match[1], match[2]
        if line != b"data" and line[:5] != b"data:":
            pieces += (line, ending)
        elif not written:
            written = True
            prefix = b"data: " if line[:6] == b"data: " else b"data:"
            for part in found.raw.split(b"\n"):
                pieces += (prefix, part, ending)
    return FilteredList(b"".join(pieces), found.kept, found.hidden, True)
