"""Two instances on one database behind nginx as it is shipped, restarted one after the other under load: no call is lost.

`SENTINEL_TEST_CALLS=2000 make test TESTS=tests/e2e/test_rolling.py` is the long form.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from sentinel.postgres.server import SUPERUSER, EmbeddedPostgres
from tests.support.clients import PATIENCE
from tests.support.gateway import Gateway
from tests.support.nginx import ENVIRONMENT, HEADERS, Proxy
from tests.support.upstream import FakeUpstream

pytestmark = pytest.mark.timeout(600)

CALLS = int(os.environ.get("SENTINEL_TEST_CALLS", "300"))
CALLERS = 6
SECRETS = {
    "SENTINEL_SECRET_KEY": "two-instances-4f1d8a7be2c94a7c9a6f0e3d5b8c7a61",
    "SENTINEL_KEY_PEPPERS": "1:8f14e45fceea167a5a36dedd4bea2543c9f0f895fb98ab9159f51fd0297e236d",
}


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Gateway, Gateway]]:
    """Two instances, each with its own state folder, on one PostgreSQL server."""
    server = EmbeddedPostgres(tmp_path / "server", "00000000")
    server.var.mkdir(mode=0o700)
    server.ensure()
    at = server.parameters(SUPERUSER)
    with psycopg.connect(**{**at, "dbname": "postgres"}, autocommit=True) as connection:
        connection.execute("CREATE DATABASE pair")
    url = f"postgresql://{at['user']}:{at['password']}@/pair?host={at['host']}"
    given = {**SECRETS, **ENVIRONMENT, "DATABASE_URL": url, "SENTINEL_GRACEFUL_TIMEOUT": "20s"}
    try:
        first, second = Gateway(workers=1, **given), Gateway(workers=1, **given)
        first.manage("migrate", "--verbosity", "0")
        with first, second:
            yield first, second
    finally:
        server.release()


class Load:
    """Callers that call one tool over and over, each with its key and a connection to nginx that it keeps."""

    def __init__(self, proxy: Proxy, keys: list[str]) -> None:
        self.proxy, self.keys = proxy, keys
        self.stopped = threading.Event()
        self.told: Counter[str] = Counter()
        self.slowest = 0.0
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.call, args=(number,)) for number in range(len(keys))]

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join(60)

    def reach(self, count: int) -> None:
        """Wait until so many calls were answered."""
        deadline = time.monotonic() + 120 * PATIENCE
        while self.told.total() < count and time.monotonic() < deadline:
            time.sleep(0.02)

    def call(self, number: int) -> None:
        context, connection, serial = self.proxy.context(), None, 0
        while not self.stopped.is_set():
            serial += 1
            params = {"name": "public.echo", "arguments": {"text": f"{number}-{serial}"}}
            body = json.dumps({"jsonrpc": "2.0", "id": serial, "method": "tools/call", "params": params})
            begun = time.monotonic()
            try:
                if connection is None:
                    connection = http.client.HTTPSConnection("127.0.0.1", self.proxy.port, timeout=60, context=context)
                connection.request(
                    "POST", "/mcp/fake", body, {**HEADERS, "Authorization": f"Bearer {self.keys[number]}"}
                )
                answer = connection.getresponse()
                told = json.loads(text) if (text := answer.read()).startswith(b"{") else {}
                good = answer.status == 200 and told.get("id") == serial and "result" in told
                word = "ok" if good else f"{answer.status} {text[:200]!r}"
            except (OSError, http.client.HTTPException, ssl.SSLError, ValueError) as error:
                word = f"{type(error).__name__}: {error}"
                if connection is not None:
                    connection.close()
                connection = None
            with self.lock:
                self.told[word] += 1
                self.slowest = max(self.slowest, time.monotonic() - begun)
            time.sleep(0.02)
        if connection is not None:
            connection.close()


def test_no_call_is_lost_and_none_runs_twice(pair: tuple[Gateway, Gateway], tmp_path: Path) -> None:
    first, second = pair
    with FakeUpstream() as fake:
        first.add_upstream("fake", fake.url)
        keys = [first.create_key(f"caller-{number}", role="admin").key for number in range(CALLERS)]
        time.sleep(1.5)
        folder = tmp_path / "nginx"
        folder.mkdir()
        since = first.now()
        with Proxy(folder, first.port, second.port) as proxy, Load(proxy, keys) as load:
            load.reach(CALLS // 10)
            for part, instance in ((4, first), (7, second)):
                instance.stop()
                load.reach(CALLS * part // 10)
                instance.start()
            load.reach(CALLS)
        assert set(load.told) == {"ok"}, load.told
        calls = load.told.total()
        assert calls >= CALLS
        asked = [one.json["params"]["arguments"]["text"] for one in fake.seen("tools/call")]
        assert len(asked) == len(set(asked)) == calls
        events = first.events(since, count=calls, method="tools/call", outcome="allowed")
        assert len(events) == calls
        assert len({event["writer"].partition("-")[0] for event in events}) == 2  # both have served
        print(f"{calls} calls, slowest {load.slowest:.1f} s")


def test_readiness_ends_before_service_does(pair: tuple[Gateway, Gateway]) -> None:
    first, _ = pair
    assert first.process is not None

    def ask(path: str) -> tuple[int, str | None]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", first.port, timeout=10)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            return answer.status, answer.getheader("Connection")

    assert ask("/readyz") == (200, None)
    first.process.terminate()
    seen = []
    with contextlib.suppress(OSError, http.client.HTTPException):
        while True:
            seen.append((ask("/readyz"), ask("/livez")))
            time.sleep(0.05)
    leaving = [each for each in seen if each[0][0] == 503]
    assert len(leaving) > 5, seen  # it says so for a while in which it serves
    assert set(leaving) == {((503, "close"), (200, "close"))}
    assert first.process.wait(40) == 0
