"""What an installation redacts beside what is always redacted (pure): names, patterns in linear time, personal data."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import re2

from audit.redaction.detect import pii
from audit.redaction.detect.automata import Look, finder
from audit.redaction.detect.budget import Effort
from audit.redaction.detect.context import lexical
from audit.redaction.detect.matching import SecretPlace
from audit.redaction.detect.names import Name, fold, judge

__all__ = (
    "KINDS",
    "MAX_PATTERN",
    "PatternError",
    "RedactionRuleSet",
    "check",
    "check_name",
    "check_pattern",
    "label_of",
)

KINDS = ("name", "pattern", "personal")
MAX_PATTERN = 1_000
MAX_NAME = 100
_FLAGS = re.compile(r"\\.|\[(?:\\.|[^\]\\])+\]", re.S)
# Texts of every day; a pattern that finds something in most of them was not meant so.
_ORDINARY = (
    "hello", "search_documents", "42", "true", "2026-11-24T10:00:00Z", "https://example.com/items?page=2", "Ann Lee",
    "The quick brown fox jumps over the lazy dog.", "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "/usr/local/lib/app.py",
    "1.24.7", "größe", "a,b;c", "SELECT name FROM customers", "ORD-2041",
)  # fmt: skip


class PatternError(ValueError):
    """A rule that cannot be used; the text says why in one line."""


def check_pattern(pattern: str) -> Any:
    """Compile an administrator's pattern for linear-time matching, or say in a PatternError why it cannot be."""
    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"the pattern is longer than {MAX_PATTERN:,} characters")
    compiled = _compiled(pattern)
    if compiled.search(b"") is not None:
        raise PatternError("the pattern matches the empty text")
    found = [text for text in _ORDINARY if compiled.search(text.encode()) is not None]
    if len(found) * 2 > len(_ORDINARY):
        raise PatternError(
            f"the pattern finds something in nearly everything: in {len(found)} of {len(_ORDINARY)} ordinary texts, "
            f"such as {found[0]!r}"
        )
    return compiled


def _compiled(pattern: str, memory: int = 4) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = memory << 20
    try:
        return re2.compile(pattern.encode("utf-8", "replace"), options)
    except re2.error as error:
        reason = error.args[0] if error.args else "it cannot be compiled"
        reason = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else reason
        raise PatternError(f"not a pattern RE2 takes: {reason}") from None


def check_name(name: str) -> str:
    """Fold an administrator's name to what it is compared by, or say in a PatternError why it says nothing."""
    if len(name) > MAX_NAME:
        raise PatternError(f"the name is longer than {MAX_NAME} characters")
    folded = _folded(name)
    if len(folded) < 2:
        raise PatternError("the name has fewer than two letters or digits, which are all that names are compared by")
    return folded


def check(kind: str, value: str) -> None:
    """Say in a PatternError why a rule of this kind cannot be used, if it cannot."""
    if kind == "name":
        check_name(value)
    elif kind == "pattern":
        check_pattern(value)
    elif kind != "personal":
        raise PatternError(f"no kind of rule: {kind}; there are {', '.join(KINDS)}")
    elif value not in pii.KINDS:
        raise PatternError(f"no kind of personal data: {value}; there are {', '.join(pii.KINDS)}")


def label_of(text: str) -> str:
    """Write a label as it stands in replacements: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9\-]", "-", text.lower())[:40] or "custom"


@lru_cache(maxsize=8192)
def _folded(name: str) -> str:
    """Fold a name as `fold` does, but keep the letters of every script."""
    if name.isascii():
        return fold(name)
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    return "".join(c for c in plain if c.isalnum())


@dataclass(frozen=True, slots=True)
class RedactionRuleSet:
    """What an installation redacts beside what is always redacted."""

    names: tuple[str, ...] = ()
    patterns: tuple[tuple[str, str], ...] = ()  # (label, pattern in RE2's syntax)
    kinds: frozenset[str] = frozenset()  # of pii.KINDS: email, card, iban, phone
    labels: tuple[tuple[str, str], ...] = ()  # (name, label) of names whose replacements do not read "custom"
    _compiled: tuple[tuple[str, Any], ...] = field(init=False, repr=False, compare=False, default=())
    _judged: dict[str, Name] = field(init=False, repr=False, compare=False, default_factory=dict)
    _hint: tuple[Look, ...] | None = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        unknown = self.kinds - pii.KINDS.keys()
        if unknown:
            raise PatternError(f"unknown kinds: {', '.join(sorted(unknown))}")
        put, labels = object.__setattr__, dict(self.labels)
        put(self, "_compiled", tuple((label_of(label), check_pattern(p)) for label, p in self.patterns))
        judged = {check_name(name): Name(label_of(labels.get(name, "")), strong=True) for name in self.names}
        put(self, "_judged", judged)
        put(self, "_hint", _together([pattern for _, pattern in self.patterns]))

    @classmethod
    def of(cls, rows: Iterable[tuple[str, str, str]]) -> RedactionRuleSet:
        """Make rules of (kind, value, label); raises PatternError naming the row that cannot be used."""
        names, patterns, kinds, labels = [], [], set(), []
        for kind, value, label in rows:
            try:
                check(kind, value)
            except PatternError as error:
                raise PatternError(f"the {kind} {value[:80]!r} cannot be used: {error}") from None
            if kind == "name":
                names.append(value)
                labels += [(value, label)] if label else []
            elif kind == "pattern":
                patterns.append((label, value))
            else:
                kinds.add(value)
        return cls(tuple(names), tuple(patterns), frozenset(kinds), tuple(labels))

    def judge(self, name: str) -> Name:
        """Say what a name says of its value, under these rules."""
        if self._judged:
            found = self._judged.get(_folded(name) if len(name) <= 4 * MAX_NAME else "")
            if found is not None:
                return found
        return judge(name)

    @property
    def more(self) -> bool:
        """Whether there is anything beside what is always redacted."""
        return bool(self._judged or self._compiled or self.kinds)

    def suspicious(self, document: bytes) -> bool:
        """Whether the compact JSON text of a payload may hold anything that these rules alone make a secret."""
        if b"\\" in document:
            document = document.replace(b'\\"', b'"').replace(b"\\n", b"\n")
            if b"\\" in document:
                return True
        # A name is judged without the replacements in it.
        return b"[REDACTED:" in document or self.hinted(document)

    def hinted(self, text: bytes) -> bool:
        """Whether a text may hold anything that these rules alone make a secret, in the text as it stands."""
        if self._hint is None or any(hint(text, 0, len(text))[0][1] >= 0 for hint in self._hint):
            return True
        if any(next(iter(pii.KINDS[kind](text)), None) is not None for kind in self.kinds):
            return True
        if not self._judged:
            return False
        folded = _folded_text(text)
        return any(name in folded for name in self._judged)

    def find(self, raw: bytes, effort: Effort) -> list[SecretPlace]:
        """Find what these rules alone make a secret. Raises TooDear."""
        found: list[SecretPlace] = []
        for label, pattern in self._compiled:
            for match in pattern.finditer(raw):
                begin, end = match.span()
                found.append(SecretPlace(begin, end, label))
        for kind in self.kinds:
            found += pii.KINDS[kind](raw)
        if self._judged:
            for word in _WORD.finditer(raw):
                name = self._judged.get(_folded(word[0].decode("utf-8", "replace")))
                if name is not None and (one := lexical.after_name(raw, word.start(), word.end(), name, False, effort)):
                    found.append(one)
        return found


def _folded_text(text: bytes) -> str:
    """Fold a whole text as names are: what any name in it folds to stands in the result."""
    if text.isascii():
        return text.translate(_LOWER, _NOT_ALNUM).decode()
    return _folded.__wrapped__(text.decode("utf-8", "replace"))


def _together(patterns: list[str]) -> tuple[Look, ...] | None:
    """Make what looks for several patterns at once; None where a payload's text says nothing about the texts in it."""
    for pattern in patterns:
        bare = _FLAGS.sub(lambda part: part[0] if part[0] in (r"\A", r"\z") else "", pattern)
        if "^" in bare or "$" in bare or "\\" in bare:
            return None  # it asks where a text begins or ends
    if not patterns:
        return ()
    try:
        return (finder(_compiled("|".join(f"(?:{pattern})" for pattern in patterns), 32)),)
    except PatternError:
        return tuple(finder(_compiled(pattern)) for pattern in patterns)


_WORD = re.compile(rb"[A-Za-z0-9_.\-\x80-\xff]{2,200}")
_LOWER = bytes(c + 32 if 65 <= c <= 90 else c for c in range(256))
_NOT_ALNUM = bytes(c for c in range(256) if not (48 <= c <= 57 or 65 <= c <= 90 or 97 <= c <= 122))
