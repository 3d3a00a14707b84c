"""Hostile requests in number: no answer of 500 or more, an event for each, flat memory.

`SENTINEL_TEST_HOSTILE=100000` sends so many; the figures of such a run stand in docs/redaction.md.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections import Counter
from typing import Any

import pytest

from tests.e2e.test_streams import memory
from tests.support.fixtures import Stage
from tests.support.hostile import Sender, make
from tests.support.upstream import FakeUpstream

COUNT = int(os.environ.get("SENTINEL_TEST_HOSTILE", "1500"))
THREADS = 4
SLOW = 504  # the fake upstream shares a busy machine with those who ask
pytestmark = [pytest.mark.timeout(300 + COUNT // 20), pytest.mark.xdist_group("stage")]

COUNTED = """
import json, sys
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute("SELECT outcome, sum(count), count(*) FROM audit_auditevent"
                   " WHERE ts >= %s AND outcome <> 'changed' GROUP BY 1", [sys.stdin.read().strip()])
    print("COUNTED" + json.dumps({row[0]: [int(row[1]), row[2]] for row in cursor.fetchall()}))
"""


def recorded(stage: Stage, since: str) -> dict[str, list[int]]:
    """Requests and events by outcome."""
    printed = stage.gateway.manage("shell", "-c", COUNTED, text=since).stdout
    return json.loads(printed.rpartition("COUNTED")[2])


def test_hostile_requests(stage: Stage, fake: FakeUpstream) -> None:
    seed = int(os.environ.get("SENTINEL_TEST_SEED", "2026"))
    keys = [stage.keys[role].key for role in ("admin", "readonly", "spender")]
    failures: list[Any] = []
    statuses: Counter[int] = Counter()
    lock = threading.Lock()

    def some(number: int, count: int) -> None:
        r, sender = random.Random(seed * 1_000_000 + number), Sender(stage.gateway.url)
        for _ in range(count):
            one = make(r, keys)
            try:
                status = sender.send(one)
            except Exception as problem:  # noqa: BLE001 - whatever it was, the server should not have caused it
                failures.append((repr(problem), one))
                sender.close()
                continue
            if status >= 500 and status != SLOW:
                failures.append((status, one))
        sender.close()
        with lock:
            statuses.update(sender.statuses)

    def batch(first: int, count: int) -> None:
        threads = [threading.Thread(target=some, args=(first + number, count)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        fake.forget()  # so that what it remembers does not fill this process

    since = stage.gateway.now().isoformat()
    each = max(COUNT // 5 // THREADS, 50)
    batch(0, each)
    before, sent = memory(stage), each * THREADS
    while sent < COUNT:
        each = min(2_500, -(-(COUNT - sent) // THREADS))
        batch(sent, each)
        sent += each * THREADS
    after = memory(stage)

    until = time.monotonic() + 90
    told = recorded(stage, since)
    while sum(requests for requests, _ in told.values()) < sent and time.monotonic() < until:
        time.sleep(1.0)
        told = recorded(stage, since)
    print(f"{sent} sent; statuses {dict(sorted(statuses.items()))}; recorded {told}")
    print(f"{before >> 20} MiB after the first fifth, {after >> 20} MiB at the end; {len(failures)} failures")
    shown = [(what, one.verb, one.target, one.headers, (one.body or b"")[:500]) for what, one in failures[:3]]
    assert not failures, shown
    assert statuses[SLOW] <= sent // 1_000 + 1
    assert sum(requests for requests, _ in told.values()) == sent
    assert "unrecorded" not in told and "interrupted" not in told
    assert after < before * 1.1 + (24 << 20)
    assert stage.gateway.manage("audit", "verify", "--json").returncode == 0
