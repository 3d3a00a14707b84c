"""Events and redaction rules: what is taken and what is answered."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from audit.events.event import FIELDS
from audit.models import Outcome
from audit.redaction import rules
from core.api.fields import Bool, Char, Choice, Pattern, Strict

__all__ = ["EventSerializer", "RedactionRuleChangeSerializer", "RedactionRuleSerializer"]

SHAPES: dict[str, Any] = {
    "uuid": serializers.UUIDField,
    "time": serializers.DateTimeField,
    "text": serializers.CharField,
    "whole": serializers.IntegerField,
    "number": serializers.FloatField,
    "flag": serializers.BooleanField,
    "json": serializers.JSONField,
}


class EventSerializer(serializers.Serializer[Any]):
    """An event, in the names of the export. `request_json` and `response_json` are there for `include=payloads` alone."""

    def get_fields(self) -> dict[str, Any]:
        """Describe each field of the table of events."""
        more: dict[str, dict[str, Any]] = {
            "request_json": {"required": False},
            "response_json": {"required": False},
            "tool_error": {"allow_null": False},  # answered from the details where it is older than its column
        }
        found: dict[str, Any] = {}
        for field in FIELDS:
            about = {"help_text": field.help or None, "allow_null": field.empty is None, **more.get(field.name, {})}
            found[field.name] = SHAPES[field.shape](**about)
        found["outcome"] = serializers.ChoiceField(choices=Outcome.values)
        return found


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
