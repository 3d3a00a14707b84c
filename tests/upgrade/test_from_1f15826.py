"""A state folder that an earlier version left behind, killed with calls under way, is served, migrated and verified by this one."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, Request, build_opener, urlopen

import psycopg
import pytest
from django_otp.oath import totp

from sentinel.postgres.server import OWNER, SERVING, SUPERUSER, EmbeddedPostgres
from tests.support.clients import PATIENCE
from tests.support.gateway import Gateway
from tests.support.upstream import FakeUpstream
from tests.upgrade import history

# The old state names an address, which can be listened on once.
pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("upgrade")]
FIXTURE = Path(__file__).with_name("1f15826.tar.xz")
SETTINGS = {
    "SENTINEL_AUDIT_RETENTION_DAYS": "36500",  # else the log of the old version would one day be dropped by its age
    "SENTINEL_UPSTREAM_ENV": ",".join(history.SETTINGS),  # as docs/deploy.md wants it of whoever upgrades
    **history.SETTINGS,
}
# What a later use of the same state changes.
USED = ("last_used_at", "last_ip", "status", "checked_at", "steps", "era", "versions")

Event = dict[str, Any]


@dataclass
class Upgraded:
    """The old state, and this version's gateway on it."""

    gateway: Gateway
    fake: FakeUpstream
    facts: dict[str, Any]
    old: list[Event]
    database: EmbeddedPostgres
    exported: list[Event]  # and what its commands say of it, before anything else happened
    said: list[Any]

    @property
    def keys(self) -> dict[str, str]:
        """The keys of the old version, by name."""
        keys: dict[str, str] = self.facts["keys"]
        return keys


@pytest.fixture(scope="module")
def upgraded() -> Iterator[Upgraded]:
    """Unpack, load the database as the old version left it, and serve."""
    gateway = Gateway(workers=1, **SETTINGS)
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(gateway.home, filter="data")
    facts = json.loads((gateway.home / "facts.json").read_text())
    old = [json.loads(line) for line in (gateway.home / "log.ndjson").read_text().splitlines()]
    database = EmbeddedPostgres(gateway.var, (gateway.var / "secrets" / "instance").read_text().strip())
    with history.crm() as fake:
        try:
            database.ensure()
            with psycopg.connect(database.conninfo(SUPERUSER), autocommit=True) as connection:
                connection.execute((gateway.home / "database.sql").read_bytes())
                (stored,) = connection.execute(
                    "SELECT array_agg(id::text) FROM public.audit_auditevent"
                ).fetchone() or ((),)
            assert {event["id"] for event in old} - {*stored} == {*facts["undrained"]}
            database.release()
            with gateway:
                wait_for(database, facts["undrained"])
                events = gateway.export()
                said = gateway.commands(
                    ["upstreams", "list", "--json"],
                    ["keys", "list", "--json"],
                    ["policy", "export", "--json"],
                    ["audit", "redaction", "list", "--json"],
                    ["migrate", "--check"],  # fails when one is left
                )
                yield Upgraded(gateway, fake, facts, old, database, events, [*map(json.loads, said[:4])])
        finally:
            database.release()
            gateway.__exit__()


def wait_for(database: EmbeddedPostgres, ids: list[str], timeout: float = 20 * PATIENCE) -> None:
    """Wait until the drainer has stored what the old version left in its journal."""
    until = time.monotonic() + timeout
    with psycopg.connect(database.conninfo(SERVING), autocommit=True) as connection:
        query = "SELECT count(DISTINCT id) FROM audit_auditevent WHERE id = ANY(%s::uuid[])"
        while (found := connection.execute(query, [ids]).fetchone()) != (len(ids),):
            assert time.monotonic() < until, f"{found} of {len(ids)} events came out of the old journal"
            time.sleep(0.05)


def test_the_whole_log_is_there_once_and_as_it_was(upgraded: Upgraded) -> None:
    new = {event["id"]: event for event in upgraded.exported}
    assert len(new) == len(upgraded.exported)
    for event in upgraded.old:
        assert {name: new[event["id"]][name] for name in event} == event
    assert {*upgraded.facts["undrained"]} <= new.keys()
    known = {event["id"] for event in upgraded.old}
    assert {event["method"] for event in upgraded.exported if event["id"] not in known} <= {"admin.events.exported"}
    erased = new[upgraded.facts["erased"]]
    assert erased["request_json"] is None and erased["tool_error"] is True  # also of events older than this member


def test_nothing_is_missing_and_rights_are_what_they_should_be(upgraded: Upgraded) -> None:
    report = json.loads(upgraded.gateway.manage("audit", "verify", "--json").stdout)  # exits 0
    assert report["ok"], report
    with psycopg.connect(upgraded.database.conninfo(SERVING), autocommit=True) as connection:
        without = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
            " AND NOT relispartition AND NOT has_table_privilege(oid, 'SELECT')"
        ).fetchall()
        assert without == []
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("UPDATE audit_auditevent SET reason = ''")
    with psycopg.connect(upgraded.database.conninfo(OWNER), autocommit=True) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("UPDATE audit_auditevent SET reason = ''")


def test_what_was_configured_is_configured(upgraded: Upgraded) -> None:
    upstreams, keys, policy, redaction = upgraded.said
    said = upgraded.facts["said"]
    assert (policy, redaction) == (said["policy"], said["redaction"])
    for now, before in ((upstreams, said["upstreams"]), (keys, said["keys"])):
        name = "slug" if now is upstreams else "name"
        found = {one[name]: one for one in now}
        for one in before:
            assert {member: found[one[name]][member] for member in one if member not in USED} == {
                member: value for member, value in one.items() if member not in USED
            }
    assert {key["name"] for key in keys} - {key["name"] for key in said["keys"]} == {"made-late"}


def test_each_key_is_answered_and_each_call_decided_as_before(upgraded: Upgraded) -> None:
    since = upgraded.gateway.now()
    upgraded.fake.requests.clear()
    answers = {what[0]: history.call(upgraded.gateway, upgraded.keys, what) for what in history.CALLS}
    assert {name: answer.status for name, answer in answers.items()} == upgraded.facts["calls"]
    events = upgraded.gateway.events(since, len(history.CALLS))
    for name, *_ in history.CALLS:
        (event,) = (event for event in events if history.is_of(event, name))
        before = next(event for event in upgraded.old if history.is_of(event, name))
        same = [
            "outcome",
            "reason",
            "status_code",
            "key_name",
            "role",
            "upstream",
            "tool_name",
            "request_digest",
            "truncated",
        ]
        if before["id"] != upgraded.facts["erased"]:
            same += ["request_json", "redactions"]  # secrets are redacted to the same fingerprints
        assert {member: event[member] for member in same} == {member: before[member] for member in same}
        for member in ("allowed", "rule", "policy_version"):
            assert event["decision"].get(member) == before["decision"].get(member)
    assert all(request.header("x-crm-token") == history.TOKEN for request in upgraded.fake.requests)
    assert all(request.header("x-team") == "blue" for request in upgraded.fake.requests)
    told = answers["command"].result["content"][0]["text"]
    assert told == hashlib.sha256(history.TOKEN.encode()).hexdigest()


def test_what_ended_is_ended_and_limits_hold(upgraded: Upgraded) -> None:
    assert upgraded.gateway.client(upgraded.keys["revoked"], "crm").call("list_customers").status == 401
    for slug in ("off", "gone"):
        assert upgraded.gateway.client(upgraded.keys["admin"], slug).call("list_customers").status == 404
    held = upgraded.gateway.client(upgraded.keys["admin"], "held")
    assert held.call("list_customers").status == 200
    assert held.call("get_customer").refusal["reason"] == "tool_definition_changed"
    limited = [history.call(upgraded.gateway, upgraded.keys, history.LIMITED).status for _ in range(4)]
    assert limited == [200, 200, 200, 429]


def test_people_and_programs_get_in_as_before(upgraded: Upgraded) -> None:
    bearer = {"Authorization": f"Bearer {upgraded.keys['auditor']}"}
    one = upgraded.old[0]["id"]
    with urlopen(Request(f"{upgraded.gateway.url}/api/v1/events/{one}/", headers=bearer), timeout=10) as answer:
        assert json.load(answer)["id"] == one
    code = f"{totp(bytes.fromhex(upgraded.facts['seed'])):06d}"
    browser = build_opener(HTTPCookieProcessor())
    login = f"{upgraded.gateway.url}/admin/login/?next=/admin/audit/auditevent/"
    page = browser.open(login, timeout=10)
    for fields in ({"username": "admin", "password": upgraded.facts["password"]}, {"token": code}):
        address = page.geturl()
        (token,) = re.findall(r'csrfmiddlewaretoken" value="([^"]+)', page.read().decode())[:1]
        form = {"csrfmiddlewaretoken": token, "next": "/admin/audit/auditevent/", **fields}
        page = browser.open(Request(address, urlencode(form).encode(), {"Referer": address}), timeout=10)
    assert page.geturl().endswith("/admin/audit/auditevent/"), page.geturl()
    assert b"list_customers" in page.read()


def test_the_demonstration_goes_on_with_its_keys(upgraded: Upgraded) -> None:
    upgraded.gateway.demo = True
    upgraded.gateway.restart()
    until = time.monotonic() + 20
    while "Stop with" not in (said := upgraded.gateway.output()) and time.monotonic() < until:
        time.sleep(0.05)
    for role in ("admin", "user", "readonly"):
        assert upgraded.keys[role] in said
    answer = upgraded.gateway.client(upgraded.keys["readonly"], "demo").call("list_customers", {})
    assert "Hedy Lamarr" in answer.result["content"][0]["text"]
    assert upgraded.gateway.manage("audit", "verify").returncode == 0
