"""The front page: its numbers, its slots, and what waits for somebody."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from audit.models import Rollup
from sentinel.models import OverviewSlot
from sentinel.site import charts, overview

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 10, 12, 7, tzinfo=UTC)


def minute(ago: timedelta, requests: int = 1, **fields) -> Rollup:
    at = (NOW - ago).replace(second=0, microsecond=0)
    values = {
        "outcome": "allowed",
        "reason": "allowed_by_rule",
        "upstream": "crm",
        "method": "tools/call",
        "tool_name": "t",
        "key_id": "k",
        "key_name": "bot",
    }
    counted = {"requests": requests, "events": requests, "latency_count": requests, "le_10": requests}
    return Rollup.objects.create(minute=at, **{**counted, **values, **fields})


@pytest.mark.parametrize("chosen", ["1h", "24h", "7d"])
def test_numbers_are_those_of_the_rollups(chosen):
    span = overview.RANGES[chosen][1]
    minute(timedelta(minutes=2), 3)
    minute(span / 2, 5, outcome="denied", reason="no_rule", upstream="", tool_name="", latency_count=0, le_10=0)
    minute(span / 2, 7, outcome="upstream_error", reason="upstream_timeout")
    minute(span + timedelta(hours=3), 100)
    minute(timedelta(minutes=3), 50, outcome="changed", reason="")
    for _ in range(2):  # summed now, and read from the sums
        overview._kept.clear()
        found = overview.read(chosen, NOW)
        assert found["total"] == 15
        assert found["totals"] == {"allowed": 3, "denied": 5, "error": 7}
        assert [(entry.name, entry.number) for entry in found["tools"]] == [("t", 10)]
        assert [(entry.name, entry.number) for entry in found["keys"]] == [("bot", 15)]
        assert [(entry.name, entry.number) for entry in found["reasons"]] == [("no_rule", 5)]
        line = found["upstreams"][0]
        assert (line.name, line.requests, line.errors) == ("crm", 10, 7)
        assert 5 <= line.p50 <= 10


def test_late_events_are_seen():
    minute(timedelta(hours=5), 3)
    assert overview.read("24h", NOW)["total"] == 3
    assert OverviewSlot.objects.filter(kind="tool").exists()
    row = minute(timedelta(hours=5), 4, tool_name="late")
    overview._kept.clear()
    assert overview.read("24h", NOW)["total"] == 7
    Rollup.objects.filter(pk=row.pk).update(requests=10)
    overview._kept.clear()
    assert overview.read("24h", NOW)["total"] == 13


def test_the_page_asks_little_of_the_database(as_duty):
    client = as_duty("viewer")
    client.get("/admin/")
    with CaptureQueriesContext(connection) as queries:
        client.get("/admin/")
    about_people = ("django_session", "sentinel_user", "auth_permission", "auth_group", "otp_")
    own = [q["sql"] for q in queries if not any(word in q["sql"] for word in about_people)]
    assert len(own) <= 8
    assert not any("FROM audit_auditevent" in sql for sql in own)


def test_first_steps_go_away_with_the_first_call(as_duty):
    client = as_duty("administrator")
    assert b"First steps" in client.get("/admin/").content
    minute(timedelta(days=-0))
    assert b"First steps" not in client.get("/admin/").content


def test_what_waits_is_shown_to_those_who_can_do_something(as_duty):
    from django.utils import timezone

    from core.access.actors import Actor
    from policies.services import keys as key_acts

    key_acts.create_key(name="soon", role="user", actor=Actor.system(), expires_at=timezone.now() + timedelta(days=2))
    assert b"1 key expires within 14 days" in as_duty("policy-manager").get("/admin/").content
    assert b"expires within" not in as_duty("viewer").get("/admin/").content


def test_charts_are_inert_and_scaled():
    bars = [charts.Bar({"allowed": 10, "denied": 1}, "?x=<script>", "<b>label</b>"), charts.Bar({}, "?", "nothing")]
    text = charts.stacked(bars, ["allowed", "denied"], "about")
    assert "<script>" not in text
    assert "<b>" not in text
    heights = [float(value) for value in re.findall(r'class="c-\w+"[^>]* height="([\d.]+)"', text)]
    assert heights == [180.0, 18.0] or heights[0] == pytest.approx(180 * 10 / charts.ceiling(11), abs=0.01)


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (4, 4), (11, 15), (99, 100), (100, 100), (101, 150), (12345, 15000)]
)
def test_the_axis_ends_at_a_round_number(value, top):
    assert charts.ceiling(value) == top


def test_saved_views(as_duty):
    client = as_duty("viewer")
    client.post("/admin/views/", {"name": "denials", "query": "?outcome=denied&nonsense=1"})
    text = client.get("/admin/audit/auditevent/").content.decode()
    assert 'href="?outcome=denied"' in text
    number = re.search(r'name="forget" value="(\d+)"', text)[1]
    other = as_duty("auditor")
    assert "denials" not in other.get("/admin/audit/auditevent/").content.decode()
    other.post("/admin/views/", {"forget": number})
    assert 'href="?outcome=denied"' in client.get("/admin/audit/auditevent/").content.decode()
    client.post("/admin/views/", {"forget": number})
    assert 'href="?outcome=denied"' not in client.get("/admin/audit/auditevent/").content.decode()
