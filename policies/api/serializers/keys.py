"""Keys: what is taken and what is answered."""

from __future__ import annotations

from rest_framework import serializers

from core.api.fields import Bool, Char, Choice, Moment, Strict, WholeNumber
from policies import vocabulary
from policies.api.serializers.parts import ROLE, Output, answers, networks, slugs


class KeyChangeSerializer(Strict):
    """What may be changed of a live key."""

    name = Char(max_length=100, help_text="Shown in every event: who or what calls with it.")
    role = Char(required=False, **ROLE, help_text="What the key may do at the gateway; an administrative key has none.")
    owner = Char(required=False, allow_blank=True, max_length=200, help_text="A person or team to ask about it.")
    description = Char(required=False, allow_blank=True, max_length=500)
    expires_at = Moment(required=False, allow_null=True, help_text="null: never (administrative keys always expire).")
    networks = networks(required=False, help_text="Where it may be used from; none: anywhere.")
    upstreams = slugs(required=False, help_text="What it may reach; none: everything its role may.")
    query_allowed = Bool(required=False, help_text="Whether it may be sent as ?api_key= to the gateway.")


class KeyCreationSerializer(KeyChangeSerializer):
    """A new key: an agent's with a role, or an administrative one with a duty."""

    role = Char(required=False, allow_null=True, **ROLE, help_text="For an agent's key.")
    duty = Choice(
        required=False,
        allow_null=True,
        choices=vocabulary.DUTIES,
        help_text="For an administrative key, in place of a role.",
    )
    expires_at = Moment(
        required=False,
        allow_null=True,
        help_text="Not given: in 90 days for an administrative key, never for an agent's.",
    )


class RotationSerializer(Strict):
    """How a key is rotated."""

    overlap_seconds = WholeNumber(
        required=False, default=0, min_value=0, max_value=604800, help_text="How long the old secret stays good."
    )


class RevocationSerializer(Strict):
    """Why a key is revoked."""

    reason = Char(required=False, allow_blank=True, max_length=500, default="")


class SecretSerializer(Output):
    """One generation of a key's secret, without the secret."""

    generation = serializers.IntegerField()
    last4 = serializers.CharField()
    created_at = serializers.DateTimeField()
    not_after = serializers.DateTimeField(allow_null=True, help_text="When it stops working; null for the present one.")


@answers(KeyCreationSerializer, "id", "name", "prefix", "role", "duty")
class KeySerializer(Output):
    """A key, without its secret."""

    id = serializers.UUIDField()
    prefix = serializers.CharField(help_text="The part that may be shown.")
    state = serializers.ChoiceField(choices=("live", "expired", "revoked"))
    revoked_at = serializers.DateTimeField(allow_null=True)
    revoked_by = serializers.CharField()
    revoked_reason = serializers.CharField()
    created_at = serializers.DateTimeField()
    created_by = serializers.CharField()
    secrets = SecretSerializer(many=True)
    last_used_at = serializers.DateTimeField(allow_null=True)
    last_ip = serializers.CharField(allow_null=True)


class NewKeySerializer(KeySerializer):
    """A key and, this once, its secret."""

    key = serializers.CharField(allow_null=True, help_text="The secret; null when this answer is a repetition.")
    key_already_shown = serializers.BooleanField(help_text="Whether the secret was shown before, and is kept nowhere.")
