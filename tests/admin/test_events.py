"""Browsing the log: pages by key, filters, bounded searches, the event's own page, export, and hostile values."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from django.db import OperationalError, connection
from django.http import QueryDict
from django.test.utils import CaptureQueriesContext

from audit.filters import Filters
from audit.search import search
from core.ids import uuid7
from tests.admin.conftest import HOSTILE, acts

pytestmark = pytest.mark.django_db
LIST = "/admin/audit/auditevent/"


def ids(text: str) -> list[str]:
    return re.findall(r'<tr id="e([0-9a-f-]{36})"', text)


def at(minutes: int) -> dict[str, object]:
    """Place an event so many minutes ago."""
    moment = datetime.now(UTC) - timedelta(minutes=minutes)
    us = int(moment.timestamp() * 1e6)
    return {"id": uuid7(us), "ts": us}


def test_pages_go_both_ways_without_losing_or_repeating_one(event, as_duty):
    made = [str(event(**at(500 - n)).id) for n in range(120)][::-1]
    client = as_duty("viewer")
    first = client.get(LIST).content.decode()
    assert ids(first) == made[:50]
    older = re.search(r'href="(\?before=[^"]+)"', first)[1]
    second = client.get(LIST + older).content.decode()
    assert ids(second) == made[50:100]
    third = client.get(LIST + re.search(r'href="(\?before=[^"]+)" rel="next"', second)[1]).content.decode()
    assert ids(third) == made[100:]
    assert 'rel="next"' not in third
    back = client.get(LIST + re.search(r'href="(\?after=[^"]+)" rel="prev"', third)[1]).content.decode()
    assert ids(back) == made[50:100]


def test_links_without_a_query(event, as_duty):
    made = event()
    client = as_duty("viewer")
    assert f'href="{LIST}"' in client.get("/admin/").content.decode()
    assert f'href="{LIST}{made.id}/change/"' in client.get(LIST).content.decode()


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("outcome=denied", {"d1", "d2"}), ("outcome=denied&outcome=limited", {"d1", "d2", "l1"}), ("tool=delete_customer", {"d1", "d2"}),
        ("tool=delete_customer&upstream=files", {"d2"}), ("role=admin", {"a2"}), ("reason=rate_limited", {"l1"}), ("q=DELETE_cust", {"d1", "d2"}),
        ("q=rate_lim", {"l1"}), ("key=00000000-0000-4000-8000-000000000007", {"a1", "d1", "d2", "l1"}), ("status=429", {"l1"}),
        ("ip=10.0.0.9", {"a2"}), ("slower=1000", {"a2"}), ("rule=77", {"a2"}), ("range=1h", {"a1", "a2", "d1", "l1"}), ("method=tools/call&outcome=allowed", {"a1", "a2"}),
        ("upstream=crm&role=user&outcome=denied", {"d1"}), ("q=nothing-like-it", set()), ("reason=nothing", set()),
    ],
)  # fmt: skip
def test_filters(query, wanted, event, as_duty):
    names = {
        event(**at(9)).id: "a1",
        event(
            **at(8), api_key_id="00000000-0000-4000-8000-000000000008", key_name="boss", role="admin", client_ip="10.0.0.9", latency_ms=1500.0,
            decision={"rule": {"id": 77}},
        ).id: "a2",
        event(**at(7), outcome="denied", reason="no_rule", status_code=403, tool_name="delete_customer").id: "d1",
        event(**at(70), outcome="denied", reason="no_rule", status_code=403, tool_name="delete_customer", upstream="files").id: "d2",
        event(**at(5), outcome="limited", reason="rate_limited", status_code=429).id: "l1",
    }  # fmt: skip
    text = as_duty("viewer").get(f"{LIST}?{query}").content.decode()
    assert {names[key] for key in names if str(key) in ids(text)} == wanted


def test_a_filter_that_cannot_be_understood_is_said(event, as_duty):
    event()
    client = as_duty("viewer")
    for query in (
        "outcome=nonsense",
        "ip=nonsense",
        "status=x",
        "from=tomorrow",
        "before=x",
        "range=9y",
        "slower=nan",
        "key=%00",
    ):
        answer = client.get(f"{LIST}?{query}")
        assert answer.status_code == 200
        assert "callout warn" in answer.content.decode() or query == "key=%00"


def test_a_key_is_found_by_its_name(event, as_duty):
    from core.access.actors import Actor
    from policies.services import keys as key_acts

    key = key_acts.create_key(name="by name", role="user", actor=Actor.system()).key
    mine = event(api_key_id=key.pk, key_name="by name")
    event()
    text = as_duty("viewer").get(f"{LIST}?key=by+name").content.decode()
    assert ids(text) == [str(mine.id)]
    assert "<b>by name</b>" in text


def test_an_unindexed_search_stops_in_time_and_goes_on_from_there(event, monkeypatch):
    import audit.search as module

    for n in range(40):
        event(**at(100 - n), reason="rare" if n == 0 else "allowed_by_rule")
    monkeypatch.setattr(module, "FIRST_WINDOW", 10)
    filters = Filters.read(QueryDict("reason=rare"))
    found = search(filters, limit=5, budget_ms=0.0)
    assert found.rows == []
    assert found.searched_to is not None
    steps = 0
    while found.older and not found.rows:
        found = search(filters, before=found.older, limit=5, budget_ms=0.0)
        steps += 1
    assert len(found.rows) == 1
    assert 1 <= steps <= 4


def test_what_the_planner_may_try_is_bounded_by_a_moment(event, monkeypatch):
    import audit.search as module

    made = event()
    filters = Filters.read(QueryDict("q=list_cust"))
    with CaptureQueriesContext(connection) as queries:
        assert [row.id for row in search(filters).rows] == [made.id]
    assert any(f"SET LOCAL statement_timeout = {module.ATTEMPT_MS};" in query["sql"] for query in queries)
    # When the moment passes, the search goes on by walking.
    monkeypatch.setattr(module._SearchWalk, "_attempt", _late)
    assert [row.id for row in search(filters).rows] == [made.id]


def _late(walk: object) -> None:
    raise OperationalError


@pytest.mark.parametrize(
    "query",
    [
        "",
        "outcome=denied&outcome=limited",
        "tool=x&role=y",
        "q=abc",
        "reason=none",
        "key=00000000-0000-4000-8000-000000000007&q=ab",
    ],
)
def test_at_most_eight_queries_a_page(query, event, as_duty):
    for n in range(60):
        event(**at(n + 1))
    client = as_duty("viewer")
    client.get(LIST)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        client.get(f"{LIST}?{query}")
    about_people = ("django_session", "sentinel_user", "auth_permission", "auth_group", "otp_")
    own = [q["sql"] for q in queries if not any(word in q["sql"] for word in about_people)]
    assert len(own) <= 8, own
    assert not any("count(*)" in sql.lower() and "audit_auditevent" in sql for sql in own)


def test_an_event_is_told_as_a_sentence(event, as_duty):
    made = event(
        outcome="denied", reason="denied_by_rule", status_code=403, tool_name="delete_customer",
        decision={
            "allowed": False, "stage": "authorize", "reason": "denied_by_rule", "rule": {"id": 12, "name": "no deletes", "effect": "deny"}, "policy_version": 41,
            "stages": [{"stage": "authenticate", "result": "ok", "us": 3}, {"stage": "authorize", "result": "refused", "us": 5}],
        },
    )  # fmt: skip
    text = as_duty("viewer").get(f"{LIST}{made.id}/change/").content.decode()
    plain = re.sub(r"<[^>]+>", "", re.search(r'<h1 class="sentence">(.*?)</h1>', text, re.DOTALL)[1])
    assert plain == "ci-bot (role user) was denied delete_customer on crm: rule 12 “no deletes”, policy version 41."
    assert "Authenticate" in text
    assert "5 µs" in text


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"outcome": "changed", "method": "api.refused", "reason": "agent_key", "status_code": 403}, "an agent&#x27;s key can never administer"),
        ({"outcome": "changed", "method": "api.refused", "reason": "permission_denied", "status_code": 403}, "a permission that this needs was lacking"),
        ({"outcome": "unrecorded", "reason": "journal_damaged", "count": 3}, "part of the journal on disk was damaged"),
        ({"outcome": "denied", "reason": "a_word_of_old"}, "a word of old"),
    ],
)  # fmt: skip
def test_a_reason_is_said_in_words(event, as_duty, fields, why):
    made = event(**fields)
    text = as_duty("viewer").get(f"{LIST}{made.id}/change/").content.decode()
    assert re.search(rf'{fields["reason"]}</a><br><span class="muted">{re.escape(why)}<', text)


@pytest.mark.parametrize(
    ("rule", "why"),
    [({"id": 3, "effect": "allow"}, "allowed by rule 3"), (None, "a rule allows it")],
)
def test_why_a_call_was_allowed_is_not_told_as_why_its_tool_failed(event, as_duty, rule, why):
    made = event(
        tool_name="delete_customer", tool_error=True, decision={"allowed": True, "rule": rule, "policy_version": 2}
    )
    text = as_duty("viewer").get(f"{LIST}{made.id}/change/").content.decode()
    plain = re.sub(r"<[^>]+>", "", re.search(r'<h1 class="sentence">(.*?)</h1>', text, re.DOTALL)[1])
    assert plain.endswith(f"called delete_customer on crm, which said that it failed; {why}, policy version 2.")


def test_cells_lead_to_the_same_key_and_tool_within_the_other_filters(event, as_duty):
    made = event(tool_name="a&b=c d", outcome="denied", reason="no_rule")
    client = as_duty("viewer")
    text = html.unescape(
        client.get(f"{LIST}?outcome=denied&tool=other&tool=a%26b%3Dc+d&before={uuid7()}").content.decode()
    )
    same_key, same_tool = re.findall(r'class="celllink" href="([^"]+)"', text)
    assert same_key == f"?tool=other&tool=a%26b%3Dc+d&outcome=denied&key={made.api_key_id}"
    assert same_tool == "?outcome=denied&tool=a%26b%3Dc%20d"
    assert ids(client.get(LIST + same_tool).content.decode()) == [str(made.id)]


def test_deleting_is_refused_to_everybody(event, admin_client):
    made = event()
    for path in (f"{LIST}{made.id}/delete/", f"{LIST}{uuid7()}/delete/"):
        assert admin_client.get(path).status_code == 403
        assert admin_client.post(path, {"post": "yes"}).status_code == 403
    assert admin_client.post(LIST, {"action": "delete_selected", "_selected_action": str(made.id)}).status_code == 403
    assert admin_client.post(f"{LIST}{made.id}/change/", {"outcome": "denied"}).status_code == 403
    assert type(made).objects.filter(pk=made.pk).exists()


def test_unknown_and_running_events(as_duty):
    from audit.models import OpenCall

    client = as_duty("viewer")
    assert client.get(f"{LIST}{uuid7()}/change/").status_code == 404
    assert client.get(f"{LIST}nonsense/change/").status_code == 404
    call = OpenCall.objects.create(
        id=uuid7(), writer="w", boot=1, seq=1, ts=datetime.now(UTC), key_name="bot", method="tools/call", record={}
    )
    assert b"Still running" in client.get(f"{LIST}{call.id}/change/").content
    OpenCall.objects.filter(pk=call.pk).update(until=int(datetime.now(UTC).timestamp() * 1e6))
    page = client.get(f"{LIST}{call.id}/change/").content
    assert b"Waiting for its client to resume" in page and b"Still running" not in page


def test_a_call_and_the_streams_that_took_it_up_are_linked(event, admin_client):
    streams = [str(uuid7()), str(uuid7())]
    made = event(details={"stream": {"ended": "resumed", "resumed": [*streams, "</script>", 7]}})
    page = admin_client.get(f"{LIST}{made.id}/change/").content.decode()
    for one in streams:
        assert f'<dt>Taken up by</dt><dd><a class="mono" href="{LIST}{one}/change/">{one}</a>' in page
    for answered, label in ((True, "Brought the answer of"), (False, "Took up")):
        other = event(details={"resumed": {"call": str(made.id), "answered": answered}})
        page = admin_client.get(f"{LIST}{other.id}/change/").content.decode()
        assert f'<dt>{label}</dt><dd><a class="mono" href="{LIST}{made.id}/change/">' in page
    for details in (
        {"resumed": {"call": None}},
        {"resumed": 5, "stream": [], "call": "x"},
        {"stream": {"resumed": {}}},
    ):
        assert admin_client.get(f"{LIST}{event(details=details).id}/change/").status_code == 200


def test_hostile_values_are_inert_everywhere(event, admin_client):
    fields = (
        "key_name",
        "key_prefix",
        "role",
        "user_agent",
        "upstream",
        "method",
        "tool_name",
        "target_kind",
        "reason",
        "rpc_id",
        "session",
        "trace_id",
        "protocol_version",
    )
    made = event(
        **{name: HOSTILE for name in fields}, request_json={HOSTILE: [HOSTILE, {"deep": HOSTILE}]}, response_json=HOSTILE,
        details={"error": HOSTILE, "client": {"name": HOSTILE}},
        decision={"reason": HOSTILE, "stage": HOSTILE, "rule": {"id": HOSTILE, "name": HOSTILE}, "stages": [{"stage": HOSTILE, "result": HOSTILE, HOSTILE: HOSTILE}]},
    )  # fmt: skip
    pages = [LIST, f"{LIST}{made.id}/change/", f"{LIST}?q=script", "/admin/"]
    pages += [
        f"{LIST}?{name}=%22%3E%3Cscript%3Ealert(1)%3C/script%3E"
        for name in ("tool", "role", "q", "reason", "from", "outcome", "before", "session")
    ]
    for page in pages:
        text = admin_client.get(page).content.decode()
        assert "<script>alert" not in text, page
        assert "<img src=x" not in text, page
        assert "\u202e" not in text, page
        assert "\x1b" not in text, page
        assert "49 " not in text or "{{7*7}}" in text
    shown = admin_client.get(f"{LIST}{made.id}/change/").content.decode()
    assert "202E" in shown.upper()


def test_deep_and_odd_payloads_are_shown(event, admin_client):
    for payload in ([[[[[]]]]], {"n": 12345678901234567890123456789}, 1e400, "text", None, [1.50, -0.0]):
        made = event(request_json=payload)
        assert admin_client.get(f"{LIST}{made.id}/change/").status_code == 200
    from sentinel.templatetags.ui import tree

    assert "9.90" in tree('{"a": 9.90, "a": 1}')
    assert tree('{"a": 9.90, "a": 1}').count('class="leaf"') == 2
    assert "deeper than" in tree("[" * 500 + "]" * 500)
    assert "pre" in tree("[" * 100_000)


def body(answer) -> bytes:
    return b"".join(answer.streaming_content)


def test_export_is_complete_and_an_event(event, as_duty):
    made = [
        event(**at(n + 1), outcome="denied", reason="no_rule", tool_name="=cmd|' /C calc'!A0" if n == 0 else "t")
        for n in range(7)
    ]
    event()
    client = as_duty("auditor")
    assert client.get(f"{LIST}export/?outcome=denied").status_code == 200
    answer = client.post(f"{LIST}export/file/", {"format": "ndjson", "outcome": "denied"})
    lines = [json.loads(line) for line in body(answer).splitlines()]
    assert {line["id"] for line in lines} == {str(one.id) for one in made}
    assert lines == sorted(lines, key=lambda line: line["id"])
    table = list(
        csv.DictReader(
            io.StringIO(body(client.post(f"{LIST}export/file/", {"format": "csv", "outcome": "denied"})).decode())
        )
    )
    assert len(table) == 7
    assert not any(value.startswith(("=", "+", "-", "@")) for row in table for value in row.values())
    ocsf = body(client.post(f"{LIST}export/file/", {"format": "ocsf", "outcome": "denied"})).splitlines()
    assert len(ocsf) == 7
    started, ended = acts("admin.events.exported"), acts("admin.events.export.ended")
    assert len(started) == len(ended) == 3
    assert started[0]["details"]["filter"] == {"outcome": ["denied"]}
    assert ended[0]["details"]["complete"] is True
    assert ended[0]["details"]["count"] == 7


def test_a_cut_off_export_says_so():
    from audit.export.stream import written

    rows, ended = (number for number in range(10)), []
    stream = written(rows, lambda found: (b"x" * 100_000 for _ in found), lambda: True, lambda **how: ended.append(how))
    next(stream)
    stream.close()
    assert ended == [{"complete": False, "count": 1, "bytes": 100_000}]
    assert next(rows, None) is None  # the database's cursor is let go


def test_an_erased_event_says_who_erased_it_and_why(event, as_duty):
    digest = "a" * 64
    gone = event(request_json=None, response_json=None, request_digest=digest)
    never = event(request_json=None, response_json=None, request_digest=digest)
    act = event(
        method="admin.audit.payload_erased", outcome="changed", tool_name=str(gone.id), key_name="lea",
        details={"event": str(gone.id), "reason": "a request <b>under</b> the law"}, decision={},
    )  # fmt: skip
    auditor = as_duty("auditor")
    text = auditor.get(f"{LIST}{gone.id}/change/").content.decode()
    assert f"{LIST}{act.id}/change/" in text and "by lea" in text
    assert "a request &lt;b&gt;under&lt;/b&gt; the law" in text
    assert "were erased" not in auditor.get(f"{LIST}{never.id}/change/").content.decode()
