"""The policy as a whole: drafts, versions, explanations."""

from __future__ import annotations

from rest_framework import serializers

from core.api.fields import Char, Choice, Moment, Strict
from policies import vocabulary
from policies.api.serializers.parts import ROLE, Output


class DraftSerializer(Strict):
    """A policy as text."""

    document = Char(
        max_length=4_000_000, allow_blank=True, help_text="The policy in YAML; docs/policy.md describes the language."
    )


class PolicySerializer(Output):
    """The policy as stored."""

    version = serializers.IntegerField(help_text="The version that events carry.")
    at = serializers.DateTimeField(allow_null=True)
    author = serializers.CharField()
    origin = serializers.CharField()
    document = serializers.CharField()


class ChangeSerializer(Output):
    """One change."""

    change = serializers.ChoiceField(choices=("add", "change", "remove"))
    what = serializers.ChoiceField(choices=("role", "rule", "limit", "audit"))
    label = serializers.CharField()  # type: ignore[assignment]
    before = serializers.JSONField(allow_null=True)
    after = serializers.JSONField(allow_null=True)


class AppliedSerializer(Output):
    """What applying a policy changed, or would change."""

    changed = serializers.BooleanField()
    dry_run = serializers.BooleanField()
    policy_version = serializers.IntegerField()
    changes = ChangeSerializer(many=True)
    diff = serializers.CharField(help_text="The difference of the two documents, line by line.")


class CheckedSerializer(Output):
    """What is in a valid policy."""

    valid = serializers.BooleanField()
    roles = serializers.IntegerField()
    rules = serializers.IntegerField()
    limits = serializers.IntegerField()
    audit = serializers.IntegerField()


class VersionSerializer(Output):
    """One version of the policy, without its text."""

    version = serializers.IntegerField()
    at = serializers.DateTimeField()
    author = serializers.CharField()
    origin = serializers.CharField()


class WholeVersionSerializer(VersionSerializer):
    """One version of the policy."""

    document = serializers.CharField()
    diff = serializers.CharField(help_text="What it changed.")


class QuestionSerializer(Strict):
    """A call that somebody asks about; nothing is executed."""

    key = Char(required=False, allow_null=True, max_length=100, help_text="A key: its id, prefix or name.")
    role = Char(required=False, allow_null=True, **ROLE, help_text="Any key of this role, in place of a key.")
    kind = Choice(choices=vocabulary.KINDS, required=False, default="tool")
    upstream = Char(required=False, allow_blank=True, max_length=63, default="")
    name = Char(max_length=1024, help_text="The tool's, prompt's or resource's name, or the method's.")
    arguments = serializers.JSONField(
        required=False, help_text="The call's arguments, an object; not given: none are sent."
    )
    annotations = serializers.JSONField(
        required=False, allow_null=True, help_text="The tool's annotations; not given: as listed."
    )
    client_ip = serializers.IPAddressField(required=False, allow_null=True)
    at = Moment(required=False, allow_null=True, help_text="Not given: now.")


class RuleReferenceSerializer(Output):
    """A rule as events name it."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    effect = serializers.ChoiceField(choices=vocabulary.EFFECTS)


class SettledBySerializer(RuleReferenceSerializer):
    """The rule that settled it."""

    label = serializers.CharField()  # type: ignore[assignment]


class NearSerializer(Output):
    """A rule that came close, and what kept it from matching."""

    rule = RuleReferenceSerializer()
    label = serializers.CharField()  # type: ignore[assignment]
    why = serializers.ListField(child=serializers.CharField())


class CountedSerializer(Output):
    """A limit that counts such a call."""

    id = serializers.IntegerField()
    label = serializers.CharField()  # type: ignore[assignment]
    requests = serializers.IntegerField()
    window_seconds = serializers.IntegerField()
    per = serializers.ListField(child=serializers.CharField())


class ExplanationSerializer(Output):
    """The gateway's own decision, and everything around it."""

    allowed = serializers.BooleanField()
    reason = serializers.CharField()
    rule = SettledBySerializer(allow_null=True)
    message = serializers.CharField(help_text="What the caller would be told.")
    policy_version = serializers.IntegerField()
    listed = serializers.BooleanField(help_text="Whether a list would show it.")
    example = serializers.JSONField(
        allow_null=True, help_text="Arguments that would be allowed, where some were found."
    )
    errors = RuleReferenceSerializer(many=True)  # type: ignore[assignment]
    observed = serializers.ListField(child=serializers.CharField())
    near = NearSerializer(many=True)
    limits = CountedSerializer(many=True)
    audit_level = serializers.CharField(allow_null=True)
    notes = serializers.ListField(child=serializers.CharField(), help_text="What should be said of the key itself.")
