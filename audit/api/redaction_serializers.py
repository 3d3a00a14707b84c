"""Redaction rules: what is taken and what is answered."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from audit.redaction import rules
from core.api.fields import Bool, Char, Choice, Pattern, Strict

__all__ = ["RedactionRuleChangeSerializer", "RedactionRuleSerializer"]


class RedactionRuleChangeSerializer(Strict):
    """One name, pattern or sort of personal data that is redacted beside what always is."""

    kind = Choice(choices=rules.KINDS)
    value = Char(
        max_length=rules.MAX_PATTERN,
        help_text="A name whose values are secrets (case and separators do not matter), a pattern in RE2's syntax, or "
        "one of email, card, iban, phone.",
    )
    # Serializers have an attribute of this name; members are taken out of the class before it counts.
    label = Pattern(  # type: ignore[assignment]
        r"^[a-z0-9-]*$",
        required=False,
        allow_blank=True,
        max_length=40,
        trim_whitespace=False,
        help_text="Stands in the replacement: [REDACTED:label:…]. Empty: custom. Personal data has none: its kind stands there.",
    )
    note = Char(required=False, allow_blank=True, max_length=1000, help_text="Why; for whoever reads this later.")
    enabled = Bool(required=False)


class RedactionRuleSerializer(serializers.Serializer[Any]):
    """A redaction rule."""

    id = serializers.IntegerField()
    kind = serializers.ChoiceField(choices=rules.KINDS)
    value = serializers.CharField()
    label = serializers.CharField()  # type: ignore[assignment]
    note = serializers.CharField()
    enabled = serializers.BooleanField()
    created_at = serializers.DateTimeField()
