"""Upstreams and what they define: what is taken and what is answered."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from core.api.fields import Bool, Char, Choice, Network, Number, Pattern, Strict, WholeNumber
from proxy.models import SLUG_PATTERN, CatalogueItem, Upstream, UpstreamStatus

Output = serializers.Serializer[Any]

SEALED = (
    "Names and values; a value is `env:NAME`, or a literal that is sealed and never shown again. The value "
    "`(stored, encrypted)` keeps what is stored."
)
PEM: dict[str, Any] = {"required": False, "allow_blank": True, "max_length": 200_000}
SECONDS: dict[str, Any] = {"required": False, "allow_null": True, "min_value": 0.001, "max_value": 86400}


class UpstreamChangeSerializer(Strict):
    """An upstream's settings; those of commands are given from the command line or in the admin alone."""

    name = Char(required=False, allow_blank=True, max_length=200)
    description = Char(required=False, allow_blank=True, max_length=10_000)
    transport = Choice(required=False, choices=Upstream.Transport.values, help_text="stdio is refused here.")
    url = Char(required=False, allow_blank=True, max_length=2000, help_text="The MCP endpoint.")
    headers = serializers.DictField(child=Char(max_length=8000, allow_blank=True), required=False, help_text=SEALED)
    ca_pem = Char(**PEM, help_text="CA certificates.")
    client_cert_pem = Char(**PEM, help_text="The client's certificate.")
    client_key = Char(**PEM, help_text="The client's key; sealed and never shown again.")
    networks = serializers.ListField(
        child=Network(), required=False, max_length=100, help_text="The only ones its addresses may lie in."
    )
    connect_timeout = Number(**SECONDS)
    first_byte_timeout = Number(**SECONDS)
    idle_timeout = Number(
        **SECONDS, help_text="How long an answer may be waited for while nothing of it comes; progress begins it anew."
    )
    tool_timeouts = serializers.DictField(
        child=Number(min_value=0.001, max_value=86400),
        required=False,
        help_text="The same for single tools, by name or pattern; the exact name counts, else the longest pattern.",
    )
    max_concurrent = WholeNumber(required=False, min_value=1, max_value=100_000)
    max_answer_bytes = WholeNumber(required=False, allow_null=True, min_value=1024, max_value=2**40)
    refusals = Choice(
        required=False, allow_blank=True, choices=Upstream.Refusals.values, help_text="Empty: as the installation says."
    )
    audit_level = Choice(
        required=False,
        allow_blank=True,
        choices=Upstream.AuditLevel.values,
        help_text="Empty: as the installation says.",
    )
    catalogue_policy = Choice(required=False, choices=Upstream.CataloguePolicy.values)
    dispatchers = serializers.DictField(
        child=Char(max_length=512),
        required=False,
        help_text="Tools that call or describe another by name, and the argument that names it: `name`, or `calls.*.tool`.",
    )
    enabled = Bool(required=False)


class UpstreamCreationSerializer(UpstreamChangeSerializer):
    """A new upstream."""

    slug = Pattern(SLUG_PATTERN, max_length=63, help_text="Its name in addresses and rules; stays.")


class StepSerializer(Output):
    """One step of a check."""

    step = serializers.CharField()
    ok = serializers.BooleanField()
    ms = serializers.FloatField()
    detail = serializers.CharField()


class StatusSerializer(Output):
    """What was last seen of an upstream."""

    ok = serializers.BooleanField(allow_null=True, help_text="null: never checked.")
    checked_at = serializers.DateTimeField(allow_null=True)
    era = serializers.ChoiceField(choices=UpstreamStatus.Era.values)
    versions = serializers.ListField(child=serializers.CharField())
    server_info = serializers.DictField(child=serializers.CharField())
    steps = StepSerializer(many=True)
    calls_ok = serializers.BooleanField(
        allow_null=True, help_text="Whether calls are answered, as they last saw it; null: none has failed yet."
    )
    calls_at = serializers.DateTimeField(allow_null=True, help_text="When that changed.")
    calls_reason = serializers.CharField(help_text="Why they fail.")


class UpstreamViewSerializer(Output):
    """An upstream, without its secrets."""

    id = serializers.IntegerField()
    slug = serializers.CharField()
    name = serializers.CharField()
    description = serializers.CharField()
    transport = serializers.ChoiceField(choices=Upstream.Transport.values)
    url = serializers.CharField()
    address = serializers.CharField(help_text="Where agents are pointed at.")
    command = serializers.CharField()
    working_directory = serializers.CharField()
    environment = serializers.DictField(child=serializers.CharField())
    process_mode = serializers.ChoiceField(choices=Upstream.ProcessMode.values)
    memory_limit_mb = serializers.IntegerField(allow_null=True)
    headers = serializers.DictField(child=serializers.CharField())
    ca_pem = serializers.CharField()
    client_cert_pem = serializers.CharField()
    client_key = serializers.CharField()
    networks = serializers.ListField(child=serializers.CharField())
    connect_timeout = serializers.FloatField(allow_null=True)
    first_byte_timeout = serializers.FloatField(allow_null=True)
    idle_timeout = serializers.FloatField(allow_null=True)
    tool_timeouts = serializers.DictField(child=serializers.FloatField())
    max_concurrent = serializers.IntegerField()
    max_answer_bytes = serializers.IntegerField(allow_null=True)
    refusals = serializers.ChoiceField(choices=Upstream.Refusals.values)
    audit_level = serializers.ChoiceField(choices=Upstream.AuditLevel.values)
    catalogue_policy = serializers.ChoiceField(choices=Upstream.CataloguePolicy.values)
    dispatchers = serializers.DictField(child=serializers.CharField())
    enabled = serializers.BooleanField()
    created_at = serializers.DateTimeField()
    status = StatusSerializer(allow_null=True)


class ChangesSerializer(Output):
    """What a check changed in the catalogue, by kind of change."""

    new = serializers.ListField(child=serializers.CharField(), required=False)
    changed = serializers.ListField(child=serializers.CharField(), required=False)
    quarantined = serializers.ListField(child=serializers.CharField(), required=False)
    gone = serializers.ListField(child=serializers.CharField(), required=False)
    back = serializers.ListField(child=serializers.CharField(), required=False)


class CheckReportSerializer(Output):
    """What a check found."""

    ok = serializers.BooleanField()
    cause = serializers.CharField(help_text="What went wrong first; empty when nothing did.")
    steps = StepSerializer(many=True)
    changes = ChangesSerializer()


class ToolSerializer(Output):
    """A tool, prompt or resource, without its definition."""

    id = serializers.IntegerField()
    upstream = serializers.CharField()
    kind = serializers.ChoiceField(choices=CatalogueItem.Kind.values)
    name = serializers.CharField()
    status = serializers.ChoiceField(choices=CatalogueItem.Status.values)
    held = serializers.BooleanField(help_text="Quarantined by a person.")
    present = serializers.BooleanField(help_text="Whether the upstream's last list had it.")
    hash = serializers.CharField(help_text="Of the present definition; say it when you approve.")
    pinned_hash = serializers.CharField(help_text="Of the approved definition; empty when none is.")
    flags = serializers.ListField(child=serializers.CharField(), help_text="What to look at before approving.")
    first_seen_at = serializers.DateTimeField()
    changed_at = serializers.DateTimeField(allow_null=True)
    approved_at = serializers.DateTimeField(allow_null=True)
    approved_by = serializers.CharField()


class WholeToolSerializer(ToolSerializer):
    """A tool, prompt or resource, with its definition and what changed since it was approved."""

    definition = serializers.JSONField()
    pinned_definition = serializers.JSONField(allow_null=True)
    diff = serializers.ListField(child=serializers.CharField())


class ApprovalSerializer(Strict):
    """Which definition is approved."""

    hash = Pattern(
        r"^[0-9a-f]{64}$",
        required=False,
        help_text="The one that you read: refused when it has changed since. Not given: as it is now.",
    )


class QuarantineSerializer(Strict):
    """Why a definition is withdrawn."""

    reason = Char(required=False, allow_blank=True, max_length=500, default="")
