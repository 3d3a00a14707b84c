"""A filter never shows more than it says, on whatever way events are read: list, live, export, API, commands."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode
from zoneinfo import ZoneInfo

import pytest
from django.core.management import CommandError, call_command
from django.http import QueryDict
from django.test import Client

from audit.admin import live
from audit.export import jobs
from audit.export.stream import matching
from audit.filters import FIELDS, SINGLE, Filters
from audit.models import AuditEvent, ExportJob
from audit.search import search
from core.access.actors import Actor
from core.ids import uuid7_floor
from policies.models import ApiKey
from policies.services import keys as key_acts
from policies.services import policy as policy_acts
from sentinel.models import SavedView

pytestmark = pytest.mark.django_db
LIST = "/admin/audit/auditevent/"
LONG_AGO = uuid7_floor(datetime(2020, 1, 1, tzinfo=UTC))

# What cannot be understood, or cannot fit any event, in every parameter there is.
WRONG = [
    "key=no-such-key", "key=ci-bot&key=no-such-key", "key=mcps_live_000000000000", "key=%00", "key=" + "x" * 301, "key=%25", "key=ci%5Fbot",
    "key=00000000-0000-4000-8000-00000000000", "outcome=nonsense", "outcome=ALLOWED", "outcome=allowed&outcome=nonsense", "status=x",
    "status=1e3", "status=-1", "status=4000", "status=200.0", "ip=300.1.1.1", "ip=10.0.0.0/8", "ip=nonsense", "slower=nan", "slower=inf",
    "slower=-1", "slower=x", "range=9y", "range=1h&range=24h", "from=tomorrow", "from=2026-13-01T00:00", "from=2026-02-30", "to=x",
    "from=2026-01-01T00:00&from=2026-01-02T00:00", "to=99999-01-01T00:00", "from=2026-01-02T00:00&to=2026-01-01T00:00",
    "from=2026-01-01T00:00&to=2026-01-01T00:00", "q=" + "x" * 201, "q=a&q=b", "q=a%00b", "keyy=ci-bot", "Key=ci-bot", "api_key_id=x",
    "outcome[]=denied", "tool__startswith=x", "rule=%00", "&".join(f"tool=t{n}" for n in range(21)), "session=" + "y" * 301,
    "from=0001-01-01T00:00", "upstream=crm%00", "key=+", "tool=%E2%80%83", "key=ci-bot&key=+", "rule=%09", "from=+", "range=+",
    "ip=fe80::1%25eth0", "act=nonsense", "act=changed&act=Refused", "tool_error=yes", "tool_error=True", "tool_error=true&tool_error=1",
]  # fmt: skip
# What is well formed and fits nothing.
NOTHING = [
    "role=nobody", "upstream=none", "tool=none", "reason=none", "method=none", "prefix=mcps_live_none", "auth=cookie", "session=none",
    "rpc=7777", "rule=999", "ip=192.0.2.77", "status=599", "slower=999999", "key=00000000-0000-4000-8000-0000000000ff", "q=none-such",
    "from=2999-01-01T00:00", "to=1971-01-01T00:00",
    "tool_error=true", "act=refused", "act=accessed", "act=changed",
]  # fmt: skip


def listed(client: Client, query: str) -> str:
    answer = client.get(f"{LIST}?{query}")
    assert answer.status_code == 200
    return str(answer.content.decode())


def shown(text: str) -> int:
    return text.count('<tr id="e')


def made(name: str, **fields: Any) -> ApiKey:
    return key_acts.create_key(name=name, role="user", actor=Actor.system(), **fields).key


@pytest.fixture
def kept(event: Callable[..., AuditEvent]) -> AuditEvent:
    return event(rpc_id="1", session="s")


def test_every_parameter_is_tried() -> None:
    assert {name for query in WRONG + NOTHING for name, _ in parse_qsl(query)} >= {*FIELDS, *SINGLE} - {"method"}


@pytest.mark.parametrize("query", WRONG)
def test_what_fits_nothing_shows_nothing_and_says_so(query, kept, as_duty):
    client = as_duty("administrator")
    text = listed(client, query)
    assert shown(text) == 0 and "callout warn" in text and "No events yet" not in text
    live_page = client.get(f"{LIST}live/?{query}").content.decode()
    assert "callout warn" in live_page and "data-source" not in live_page
    assert client.get(f"{LIST}live/stream/?{query}").status_code == 400
    export = client.get(f"{LIST}export/?{query}").content.decode()
    assert "callout warn" in export and "export/file/" not in export
    before = ExportJob.objects.count()
    posted = client.post(
        f"{LIST}export/file/", f"{query}&format=ndjson", content_type="application/x-www-form-urlencoded"
    )
    assert posted.status_code == 400 and str(kept.id) not in posted.content.decode()
    assert ExportJob.objects.count() == before
    filters = Filters.read(QueryDict(query))
    assert not search(filters).rows and not matching(filters).exists() and not live._fetch(filters, LONG_AGO)
    assert filters.problems and not filters.empty
    # The page's own links ask for the same again, and not for more.
    assert Filters.read(QueryDict(filters.query()[1:])).problems
    for chip in filters.chips():
        assert chip.without != filters.query()


@pytest.mark.parametrize("query", NOTHING)
def test_what_no_event_has_shows_nothing(query, kept, as_duty):
    client = as_duty("administrator")
    text = listed(client, query)
    assert (shown(text) == 0 and "Nothing matches" in text) or "No key is named" in text
    filters = Filters.read(QueryDict(query))
    assert not matching(filters).exists() and not live._fetch(filters, LONG_AGO)
    answer = client.get(f"/api/v1/events/?{query.replace(':00', ':00:00Z')}")
    assert answer.status_code == 400 or answer.json()["results"] == []


@pytest.mark.parametrize("query", [*WRONG, "q=+", "q=%0A", "q=", "key="])
def test_the_api_refuses_it(query, kept, as_duty):
    client = as_duty("administrator")
    for place in ("/api/v1/events/", "/api/v1/events/export/"):
        answer = client.get(f"{place}?{query}")
        assert answer.status_code == 400 and answer["Content-Type"] == "application/problem+json", query


@pytest.mark.parametrize(
    "options",
    [
        ["--key", "no-such-key"], ["--key", ""], ["--key", "ci-bot", "--key", "gone"], ["--ip", "nonsense"], ["--since", ""],
        ["--since", "tomorrow"], ["--until", ""], ["--status", "5000"], ["--role", ""], ["--since", "1h", "--until", "2h"],
        ["--search", "x" * 201], ["--tool", "x\0y"], ["--limit", "0"], ["--outcome", "nonsense"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("action", ["tail", "export"])
def test_commands_refuse_it(action, options, kept, monkeypatch, tmp_path):
    from audit.management.commands.audit import Command

    monkeypatch.setattr(Command, "at_hand", lambda self: None)
    where = ["--output", str(tmp_path / "out")] if action == "export" else []
    with pytest.raises(CommandError):
        call_command("audit", action, *options, *where, stdout=StringIO())
    assert not (tmp_path / "out").exists()


def test_an_empty_field_of_a_form_asks_for_nothing(kept, as_duty):
    client = as_duty("viewer")
    assert shown(listed(client, urlencode({name: "" for name in (*FIELDS, *SINGLE)}))) == 1
    assert shown(listed(client, "key=&outcome=allowed&q=+")) == 1


# -- keys by name --------------------------------------------------------------------------------------------------------


def everywhere(query: str) -> set[uuid.UUID]:
    """Return what a filter finds, having seen that every way finds the same."""
    filters = Filters.read(QueryDict(query))
    assert not filters.problems
    found = {row.id for row in search(filters, budget_ms=5000).rows}
    assert {row.id for row in live._fetch(filters, LONG_AGO)} == found
    assert {event.id for event in matching(filters)} == found
    job = ExportJob(filter=filters.describe(), since=datetime.now(UTC), until=datetime.now(UTC))
    assert {event.id for event in matching(jobs._filters(job))} == found
    return found


def test_two_keys_of_one_name_are_both_meant(event, as_duty, monkeypatch):
    first, second, other = made("twin"), made("twin"), made("twin-2")
    mine = {event(api_key_id=key.pk, key_name="twin").id for key in (first, second, first)}
    event(api_key_id=other.pk, key_name="twin-2")
    assert everywhere("key=twin") == mine
    assert everywhere(f"key={second.pk}") < mine
    client = as_duty("viewer")
    assert shown(listed(client, "key=twin")) == 3
    assert len(client.get("/api/v1/events/?key=twin").json()["results"]) == 3
    from audit.management.commands.audit import Command

    monkeypatch.setattr(Command, "at_hand", lambda self: None)
    told = StringIO()
    call_command("audit", "tail", "--key", "twin", "--json", stdout=told)
    assert {json.loads(line)["id"] for line in told.getvalue().splitlines()} == {str(one) for one in mine}


def test_a_key_beyond_the_suggestions_is_found(event, as_duty):
    role = made("zz-first").role
    ApiKey.objects.bulk_create(ApiKey(name=f"a{n:04}", public_id=f"{n:012d}", role=role) for n in range(600))
    late = made("zz-late")
    mine = event(api_key_id=late.pk, key_name="zz-late")
    event()
    assert everywhere("key=zz-late") == {mine.id}
    client = as_duty("auditor")
    assert shown(listed(client, "key=zz-late")) == 1
    lines = client.post(f"{LIST}export/file/", {"key": "zz-late", "format": "ndjson"}).getvalue().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [str(mine.id)]


def test_names_that_events_carry_are_found_when_no_key_has_them(event):
    gone = event(api_key_id=uuid.uuid4(), key_name="long-gone", key_prefix="mcps_live_GONEGONEGONE")
    event()
    assert everywhere("key=long-gone") == {gone.id}
    assert everywhere("key=mcps_live_GONEGONEGONE") == {gone.id}
    assert Filters.read(QueryDict("key=long-gon")).problems == ("No key is named “long-gon”.",)


def test_a_renamed_key_is_found_by_both_names(event):
    key = made("before")
    old = event(api_key_id=key.pk, key_name="before")
    key_acts.update_key(key.pk, name="after", actor=Actor.system())
    new = event(api_key_id=key.pk, key_name="after")
    assert everywhere("key=after") == {old.id, new.id}
    assert everywhere("key=before") == {old.id}


def test_all_keys_of_a_name_are_meant_under_whatever_name_their_events_are(event):
    keys = [made("one-before"), made("other-before")]
    mine = {event(api_key_id=key.pk, key_name=key.name).id for key in keys}
    for key in keys:
        key_acts.update_key(key.pk, name="both-now", actor=Actor.system())
    assert everywhere("key=both-now") == mine


def test_a_long_name_of_a_tool_does_not_hide_whose_call_it_was(event):
    from audit.events.event import Event

    row = Event(key_name="hider", tool_name="file:///" + "a" * 5000, outcome="denied", method="resources/read")
    assert row.search.startswith("hider ")
    assert "hider" in row.search


@pytest.mark.parametrize("name", ["%", "_", "100%", "a_b", "a\\b", "a'b", "ключ", "a b", '"><script>', "\u202ename"])
def test_odd_names_are_taken_as_they_are(name, event, as_duty):
    mine = event(api_key_id=uuid.uuid4(), key_name=name, search=f"{name} x")
    event(key_name="aXb 100", search="aXb 100")
    asked = urlencode({"key": AuditEvent.objects.get(pk=mine.pk).key_name})  # as the log keeps and shows it
    assert everywhere(asked) == {mine.id}
    assert shown(listed(as_duty("viewer"), asked)) == 1


# -- time ----------------------------------------------------------------------------------------------------------------


def test_the_live_view_heeds_the_time_it_is_given(event):
    event()
    now = datetime.now(UTC)
    for query in (
        f"to={now - timedelta(hours=1):%Y-%m-%dT%H:%M:%S}",
        f"from={now + timedelta(hours=1):%Y-%m-%dT%H:%M:%S}",
    ):
        assert not live._fetch(Filters.read(QueryDict(query)), LONG_AGO)
    assert live._fetch(Filters.read(QueryDict("range=1h")), LONG_AGO)


# -- saved views ---------------------------------------------------------------------------------------------------------


def test_a_view_that_cannot_be_understood_is_not_saved(as_duty, kept):
    client = as_duty("viewer")
    for query in ("?outcome=nonsense", "?key=nobody", "?from=x", "?keyy=1"):
        answer = client.post("/admin/views/", {"name": "mine", "query": query}, follow=True)
        assert b"was not saved" in answer.content
        assert shown(answer.content.decode()) == 0
    assert not SavedView.objects.exists()


def test_a_view_saved_long_ago_is_read_like_any_other(as_duty, kept):
    client = as_duty("viewer")
    user = client.get("/admin/").wsgi_request.user
    SavedView.objects.create(user=user, name="old", query="key=since-deleted")
    assert "?key=since-deleted" in listed(client, "")
    text = listed(client, "key=since-deleted")
    assert shown(text) == 0 and "No key is named “since-deleted”." in text


def test_the_stream_says_why_it_does_not_begin(as_duty, kept):
    answer = as_duty("viewer").get(f"{LIST}live/stream/?outcome=x")
    assert answer.status_code == 400 and "is not an outcome" in answer.content.decode()
    assert asyncio.iscoroutinefunction(live.stream)


# -- the other lists -----------------------------------------------------------------------------------------------------

LISTS = {
    "/admin/policies/apikey/": ["state=expird", "role=nobody", "q=" + "x" * 201, "rolle=user", "state=all&state=", "q=a&q=b", "q=a%00b"],
    "/admin/policies/rule/": ["effect=permit", "role=nobody", "efect=deny"],
    "/admin/proxy/catalogueitem/": ["state=waitin", "upstream=none", "stat=gone"],
    "/admin/sentinel/user/": ["name=x", "q=" + "x" * 201],
    "/admin/policies/role/matrix/": ["tool=x", "q=" + "x" * 201],
}  # fmt: skip


@pytest.mark.parametrize(("page", "query"), [(page, query) for page, queries in LISTS.items() for query in queries])
def test_other_lists_show_nothing_either(page, query, admin_client):
    key = made("shown-key")
    policy_acts.create_rule(_rule(), actor=Actor.system())
    text = admin_client.get(f"{page}?{query}").content.decode()
    if query == "state=all&state=":
        assert "shown-key" in text
        return
    assert "messagelist" in text
    for thing in ("shown-key", str(key.pk), "shown_tool", "/admin/sentinel/user/1"):
        assert thing not in text.partition("messagelist")[2]


def _rule() -> Any:
    from policies.specs import RuleSpec

    return RuleSpec("deny", ("tool",), "shown_tool", None)


@pytest.mark.parametrize("query", [{"state": "expird"}, {"role": "nobody"}, {"q": "x" * 201}, {"rolle": "user"}])
def test_revoking_all_that_a_filter_finds_revokes_nothing_by_one_that_is_not_understood(query, admin_client):
    made("a"), made("b")
    fields = {"every": "1", "reason": "x", "own_password": "correct-horse-battery-7", **query}
    admin_client.post("/admin/policies/apikey/revoke/", fields)
    assert not ApiKey.objects.filter(revoked_at__isnull=False).exists()


def test_the_api_shows_no_rules_of_a_role_that_is_not_there(as_duty):
    policy_acts.create_rule(_rule(), actor=Actor.system())
    client = as_duty("administrator")
    assert client.get("/api/v1/rules/?role=nobody").json()["results"] == []
    assert client.get("/api/v1/rules/?role=user").json()["results"]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/St_Johns", "Asia/Kolkata"])
def test_a_link_shows_the_same_to_whoever_follows_it(zone, event, as_duty):
    """The form's times are the viewer's; every link that comes of them says UTC."""
    there = datetime(2026, 5, 4, 12, 30, 15, tzinfo=ZoneInfo(zone))
    for minutes in (-1, 1):
        at = there + timedelta(minutes=minutes)
        event(id=uuid7_floor(at), ts=at, tool_name=f"t{minutes}")
    berliner = as_duty("administrator", username=f"in-{zone.rpartition('/')[2]}", time_zone=zone)
    form = {"from": f"{there:%Y-%m-%dT%H:%M:%S}", "to": "", "tool": "", "q": "", "zone": zone}
    sent = berliner.get(LIST, form)
    assert sent.status_code == 302
    utc = f"{there.astimezone(UTC):%Y-%m-%dT%H:%M:%S}Z"
    assert parse_qsl(sent.url.partition("?")[2]) == [("from", utc)]
    for client in (
        berliner,
        as_duty("viewer", username=f"elsewhere-{zone.rpartition('/')[2]}", time_zone="Pacific/Apia"),
    ):
        text = client.get(sent.url).content.decode()
        assert shown(text) == 1 and "t1" in text and "t-1<" not in text
        times = re.findall(r'href="[^"]*[?&;](?:from|to)=([^"&]*)', text)
        assert times and all(unquote(time).endswith("Z") for time in times)
    client = berliner
    client.post("/admin/views/", {"name": "then", "query": f"?from={form['from']}"})
    assert SavedView.objects.get(name="then").query == f"from={quote(utc, safe='')}"
    assert client.get("/api/v1/events/?" + sent.url.partition("?")[2]).json()["results"][0]["tool_name"] == "t1"
    # A link of before, without a zone, is read as it was: in the zone of whoever follows it.
    old = client.get(f"{LIST}?from={form['from']}").content.decode()
    assert shown(old) == 1 and quote(utc, safe="") in old


def test_a_form_that_names_no_zone_there_is_loses_nothing(as_duty):
    sent = as_duty("viewer").get(LIST, {"from": "tomorrow", "zone": "../../etc/passwd", "tool": "x", "before": "z"})
    assert dict(parse_qsl(sent.url.partition("?")[2])) == {"from": "tomorrow", "tool": "x", "before": "z"}
