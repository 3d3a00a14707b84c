"""What is a secret in a JSON value or a text, and what stands in its place (pure).

    >>> Redactor(b"k" * 32).value({"user": "ann", "password": "x"})[0]["password"].startswith("[REDACTED:password:")
    True

A replacement reads `[REDACTED:kind:8hex]`; the hex is a keyed fingerprint, so equal secrets can be matched without being
known. Redacting twice changes nothing: a text is redacted until it stays as it is. `suspicious` is the prefilter: one
linear look at the compact text of a whole payload that may say "nothing here", and is then right (a test compares it with
the full walk).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

from audit.redaction import prefilter
from audit.redaction.rules import RedactionRuleSet
from audit.redaction.values import Walk

__all__ = ("Redactor",)


class Redactor:
    """Replaces secrets in values and texts, under one key and one set of rules."""

    def __init__(self, key: bytes, rules: RedactionRuleSet | None = None) -> None:
        self.rules = rules or RedactionRuleSet()
        self._key = hmac.digest(key, b"fingerprint", "sha256")
        self.more = self.rules.more

    def fingerprint(self, value: bytes) -> str:
        """Fingerprint a value: the 8 hex of its replacement."""
        return hmac.digest(self._key, value, "sha256")[:4].hex()

    def suspicious(self, document: bytes) -> bool:
        """Whether the compact JSON text of a payload might hold anything that is redacted or escaped."""
        return (self.more and self.rules.suspicious(document)) or prefilter.suspicious(document)

    def value(self, value: Any, *, again: bool = False) -> tuple[Any, int]:
        """Redact and escape a plain JSON value; also say how many replacements there are."""
        walk = Walk(self.rules, self.fingerprint, again)
        return walk.value(value, 0, ""), walk.count

    def text(
        self, text: str, *, cut: bool = False, again: bool = False, escape: Callable[[str], str] | None = None
    ) -> tuple[str, int]:
        """Redact and escape a text. `cut`: it may end within a secret."""
        walk = Walk(self.rules, self.fingerprint, again, escape)
        return walk.text(text, 0, cut), walk.count
