"""What one caller does is paid for by that caller: floods of dear refusals on the running gateway, and what they leave."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from audit.journal.flood import NAMES, PER_CALLER
from tests.support.fixtures import Stage
from tests.support.upstream import FakeUpstream, status
from tests.support.wire import send

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("stage")]

WORKERS = 2


def test_ever_new_names_leave_bounded_rows_and_every_one_is_counted(stage: Stage) -> None:
    since = stage.gateway.now()
    client = stage.client("readonly")
    pad = "some words " * 900
    began = time.monotonic()
    told = []
    for number in range(600):
        answer = client.call(f"no_such_{number}", {"pad": pad})
        assert answer.status == 403
        told.append(answer.json["error"]["data"]["audit_id"])
    seconds = time.monotonic() - began
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        events = [e for e in stage.gateway.events(since, timeout=2) if e["key_name"] == "readonly-key"]
        if sum(event["count"] for event in events) == 600:
            break
        time.sleep(1)
    assert sum(event["count"] for event in events) == 600
    assert set(told) <= {event["id"] for event in events}, "each id that was told names an event"
    windows = seconds / 3 + 2
    assert len(events) <= WORKERS * (PER_CALLER * (seconds + 2) + (NAMES + 1) * windows)
    kept = sum(len(json.dumps(event["request_json"])) for event in events if event["request_json"])
    assert kept <= WORKERS * 80 * 1024 * (seconds + 2)


@pytest.mark.parametrize("unit", ["bearer+", "key: '--use", "?hmac%3dqqqq"])
def test_a_stranger_with_dear_names_is_soon_counted(stage: Stage, unit: str) -> None:
    text = (unit * 2_000)[:4_400]
    since = stage.gateway.now()
    body = json.dumps(
        {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": text, "arguments": {"a": text * 3}}}
    ).encode()

    def ask(_: int) -> tuple[int, str, int]:
        client = stage.client(None)
        answer = send(client.address, body, client.headers())
        return answer.status, answer.json["error"]["data"]["audit_id"], answer.json["id"]

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(120)))
    assert {(code, rpc_id) for code, _, rpc_id in answers} <= {(401, 7), (401, None)}
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        events = [e for e in stage.gateway.events(since, timeout=2) if e["outcome"] == "unauthenticated"]
        if sum(event["count"] for event in events) == 120:
            break
        time.sleep(1)
    assert sum(event["count"] for event in events) == 120
    assert {audit_id for _, audit_id, _ in answers} <= {event["id"] for event in events}
    for event in events:
        assert len(event["method"]) <= 256 and len((event["tool_name"] or "").encode()) <= 512


def test_what_an_upstream_says_when_it_fails_is_a_payload(stage: Stage, fake: FakeUpstream) -> None:
    fake.script(status(503, b'{"row": "canary-of-a-row", "n": 1.10}', "application/json"), name="broken_json")
    fake.script(status(500, b"Traceback: canary-of-a-row in line 5", "text/plain"), name="broken_text")
    since = stage.gateway.now()
    for name in ("broken_json", "broken_text"):
        answer = stage.client("admin").call(name, {})
        assert answer.status == 502 and b"canary" not in answer.body
    for event in stage.gateway.events(since, 2):
        assert "canary" not in json.dumps(event["details"]), "nothing of it where payload rules do not reach"
        assert event["details"]["error"].startswith("HTTP 50"), "the cause is for everybody"
        assert "canary-of-a-row" in json.dumps(event["response_json"])


def test_numbers_are_exported_as_they_were_sent(stage: Stage) -> None:
    since = stage.gateway.now()
    numbers = ["1500000000000000000000001", "12345678901234567.89", "1.10", "1e2", "-0"]
    arguments = b'{"n":[' + ",".join(numbers).encode() + b'], "mark":"digits"}'
    body = (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"public.echo","arguments":' + arguments + b"}}"
    )
    client = stage.client("admin")
    assert send(client.address, body, client.headers()).status == 200
    stage.gateway.events(since, 1)
    for form in ("ndjson", "csv"):
        out = stage.gateway.manage("audit", "export", "--format", form).stdout
        # other tests' calls may have the word too
        (line,) = [line for line in out.splitlines() if re.search(r'"mark"+:"+digits', line) and "public.echo" in line]
        assert ",".join(numbers) in line, form
