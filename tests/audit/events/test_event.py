"""Whatever an event is made of, and by whatever way, it holds no secret and nothing that the table refuses."""

import ast
import datetime
import ipaddress
import json
import uuid
from pathlib import Path

import orjson
import pytest
from django.db import models
from hypothesis import given
from hypothesis import strategies as st

from audit.events.event import COLUMNS, EMPTY, FIELDS, OUTCOMES, Event
from audit.events.fields import NAME_BYTES
from audit.events.row import row_of
from audit.export.formats import exported
from audit.models import AuditEvent
from audit.redaction.rules import RedactionRuleSet
from audit.redaction.sanitizer import Payload, Sanitizer
from core import ids
from tests.corpus.strategies import ODD_OBJECTS, TEXTS, bodies

SANITIZER = Sanitizer(b"k" * 32)
KEY = uuid.UUID("018f6b2e-7a3c-7000-8000-0123456789ab")
CANARY = "mcps_live_AbCdEf123456_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJ0123456"
CONTRACT = (
    "id ts writer seq api_key_id key_prefix key_name role auth_method client_ip upstream protocol_version method tool_name outcome reason decision "
    "status_code latency_ms upstream_ms request_json response_json request_bytes response_bytes truncated redactions"
).split()


def make(**fields):
    return Event(sanitizer=SANITIZER, **fields)


def test_a_time_before_all_times_is_the_first():
    event = make(ts=datetime.datetime(1965, 1, 1, tzinfo=datetime.UTC), outcome="denied")
    assert event.ts == 0 and row_of(event.as_record())[1] == "1970-01-01 00:00:00.000000+00"


def line_of(event):
    """This event's line in an export."""
    return orjson.dumps(exported(dict(zip(COLUMNS, event.as_row(), strict=True))))


def export_of(event):
    return json.loads(line_of(event))


def taken_back(record):
    """The event that a record of the journal is."""
    return make(again=True, **{name: value for name, value in record.items() if name in EMPTY})


def everything(event):
    """All that an event is in any of its forms, as text."""
    return repr(
        [orjson.dumps(event.as_record(), default=str).decode(), event.as_row(), export_of(event), event, event.search]
    )


def names(but=()):
    return [name for name in EMPTY if name not in but]


@given(st.dictionaries(st.sampled_from(names()), st.one_of(ODD_OBJECTS, TEXTS, st.binary(max_size=50)), max_size=12))
def test_construction_never_raises(fields):
    event = make(**fields)
    for text in (orjson.dumps(event.as_record()), line_of(event)):
        assert b"\x00" not in text and json.loads(text)
    row = dict(zip(COLUMNS, event.as_row(), strict=True))
    assert "\x00" not in repr(row)
    assert row["outcome"] in OUTCOMES
    assert row["outcome"] != "allowed" or row["api_key_id"] is not None
    assert isinstance(row["ts"], datetime.datetime) and isinstance(row["id"], uuid.UUID)
    assert 0 <= row["status_code"] <= 32_767 and row["count"] >= 1 and 0 <= row["latency_ms"] < 1e15
    for name in ("request_json", "response_json", "decision", "details"):
        assert row[name] is None or len(row[name].encode()) <= 8_192
    for name, value in row.items():
        if isinstance(value, str) and name not in ("request_json", "response_json", "decision", "details"):
            assert len(value.encode()) <= 1_024 and "\n" not in value


@given(bodies())
def test_it_comes_back_from_the_journal_as_it_went(raw):
    event = make(
        request_json=raw,
        response_json={"x": [raw]},
        tool_name="a\u202eb\\u{1}",
        api_key_id=KEY,
        outcome="allowed",
        details={"error": "password=hunter2 \u200b"},
        rpc_id='"1"',
        latency_ms=1.25,
    )
    record = orjson.loads(orjson.dumps(event.as_record()))
    back = taken_back(record)
    assert back == event
    assert back.as_row() == event.as_row()
    assert back.as_record() == event.as_record()


@given(st.dictionaries(st.one_of(st.sampled_from(names()), st.text(max_size=5)), ODD_OBJECTS, max_size=8))
def test_a_damaged_record_never_raises(record):
    taken_back(record).as_row()


@pytest.mark.parametrize("name", names(but=("id", "ts")))
def test_a_canary_in_any_field_is_never_kept(name):
    for value in (
        CANARY,
        f"x {CANARY} y",
        {"a": [CANARY]},
        {"password": "hunter2canary"},
        f"password=hunter2canary and {CANARY}",
        CANARY.encode(),
        json.dumps({"a": CANARY}).encode(),
    ):
        event = make(**{name: value})
        assert "0123456789abcdefghij" not in everything(event) and "hunter2canary" not in everything(event)
        later = make().complete(**{name: value})
        assert "0123456789abcdefghij" not in everything(later)
        assigned = make()
        setattr(assigned, name, value)
        assert "0123456789abcdefghij" not in everything(assigned) and "hunter2canary" not in everything(assigned)
        back = taken_back({name: value if isinstance(value, str) else json.dumps(str(value))})
        assert "0123456789abcdefghij" not in everything(back) and "hunter2canary" not in everything(back)


class TestKeys:
    def test_a_uuid_in_any_spelling_is_kept(self):
        for spelling in (KEY, str(KEY), str(KEY).upper(), KEY.hex):
            assert make(api_key_id=spelling, outcome="allowed").api_key_id == KEY

    @pytest.mark.parametrize(
        "key", ["", None, "not-a-uuid", "0" * 35, 42, b"x", [KEY], CANARY, "x" * 10_000, float("nan")]
    )
    def test_anything_else_is_null_and_never_allowed(self, key):
        event = make(
            api_key_id=key, outcome="allowed", reason="allowed_by_rule", status_code=200, details={"verb": "POST"}
        )
        assert event.api_key_id is None
        assert (event.outcome, event.reason) == ("unauthenticated", "invalid_credential")
        assert event.details["claimed"] == {"outcome": "allowed", "reason": "allowed_by_rule"}
        assert event.details["verb"] == "POST"
        if key not in (None, ""):
            assert event.details["key_fingerprint"] == SANITIZER.fingerprint(key)
            assert len(event.details["key_fingerprint"]) == 8

    def test_by_no_way(self):
        event = make(api_key_id=KEY, outcome="allowed")
        event.api_key_id = "gone"
        assert event.outcome == "unauthenticated"
        event = make(outcome="denied")
        event.outcome = "allowed"
        assert event.outcome == "unauthenticated"
        assert taken_back({"outcome": "allowed"}).outcome == "unauthenticated"

    def test_other_outcomes_need_no_key(self):
        for outcome in OUTCOMES[1:]:
            assert make(outcome=outcome).outcome == outcome
        assert make(outcome="no such").outcome == "invalid"


class TestPayloads:
    def test_of_every_sort(self):
        for value in ({"password": "x9y"}, b'{"password":"x9y"}', SANITIZER.payload({"password": "x9y"})):
            event = make(request_json=value, response_json=value)
            assert event.request_json["password"].startswith("[REDACTED:password:")
            assert (event.request_bytes, event.redactions, event.truncated) == (18, 2, False)
            assert event.request_digest == SANITIZER.digest(b'{"password":"x9y"}')

    def test_what_the_caller_counted_stands(self):
        event = make(response_json={"a": 1}, response_bytes=10**7, response_digest="d")
        assert (event.response_bytes, event.response_digest) == (10**7, "d")

    def test_a_long_one_is_marked(self):
        event = make(request_json={"a": "words " * 5_000}, response_json={"b": 1})
        assert event.truncated and event.request_json["_truncated"]
        assert make(request_json=Payload(None, 5, "d")).request_bytes == 5

    def test_what_came_later_adds_up(self):
        event = make(request_json={"password": "x9y"}).complete(
            response_json={"token": "y8z", "secret": "w7v"}, status_code=200
        )
        assert event.redactions == 3 and event.status_code == 200


def test_times_and_ids_agree():
    event = make()
    assert ids.ts_of(event.id) == event.ts
    assert ids.ts_of(make(ts=1_700_000_000_123_456).id) == 1_700_000_000_123_456
    moment = datetime.datetime(2026, 11, 25, 10, 0, 0, 5, tzinfo=datetime.UTC)
    assert make(ts=moment).as_row()[1] == moment
    assert export_of(make(ts=moment))["ts"] == "2026-11-25T10:00:00.000005Z"
    assert make(id=str(event.id)).ts == event.ts


def test_addresses():
    for given_, kept in (
        ("10.0.0.1", "10.0.0.1"),
        ("::1", "::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("x", None),
        ("", None),
        (ipaddress.ip_address("10.0.0.1"), "10.0.0.1"),
        (7, None),
        ("1" * 100, None),
    ):
        assert make(client_ip=given_).client_ip == kept


def test_the_export_has_the_names_of_the_contract():
    event = make(
        writer="w1",
        boot=3,
        seq=9,
        api_key_id=KEY,
        outcome="allowed",
        tool_name="t",
        request_json={"a": 1},
        decision={"allowed": True},
    )
    export = export_of(event)
    assert set(CONTRACT) <= set(export)
    assert (export["writer"], export["seq"], export["api_key_id"]) == ("w1.3", 9, str(KEY))
    assert export["request_json"] == {"a": 1} and export["decision"] == {"allowed": True}
    assert export_of(make())["tool_name"] is None and export_of(make())["decision"] == {}


def test_two_names_that_look_alike_stay_two():
    shown = [make(tool_name=name).tool_name for name in ("a\u202eb", "a\\u{202E}b", "a\\u202eb", "ab")]
    assert len(set(shown)) == 4
    assert not any("\u202e" in name for name in shown)


def test_a_long_name_is_bounded_and_fits_an_index():
    event = make(tool_name="n" * 10_000)
    assert len(event.tool_name.encode()) <= NAME_BYTES and "10000" in event.tool_name
    assert len(event.search.encode()) <= 1_024 and "nnn" in event.search


def test_it_cannot_be_given_what_it_has_not():
    with pytest.raises(TypeError):
        make(passwrod="x")
    with pytest.raises(AttributeError):
        make().passwrod  # noqa: B018
    with pytest.raises(AttributeError):
        make().__dict__  # noqa: B018


def test_values_that_were_an_events_are_not_escaped_once_more():
    event = make(tool_name="a\u202eb", request_json={"x\u202e": "\x00", "password": "p"}, details={"e": "\u200b"})
    again = make(again=True, **{name: getattr(event, name) for name in COLUMNS if name != "search"})
    assert again == event


SHAPES = {
    "uuid": models.UUIDField,
    "time": models.DateTimeField,
    "text": (models.TextField, models.GenericIPAddressField),
    "whole": models.IntegerField,
    "number": models.FloatField,
    "flag": models.BooleanField,
    "json": models.JSONField,
}


class TestTheModel:
    """The Django model is no way around."""

    def test_it_holds_no_secret_from_the_start(self):
        event = AuditEvent(
            request_json={"password": "x9y"},
            response_json=b'{"token":"x9y"}',
            tool_name="t password=x9yz",
            user_agent=CANARY,
            details={"error": f"bad {CANARY}"},
        )
        held = repr([getattr(event, field.attname) for field in AuditEvent._meta.concrete_fields])
        assert "x9y" not in held and "0123456789abcdefghij" not in held
        assert event.redactions == 2

    def test_its_key_rule(self):
        assert AuditEvent(api_key_id="nobody", outcome="allowed").outcome == "unauthenticated"

    def test_columns_are_the_tables(self):
        table = AuditEvent._meta.concrete_fields
        assert list(COLUMNS) == [column.attname for column in table]
        for field, column in zip(FIELDS, table, strict=False):
            # What a field of an event may lack, its column may; and it is of the same shape.
            assert column.null == (field.empty is None), field.name
            assert isinstance(column, SHAPES[field.shape]), field.name


def test_nobody_makes_payloads_or_events_by_hand():
    """A walk through the code for a way around: `Payload` is made by the sanitizer, `_fields` is touched by the event alone."""
    root = Path(__file__).resolve().parents[3]
    offenders = []
    for package in ("audit", "policies", "proxy", "sentinel"):
        for file in (root / package).rglob("*.py"):
            if file == root / "audit" / "redaction" / "sanitizer.py":
                continue
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "Payload":
                    offenders.append((file.name, node.lineno, "Payload"))
                if isinstance(node, ast.Call) and any(
                    isinstance(arg, ast.Constant) and arg.value == "_fields" for arg in node.args
                ):
                    offenders.append((file.name, node.lineno, "_fields"))
    assert offenders == []


def test_a_decision_is_known_by_all_that_is_not_a_duration():
    """What was clean once is not looked through again: only a duration may differ, and nothing else pass for one."""
    personal = Sanitizer(b"k" * 32, RedactionRuleSet(kinds=frozenset({"card"})))

    def kept(sanitizer, **stage):
        return json.dumps(Event(sanitizer=sanitizer, decision={"allowed": True, "stages": [stage]}).decision)

    for sanitizer in (Sanitizer(b"k" * 32), personal):
        for _ in range(2):
            assert '"us": 7' in kept(sanitizer, stage="parse", result="ok", us=7)
            assert '"us": 8' in kept(sanitizer, stage="parse", result="ok", us=8)
        for _ in range(2):
            assert "hunter2-hunter2" not in kept(sanitizer, stage="parse", result="password=hunter2-hunter2", us=7)
    assert "4111111111111111" not in kept(personal, stage="parse", result="ok", us=4111111111111111)
    # A document that reads like what a decision is known by says nothing of the decision.
    fresh = Sanitizer(b"k" * 32)
    Event(sanitizer=fresh, details={"allowed": True, "stages": [["parse", "ok"]]})
    assert not any(key == b'~{"allowed":true,"stages":[["parse","ok"]]}' for key in fresh._clean_documents)
