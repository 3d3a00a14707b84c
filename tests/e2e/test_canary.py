"""A key that was presented, rightly or wrongly, stands in no file, no log, no row, no page and no request upstream."""

from __future__ import annotations

import base64
import json
import re
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import HTTPCookieProcessor, Request, build_opener, urlopen

import pytest

from tests.support.fixtures import Stage
from tests.support.gateway import is_contained
from tests.support.upstream import Exchange, FakeUpstream, error
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


HEADERS = ("Mcp-Session-Id", "Mcp-Name", "Mcp-Method", "MCP-Protocol-Version", "Last-Event-ID", "Origin", "X-Forwarded-For", "Traceparent", "Accept", "Content-Type", "X-Request-Id")  # fmt: skip


def bodies(key: str) -> list[bytes]:
    """Messages with the key in every place of theirs, well-formed and not."""
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "get_customer", "arguments": {}}}
    made = [
        {**call, "id": key},
        {**call, "method": key},
        {**call, "jsonrpc": key},
        {**call, "params": {"name": key}},
        {**call, "params": {"name": "get_customer", "arguments": {key: key}}},
        {**call, "params": {"name": "get_customer", "arguments": {"text": json.dumps({"a": [{"key": key}]})}}},
        {**call, "params": {"name": "get_customer", "arguments": {"b": base64.b64encode(key.encode()).decode()}}},
        {**call, "params": {"name": "get_customer", "arguments": {"q": quote(quote(f"k={key}&x"))}}},
        {**call, "params": {"name": "get_customer", "arguments": {}, "_meta": {"clientInfo": {"name": key}}}},
        {
            **call,
            "method": "initialize",
            "params": {"protocolVersion": key, "clientInfo": {"name": key, "version": key}},
        },
        {**call, "method": "resources/read", "params": {"uri": f"file:///{key}?token={key}"}},
        {**call, key: 1},
        [call, {**call, "id": key}],
    ]
    whole = json.dumps({**call, "params": {"name": "get_customer", "arguments": {"x": key}}})
    raw = [json.dumps(one).encode() for one in made]
    twice = '{"x":"' + key + '","x":""}'
    return [*raw, whole[:-4].encode(), whole.replace('"x"', '"x":1,"x"').encode(), key.encode(), b"\xff" + whole.encode(), b"\xef\xbb\xbf" + whole.encode(), whole.encode("utf-16"), json.dumps({**call, "params": {"name": "get_customer", "arguments": {"j": twice}}}).encode()]  # fmt: skip


def admin_pages(stage: Stage, ids: list[str], key: str) -> str:
    """What somebody who may see everything is shown: log-in with a key for a password, list, search, events, other pages."""
    create = "from sentinel.models import User; User.objects.filter(username='sees').exists() or User.objects.create_superuser('sees', 'a@b.example', 'correct-horse-battery-7')"
    stage.gateway.manage("shell", "-c", create)
    opener = build_opener(HTTPCookieProcessor())
    login = f"{stage.gateway.url}/admin/login/"
    shown = []
    for name, password in (("sees", key), (key, "x"), ("sees", "correct-horse-battery-7")):
        token = re.search(r'csrfmiddlewaretoken" value="([^"]+)', opener.open(login, timeout=10).read().decode())
        assert token is not None
        form = {"csrfmiddlewaretoken": token[1], "username": name, "password": password, "next": "/admin/"}
        page = opener.open(Request(login, urlencode(form).encode(), {"Referer": login}), timeout=10)
        if name != key:  # the form shows what was typed to whoever typed it
            shown.append(page.read().decode())
    addresses = [
        "audit/auditevent/",
        "audit/auditevent/running/",
        "health/",
        "policies/apikey/",
        "",
        "audit/redactionrule/",
    ]
    for address in [*addresses, *(f"audit/auditevent/{one}/change/" for one in ids)]:
        try:
            shown.append(opener.open(f"{stage.gateway.url}/admin/{address}", timeout=10).read().decode())
        except HTTPError as refused:
            shown.append(refused.read().decode())
    assert sum("Arguments" in page or "arguments" in page for page in shown) > 3  # payloads were shown
    return "\n".join(shown)


@pytest.mark.parametrize("stray", [b"\xff", b"\xed\xa0\x80", b"\xc3"])
def test_bytes_that_are_no_text_hide_nothing(stage: Stage, fake: FakeUpstream, stray: bytes) -> None:
    """What a lenient client can read in an answer, the log must not keep either."""
    secret = b"AKIA" + stray + b"IOSFODNN7EXAMPLE"

    async def careless(exchange: Exchange) -> None:
        body = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"' + secret + b'"}]}}'
        await exchange.answer(200, body, [("Content-Type", "application/json")])

    fake.script(careless, name="public.echo")
    since = stage.gateway.now()
    assert secret not in stage.client().call("public.echo").body
    kept = json.dumps(stage.gateway.event(since)["response_json"])
    assert "IOSFODNN7EXAMPLE" not in kept and "[REDACTED" in kept


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
        *(send(url, ping, {"X-API-Key": key, name: key}).status for name in HEADERS),
    ]
    plain = len(fake.requests)  # from here on the agent puts its key into what it says itself
    statuses += [
        send(f"{url}?api_key={quote(key, safe='')[:20]}%5F{key[20:]}", ping).status,
        send(f"{stage.gateway.url}/sse/fake?api_key={key}x", verb="GET").status,
        send(f"{stage.gateway.url}/messages/fake?session_id={key}", ping, {"X-API-Key": key}).status,
        send(f"{stage.gateway.url}/mcp/fake/{key}", ping, {"X-API-Key": key}).status,
        *(send(url, body, {"X-API-Key": key}).status for body in bodies(key)),
        send(url, json.dumps({**ping, "params": {"note": key}}).encode(), {"Authorization": f"Bearer {key}x"}).status,
        send(f"{stage.gateway.url}/api/v1/events/?search={key}", verb="GET", headers={"X-API-Key": key}).status,
        send(f"{stage.gateway.url}/api/v1/{key}/", verb="GET", headers={"Authorization": f"Bearer {key}"}).status,
        send(
            f"{stage.gateway.url}/api/v1/keys/", {"name": key, "role": key}, {"Authorization": f"Bearer {key}"}
        ).status,
        send(
            f"{stage.gateway.url}/metrics?api_key={key}", verb="GET", headers={"Authorization": f"Bearer {key}"}
        ).status,
    ]
    # An upstream's error that repeats a key which stood in the arguments.
    fake.script(error(-32000, f"no customer {key}", data={"seen": [key]}), name="delete_customer")
    assert key in stage.gateway.client(key).call("delete_customer", {"note": key}).body.decode()
    assert statuses[:4] == [401, 401, 401, 401] or statuses[0] in (200, 401), statuses
    assert statuses[4] == 400
    assert not [status for status in statuses if status >= 500], statuses

    events = stage.gateway.events(since, timeout=15)
    assert len(events) >= 20
    # The gateway keeps well-formed public ids and fingerprints; everything else of a key is a secret.
    needles = {"the key": secret, "a token": TOKEN, "a password": "hunter2-hunter2"}
    rows = stage.gateway.manage("shell", "-c", ROWS).stdout
    pages = admin_pages(stage, [event["id"] for event in events[-60:]], key)
    metrics = urlopen(f"{stage.gateway.url}/metrics", timeout=5).read().decode()
    upstream = b"".join(r.raw_head + r.body for r in fake.requests[:plain] if r.name != "get_customer").decode(
        "latin-1"
    )
    places = {
        "the export": json.dumps(events),
        "a row": rows,
        "the output": stage.gateway.log.read_text(errors="replace"),
        "metrics": metrics,
        "a page": pages,
    }
    for what, needle in needles.items():
        for place, text in places.items():
            assert needle not in text, f"{what} stands in {place}: {text[max(0, text.index(needle) - 300) :][:600]}"
        assert not is_contained(needle.encode(), stage.gateway.var), what
    assert secret not in upstream
    assert not any(r.header("cookie") for r in fake.requests)
    # No false alarm: what only looks like a secret stays readable, and reaches the upstream as it was.
    assert all(harmless in json.dumps(events) for harmless in HARMLESS)
    calls = [r for r in fake.requests[:plain] if r.name == "get_customer"]
    assert calls and all(TOKEN in r.body.decode() for r in calls)
