"""A key that was presented, rightly or wrongly, stands in no file, no log, no row, no page and no request upstream."""

from __future__ import annotations

import json
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from tests.support.fixtures import Stage
from tests.support.gateway import is_contained
from tests.support.upstream import FakeUpstream, error
from tests.support.wire import send

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("stage")]

# Every row of every table as text, by the application's own connection.
ROWS = """
from django.db import connection
with connection.cursor() as cursor:
    for table in connection.introspection.table_names():
        cursor.execute(f'SELECT row_to_json(t)::text FROM "{table}" t')
        for row in cursor.fetchall():
            print(table, row[0])
"""

TOKEN = "ghp_" + "Zk3vN8qR5tY1uW7xB2mC4dF6gH9jL0pS8aQe"  # looks like a GitHub token, and is none
HARMLESS = ["3f2504e0-4f89-41d3-9a0c-0305e82c3301", "9fceb02d0ae598e95dc970b74767f19372d61af8"]


def test_nowhere(stage: Stage, fake: FakeUpstream) -> None:
    since = stage.gateway.now()
    key = stage.gateway.create_key("canary", "admin").key
    secret = key.rpartition("_")[2]
    # An error of the upstream that repeats what it should not.
    fake.script(error(-32000, f"cannot use {TOKEN}", data={"token": TOKEN}), name="delete_customer")
    import time

    time.sleep(1.0)
    url = f"{stage.gateway.url}/mcp/fake"
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    for place in ("bearer", "header", "query"):
        client = stage.gateway.client(key, place=place)
        assert client.call("get_customer", {"token": TOKEN, "harmless": HARMLESS}).status == 200
        assert client.ask("nope/nope").error["code"] == -32601
        assert TOKEN in client.call("delete_customer", {"id": 1}).body.decode()  # the client gets it as it is
    # A denied call that carries a secret, and a body that cannot be read.
    denied = stage.client("readonly").call("delete_customer", {"password": "hunter2-hunter2", "note": TOKEN})
    assert denied.status == 403
    broken = send(url, b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"token":"' + TOKEN.encode(), {"X-API-Key": key})
    assert broken.status == 400
    # The key where it does not belong.
    statuses = [
        send(url, ping, {"Authorization": key}).status,
        send(url, ping, {"Authorization": f"Basic {key}"}).status,
        send(url, ping, {"Authorization": f"bearer  {key}x"}).status,
        send(url, ping, {"X-Api-Key": f"{key[:-1]}"}).status,
        send(f"{url}?api_key={key}&api_key={key}", ping).status,
        send(f"{url}?API_KEY={key}", ping).status,
        send(f"{url}?x={key}", ping).status,
        send(f"{stage.gateway.url}/mcp/{key}", ping, {"Authorization": f"Bearer {key}"}).status,
        send(f"{stage.gateway.url}/nowhere?api_key={key}", verb="GET").status,
        send(f"{stage.gateway.url}/admin/?api_key={key}", verb="GET").status,
        send(f"{stage.gateway.url}/livez?api_key={quote(key)}", verb="GET").status,
        send(url, ping, {"Cookie": f"key={key}", "Authorization": f"Bearer {key}"}).status,
        send(url, ping, {"Referer": f"http://x/?api_key={key}", "User-Agent": key, "X-API-Key": key}).status,
    ]
    assert statuses[:4] == [401, 401, 401, 401] or statuses[0] in (200, 401), statuses
    assert statuses[4] == 400
    assert not [status for status in statuses if status >= 500], statuses

    events = stage.gateway.events(since, timeout=15)
    assert len(events) >= 20
    # The gateway keeps well-formed public ids and fingerprints; everything else of a key is a secret.
    needles = {"the key": secret, "a token": TOKEN, "a password": "hunter2-hunter2"}
    rows = stage.gateway.manage("shell", "-c", ROWS).stdout
    metrics = urlopen(f"{stage.gateway.url}/metrics", timeout=5).read().decode()
    upstream = b"".join(r.raw_head + r.body for r in fake.requests if r.name != "get_customer").decode("latin-1")
    places = {
        "the export": json.dumps(events),
        "a row": rows,
        "the output": stage.gateway.log.read_text(errors="replace"),
        "metrics": metrics,
    }
    for what, needle in needles.items():
        for place, text in places.items():
            assert needle not in text, f"{what} stands in {place}: {text[max(0, text.index(needle) - 300) :][:600]}"
        assert not is_contained(needle.encode(), stage.gateway.var), what
    assert secret not in upstream
    assert not any(r.header("cookie") for r in fake.requests)
    # No false alarm: what only looks like a secret stays readable, and reaches the upstream as it was.
    assert all(harmless in json.dumps(events) for harmless in HARMLESS)
    assert all(TOKEN in r.body.decode() for r in fake.seen(name="get_customer"))
