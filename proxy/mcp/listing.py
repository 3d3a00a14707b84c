"""Takes out of a list what the caller may not call, and leaves every other byte as the upstream sent it.

Parsing and serialising again would alter numbers, escapes and the order of schema members, so the answer is cut instead:
the parser only says where each item begins and ends. Where nothing is hidden, nothing changes; the one exception is the
`cacheScope`, which always becomes "private", since another role's list may be another.

A list that cannot be read, or that has more items than anybody needs, raises Unfilterable: it must not go out unfiltered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

from policies.engine.folding import loose
from proxy.mcp.definitions import LISTS
from proxy.mcp.strict_json import PROTOTYPE
from proxy.mcp.targets import TargetKind

__all__ = [
    "LIST_METHODS",
    "MOST_ITEMS",
    "MOST_LIST_BYTES",
    "FilteredList",
    "ItemKind",
    "Keep",
    "Unfilterable",
    "filter_result",
    "holds_list",
]

#: decides on one item: its kind, its name (a resource's URI, a template's URI template, a task's id), the item itself
ItemKind = TargetKind | Literal["task"]
Keep = Callable[[ItemKind, str, dict[str, Any]], bool]

#: items and bytes of one answer to those who ask for a list; pages are there for more
MOST_ITEMS: Final = 10_000
MOST_LIST_BYTES: Final = 4 * 1024**2
LIST_METHODS: Final = frozenset(method for method, *_ in LISTS.values())

# The member that holds a list -> what its items are, and the member that names one. As careless readers know it: some clients
# read members in any case, or end a name at a NUL.
_LISTS: Final[dict[str, tuple[ItemKind, str]]] = {
    "tools": ("tool", "name"),
    "prompts": ("prompt", "name"),
    "resources": ("resource", "uri"),
    "resourcetemplates": ("resource", "uriTemplate"),
}
# The same, where tasks may have been asked for: elsewhere anybody may call something of his own so.
_WITH_TASKS: Final = _LISTS | {"tasks": ("task", "taskId")}


# What most results consist of: none of it is read as a list by anybody.
_NO_LISTS: Final = frozenset(
    "_meta content contents completion description isError messages resultType structuredContent".split()
)


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

    def __init__(self, text: str, keep: Keep, lists: dict[str, tuple[ItemKind, str]]) -> None:
        self.text = text
        self.keep = keep
        self.lists = lists
        self.cuts: list[_Cut] = []
        self.kept = 0
        self.hidden = 0

    def message(self, place: int) -> int:
        if self.text[place : place + 1] == "{":
            return self._members(place, self._envelope)
        return _decode(self.text, place)[1]

    def _envelope(self, name: str, place: int) -> int:
        if loose(name) == "result" and self.text[place : place + 1] == "{":
            return self._members(place, self._result)
        return _decode(self.text, place)[1]

    def _result(self, name: str, place: int) -> int:
        folded = loose(name)
        if name == PROTOTYPE:
            raise Unfilterable(f"{name} could be read as any member")
        if folded in self.lists and self.text[place : place + 1] == "[":
            return self._list(place, *self.lists[folded])
        value, end = _decode(self.text, place)
        if folded in self.lists and value is not None:  # null is what some servers write for an empty list
            raise Unfilterable(f"{name} is no list")
        if folded == "cachescope" and value != "private":
            self.cuts.append(_Cut(place, end, '"private"'))
        return end

    def _list(self, place: int, kind: ItemKind, naming: str) -> int:
        kept: list[str] = []
        hidden = 0

        def item(start: int) -> int:
            nonlocal hidden
            value, end = _decode(self.text, start)
            name = _name(value, naming)
            if len(kept) + hidden >= MOST_ITEMS:
                raise Unfilterable(f"more than {MOST_ITEMS} items")
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


def _name(item: Any, naming: str) -> Any:
    """Give what names an item, None where some reader could take another member for that."""
    if not isinstance(item, dict) or PROTOTYPE in item or sum(loose(member) == loose(naming) for member in item) != 1:
        return None
    return item.get(naming)


def holds_list(result: dict[str, Any], *, tasks: bool = False) -> bool:
    """Tell whether some reader would find a list in a result, or what should be one; `tasks` too, where they may be listed."""
    if result.keys() <= _NO_LISTS:
        return False
    lists = _WITH_TASKS if tasks else _LISTS
    return PROTOTYPE in result or not lists.keys().isdisjoint(map(loose, result))


def filter_result(raw: bytes, keep: Keep, *, tasks: bool = False) -> FilteredList:
    """Filter the JSON answer to a list method; an error, or a message that is no answer, stays as it is."""
    try:
        text = raw.decode()
        work = _Filter(text, keep, _WITH_TASKS if tasks else _LISTS)
        end = work.message(_skip(text, 0))
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
