"""What a plain member of a rule or a limit may be; policies.specs has the tables of them (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

REQUIRED: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A plain member. What is said of it: `about` in the API, `described` in the document's schema, `label` and `hint` in a form."""

    name: str = ""
    default: Any = REQUIRED
    #: its name in a document, where that is another
    called: str = ""
    about: str = ""
    described: str = ""
    label: str | None = None
    hint: str = ""
    #: how the sentence of a rule or a limit goes on where this is not the default; {} is the value
    says: str = ""

    def take(self, value: Any) -> Any:
        """A value as a spec holds it."""
        return value


@dataclass(frozen=True, slots=True)
class TextMember(Member):
    """Text of at most so many characters; empty: none."""

    most: int


@dataclass(frozen=True, slots=True)
class WholeMember(Member):
    """A whole number from one, which does not exceed the member `within`; a form offers `start`."""

    most: int
    within: str = ""
    start: int | None = None


@dataclass(frozen=True, slots=True)
class Flag(Member):
    """Yes or no."""


@dataclass(frozen=True, slots=True)
class Word(Member):
    """One word of these; a form offers the first."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Words(Member):
    """Several words of these, in their order."""

    words: tuple[str, ...]

    def take(self, value: Any) -> tuple[str, ...]:
        return tuple(word for word in self.words if word in value)
