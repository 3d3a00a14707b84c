"""Replays: what is taken and what is answered."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from core.api.fields import Char, Moment, Strict
from policies.api.serializers.parts import Output


class ReplayRequestSerializer(Strict):
    """A draft policy to try on past events."""

    document = Char(max_length=4_000_000, allow_blank=True, help_text="The policy in YAML.")
    since = Moment(required=False, help_text="Not given: seven days ago.")
    until = Moment(required=False, allow_null=True, help_text="Not given: now.")


class ReplayedSerializer(Output):
    """Events that would be decided otherwise, of one kind."""

    key_prefix = serializers.CharField()
    key_name = serializers.CharField()
    role = serializers.CharField()
    upstream = serializers.CharField()
    kind = serializers.CharField()
    name = serializers.CharField()
    now = serializers.ChoiceField(
        choices=("allowed", "denied"), allow_null=True, required=False, help_text="By the present policy."
    )
    to = serializers.ChoiceField(choices=("allowed", "denied"))
    reason = serializers.CharField()
    rule = serializers.CharField()
    count = serializers.IntegerField()
    examples = serializers.ListField(child=serializers.CharField(), help_text="Ids of events.")

    def get_fields(self) -> dict[str, Any]:
        """Add the member whose name is a word of Python."""
        return super().get_fields() | {"from": serializers.ChoiceField(choices=("allowed", "denied"))}


class ReplayReportSerializer(Output):
    """What a replay found."""

    decided = serializers.IntegerField()
    changed = serializers.IntegerField()
    undecidable = serializers.IntegerField()
    newly_denied = serializers.IntegerField()
    newly_allowed = serializers.IntegerField()
    changed_by_draft = serializers.IntegerField(
        required=False,
        help_text="How many the draft decides otherwise than the present policy, whatever was decided then.",
    )
    changed_since = serializers.IntegerField(
        required=False,
        help_text="How many the present policy decides otherwise than was decided then, without the draft.",
    )
    present_undecidable = serializers.IntegerField(
        required=False, help_text="How many of those decided the present policy cannot decide."
    )
    undecidable_because = serializers.DictField(child=serializers.IntegerField())
    groups = ReplayedSerializer(many=True, help_text="What the draft would decide otherwise than was decided then.")
    undone = ReplayedSerializer(
        many=True,
        required=False,
        help_text="What is decided otherwise by now, and the draft would decide as then again.",
    )


class ReplaySerializer(Output):
    """A replay, and how far it is."""

    id = serializers.UUIDField()
    state = serializers.ChoiceField(choices=("waiting", "running", "done", "failed"))
    progress = serializers.FloatField(help_text="From 0 to 1.")
    created_at = serializers.DateTimeField()
    created_by = serializers.CharField()
    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    error = serializers.CharField()
    payloads = serializers.BooleanField(help_text="Whether conditions on arguments were asked.")
    report = ReplayReportSerializer(allow_null=True)
