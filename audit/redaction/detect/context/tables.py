"""Secrets in columns (pure): CSV, tabs, Markdown, `INSERT INTO`; a name in the head makes secrets of what stands below it.

Every line is looked at once, and a head only counts where rows of as many cells follow it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from audit.redaction.detect.heuristics import REFERENCE, WORDS_NOT_VALUES, accepts, is_words, looks_like_our_token
from audit.redaction.detect.matching import SecretPlace
from audit.redaction.detect.names import Name, judge

__all__ = ("in_columns",)

_MOST_CELLS = 60
_LONGEST_HEAD = 2_000
_LINE = re.compile(rb"(?:[^\r\n\\]|\\(?!r?\\?n))++")
_CELL_NAME = re.compile(rb"[ \t]*[\"']?[ \t]*(?P<name>[A-Za-z][A-Za-z0-9_.\- ()#/]{0,60}?)[ \t]*[\"']?[ \t]*\Z")
_RULE = re.compile(rb"[ \t:\-=+]*\Z")
_CELLS = {
    delimiter: re.compile(
        rb"[ \t]*+\"(?:[^\"]|\"\")*+\"[^%b]*|'[^'%b]*+'(?=[ \t]*(?:%b|\Z))|[^%b]*" % ((re.escape(delimiter),) * 4)
    )
    for delimiter in (b",", b";", b"\t", b"|")
}
_INSERT = re.compile(
    rb"(?i)\b(?:insert|replace)[ \t\r\n]+into[ \t\r\n]+[^\s()]{1,128}[ \t\r\n]{0,8}\((?P<names>[^()]{3,2000})\)[ \t\r\n]{0,8}values[ \t\r\n]{0,8}(?=\()"
)
_ROW = re.compile(rb"[ \t\r\n,]{0,16}\((?P<row>(?:'(?:[^'\\]|''|\\.)*+'|[^()'])*+)\)", re.S)
_SQL_VALUE = re.compile(rb"[ \t\r\n]*+(?P<value>'(?:[^'\\]|''|\\.)*+'|[^,']*+)[^,]*", re.S)


def in_columns(text: bytes) -> Iterator[SecretPlace]:
    """Find the secrets that the head of a table or the columns of an INSERT name."""
    if b"\n" in text or b"\\n" in text:
        yield from _tables(text)
    lowered = text.lower()
    if b"into" in lowered and b"values" in lowered:
        yield from _inserts(text)


def _tables(text: bytes) -> Iterator[SecretPlace]:
    head: list[tuple[int, Name]] = []
    delimiter, width, before, spoken = b"", 0, (b"", 0), False
    for line in _LINE.finditer(text):
        written = line[0]
        if head:
            cells = _cells(written, delimiter)
            if len(cells) == width:
                for column, name in head:
                    start, end = cells[column]
                    if _RULE.match(written, start, end):
                        continue  # the line under a head
                    if spoken and is_words(written[start:end].strip()):
                        continue
                    if one := _cell(text, line.start() + start, line.start() + end, name):
                        yield one
                continue
            head = []
        shape = _shape(written)
        if shape[1] and shape != before and len(written) <= _LONGEST_HEAD:
            delimiter = shape[0]
            cells = _cells(written, delimiter)
            width = len(cells)
            head = _named(written, cells) if 2 <= width <= _MOST_CELLS else []
            # A line of a sentence has blanks after its commas; then a word below it is one more word.
            spoken = b", " in written or b"; " in written
        before = shape


def _shape(line: bytes) -> tuple[bytes, int]:
    """Say what parts a line, and how often."""
    for delimiter in (b"\t", b"|", b";", b","):
        if count := line.count(delimiter):
            return delimiter, count
    return b"", 0


def _cells(line: bytes, delimiter: bytes) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    position, pattern = 0, _CELLS[delimiter]
    while len(found) <= _MOST_CELLS:
        match = pattern.match(line, position)
        if match is None:
            break
        found.append(match.span())
        position = match.end() + 1
        if match.end() >= len(line):
            break
    return found


def _named(line: bytes, cells: list[tuple[int, int]]) -> list[tuple[int, Name]]:
    """Give the columns of a head whose names stand for secrets; none when it does not read like a head."""
    named = []
    for column, (start, end) in enumerate(cells):
        cell = line[start:end]
        if not cell.strip():
            continue
        match = _CELL_NAME.match(cell)
        if match is None or match["name"].count(b" ") > 3:
            return []
        name = judge(match["name"].decode("ascii"))
        if name.kind:
            named.append((column, name))
    return named


def _cell(text: bytes, start: int, end: int, name: Name) -> SecretPlace | None:
    while start < end and text[start : start + 1] in _AROUND:
        start += 1
    while end > start and text[end - 1 : end] in _AROUND:
        end -= 1
    value = text[start:end]
    if not value or value.lower() in WORDS_NOT_VALUES or REFERENCE.match(value) or looks_like_our_token(value):
        return None
    if not accepts(name, value) or (name.textual and value.isdigit()):
        return None
    return SecretPlace(start, end, name.kind)


_AROUND = (b" ", b"\t", b'"', b"'", b"`")


def _inserts(text: bytes) -> Iterator[SecretPlace]:
    for match in _INSERT.finditer(text):
        names = [judge(part.strip(b" \t\r\n\"'`[]").decode("utf-8", "replace")) for part in match["names"].split(b",")]
        columns = [(column, name) for column, name in enumerate(names) if name.kind]
        if not columns or len(names) > _MOST_CELLS:
            continue
        position = match.end()
        while row := _ROW.match(text, position):
            values: list[tuple[int, int]] = []
            position, at = row.end(), row.start("row")
            while len(values) < len(names) and (value := _SQL_VALUE.match(text, at, row.end("row"))):
                values.append(value.span("value"))
                at = value.end() + 1
                if at > row.end("row"):
                    break
            for column, name in columns:
                if column < len(values) and (one := _cell(text, *values[column], name)):
                    yield one
