"""What is answered about events, described."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from audit.events.event import FIELDS
from audit.models import Outcome

__all__ = ["EventSerializer"]

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
