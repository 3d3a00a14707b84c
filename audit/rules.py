"""What an installation redacts beside what is always redacted (pure): names, patterns in linear time, personal data."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import re2

from audit.finding import lexical, pii
from audit.finding.matching import Found
from audit.finding.names import Name, fold, judge

__all__ = ("PatternError", "Rules", "check_pattern")


class PatternError(ValueError):
    """A pattern that cannot be used; the text says why in one line."""


def check_pattern(pattern: str) -> Any:
    """Compile an administrator's pattern for linear-time matching, or say in a PatternError why it cannot be."""
    if len(pattern) > 1_000:
        raise PatternError("the pattern is longer than 1,000 characters")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 4 << 20
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else "it cannot be compiled"
        raise PatternError(
            f"not a pattern RE2 takes: {reason.decode() if isinstance(reason, bytes) else reason}"
        ) from None
    if compiled.search("") is not None:
        raise PatternError("the pattern matches the empty text")
    return compiled


@dataclass(frozen=True, slots=True)
class Rules:
    """What an installation redacts beside what is always redacted."""

    names: tuple[str, ...] = ()
    patterns: tuple[tuple[str, str], ...] = ()  # (kind, pattern in RE2's syntax)
    kinds: frozenset[str] = frozenset()  # of pii.KINDS: email, card, iban, phone
    _compiled: tuple[tuple[str, Any], ...] = field(init=False, repr=False, compare=False, default=())
    _judged: dict[str, Name] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        unknown = self.kinds - pii.KINDS.keys()
        if unknown:
            raise PatternError(f"unknown kinds: {', '.join(sorted(unknown))}")
        compiled = tuple(
            (re.sub(r"[^a-z0-9\-]", "-", kind.lower())[:40] or "custom", check_pattern(p)) for kind, p in self.patterns
        )
        object.__setattr__(self, "_compiled", compiled)
        judged = {fold(name): Name("custom", strong=True) for name in self.names if fold(name)}
        object.__setattr__(self, "_judged", judged)

    def judge(self, name: str) -> Name:
        """Say what a name says of its value, under these rules."""
        if self._judged:
            found = self._judged.get(fold(name))
            if found is not None:
                return found
        return judge(name)

    @property
    def more(self) -> bool:
        """Whether there is anything beside what is always redacted."""
        return bool(self._judged or self._compiled or self.kinds)

    def find(self, raw: bytes) -> list[Found]:
        """Find what these rules alone make a secret."""
        found: list[Found] = []
        if self._compiled:
            text = raw.decode("utf-8", "replace")
            for kind, pattern in self._compiled:
                for match in pattern.finditer(text):
                    begin = len(text[: match.start()].encode())
                    found.append(Found(begin, begin + len(match.group().encode()), kind))
        for kind in self.kinds:
            found += pii.KINDS[kind](raw)
        if self._judged:
            for word in _WORD.finditer(raw):
                name = self._judged.get(fold(word[0].decode()))
                if name is not None and (one := lexical.after_name(raw, word.start(), word.end(), name, False)):
                    found.append(one)
        return found


_WORD = re.compile(rb"[A-Za-z0-9_.\-]{2,80}")
