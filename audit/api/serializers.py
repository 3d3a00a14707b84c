"""What is answered about events, described."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from audit.models import Outcome

__all__ = ["EventSerializer"]


class EventSerializer(serializers.Serializer[Any]):
    """An event, in the names of the export. `request_json` and `response_json` are there for `include=payloads` alone."""

    id = serializers.UUIDField(help_text="UUIDv7: its time is when the request started.")
    ts = serializers.DateTimeField(help_text="When the request started; microseconds, UTC.")
    writer = serializers.CharField(help_text="Which writer of which start numbered it.")
    boot = serializers.IntegerField()
    seq = serializers.IntegerField(help_text="Its number; the numbers of one writer have no holes.")
    api_key_id = serializers.UUIDField(allow_null=True)
    key_prefix = serializers.CharField()
    key_name = serializers.CharField()
    role = serializers.CharField()
    auth_method = serializers.CharField(help_text="bearer, header, query or none.")
    client_ip = serializers.CharField(allow_null=True)
    user_agent = serializers.CharField()
    upstream = serializers.CharField()
    protocol_version = serializers.CharField()
    session = serializers.CharField()
    rpc_id = serializers.CharField(help_text="The JSON-RPC id, as JSON text.")
    method = serializers.CharField(help_text="Of an administrator's act: like admin.key.revoked.")
    tool_name = serializers.CharField(allow_null=True, help_text="The tool's, prompt's or resource's name as sent.")
    target_kind = serializers.CharField()
    outcome = serializers.ChoiceField(choices=Outcome.values)
    reason = serializers.CharField()
    decision = serializers.JSONField(help_text="Each stage's result, the rule, the policy version.")
    status_code = serializers.IntegerField()
    latency_ms = serializers.FloatField()
    upstream_ms = serializers.FloatField(allow_null=True)
    request_json = serializers.JSONField(required=False, allow_null=True, help_text="Sanitised, at most 8,192 bytes.")
    response_json = serializers.JSONField(required=False, allow_null=True, help_text="Sanitised, at most 8,192 bytes.")
    request_bytes = serializers.IntegerField()
    response_bytes = serializers.IntegerField()
    request_digest = serializers.CharField()
    response_digest = serializers.CharField()
    truncated = serializers.BooleanField()
    redactions = serializers.IntegerField()
    count = serializers.IntegerField(help_text="How many refusals of a flood this event stands for; else 1.")
    first_ts = serializers.DateTimeField(allow_null=True)
    last_ts = serializers.DateTimeField(allow_null=True)
    trace_id = serializers.CharField()
    details = serializers.JSONField()
    tool_error = serializers.BooleanField(help_text="Whether the tool or the upstream itself said that it failed.")
