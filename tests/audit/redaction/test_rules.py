"""What administrators ask to have redacted: acts, commands, pages, and how processes come to know it."""

from __future__ import annotations

import json
import threading
import time
from io import StringIO

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction

from audit.models import OutboxEvent, RedactionRule
from audit.redaction import loading, sanitizer
from audit.redaction.rules import PatternError, RedactionRuleSet
from audit.services import redaction_rules
from core.access.actors import Actor
from policies.snapshot.snapshot import SnapshotHolder

ACTOR = Actor(kind="user", name="ann")


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch):
    held = sanitizer.current()
    monkeypatch.setattr(loading, "_known", False)
    yield
    sanitizer._current = held


def told() -> list[dict]:
    return [json.loads(str(record)) if isinstance(record, str) else record for record in
            OutboxEvent.objects.order_by("number").values_list("record", flat=True)]  # fmt: skip


def details(record: dict) -> dict:
    found = record["details"]
    return json.loads(found) if isinstance(found, str) else found


@pytest.mark.django_db
class TestActs:
    def test_each_leaves_an_event(self):
        rule = redaction_rules.create_rule(kind="pattern", value=r"BDG-\d{6}", label="badge", note="staff", actor=ACTOR)
        redaction_rules.change_rule(rule.pk, enabled=False, actor=ACTOR)
        redaction_rules.change_rule(rule.pk, enabled=False, actor=ACTOR)  # nothing changes, nothing is told
        redaction_rules.delete_rule(rule.pk, actor=ACTOR)
        records = told()
        assert [record["method"] for record in records] == [
            "admin.redaction.created", "admin.redaction.changed", "admin.redaction.deleted"
        ]  # fmt: skip
        assert all(record["outcome"] == "changed" and record["key_name"] == "ann" for record in records)
        assert details(records[0])["after"]["value"] == r"BDG-\d{6}"
        assert (details(records[1])["before"]["enabled"], details(records[1])["after"]["enabled"]) == (True, False)
        assert not RedactionRule.objects.exists()

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"kind": "pattern", "value": "("}, "not a pattern RE2 takes"),
            ({"kind": "pattern", "value": "a*"}, "empty text"),
            ({"kind": "pattern", "value": r"\w+"}, "nearly everything"),
            ({"kind": "pattern", "value": "x" * 1_001}, "1000"),
            ({"kind": "pattern", "value": r"(?=x)"}, "not a pattern RE2 takes"),
            ({"kind": "name", "value": "--"}, "fewer than two letters"),
            ({"kind": "personal", "value": "shoe-size"}, "no kind of personal data"),
            ({"kind": "personal", "value": "email", "label": "x"}, "its own kind"),
            ({"kind": "colour", "value": "red"}, "colour"),
            ({"kind": "name", "value": "badge", "label": "Not A Label"}, "Small letters"),
            ({"kind": "name", "value": ""}, "blank"),
        ],
    )
    def test_what_cannot_be_used_is_refused_in_words(self, fields, words):
        with pytest.raises(redaction_rules.RuleRefused) as refused:
            redaction_rules.create_rule(**fields, actor=ACTOR)
        assert words.lower() in " ".join(refused.value.messages).lower()
        assert not RedactionRule.objects.exists() and not OutboxEvent.objects.exists()

    def test_twice_the_same_is_refused(self):
        redaction_rules.create_rule(kind="name", value="badge", actor=ACTOR)
        with pytest.raises(redaction_rules.RuleRefused, match="such a rule already"):
            redaction_rules.create_rule(kind="name", value="badge", actor=ACTOR)

    def test_too_many_are_refused(self, monkeypatch):
        monkeypatch.setattr(redaction_rules, "MOST_RULES", 1)
        redaction_rules.create_rule(kind="name", value="badge", actor=ACTOR)
        redaction_rules.create_rule(kind="name", value="locker", enabled=False, actor=ACTOR)
        with pytest.raises(redaction_rules.RuleRefused, match="already"):
            redaction_rules.create_rule(kind="name", value="desk", actor=ACTOR)

    def test_the_table_refuses_what_no_act_would_write(self):
        for fields in ({"kind": "colour", "value": "x"}, {"kind": "name", "value": ""}, {"kind": "personal", "value": "x"}, {"kind": "name", "value": "a", "label": "A b"}):  # fmt: skip
            with pytest.raises(IntegrityError), transaction.atomic():
                RedactionRule.objects.create(**fields)


@pytest.mark.django_db
class TestCommand:
    def run(self, *arguments: str) -> str:
        out = StringIO()
        call_command("audit", "redaction", *arguments, stdout=out)
        return out.getvalue()

    def test_add_list_remove(self):
        made = json.loads(self.run("add", "pattern", r"BDG-\d{6}", "--label", "badge", "--json"))
        assert made["value"] == r"BDG-\d{6}" and made["enabled"]
        assert "[badge]" in self.run("list")
        assert [rule["id"] for rule in json.loads(self.run("list", "--json"))] == [made["id"]]
        assert "no longer" in self.run("remove", str(made["id"]))
        assert "nothing beside" in self.run("list")
        assert [record["method"] for record in told()] == ["admin.redaction.created", "admin.redaction.deleted"]

    def test_refusals_are_one_line(self):
        for arguments in (("add", "pattern", "("), ("remove", "7")):
            with pytest.raises(CommandError) as refused:
                self.run(*arguments)
            assert "\n" not in str(refused.value)

    def test_a_command_knows_the_rules(self):
        redaction_rules.create_rule(kind="name", value="badge", label="badge", actor=ACTOR)
        out = StringIO()
        call_command("audit", "redact-check", "badge=B1234x", "--json", stdout=out)
        assert "[REDACTED:badge:" in json.loads(out.getvalue())["stored"]


@pytest.fixture
def dsn(django_db_setup, django_db_blocker) -> str:
    """Where the test database is."""
    with django_db_blocker.unblock():
        given = connection.get_connection_params()
    wanted = ("host", "port", "user", "password", "dbname")
    return psycopg.conninfo.make_conninfo(**{name: value for name, value in given.items() if name in wanted and value})


@pytest.fixture
def outside(dsn):
    """Commits at once, as another process would; what it adds is taken away."""
    with psycopg.connect(dsn, autocommit=True) as raw:
        yield raw
        raw.execute("DELETE FROM audit_redactionrule")


def put(outside, kind: str, value: str, label: str = "") -> None:
    outside.execute(
        "INSERT INTO audit_redactionrule (kind, value, label, note, enabled, created_at) VALUES (%s, %s, %s, '', true, now())",
        [kind, value, label],
    )


def soon(holds, seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if holds():
            return True
        time.sleep(0.01)
    return False


def hidden() -> bool:
    return "B1234" not in sanitizer.current().text("badge=B1234x")


class TestTakingOver:
    def test_a_worker_knows_a_change_within_a_second(self, dsn, outside):
        holder = SnapshotHolder(dsn, peppers={1: b"p" * 32}, extra={"redaction": loading.load})
        holder.start()
        try:
            assert holder.ready(10) and soon(lambda: "redaction" in holder.extras)
            assert not hidden()
            put(outside, "name", "badge")
            assert soon(hidden, 1.0)
            outside.execute("UPDATE audit_redactionrule SET enabled = false")
            assert soon(lambda: not hidden(), 1.0)
        finally:
            holder.stop()

    def test_rules_that_cannot_be_used_leave_the_old_ones_and_raise_an_alarm(self, dsn, outside):
        put(outside, "name", "badge")
        holder = SnapshotHolder(dsn, peppers={1: b"p" * 32}, extra={"redaction": loading.load})
        holder.load_once()
        put(outside, "pattern", "(")  # past every act, by hand
        holder.load_once()
        assert "the pattern '(' cannot be used" in holder.alarms["redaction"]
        assert hidden()
        outside.execute("DELETE FROM audit_redactionrule WHERE kind = 'pattern'")
        holder.load_once()
        assert "redaction" not in holder.alarms and hidden()

    def test_the_drainer_follows_them(self, dsn, outside, monkeypatch, caplog):
        monkeypatch.setattr(loading, "FOLLOW_SECONDS", 0.05)
        stop = threading.Event()
        thread = loading.follow(dsn, stop)
        try:
            put(outside, "name", "badge")
            assert soon(hidden)
            put(outside, "pattern", "(")
            assert soon(lambda: "cannot be used" in caplog.text)
            assert hidden()
        finally:
            stop.set()
            thread.join(5)
        assert not thread.is_alive() and len(caplog.records) == 1

    def test_a_database_that_does_not_answer_is_no_error(self):
        stop = threading.Event()
        thread = loading.follow("host=127.0.0.1 port=1 connect_timeout=1", stop)
        stop.set()
        thread.join(5)
        assert not thread.is_alive()


def test_rules_of_nothing_are_none():
    assert not RedactionRuleSet.of([]).more
    with pytest.raises(PatternError):
        RedactionRuleSet.of([("colour", "red", "")])
