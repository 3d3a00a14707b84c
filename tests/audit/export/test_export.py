from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from audit.export.formats import FIELDS, FORMATS, export, harmless
from audit.journal.frames import Kind
from audit.journal.logger import AuditLogger
from audit.journal.writer import Journal
from audit.models import AuditEvent
from tests.audit.conftest import KEY, call, make_event

# The names DESIGN promises; more may follow, none may go.
PROMISED = {
    "id", "ts", "writer", "seq", "api_key_id", "key_prefix", "key_name", "role", "auth_method", "client_ip", "upstream",
    "protocol_version", "method", "tool_name", "outcome", "reason", "decision", "status_code", "latency_ms", "upstream_ms",
    "request_json", "response_json", "request_bytes", "response_bytes", "truncated", "redactions",
}  # fmt: skip


@pytest.fixture
def events(db: None) -> list[AuditEvent]:
    made = [
        AuditEvent(
            api_key_id=KEY, outcome="allowed", method="tools/call", tool_name="=cmd|' /C calc'!A0", status_code=200,
            request_json={"n": 1}, response_json={"text": "zwei\n☃"}, decision={"allowed": True}, client_ip="192.0.2.7",
            writer="w", boot=7, seq=1, upstream_ms=1.25,
        ),
        AuditEvent(outcome="unauthenticated", reason="missing_credential", status_code=401, writer="w", boot=7, seq=2),
    ]  # fmt: skip
    for event in made:
        event.save(force_insert=True)
    return made


def test_ndjson(events: list[AuditEvent]) -> None:
    lines = [orjson.loads(line) for line in b"".join(export(AuditEvent.objects.order_by("id"))).splitlines()]
    assert [line["id"] for line in lines] == [str(event.id) for event in events]
    first, second = lines
    assert set(first) >= PROMISED and tuple(first) == FIELDS
    assert (first["writer"], first["boot"], first["seq"]) == ("w.7", 7, 1)
    assert first["ts"].endswith("Z") and len(first["ts"]) == len("2026-11-25T00:00:00.000000Z")
    assert first["api_key_id"] == str(KEY) and second["api_key_id"] is None and second["tool_name"] is None
    assert first["response_json"] == {"text": "zwei\n☃"} and first["decision"] == {"allowed": True}
    assert first["client_ip"] == "192.0.2.7" and first["upstream_ms"] == 1.25 and second["request_json"] is None


def test_numbers_go_out_as_they_were_stored(events: list[AuditEvent]) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT audit_create_partition(current_date)")
        cursor.execute(
            "INSERT INTO audit_auditevent (id, outcome, response_json) VALUES (gen_random_uuid(), 'denied', %s)",
            ['{"a": 1.0, "b":1e400,  "c":123456789012345678901234567890}'],
        )
    text = b"".join(export(AuditEvent.objects.filter(outcome="denied"))).decode()
    assert '"response_json":{"a": 1.0, "b":1e400,  "c":123456789012345678901234567890}' in text


def test_csv_runs_nothing(events: list[AuditEvent]) -> None:
    text = b"".join(export(AuditEvent.objects.order_by("id"), "csv")).decode()
    names, first, second = list(csv.reader(io.StringIO(text, newline="")))
    assert tuple(names) == FIELDS
    row = dict(zip(names, first, strict=True))
    assert row["tool_name"] == "'=cmd|' /C calc'!A0"
    assert row["upstream_ms"] == "1.25" and row["truncated"] == "false"
    assert dict(zip(names, second, strict=True))["tool_name"] == ""


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\t=1", "\r=1", " =1", '"=1', "＝1", "＠x"])
def test_formulas_are_told_apart(text: str) -> None:
    assert harmless(text) == f"'{text}"


@pytest.mark.parametrize(
    "value,told", [(-1, "-1"), (-1.5, "-1.5"), (None, ""), (True, "true"), ("a=b", "a=b"), ("", "")]
)
def test_numbers_and_plain_text_stay(value: Any, told: str) -> None:
    assert harmless(value) == told


def test_ocsf(events: list[AuditEvent]) -> None:
    first, second = [
        orjson.loads(line) for line in b"".join(export(AuditEvent.objects.order_by("id"), "ocsf")).splitlines()
    ]
    assert (
        first["class_uid"] == 6003 and first["type_uid"] == 600300 + first["activity_id"] and first["category_uid"] == 6
    )
    assert (first["status_id"], second["status_id"]) == (1, 2)
    assert first["metadata"]["uid"] == str(events[0].id) and first["metadata"]["sequence"] == 1
    assert abs(first["time"] - events[0].ts.timestamp() * 1000) < 1
    assert first["unmapped"]["id"] == str(events[0].id)
    assert second["status_detail"] == "missing_credential"


def test_a_format_it_does_not_know() -> None:
    assert set(FORMATS) == {"ndjson", "csv", "ocsf"}
    with pytest.raises(ValueError, match="unknown format"):
        export(AuditEvent.objects.none(), "xml")


# -- the commands --------------------------------------------------------------------------------------------------------


@pytest.fixture
def manage(
    log_dsn: dict[str, Any],
    tmp_path: Path,
    settings: Any,
    django_db_blocker: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., str]]:
    """Run `manage.py audit ...` against the log's own database, in this process."""
    settings.SENTINEL = dataclasses.replace(settings.SENTINEL, var=tmp_path)
    aliases = [alias for alias in ("default", "owner") if alias in connections.databases]
    for alias in aliases:
        connections[alias].close()
        monkeypatch.setitem(connections[alias].settings_dict, "NAME", log_dsn["dbname"])

    def run(*arguments: str, status: int | None = 0) -> str:
        found = 0
        capsys.readouterr()
        with django_db_blocker.unblock():
            try:
                call_command("audit", *arguments)
            except SystemExit as ended:
                found = int(str(ended.code))
        assert status is None or found == status
        return capsys.readouterr().out

    yield run
    for alias in aliases:
        connections[alias].close()


def test_the_commands(
    open_journal: Callable[..., Journal],
    manage: Callable[..., Any],
    instance: str,
    database: psycopg.Connection[Any],
    tmp_path: Path,
) -> None:
    journal = open_journal()
    logger = AuditLogger(journal)
    for number in range(3):
        call(logger, role=instance, tool_name=f"t{number}")
    logger.refuse(make_event(role=instance, outcome="denied", reason="no_rule", status_code=403))[1].wait()
    bad = {
        **make_event(role=instance).as_record(),
        "status_code": 99_999,
        "writer": journal.writer,
        "boot": journal.boot,
    }
    journal.open_event(Kind.EVENT, lambda seq: orjson.dumps({**bad, "seq": seq}))[1].wait()

    # A reading command brings what is at hand into the log first, since no drainer runs.
    lines = manage("export", "--role", instance).splitlines()
    assert [orjson.loads(line)["tool_name"] for line in lines] == ["t0", "t1", "t2", "echo"]
    assert [
        orjson.loads(line)["outcome"]
        for line in manage("export", "--role", instance, "--outcome", "denied").splitlines()
    ] == ["denied"]
    newest = manage("export", "--role", instance, "--limit", "1", "--newest-first")
    assert orjson.loads(newest)["outcome"] == "denied"
    assert len(manage("export", "--role", instance, "--format", "csv", "--key", str(KEY)).splitlines()) == 5
    assert manage("export", "--role", instance, "--since", "1h", "--until", "1m") == ""
    target = tmp_path / "out.ndjson"
    assert manage("export", "--role", instance, "-o", str(target)) == "" and len(target.read_text().splitlines()) == 4
    told = manage("tail", "-n", "2", "--role", instance).splitlines()
    assert len(told) == 2 and "denied" in told[1] and "(no_rule)" in told[1]

    # Other tests leave in this log what `verify` has to find.
    findings = orjson.loads(manage("verify", "--json", status=None))["findings"]
    mine = [finding for finding in findings if finding["writer"] == journal.writer]
    assert [finding["why"] for finding in mine if finding["first"] == 5] == ["in quarantine"]
    assert all(finding["explained"] for finding in mine)
    (frame,) = [f for f in orjson.loads(manage("quarantine", "list", "--json")) if f["writer"] == journal.writer]
    assert frame["seq"] == 5 and "out of range" in frame["error"]
    assert "out of range" in manage("quarantine", "retry", str(frame["id"]), status=1)
    database.execute(
        "UPDATE audit_quarantinedframe SET data = convert_to(replace(convert_from(data, 'UTF8'), '99999', '200'), 'UTF8') WHERE id = %s",
        (frame["id"],),
    )
    assert orjson.loads(manage("quarantine", "retry", str(frame["id"]), "--json"))["stored"] == [frame["id"]]
    assert len(manage("export", "--role", instance).splitlines()) == 5

    event = orjson.loads(lines[0])
    manage("erase-payload", event["id"], "--reason", "a request under the law")
    after = orjson.loads(manage("export", "--role", instance, "--tool", "t0"))
    assert after["request_json"] is None and after["response_json"] is None
    assert after["request_digest"] == event["request_digest"] and after["request_bytes"] == event["request_bytes"]
    acts = [orjson.loads(line) for line in manage("export", "--outcome", "changed").splitlines()]
    (erased,) = [
        act for act in acts if act["method"] == "admin.audit.payload_erased" and act["tool_name"] == event["id"]
    ]
    assert erased["details"]["reason"] == "a request under the law" and erased["details"]["actor"]["kind"] == "system"
    assert [act for act in acts if act["method"] == "admin.events.exported"]

    assert manage("export", "--role", instance, "--json") == manage("export", "--role", instance)
    parts = orjson.loads(manage("partitions", "--json"))["partitions"]
    assert parts[-1]["name"] == "audit_auditevent_default" and len(parts) >= 9
    checked = orjson.loads(manage("redact-check", "hello", "--json"))
    assert len(checked["fingerprint"]) == 8


@pytest.mark.parametrize(
    "arguments,said",
    [
        (("erase-payload", "nonsense", "--reason", "x"), "is not an event's id"),
        (("erase-payload", "01a21002-b195-7bf4-8c81-2dbadbf1e703", "--reason", "x"), "there is no event"),
        (("erase-payload", "01a21002-b195-7bf4-8c81-2dbadbf1e703", "--reason", " "), "--reason must say why"),
        (("export", "--since", "yesterday"), "is no time"),
        (("export", "--limit", "0"), "--limit must be at least 1"),
        (("export", "-o", "/nowhere/file"), "cannot be written"),
        (("nonsense",), "invalid choice"),
        (("quarantine",), "required"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    manage: Callable[..., str], arguments: tuple[str, ...], said: str
) -> None:
    with pytest.raises(CommandError, match=said) as raised:
        manage(*arguments)
    assert len(str(raised.value).splitlines()) == 1
