"""Reading YAML strictly: every mistake with its line and column, no anchors, no repeated members, no surprising types (pure).

Plain scalars follow YAML 1.2's core rules, so `no` and `17:30` are text, not a boolean and a number.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

import yaml

from policies.members import Member, TextMember, WholeMember, Word, Words

MAX_BYTES: Final = 16 * 1024 * 1024
MAX_DEPTH: Final = 16
MAX_NODES: Final = 400_000
MAX_PROBLEMS: Final = 20

_NAMES: Final = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "nothing",
    "seq": "a list",
    "map": "a mapping",
}


class DocumentError(ValueError):
    """A document that cannot be read; `problems` are lines such as `line 3, column 5: ...`."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a policy of ten thousand rules wants libyaml

_WORDS: Final = dict.fromkeys(("true", "True", "TRUE", "false", "False", "FALSE"), "bool") | dict.fromkeys(
    ("", "~", "null", "Null", "NULL"), "null"
)
_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


class Node:
    """A value of the document and where it stands. Small, since a large policy has hundreds of thousands."""

    __slots__ = ("column", "line", "tag", "value")

    def __init__(self, tag: str, value: Any, mark: Any) -> None:
        self.tag = tag
        self.value = value
        self.line: int = mark.line + 1
        self.column: int = mark.column + 1


class Scalar(Node):
    """Text, a number, a truth value or nothing; `value` is what is written."""

    __slots__ = ()


class Sequence(Node):
    """A list; `value` holds its nodes."""

    __slots__ = ()


class Mapping(Node):
    """A mapping; `value` holds its pairs of nodes."""

    __slots__ = ()


def _tag(text: str) -> str:
    """What a plain scalar is, by YAML 1.2's core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] in "-+.0123456789":
        if _INTEGER.fullmatch(text):
            return "int"
        if _FLOAT.fullmatch(text):
            return "float"
    return "str"


class Reader:
    """Collects what is wrong while a document is walked, and ends the walk with all of it."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def wrong(self, node: Node | None, message: str) -> None:
        """Note a mistake at a node."""
        if node is None:
            self.problems.append(message)
        else:
            self.problems.append(f"{place(node)}: {message}")
        if len(self.problems) >= MAX_PROBLEMS:
            self.finish()

    def finish(self) -> None:
        """Raise if anything was wrong."""
        if self.problems:
            raise DocumentError(self.problems)

    def members(self, node: Node, what: str, known: tuple[str, ...]) -> dict[str, Node]:
        """A mapping's members, all of them known, none twice."""
        found: dict[str, Node] = {}
        for key, key_node, value in self.entries(node, what):
            if key not in known:
                self.wrong(key_node, f"{what} has no member {key!r}; it has {', '.join(known)}")
            else:
                found[key] = value
        return found

    def entries(self, node: Node, what: str) -> Iterator[tuple[str, Node, Node]]:
        """A mapping's members of any name, none twice."""
        if not isinstance(node, Mapping):
            if not (isinstance(node, Scalar) and node.tag == "null"):
                self.wrong(node, f"{what} is a mapping, not {kind(node)}")
            return
        seen: set[str] = set()
        for key_node, value in node.value:
            if not isinstance(key_node, Scalar):
                self.wrong(key_node, f"a member's name is text, not {kind(key_node)}")
            elif key_node.value in seen:
                self.wrong(key_node, f"{key_node.value!r} stands here twice")
            else:
                seen.add(key_node.value)
                yield key_node.value, key_node, value

    def items(self, node: Node | None, what: str) -> list[Node]:
        """A list's items; nothing when it is absent."""
        if node is None or (isinstance(node, Scalar) and node.tag == "null"):
            return []
        if not isinstance(node, Sequence):
            self.wrong(node, f"{what} is a list, not {kind(node)}")
            return []
        return list(node.value)

    def text(self, node: Node | None, what: str, *, most: int = 500, default: str = "") -> str:
        """Text of at most so many characters."""
        if node is None:
            return default
        if not isinstance(node, Scalar) or node.tag != "str":
            hint = "; put it in quotes" if isinstance(node, Scalar) else ""
            self.wrong(node, f"{what} is text, not {kind(node)}{hint}")
            return default
        value: str = node.value
        if len(value) > most:
            self.wrong(node, f"{what} has at most {most} characters")
        if "\0" in value:
            self.wrong(node, f"{what} has no NUL character")
        return value

    def word(self, node: Node | None, what: str, words: tuple[str, ...], default: str = "") -> str:
        value = self.text(node, what, default=default)
        if node is not None and value not in words:
            self.wrong(node, f"{what} is one of {', '.join(words)}, not {value!r}")
        return value

    def words(self, node: Node | None, what: str, words: tuple[str, ...]) -> tuple[str, ...]:
        """Several of these words, given in their own order."""
        chosen = {self.word(item, what, words) for item in self.items(node, what)}
        return tuple(word for word in words if word in chosen)

    def number(self, node: Node | None, what: str, low: int, high: int, default: int = 0) -> int:
        if node is None:
            return default
        if not isinstance(node, Scalar) or node.tag != "int":
            self.wrong(node, f"{what} is a whole number, not {kind(node)}")
            return default
        if len(node.value) > 20 or not low <= int(node.value) <= high:
            self.wrong(node, f"{what} is a whole number from {low} to {high}")
            return default
        return int(node.value)

    def flag(self, node: Node | None, what: str, *, default: bool) -> bool:
        if node is None:
            return default
        if not isinstance(node, Scalar) or node.tag != "bool":
            self.wrong(node, f"{what} is true or false, not {kind(node)}")
            return default
        return str(node.value).lower() == "true"

    def moment(self, node: Node | None, what: str) -> datetime | None:
        """A moment such as 2026-12-24T18:00:00Z."""
        if node is None:
            return None
        text = self.text(node, what)
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            found = None
        if found is None or found.tzinfo is None:
            self.wrong(node, f"a moment is like 2026-12-24T18:00:00Z, with its offset, not {text!r}")
            return None
        return found

    def plain(self, members: dict[str, Node], table: tuple[Member, ...]) -> dict[str, Any]:
        """What is said of the plain members of a table, by their names."""
        found: dict[str, Any] = {}
        for row in table:
            node, what = members.get(row.called), row.called
            if node is None:
                continue
            if isinstance(row, TextMember):
                found[row.name] = self.text(node, what, most=row.most)
            elif isinstance(row, WholeMember):
                found[row.name] = self.number(node, what, 1, found.get(row.within, row.most), 1)
            elif isinstance(row, Word):
                found[row.name] = self.word(node, what, row.words, row.words[0])
            elif isinstance(row, Words):
                found[row.name] = self.words(node, what, row.words)
            else:
                found[row.name] = self.flag(node, what, default=row.default)
        return found

    def value(self, node: Node, what: str) -> Any:
        """A scalar, or a list of scalars as a tuple."""
        if isinstance(node, Sequence):
            return tuple(self.value(item, what) for item in node.value)
        if isinstance(node, Scalar):
            tag = node.tag
            if tag == "str":
                return self.text(node, what, most=4000)
            if tag == "bool":
                return str(node.value).lower() == "true"
            if tag == "int" and len(node.value) <= 20:
                return int(node.value)
            if tag == "float" and len(node.value) <= 40:
                return float(node.value)
        self.wrong(node, f"{what} is text, a number, true, false or a list of them, not {kind(node)}")
        return None


def place(node: Node) -> str:
    """Where a node stands."""
    return f"line {node.line}, column {node.column}"


def kind(node: Node) -> str:
    """What a node is, in words."""
    name = _NAMES[node.tag]
    if isinstance(node, Scalar) and node.value:
        return f"{name} ({node.value:.40})"
    return name


@contextmanager
def without_collector() -> Iterator[None]:
    """Read without the garbage collector: nodes and specs form no cycles, and it would look through all of them again
    and again, a third of the time for a large policy. The size of a document bounds how much it misses meanwhile.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def compose(text: str) -> Node | None:
    """Read one YAML document into nodes; None when it is empty."""
    if len(text) > MAX_BYTES:
        raise DocumentError([f"a policy has at most {MAX_BYTES} characters"])
    try:
        return _compose(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = error.problem or error.context or "cannot be read"
        raise DocumentError([f"{_mark(mark)}: {what}" if mark else str(what)]) from error
    except yaml.YAMLError as error:
        raise DocumentError([" ".join(str(error).split())]) from error


def _compose(text: str) -> Node | None:
    """One pass over the parser's events; the parser itself would recurse, and build everything twice as large."""
    root: Node | None = None
    stack: list[Node] = []  # the lists and mappings that are open
    flat: list[list[Node]] = []  # what was read of each
    documents = nodes = 0
    event: Any
    for event in yaml.parse(text, Loader=_LOADER):
        kind_of = type(event)
        if kind_of is yaml.ScalarEvent:
            _refuse(event)
            tag = _tag(event.value) if event.implicit[0] else "str"
            node: Node = Scalar(tag, event.value, event.start_mark)
        elif kind_of is yaml.SequenceEndEvent or kind_of is yaml.MappingEndEvent:
            node, found = stack.pop(), flat.pop()
            node.value = found if kind_of is yaml.SequenceEndEvent else list(zip(found[::2], found[1::2], strict=True))
        elif kind_of is yaml.SequenceStartEvent or kind_of is yaml.MappingStartEvent:
            _refuse(event)
            if len(stack) >= MAX_DEPTH:
                raise DocumentError([f"{_mark(event.start_mark)}: nested too deep"])
            is_list = kind_of is yaml.SequenceStartEvent
            stack.append(Sequence("seq", [], event.start_mark) if is_list else Mapping("map", [], event.start_mark))
            flat.append([])
            continue
        elif kind_of is yaml.AliasEvent:
            raise DocumentError([f"{_mark(event.start_mark)}: anchors and aliases are not used here"])
        else:
            documents += kind_of is yaml.DocumentStartEvent
            if documents > 1:
                raise DocumentError([f"{_mark(event.start_mark)}: one document is expected, and here begins another"])
            continue
        nodes += 1
        if nodes > MAX_NODES:
            raise DocumentError([f"{place(node)}: a policy has at most {MAX_NODES} names, values and lists in all"])
        if flat:
            flat[-1].append(node)
        else:
            root = node
    return None if isinstance(root, Scalar) and root.tag == "null" else root


def _refuse(event: Any) -> None:
    if event.anchor is not None:
        raise DocumentError([f"{_mark(event.start_mark)}: anchors and aliases are not used here"])
    if event.tag is not None:
        raise DocumentError([f"{_mark(event.start_mark)}: tags are not used here"])


def _mark(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"
