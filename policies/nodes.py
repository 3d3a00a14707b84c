"""Reading YAML strictly: every mistake with its line and column, no anchors, no repeated members, no surprising types (pure).

Plain scalars follow YAML 1.2's core rules, so `no` and `17:30` are text, not a boolean and a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

MAX_BYTES: Final = 16 * 1024 * 1024
MAX_DEPTH: Final = 16
MAX_PROBLEMS: Final = 20

_TAG: Final = "tag:yaml.org,2002:"
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


_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a policy of ten thousand rules wants libyaml


class _Loader(_Base):  # type: ignore[misc]
    """Composes nodes; scalars by the core schema only."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


for _name, _regex, _first in (
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"^{_regex}$"), list(_first))


class Reader:
    """Collects what is wrong while a document is walked, and ends the walk with all of it."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def wrong(self, node: yaml.Node | None, message: str) -> None:
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

    def members(self, node: yaml.Node, what: str, known: tuple[str, ...]) -> dict[str, yaml.Node]:
        """A mapping's members, all of them known, none twice."""
        found: dict[str, yaml.Node] = {}
        for key, key_node, value in self.entries(node, what):
            if key not in known:
                self.wrong(key_node, f"{what} has no member {key!r}; it has {', '.join(known)}")
            else:
                found[key] = value
        return found

    def entries(self, node: yaml.Node, what: str) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        """A mapping's members of any name, none twice."""
        if not isinstance(node, yaml.MappingNode):
            if not (isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "null"):
                self.wrong(node, f"{what} is a mapping, not {kind(node)}")
            return
        seen: set[str] = set()
        for key_node, value in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.wrong(key_node, f"a member's name is text, not {kind(key_node)}")
            elif key_node.value in seen:
                self.wrong(key_node, f"{key_node.value!r} stands here twice")
            else:
                seen.add(key_node.value)
                yield key_node.value, key_node, value

    def items(self, node: yaml.Node | None, what: str) -> list[yaml.Node]:
        """A list's items; nothing when it is absent."""
        if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "null"):
            return []
        if not isinstance(node, yaml.SequenceNode):
            self.wrong(node, f"{what} is a list, not {kind(node)}")
            return []
        return list(node.value)

    def text(self, node: yaml.Node | None, what: str, *, most: int = 500, default: str = "") -> str:
        """Text of at most so many characters."""
        if node is None:
            return default
        if not isinstance(node, yaml.ScalarNode) or node.tag != _TAG + "str":
            hint = "; put it in quotes" if isinstance(node, yaml.ScalarNode) else ""
            self.wrong(node, f"{what} is text, not {kind(node)}{hint}")
            return default
        value: str = node.value
        if len(value) > most:
            self.wrong(node, f"{what} has at most {most} characters")
        if "\0" in value:
            self.wrong(node, f"{what} has no NUL character")
        return value

    def word(self, node: yaml.Node | None, what: str, words: tuple[str, ...], default: str = "") -> str:
        """One of these words."""
        value = self.text(node, what, default=default)
        if node is not None and value not in words:
            self.wrong(node, f"{what} is one of {', '.join(words)}, not {value!r}")
        return value

    def words(self, node: yaml.Node | None, what: str, words: tuple[str, ...]) -> tuple[str, ...]:
        """Several of these words, given in their own order."""
        chosen = {self.word(item, what, words) for item in self.items(node, what)}
        return tuple(word for word in words if word in chosen)

    def texts(self, node: yaml.Node | None, what: str, most: int = 500) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(self.text(item, what, most=most) for item in self.items(node, what))

    def number(self, node: yaml.Node | None, what: str, low: int, high: int, default: int = 0) -> int:
        """A whole number in a range."""
        if node is None:
            return default
        if not isinstance(node, yaml.ScalarNode) or node.tag != _TAG + "int":
            self.wrong(node, f"{what} is a whole number, not {kind(node)}")
            return default
        if len(node.value) > 20 or not low <= int(node.value) <= high:
            self.wrong(node, f"{what} is a whole number from {low} to {high}")
            return default
        return int(node.value)

    def flag(self, node: yaml.Node | None, what: str, *, default: bool) -> bool:
        """True or false."""
        if node is None:
            return default
        if not isinstance(node, yaml.ScalarNode) or node.tag != _TAG + "bool":
            self.wrong(node, f"{what} is true or false, not {kind(node)}")
            return default
        return str(node.value).lower() == "true"

    def value(self, node: yaml.Node, what: str) -> Any:
        """A scalar, or a list of scalars as a tuple."""
        if isinstance(node, yaml.SequenceNode):
            return tuple(self.value(item, what) for item in node.value)
        if isinstance(node, yaml.ScalarNode):
            tag = node.tag.removeprefix(_TAG)
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


def place(node: yaml.Node) -> str:
    """Where a node stands."""
    return f"line {node.start_mark.line + 1}, column {node.start_mark.column + 1}"


def kind(node: yaml.Node) -> str:
    """What a node is, in words."""
    name = _NAMES.get(node.tag.removeprefix(_TAG), node.tag)
    if isinstance(node, yaml.ScalarNode) and node.value:
        return f"{name} ({node.value:.40})"
    return name


def compose(text: str) -> yaml.Node | None:
    """Read one YAML document into nodes; None when it is empty."""
    if len(text) > MAX_BYTES:
        raise DocumentError([f"a policy has at most {MAX_BYTES} characters"])
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise DocumentError([f"{_mark(event.start_mark)}: anchors and aliases are not used here"])
            if getattr(event, "tag", None) is not None:
                raise DocumentError([f"{_mark(event.start_mark)}: tags are not used here"])
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise DocumentError([f"{_mark(event.start_mark)}: nested too deep"])
        node: yaml.Node | None = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = error.problem or error.context or "cannot be read"
        raise DocumentError([f"{_mark(mark)}: {what}" if mark else str(what)]) from error
    except yaml.YAMLError as error:
        raise DocumentError([" ".join(str(error).split())]) from error
    if isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "null":
        return None
    return node


def _mark(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"
