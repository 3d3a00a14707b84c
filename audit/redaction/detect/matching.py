"""The search for secrets that their own form gives away (pure); linear in the length of the text.

One automaton of how forms begin, without counts, finds where one may; the few forms that begin so are then tried there.
(One automaton of the whole forms would be simpler, and on random text a thousand times slower: each run of letters puts it
into a state it has never seen.) Forms that begin like anything are searched for one by one, where the text has what they need.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import re2

from audit.redaction.detect.automata import Look, compile_bytes, finder, options, starter
from audit.redaction.detect.budget import Effort
from audit.redaction.detect.patterns import FORMS, RUN, Form
from audit.redaction.detect.prefixes import opening
from audit.redaction.detect.randomness import entropy, mixed, only_words

__all__ = ("LOOSE", "OPENINGS", "SecretPlace", "search_forms")

_ESCAPE = r"\\[nrtbfv]|\\u[0-9a-fA-F]{4}"
_WORD = rf"(?:\b|{_ESCAPE})"


@dataclass(frozen=True, slots=True)
class SecretPlace:
    """A secret's place in a text."""

    start: int
    end: int
    kind: str


def _whole(form: Form) -> str:
    if form.before:
        return f"(?:{form.before})({form.pattern})"
    return f"{_WORD}({form.pattern})" if form.word else f"({form.pattern})"


def _opening(form: Form) -> str:
    return form.opening or opening(form.before or form.pattern)


_BEGINNING = tuple(form for form in FORMS if not form.needs)


# More than a hundred patterns, compiled when they are first needed: most commands never are.
@cache
def _searched() -> tuple[tuple[Form, Any], ...]:
    return tuple((form, compile_bytes(_whole(form))) for form in FORMS if form.needs)


@cache
def _each() -> tuple[Look, ...]:
    return tuple(starter(compile_bytes(_whole(form))) for form in _BEGINNING)


OPENINGS = "|".join(
    (
        f"{_WORD}(?:{'|'.join(_opening(form) for form in _BEGINNING if form.word)})",
        *(_opening(form) for form in _BEGINNING if not form.word),
    )
)
_OPENINGS = compile_bytes(OPENINGS, captures=False, memory=64)
_find_opening = finder(_OPENINGS)
# What a text must hold for any of the forms that begin like anything, the two below included.
_LITERALS = sorted({literal for form in FORMS if form.needs is not RUN for literal in form.needs})
LOOSE = "[A-Za-z0-9]{20}|[A-Za-z0-9+/]{40}|" + "|".join(re.escape(literal.decode()) for literal in _LITERALS)
_LOOSE = compile_bytes(LOOSE, captures=False)
_find_loose = finder(_LOOSE)
# What a form that fits nowhere may have read of the text before it said so; RE2 reads many bytes while others read one.
_READ_IN_VAIN = 4_096


# What a beginning is known by: no opening is longer, an escape in front of it included.
_LONGEST_OPENING = 48


@cache
def _begun() -> Any:
    """One automaton that says which forms begin where a text begins, so that only these are tried."""
    found = re2.Set.MatchSet(options(memory=64))
    for form in _BEGINNING:
        # Whether a word begins there depends on what stands before it: the form itself looks.
        found.Add((f"(?:{_ESCAPE})?(?:{_opening(form)})" if form.word else _opening(form)).encode())
    found.Compile()
    return found


def _passes(form: Form, value: bytes) -> bool:
    return form.check is None or form.check(value)


def _trimmed(value: bytes) -> bytes:
    """Leave the end of a sentence out of a token that may hold dots."""
    return value.rstrip(b".-") or value


def search_forms(text: bytes, effort: Effort | None = None) -> Iterator[SecretPlace]:
    """Find every secret that its own form gives away; what overlaps is left to the caller. Raises TooDear."""
    position, size = 0, len(text)
    effort = effort or Effort(size)
    each, begun = _each(), _begun()
    while position < size:
        ((begin, opened),) = _find_opening(text, position, size)
        if opened < 0:
            break
        position = begin + 1
        effort.spend(16)
        for index in sorted(begun.Match(text[begin : begin + _LONGEST_OPENING]) or ()):
            spans = each[index](text, begin, size)
            if spans[0][1] < 0:
                effort.spend(min(size - begin, _READ_IN_VAIN) >> 5)
                continue
            start, end = spans[1]
            value = _trimmed(text[start:end])
            if _passes(_BEGINNING[index], value):
                yield SecretPlace(start, start + len(value), _BEGINNING[index].kind)
                position = start + len(value)
                break
            effort.spend(min(end - start, _READ_IN_VAIN))  # and it is read again from its second byte
    if _find_loose(text, 0, size)[0][1] >= 0:
        yield from _search_loose(text)


def _search_loose(text: bytes) -> Iterator[SecretPlace]:
    for form, pattern in _searched():
        if form.needs is not RUN and not any(literal in text for literal in form.needs):
            continue
        for match in pattern.finditer(text):
            value = _trimmed(match.group(1))
            if _passes(form, value):
                yield SecretPlace(match.start(1), match.start(1) + len(value), form.kind)
    for match in _AWS_SECRET.finditer(text):
        if _is_aws_secret(match[0]):
            yield SecretPlace(*match.span(), "aws-secret")
    for match in _UNLISTED.finditer(text):
        if _is_unlisted(match["random"]) and (
            before := _UNLISTED_BEFORE.search(text, max(0, match.start() - 60), match.start())
        ):
            if before[0][:3].lower() != b"sha":
                yield SecretPlace(before.start(), match.end(), "token")


# An AWS secret key has no prefix; its length, alphabet and randomness give it away.
_AWS_SECRET = re.compile(rb"(?<![A-Za-z0-9+/=_\-])[A-Za-z0-9+/]{40}(?![A-Za-z0-9+/=_\-])")
_LONG_RUN = re.compile(rb"[a-z]{13,}")
_AWS_MIX = mixed(1, 3, 3)
# GIF, PNG, JPEG, RIFF and PDF in base64.
_FILES = (b"R0lGOD", b"iVBORw0KGgo", b"/9j/", b"UklGR", b"JVBERi")
_HEX = re.compile(rb"[0-9a-fA-F]+\Z")


def _is_aws_secret(value: bytes) -> bool:
    if _HEX.match(value) or not _AWS_MIX(value) or entropy(value) < 4.2:
        return False
    return not (_LONG_RUN.search(value) or value.startswith(_FILES) or only_words(value))


# A vendor that is not listed: a short prefix, then 32 random characters or more.
_UNLISTED = re.compile(rb"[_\-](?P<random>[A-Za-z0-9]{32,4096})(?![A-Za-z0-9+/])")
_UNLISTED_BEFORE = re.compile(rb"(?<![A-Za-z0-9])[A-Za-z][A-Za-z0-9]{1,15}(?:[_\-][A-Za-z0-9]{1,10}){0,3}\Z")
_UNLISTED_MIX = mixed(3, 3, 3)


def _is_unlisted(random: bytes) -> bool:
    return _UNLISTED_MIX(random) and entropy(random) >= 4.0
