"""The state of the installation, for the overview and the health page: the journal's way into the database, and what waits."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import connection
from django.urls import reverse
from django.utils import timezone

ATTENTION = """
SELECT
  (SELECT count(*) FROM policies_apikey WHERE revoked_at IS NULL AND expires_at > now() AND expires_at < now() + interval '14 days'),
  (SELECT count(*) FROM policies_apikey k LEFT JOIN policies_keyusage u ON u.key_id = k.id WHERE k.revoked_at IS NULL
     AND (k.expires_at IS NULL OR k.expires_at > now()) AND k.created_at < now() - interval '90 days'
     AND coalesce(u.last_used_at, k.created_at) < now() - interval '90 days'),
  (SELECT count(*) FROM proxy_catalogueitem WHERE present AND status IN ('changed', 'quarantined')),
  (SELECT count(*) FROM proxy_upstreamstatus s JOIN proxy_upstream u ON u.id = s.upstream_id WHERE u.enabled AND (s.ok = false OR s.calls_ok = false)),
  (SELECT count(*) FROM audit_quarantinedframe WHERE resolved_at IS NULL),
  (SELECT count(*) FROM policies_apikey WHERE duty IS NULL),
  (SELECT count(*) FROM proxy_upstream),
  (SELECT EXISTS (SELECT 1 FROM audit_rollup WHERE outcome <> 'changed'))
"""
PULSE = """
SELECT
  (SELECT coalesce(sum(greatest(reported_seq - seq, 0)), 0) FROM audit_writerposition WHERE closed_at IS NULL),
  (SELECT max(drained_at) FROM audit_writerposition),
  (SELECT max(reported_at) FROM audit_writerposition),
  (SELECT count(*) FROM audit_writerposition WHERE closed_at IS NULL AND reported_at > now() - interval '1 minute'),
  (SELECT count(*) FROM audit_opencall),
  (SELECT count(*) FROM audit_outboxevent),
  (SELECT count(*) FROM audit_quarantinedframe WHERE resolved_at IS NULL),
  pg_database_size(current_database())
"""


def attention(user: Any) -> dict[str, Any]:
    """Return what waits for somebody, as far as this person may do something about it, and the first steps while new."""
    with connection.cursor() as cursor:
        cursor.execute(ATTENTION)
        expiring, unused, waiting, down, quarantined, keys, upstreams, traffic = cursor.fetchone()
    found = []
    if expiring and user.has_perm("policies.view_apikey"):
        found.append(
            (
                "clock",
                f"{_some(expiring, 'key expires', 'keys expire')} within 14 days",
                _url("policies_apikey", "state=expiring"),
            )
        )
    if unused and user.has_perm("policies.view_apikey"):
        found.append(
            ("keys", f"{_some(unused, 'key', 'keys')} not used for 90 days", _url("policies_apikey", "state=unused"))
        )
    if waiting and user.has_perm("proxy.view_catalogueitem"):
        found.append(
            (
                "tools",
                f"{_some(waiting, 'definition waits', 'definitions wait')} for approval",
                _url("proxy_catalogueitem", "state=waiting"),
            )
        )
    if down and user.has_perm("proxy.view_upstream"):
        found.append(("plug", f"{_some(down, 'upstream does', 'upstreams do')} not answer", _url("proxy_upstream")))
    if quarantined and user.has_perm("sentinel.view_health"):
        found.append(
            (
                "warn",
                f"{_some(quarantined, 'record', 'records')} of the journal could not be stored",
                reverse("admin:health"),
            )
        )
    steps = [
        (
            "Add an upstream",
            "An MCP server that agents shall reach through the gateway.",
            bool(upstreams),
            _url("proxy_upstream", add=True),
            "proxy.add_upstream",
        ),
        (
            "Create a key",
            "One for each agent, with a role that says what it may call.",
            bool(keys),
            _url("policies_apikey", add=True),
            "policies.add_apikey",
        ),
        ("Make a call", "Point an agent at the gateway; the key's page shows how.", bool(traffic), "", ""),
        (
            "Read its event",
            "Each request leaves one event, allowed or not.",
            bool(traffic),
            reverse("admin:audit_auditevent_changelist"),
            "audit.view_auditevent",
        ),
    ]
    first = (
        []
        if traffic
        else [
            (title, text, done, url if not right or user.has_perm(right) else "")
            for title, text, done, url, right in steps
        ]
    )
    return {"attention": found, "first_steps": first}


def _some(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _url(model: str, query: str = "", *, add: bool = False) -> str:
    from django.urls import NoReverseMatch

    try:
        url = reverse(f"admin:{model}_{'add' if add else 'changelist'}")
    except NoReverseMatch:
        return ""
    return f"{url}?{query}" if query else url


def pulse() -> dict[str, Any]:
    """Return how the log's way into the database is doing."""
    with connection.cursor() as cursor:
        cursor.execute(PULSE)
        behind, drained, reported, writers, running, outbox, quarantined, size = cursor.fetchone()
    now = timezone.now()
    stale = reported is None or now - reported > timedelta(minutes=2)
    return {
        "behind": int(behind),
        "drained_at": drained,
        "reported_at": reported,
        "writers": writers,
        "running": running,
        "outbox": outbox,
        "quarantined": quarantined,
        "database_bytes": size,
        "good": not quarantined and not stale and behind < 10_000,
        "stale": stale,
    }


def read() -> dict[str, Any]:
    from audit.drain import partitions
    from audit.models import AuditEvent, QuarantinedFrame, WriterPosition

    with connection.cursor() as cursor:
        listed = partitions.listed(connection.connection)
        cursor.execute("SHOW server_version")
        version = cursor.fetchone()[0]
    config = settings.SENTINEL
    return {
        **pulse(),
        "events": AuditEvent.objects.about_count(),
        "positions": list(WriterPosition.objects.order_by("-boot")[:20]),
        "frames": list(QuarantinedFrame.objects.filter(resolved_at=None).defer("data")[:20]),
        "partitions": sorted(listed, key=lambda part: part.name, reverse=True),
        "postgres": version,
        "audit_mode": config.audit_mode,
        "fsync": config.audit_fsync,
        "retention": config.audit_retention_days,
        "instance": config.instance,
    }
