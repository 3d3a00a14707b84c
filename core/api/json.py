"""JSON in and out: read strictly, written exactly."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import IO, Any

import orjson
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer

from core.api.problems import Problem

__all__ = ["MAX_BODY", "Negotiation", "Parser", "Renderer", "YamlText", "dumps", "read_body"]

MAX_BODY = 4 * 1024 * 1024
MAX_DEPTH = 64


def dumps(value: Any, *, sort: bool = False) -> bytes:
    """Write JSON; fragments keep their text."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort else 0)
    except TypeError:  # a whole number of more than 64 bits, which orjson does not write
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort).encode()


class Renderer(BaseRenderer):
    """Writes answers; JSON that was stored as text goes out as that text."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        return b"" if data is None else dumps(data)


class Negotiation(BaseContentNegotiation):
    """There is one form of each answer, whatever is asked for."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        """Choose by media type."""
        kind = str(request.content_type or "").partition(";")[0].strip().lower()
        return next((parser for parser in parsers if kind in (parser.media_type, *getattr(parser, "also", ()))), None)

    def select_renderer(self, request: Any, renderers: Any, format_suffix: str | None = None) -> Any:
        """Take the only one."""
        return renderers[0], renderers[0].media_type


def read_body(stream: IO[bytes]) -> bytes:
    body = stream.read(MAX_BODY + 1)
    if len(body) > MAX_BODY:
        raise Problem("too_large", f"A body has at most {MAX_BODY} bytes.")
    return body


class Parser(BaseParser):
    """Reads one JSON object: no repeated members, nothing that is not JSON, no text that cannot be stored."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            text = read_body(stream).decode("utf-8")
            value = json.loads(text, object_pairs_hook=_members, parse_constant=_constant, parse_float=_number)
            _check(value)
        except (ValueError, RecursionError) as error:
            words = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise Problem("malformed", f"The body is not JSON that can be accepted: {words}"[:500]) from None
        if not isinstance(value, dict):
            raise Problem("malformed", "The body is a JSON object.")
        return value


class YamlText(BaseParser):
    """Reads a document sent as it is, into the member `document`."""

    media_type = "application/yaml"
    also = ("application/x-yaml", "text/yaml", "text/x-yaml")

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            return {"document": read_body(stream).decode("utf-8")}
        except UnicodeDecodeError as error:
            raise Problem("malformed", f"The document is not UTF-8 at byte {error.start}.") from None


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the member {twice[:60]!r} is given twice")
    return found


def _constant(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number is too large")
    return value


def _check(value: Any) -> None:
    """Refuse depth, and text that a database or UTF-8 cannot hold."""
    waiting: list[tuple[Any, int]] = [(value, 0)]
    while waiting:
        one, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        if isinstance(one, str):
            _check_text(one)
        elif isinstance(one, Mapping):
            for name, inner in one.items():
                _check_text(name)
                waiting.append((inner, depth + 1))
        elif isinstance(one, list):
            waiting += [(inner, depth + 1) for inner in one]


def _check_text(text: str) -> None:
    if "\0" in text:
        raise ValueError("a text has the character NUL in it")
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("a text has half a surrogate pair in it")
