"""Events for programs: pages both ways, filters, payloads, export."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from asgiref.sync import async_to_sync
from django.test import AsyncClient

from audit.models import AuditEvent
from tests.api.conftest import event, events, recorded

pytestmark = pytest.mark.django_db


def walk(caller, path, way="next"):
    """Follow pages to the end; every id in the order seen, and the pages."""
    seen, pages = [], 0
    while path:
        answer = caller.get(path)
        assert answer.status_code == 200, answer.content
        seen += [one["id"] for one in answer.data["results"]]
        pages += 1
        path = answer.data[way]
        assert pages < 2000
    return seen, answer


def test_a_page_is_as_the_contract_says(admin):
    rows = events(3)
    answer = admin.get("events/?limit=2")
    assert set(answer.data) == {"results", "next", "previous", "searched_to"}
    assert [one["id"] for one in answer.data["results"]] == [str(rows[2].id), str(rows[1].id)]
    assert answer.data["previous"] is None and answer.data["next"].startswith(
        "http://testserver/api/v1/events/?limit=2&before="
    )
    one = answer.data["results"][0]
    assert "request_json" not in one and "response_json" not in one
    assert one["ts"].endswith("Z") and one["writer"] == ".0" and one["decision"] == {}


def test_pages_forwards_and_back_miss_none_and_show_none_twice_while_events_arrive(admin):
    rows = events(230)
    wanted = [str(row.id) for row in reversed(rows)]
    path, seen, late = "events/?limit=7", [], []
    while path:
        answer = admin.get(path)
        seen += [one["id"] for one in answer.data["results"]]
        last, path = path, answer.data["next"]
        late.append(str(event(reason="arrived while paging").id))
    assert seen == wanted
    # And back again, from the last page to the newest: what has arrived meanwhile is there too.
    back = [[one["id"] for one in admin.get(last).data["results"]]]
    path = admin.get(last).data["previous"]
    while path:
        answer = admin.get(path)
        back.append([one["id"] for one in answer.data["results"]])
        path = answer.data["previous"]
        if len(late) < 60:
            late.append(str(event(reason="arrived while paging back").id))
    flat = [one for page in reversed(back) for one in page]
    assert flat == sorted(flat, reverse=True)
    assert flat == late[::-1] + wanted


def test_a_page_of_some_members_says_what_the_whole_one_says(admin):
    event(api_key_id=uuid4(), first_ts=datetime.now(UTC), last_ts=datetime.now(UTC))
    (whole,) = admin.get("events/?include=payloads&limit=1").data["results"]
    for name in whole:
        (part,) = admin.get(f"events/?include=payloads&limit=1&fields={name}").data["results"]
        assert part == {name: whole[name]}, name
    assert admin.get("events/?limit=1&fields=id,request_json").data["results"] == [{"id": whole["id"]}]


def test_the_page_after_the_newest_is_empty_and_leads_back_to_it(admin):
    row = event()
    empty = admin.get(f"events/?after={row.id}").data
    assert empty["results"] == [] and empty["previous"] is None
    assert [one["id"] for one in admin.get(empty["next"]).data["results"]] == [str(row.id)]


def test_filters_are_the_admins_and_events_own_names_do_too(admin):
    kept = event(outcome="limited", reason="rate_limited", tool_name="list_customers", status_code=429)
    event(outcome="denied")
    for query in ("outcome=limited", "tool=list_customers", "tool_name=list_customers", "status=429", "status_code=429",
                  "reason=rate_limited", "q=list_cust", "outcome=limited&outcome=invalid", "slower=1&outcome=limited"):  # fmt: skip
        found = admin.get(f"events/?{query}").data["results"]
        assert [one["id"] for one in found] == [str(kept.id)], query


def test_a_range_of_time(admin):
    old = event(datetime.now(UTC) - timedelta(hours=3))
    new = event()
    middle = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert [one["id"] for one in admin.get(f"events/?from={middle}").data["results"]] == [str(new.id)]
    assert [one["id"] for one in admin.get(f"events/?to={middle}").data["results"]] == [str(old.id)]
    assert [one["id"] for one in admin.get("events/?range=15m").data["results"]] == [str(new.id)]


@pytest.mark.parametrize(
    "query",
    ["outcome=nonsense", "limit=0", "limit=-1", "limit=1001", "limit=x", "limit=", "limit=1&limit=2", "before=x", "from=yesterday",
     "from=2026-01-01T00:00:00", "range=9y", "include=secrets", "key=%00", "ip=300.1.1.1", "slower=nan", "slower=x", "status=1e3",
     "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "range=1h&to=2026-01-01T00:00:00Z", "fields=nothing", "tool=" + "x" * 301,
     "before=01890000-0000-7000-8000-000000000000&after=01890000-0000-7000-8000-000000000000", "outcome=", "key=no-such-name"],
)  # fmt: skip
def test_what_cannot_be_understood_is_refused(admin, query):
    answer = admin.get(f"events/?{query}")
    assert answer.status_code == 400 and answer.headers["Content-Type"] == "application/problem+json"
    assert answer.data["code"] == "invalid" and answer.data["status"] == 400


def test_an_unknown_parameter_is_named(admin):
    answer = admin.get("events/?limt=5")
    assert answer.status_code == 400 and answer.headers["Content-Type"] == "application/problem+json"
    assert answer.data["code"] == "unknown_parameter" and answer.data["errors"][0]["field"] == "limt"


def test_payloads_need_a_permission_and_leave_an_event(callers):
    row = event()
    assert callers["viewer"].get("events/").status_code == 200
    for path in ("events/?include=payloads", f"events/{row.id}/?include=payloads"):
        refused = callers["viewer"].get(path)
        assert refused.status_code == 403 and refused.data["permission"] == "audit.view_payload"
    assert not recorded("admin.payloads.viewed")
    answer = callers["auditor"].get("events/?include=payloads")
    assert answer.data["results"][0]["request_json"]["params"]["arguments"] == {"n": 10.5}
    one = callers["auditor"].get(f"events/{row.id}/?include=payloads")
    assert one.data["request_json"]["method"] == "tools/call"
    looks = recorded("admin.payloads.viewed")
    assert len(looks) == 2 and looks[0]["key_name"] == callers["auditor"].name
    assert looks[0]["details"]["count"] == 1 and looks[0]["details"]["first"] == str(row.id)
    assert looks[0]["auth_method"] == "bearer" and looks[0]["outcome"] == "changed"


def test_one_event_and_what_there_is_not(admin):
    row = event()
    assert admin.get(f"events/{row.id}/?fields=id,reason").data == {"id": str(row.id), "reason": "no_rule"}
    assert admin.get("events/01890000-0000-7000-8000-000000000000/").data["code"] == "not_found"
    assert admin.get("events/nothing/").status_code == 404


def test_events_can_be_read_and_nothing_else(admin):
    row = event()
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        for path in ("events/", f"events/{row.id}/"):
            answer = admin.call(method, path, {})
            assert answer.status_code == 405 and answer.data["code"] == "method_not_allowed"
            assert "GET" in answer.headers["Allow"]


def test_export_streams_every_line_and_says_so(callers):
    rows = events(1200, request_json={"params": {"arguments": {"n": 1}}})
    answer = callers["auditor"].get("events/export/?outcome=denied")
    assert answer.streaming and answer.headers["Content-Type"] == "application/x-ndjson"
    lines = b"".join(answer.streaming_content).splitlines()
    assert [json.loads(line)["id"] for line in lines] == [str(row.id) for row in rows]
    assert json.loads(lines[0])["request_json"] == {"params": {"arguments": {"n": 1}}}
    begun, ended = recorded("admin.events.exported"), recorded("admin.events.export.ended")
    assert begun[0]["details"]["filter"] == {"outcome": ["denied"]} and begun[0]["key_name"] == callers["auditor"].name
    assert ended[0]["details"]["count"] == 1200 and ended[0]["details"]["complete"] is True


def test_export_as_csv_cannot_be_run_by_a_spreadsheet(admin):
    event(tool_name="=HYPERLINK(1)")
    answer = admin.get("events/export/?format=csv")
    table = list(csv.DictReader(io.StringIO(b"".join(answer.streaming_content).decode())))
    assert table[0]["tool_name"] == "'=HYPERLINK(1)"
    assert admin.get("events/export/?format=xml").status_code == 400


def test_export_needs_all_it_shows(callers):
    for duty, caller in callers.items():
        assert (caller.get("events/export/").status_code == 200) == (duty in ("auditor", "administrator"))


def test_under_asgi_the_first_lines_leave_before_the_last_are_read(admin, monkeypatch):
    """A plain iterator would be read whole by Django before anything is sent."""
    from audit.export import formats

    events(3000, request_json={"params": {"arguments": {"text": "x" * 500}}})
    read = []
    rows = formats.rows

    def counting(queryset):
        for row in rows(queryset):
            read.append(row["id"])
            yield row

    monkeypatch.setattr(formats, "rows", counting)

    async def first():
        client = AsyncClient()
        answer = await client.get("/api/v1/events/export/", headers=admin.credential)
        assert answer.status_code == 200
        stream = answer.streaming_content
        chunk = await anext(aiter(stream))
        when_first = len(read)
        rest = [piece async for piece in stream]
        return chunk, when_first, rest

    chunk, when_first, rest = async_to_sync(first)()  # so that synchronous code runs here, in the test's transaction
    lines = (chunk + b"".join(rest)).splitlines()
    assert len(lines) == 3000 == AuditEvent.objects.count()
    assert when_first < 1000
