"""Roles, rules and limits: what is taken and what is answered."""

from __future__ import annotations

from rest_framework import serializers

from core.api.fields import Bool, Char, Choice, Moment, Pattern, Strict, Whole
from policies import vocabulary
from policies.api.serializers.parts import ROLE, Output, networks, slugs

# -- roles


class RoleChangeSerializer(Strict):
    """A role's name and what it is for."""

    name = Pattern(vocabulary.ROLE_NAME, **ROLE)
    description = Char(required=False, allow_blank=True, max_length=500)


class RoleSerializer(Output):
    """A role."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    description = serializers.CharField()
    live_keys = serializers.IntegerField(help_text="How many live keys hold it.")


# -- rules


class ConditionSerializer(Strict):
    """One thing that must hold of a call for its rule to match."""

    subject = Choice(choices=vocabulary.SUBJECTS, required=False, default="arguments")
    path = Char(
        max_length=300,
        required=False,
        allow_blank=True,
        default="",
        help_text="Like amount, filter.table or items[].path; none for the name.",
    )
    quantifier = Choice(
        choices=("", *vocabulary.QUANTIFIERS),
        required=False,
        allow_blank=True,
        default="",
        help_text="For a path with [].",
    )
    operator = Choice(choices=tuple(vocabulary.OPERATORS))
    value = serializers.JSONField(
        required=False,
        allow_null=True,
        default=None,
        help_text="Text, number, boolean or a list of them, as the operator wants.",
    )


class WindowSerializer(Strict):
    """When a rule is in force."""

    days = serializers.ListField(child=Choice(choices=vocabulary.WEEKDAYS), required=False, default=list, max_length=7)
    from_time = Pattern(
        r"^([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?$", required=False, allow_null=True, default=None, help_text="Like 09:00."
    )
    to_time = Pattern(
        r"^([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?$", required=False, allow_null=True, default=None,
        help_text="Not included; before the start: past midnight.",
    )  # fmt: skip
    zone = Char(required=False, max_length=64, default="UTC", help_text="Like Europe/Berlin.")
    valid_from = Moment(required=False, allow_null=True, default=None)
    valid_until = Moment(required=False, allow_null=True, default=None)


class RuleChangeSerializer(Strict):
    """A rule: who, what, when, and what a refused caller is told."""

    name = Char(required=False, allow_blank=True, max_length=100, help_text="Shown in events; unique when given.")
    effect = Choice(choices=vocabulary.EFFECTS)
    roles = serializers.ListField(
        child=Char(**ROLE),
        allow_null=True,
        max_length=500,
        help_text="null: every role. An empty list: none, so it never matches.",
    )
    keys = serializers.ListField(
        child=Char(max_length=40),
        required=False,
        allow_null=True,
        max_length=500,
        help_text="By prefix; null: every key of these roles.",
    )
    kinds = serializers.ListField(
        child=Choice(choices=vocabulary.KINDS),
        required=False,
        min_length=1,
        max_length=4,
        help_text="Not given: tools.",
    )
    pattern = Char(
        max_length=vocabulary.MAX_PATTERN, help_text="The whole name, case-sensitive; * and ? are wildcards."
    )
    upstreams = slugs(required=False, help_text="None: every upstream.")
    conditions = ConditionSerializer(many=True, required=False, help_text="All must hold.")
    window = WindowSerializer(required=False)
    networks = networks(required=False, help_text="None: from anywhere.")
    reason = Char(
        required=False, allow_blank=True, max_length=vocabulary.MAX_REASON, help_text="Told to a refused caller."
    )
    note = Char(required=False, allow_blank=True, max_length=1000, help_text="Never told to a caller.")
    enabled = Bool(required=False)
    observe = Bool(required=False, help_text="Decides nothing; what it would do stands in the event.")


class RuleWindowSerializer(Output):
    """When a rule is in force."""

    days = serializers.ListField(child=serializers.ChoiceField(choices=vocabulary.WEEKDAYS))
    from_time = serializers.CharField(allow_null=True)
    to_time = serializers.CharField(allow_null=True)
    zone = serializers.CharField()
    valid_from = serializers.DateTimeField(allow_null=True)
    valid_until = serializers.DateTimeField(allow_null=True)


class RuleConditionSerializer(Output):
    """One thing that must hold of a call."""

    subject = serializers.ChoiceField(choices=vocabulary.SUBJECTS)
    path = serializers.CharField()
    quantifier = serializers.ChoiceField(choices=("", *vocabulary.QUANTIFIERS))
    operator = serializers.ChoiceField(choices=tuple(vocabulary.OPERATORS))
    value = serializers.JSONField(allow_null=True)


class RuleSerializer(Output):
    """A rule."""

    id = serializers.IntegerField(help_text="The id that events name.")
    name = serializers.CharField()
    effect = serializers.ChoiceField(choices=vocabulary.EFFECTS)
    roles = serializers.ListField(child=serializers.CharField(), allow_null=True)
    keys = serializers.ListField(child=serializers.CharField(), allow_null=True)
    kinds = serializers.ListField(child=serializers.ChoiceField(choices=vocabulary.KINDS))
    pattern = serializers.CharField()
    upstreams = serializers.ListField(child=serializers.CharField())
    conditions = RuleConditionSerializer(many=True)
    window = RuleWindowSerializer()
    networks = serializers.ListField(child=serializers.CharField())
    reason = serializers.CharField()
    note = serializers.CharField()
    enabled = serializers.BooleanField()
    observe = serializers.BooleanField()
    sentence = serializers.CharField(help_text="What it does, in words.")


# -- limits


class LimitChangeSerializer(Strict):
    """A limit: at most so many requests in any so many seconds."""

    name = Char(required=False, allow_blank=True, max_length=100)
    requests = Whole(min_value=1, max_value=1_000_000)
    window_seconds = Whole(min_value=1, max_value=31 * 86400)
    burst = Whole(
        required=False,
        allow_null=True,
        min_value=1,
        max_value=1_000_000,
        help_text="How many may come at once; null: all.",
    )
    per = serializers.ListField(
        child=Choice(choices=vocabulary.LIMIT_IDENTITIES),
        required=False,
        max_length=4,
        help_text="One count for each of these; none: one for all.",
    )
    key = Char(required=False, allow_null=True, max_length=40, help_text="Only this key, by prefix.")
    role = Char(required=False, allow_null=True, **ROLE, help_text="Only this role.")
    upstream = Pattern(vocabulary.SLUG, max_length=63, required=False, allow_null=True, help_text="Only this upstream.")
    kind = Choice(
        choices=vocabulary.KINDS,
        required=False,
        allow_null=True,
        help_text="Only these; null: calls of tools, prompts and resources.",
    )
    pattern = Char(
        required=False, allow_null=True, max_length=vocabulary.MAX_PATTERN, help_text="Only names like this."
    )
    is_default = Bool(required=False, help_text="Gives way to a limit that names the tool.")
    enabled = Bool(required=False)


class LimitSerializer(Output):
    """A limit."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    requests = serializers.IntegerField()
    window_seconds = serializers.IntegerField()
    burst = serializers.IntegerField(allow_null=True)
    per = serializers.ListField(child=serializers.ChoiceField(choices=vocabulary.LIMIT_IDENTITIES))
    key = serializers.CharField(allow_null=True)
    role = serializers.CharField(allow_null=True)
    upstream = serializers.CharField(allow_null=True)
    kind = serializers.ChoiceField(choices=vocabulary.KINDS, allow_null=True)
    pattern = serializers.CharField(allow_null=True)
    is_default = serializers.BooleanField()
    enabled = serializers.BooleanField()
    sentence = serializers.CharField(help_text="What it does, in words.")
