"""What speaks of an upstream by name: rules, limits, audit levels and keys that would hold for the next one of that name, too."""

from __future__ import annotations

from policies.models import ApiKey, AuditLevel, RateLimit, Rule

__all__ = ["what_names"]


def what_names(upstream: str) -> list[str]:
    """Say which rules, limits, audit levels and keys that are not revoked name an upstream."""
    rules = Rule.objects.filter(upstreams__contains=[upstream]).order_by("id")
    keys = ApiKey.objects.filter(upstreams__contains=[upstream], revoked_at=None).order_by("public_id")
    return [
        *(f"rule {rule.pk}{f' ({rule.name})' if rule.name else ''}" for rule in rules),
        *(f"limit {limit.pk}" for limit in RateLimit.objects.filter(upstream=upstream).order_by("id")),
        *(f"audit level {level.pk}" for level in AuditLevel.objects.filter(upstream=upstream).order_by("id")),
        *(f"key {key.prefix} ({key.name})" for key in keys),
    ]
