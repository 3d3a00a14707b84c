"""Single values replaced inside JSON text (pure): every other byte stays as it was.

A process or a stream shared by several callers needs ids of the gateway's own, but numbers, escapes and order of the
message are not the gateway's to change, so it is never written anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

Path = tuple[str, ...]
Span = tuple[int, int]

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\]:,]', re.DOTALL)
_SPACE = b" \t\r\n"


def find(raw: bytes, *paths: Path) -> dict[Path, Span]:
    """Find where the values at these paths of members lie; absent ones are left out."""
    result: dict[Path, Span] = {}
    _object(_TOKEN.finditer(raw), raw, (), frozenset(paths), result, start=True)
    return result


def replace(raw: bytes, changes: dict[Span, bytes]) -> bytes:
    """Put other bytes in place of spans."""
    pieces: list[bytes] = []
    last = 0
    for (start, end), new in sorted(changes.items()):
        pieces += (raw[last:start], new)
        last = end
    pieces.append(raw[last:])
    return b"".join(pieces)


def one_line(raw: bytes) -> bytes:
    """Put a message on one line: a line break outside strings is white space, inside them JSON has none."""
    return raw.translate(_TO_SPACES) if b"\n" in raw or b"\r" in raw else raw


_TO_SPACES = bytes(0x20 if byte in (0x0A, 0x0D) else byte for byte in range(256))


def _object(
    tokens: Iterator[re.Match[bytes]],
    raw: bytes,
    prefix: Path,
    wanted: frozenset[Path],
    result: dict[Path, Span],
    *,
    start: bool = False,
) -> None:
    """Walk one object's members; descends only where a wanted path leads."""
    if start:
        first = next(tokens, None)
        if first is None or first.group() != b"{":
            return
    name = ""
    for token in tokens:
        text = token.group()
        if text == b"}":
            return
        if text[:1] == b'"':
            name = json.loads(text)
        elif text == b":":
            path = (*prefix, name)
            begin = token.end()
            while raw[begin : begin + 1] and raw[begin] in _SPACE:
                begin += 1
            head = raw[begin : begin + 1]
            if head == b"{" and any(len(want) > len(path) and want[: len(path)] == path for want in wanted):
                next(tokens)
                _object(tokens, raw, path, wanted, result)
                continue
            end, closed = _skip(tokens, raw, begin, head)
            if path in wanted and path not in result:
                result[path] = (begin, end)
            if closed:
                return


def _skip(tokens: Iterator[re.Match[bytes]], raw: bytes, begin: int, head: bytes) -> tuple[int, bool]:
    """Pass over one value; gives its end, and whether the object ended with it."""
    if head == b'"':
        token = next(tokens, None)
        return (token.end() if token else len(raw)), False
    if head in (b"{", b"["):
        depth = 0
        for token in tokens:
            char = raw[token.start()]
            if char in b"{[":
                depth += 1
            elif char in b"}]":
                depth -= 1
                if depth == 0:
                    return token.end(), False
        return len(raw), True
    token = next(tokens, None)  # the comma or brace after a number, true, false or null
    end = token.start() if token else len(raw)
    closed = token is None or token.group() == b"}"
    while end > begin and raw[end - 1] in _SPACE:
        end -= 1
    return end, closed
