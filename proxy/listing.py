"""Takes out of a list what the caller may not call, and leaves every other byte as the upstream sent it.

Parsing and serialising again would alter numbers, escapes and the order of schema members, so the answer is cut instead:
the parser only says where each item begins and ends. Where nothing is hidden, nothing changes; the one exception is the
modern `cacheScope`, which always becomes "private", since another role's list may be another.

An answer that cannot be read raises Unfilterable: it must not go out unfiltered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
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


_scan = json.JSONDecoder().scan_once
_WHITE = re.compile(r"[ \t\n\r]*")


def _skip(text: str, place: int) -> int:
    match = _WHITE.match(text, place)
    return match.end() if match is not None else place


def _value(text: str, place: int) -> tuple[Any, int]:
    try:
        value, end = _scan(text, place)
    except StopIteration:
        raise Unfilterable("not JSON") from None
    return value, end


def _expect(text: str, place: int, character: str) -> int:
    if text[place : place + 1] != character:
        raise Unfilterable("not JSON")
    return place + 1


def _members(text: str, place: int) -> Iterator[tuple[str, int]]:
    """Each member of the object that begins at `place`: its name, and where its value begins."""
    place = _skip(text, _expect(text, place, "{"))
    if text[place : place + 1] == "}":
        return
    while True:
        _expect(text, place, '"')
        name, place = _value(text, place)
        place = _skip(text, _expect(text, _skip(text, place), ":"))
        yield name, place
        place = _skip(text, _value(text, place)[1])
        if text[place : place + 1] == "}":
            return
        place = _skip(text, _expect(text, place, ","))


def _items(text: str, place: int) -> Iterator[tuple[Any, int, int]]:
    """Each item of the array that begins at `place`, with where it begins and ends; last the array's end."""
    place = _skip(text, _expect(text, place, "["))
    if text[place : place + 1] != "]":
        while True:
            value, end = _value(text, place)
            yield value, place, end
            place = _skip(text, end)
            if text[place : place + 1] == "]":
                break
            place = _skip(text, _expect(text, place, ","))
    yield None, place + 1, -1


class _Filter:
    def __init__(self, text: str, keep: Keep, modern: bool) -> None:
        self.text = text
        self.keep = keep
        self.modern = modern
        self.cuts: list[_Cut] = []
        self.kept = 0
        self.hidden = 0

    def message(self, place: int) -> None:
        text = self.text
        if text[place : place + 1] == "[":  # a batch, as 2025-03-26 had them
            for value, start, end in _items(text, place):
                if end >= 0 and isinstance(value, dict):
                    self.message(start)
            return
        if text[place : place + 1] != "{":
            return
        for name, start in _members(text, place):
            if name.casefold() == "result" and text[start : start + 1] == "{":
                self.result(start)

    def result(self, place: int) -> None:
        for name, start in _members(self.text, place):
            folded = name.casefold()
            if folded in _LISTS and self.text[start : start + 1] == "[":
                self.list(start, *_LISTS[folded])
            elif self.modern and folded == "cachescope":
                value, end = _value(self.text, start)
                if value != "private":
                    self.cuts.append(_Cut(start, end, '"private"'))

    def list(self, place: int, kind: TargetKind, naming: str) -> None:
        kept: list[str] = []
        hidden = 0
        array_end = place
        for value, start, end in _items(self.text, place):
            if end < 0:
                array_end = start
                break
            name = value.get(naming) if isinstance(value, dict) else None
            if isinstance(name, str) and self.keep(kind, name, value):
                kept.append(self.text[start:end])
            else:
                hidden += 1  # what has no name cannot be governed, and so is not shown
        self.kept += len(kept)
        self.hidden += hidden
        if hidden:
            self.cuts.append(_Cut(place, array_end, "[" + ",".join(kept) + "]"))


def filter_result(raw: bytes, keep: Keep, modern: bool) -> FilteredList:
    """Filter the JSON answer to a list method; an error, or a message that is no answer, stays as it is."""
    try:
        text = raw.decode()
        start = 1 if text.startswith("\ufeff") else 0
        work = _Filter(text, keep, modern)
        first = _skip(text, start)
        work.message(first)
        if _skip(text, _value(text, first)[1]) != len(text):
            raise Unfilterable("something follows the JSON value")
    except Unfilterable:
        raise
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


def filter_event(event: SseEvent, keep: Keep, modern: bool) -> FilteredList:
    """Filter the list in an event's data; all other lines of the event, and its kind of line ends, stay."""
    if not event.data:
        return FilteredList(event.raw, 0, 0, False)
    found = filter_result(event.data, keep, modern)
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
