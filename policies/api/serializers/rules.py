"""Roles, rules and limits: what is taken and what is answered."""

from __future__ import annotations

from rest_framework import serializers

from core.api.fields import Char, Choice, Moment, Pattern, Strict
from policies import vocabulary
from policies.api.serializers.parts import ROLE, Output, answers, networks, slugs, takes
from policies.specs import LIMIT, RATE, RULE

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


@takes(RULE, "name", "effect")
class RuleChangeSerializer(Strict):
    """A rule: who, what, when, and what a refused caller is told."""

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


@answers(WindowSerializer)
class RuleWindowSerializer(Output):
    """When a rule is in force."""


@answers(ConditionSerializer)
class RuleConditionSerializer(Output):
    """One thing that must hold of a call."""


@answers(RuleChangeSerializer, "id")
class RuleSerializer(Output):
    """A rule."""

    id = serializers.IntegerField(help_text="The id that events name.")
    conditions = RuleConditionSerializer(many=True)
    window = RuleWindowSerializer()
    sentence = serializers.CharField(help_text="What it does, in words.")


# -- limits


@takes(LIMIT, "name", *(row.name for row in RATE), "per")
class LimitChangeSerializer(Strict):
    """A limit: at most so many requests in any so many seconds."""

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


@answers(LimitChangeSerializer, "id")
class LimitSerializer(Output):
    """A limit."""

    id = serializers.IntegerField()
    sentence = serializers.CharField(help_text="What it does, in words.")
