"""A database that is killed or hangs: calls do not notice, until keys and policy are too old to be trusted; nothing is lost."""

from __future__ import annotations

import signal
import time
from collections import Counter

import pytest

from tests.chaos import nemesis
from tests.support.gateway import Gateway
from tests.support.upstream import FakeUpstream

pytestmark = pytest.mark.timeout(300)
TRUSTED = 8.0  # seconds that keys and policy are trusted without a word of the database; 300 by default


def test_calls_go_on_while_the_database_hangs_and_stop_when_the_policy_is_too_old() -> None:
    with FakeUpstream() as fake, Gateway(workers=1, SENTINEL_SNAPSHOT_MAX_AGE=f"{TRUSTED}s") as gateway:
        gateway.add_upstream("fake", fake.url)
        client = gateway.client(gateway.create_key("away", "admin"))
        since = gateway.now()
        until = time.monotonic() + 20
        while client.call("public.echo").status != 200:  # a key made elsewhere is known within a second
            assert time.monotonic() < until
            time.sleep(0.1)
        stopped = nemesis.database(gateway)
        nemesis.end(stopped, signal.SIGSTOP)
        begun = time.monotonic()
        try:
            seen: list[tuple[float, int, float]] = []
            while (at := time.monotonic() - begun) < TRUSTED + 6:
                answer = client.call("public.echo")
                seen.append((at, answer.status, answer.elapsed))
                if answer.status == 503:
                    assert answer.error["data"]["reason"] == "policy_stale"
                    assert int(answer.header("retry-after") or 0) > 0
                    break
                time.sleep(0.05)
        finally:
            nemesis.end(stopped, signal.SIGCONT)
        served = [row for row in seen if row[1] == 200]
        assert seen[-1][1] == 503 and seen[-1][0] >= TRUSTED - 2, seen[-3:]
        assert len(served) == len(seen) - 1 and served[-1][0] > TRUSTED / 2, seen
        waited = sorted(row[2] for row in served)
        assert waited[len(waited) // 2] < 0.2 and waited[-1] < 2, waited[-5:]  # a database that is waited for takes 5 s
        executed = fake.count("tools/call", "public.echo")
        until = time.monotonic() + 30
        while client.call("public.echo").status != 200:
            assert time.monotonic() < until, "service did not return with the database"
            time.sleep(0.2)
        told = Counter(
            event["outcome"] for event in gateway.events(since, executed + 2) if event["method"] == "tools/call"
        )
        assert told["allowed"] >= executed and told["denied"] >= 1
