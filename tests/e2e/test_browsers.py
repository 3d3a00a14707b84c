"""Pages of other origins that call the gateway: what a real browser lets them do, and what stands on the wire for it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.support.browser import chromium
from tests.support.gateway import Gateway, Key
from tests.support.upstream import FakeUpstream, sse, status

pytestmark = pytest.mark.timeout(600)

APPS = ("https://app.example.com", "vscode-file://vscode-app", "tauri://localhost", "null")
POLICY = """\
roles: {admin: {allow: ["*"]}, user: {allow: [echo]}}
rate_limits: {per_tool: {overrides: {tight: {requests: 1, window_seconds: 60}}}}
"""
FOREIGN = [
    ("https://evil.example", "another site"),
    ("http://app.example.com", "another scheme"),
    ("https://app.example.com:444", "another port"),
    ("https://app.example.com.evil.example", "another host with the name in it"),
    ("https://sub.app.example.com", "a host below"),
    ("file://", "files"),
    ("vscode-webview://vscode-app", "another scheme of an app"),
    ("\xa0https://app.example.com", "white space that is none of HTTP's"),
    ("", "none at all"),
]


class Page(BaseHTTPRequestHandler):
    """An empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>app</title>")

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@dataclass
class House:
    """A gateway that lets pages of one site call it; `page` is the address of that site, `foreign` of another."""

    gateway: Gateway
    fake: FakeUpstream
    admin: Key
    user: Key
    page: str
    foreign: str

    def ask(self, verb: str, path: str, origin: str | None, body: bytes = b"", **more: str) -> Any:
        """Send one request as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=20)
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        if origin is not None:
            headers["Origin"] = origin
        try:
            connection.request(verb, path, body or None, headers)
            answer = connection.getresponse()
            answer.body = answer.read() if answer.headers.get_content_type() != "text/event-stream" else b""
        finally:
            connection.close()
        return answer

    def preflight(
        self, origin: str, path: str = "/mcp/fake", wanted: str = "authorization,content-type", **more: str
    ) -> Any:
        """Ask what a browser asks before a page's request."""
        return self.ask(
            "OPTIONS", path, origin,
            Access_Control_Request_Method="POST", Access_Control_Request_Headers=wanted, **more,
        )  # fmt: skip


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Page) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    page, foreign = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    with FakeUpstream() as fake, Gateway(workers=1, SENTINEL_ALLOWED_ORIGINS=", ".join((*APPS, page))) as gateway:
        gateway.add_upstream("fake", fake.url)
        gateway.apply_policy(POLICY)
        admin, user = gateway.create_key("root"), gateway.create_key("usual", "user")
        yield House(gateway, fake, admin, user, page, foreign)
    for server in servers:
        server.shutdown()
        server.server_close()


def bearer(key: Key) -> dict[str, str]:
    return {"Authorization": f"Bearer {key.key}", "Content_Type": "application/json"}


def call(name: str) -> bytes:
    return json.dumps(
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": {}}}
    ).encode()


INITIALIZE = b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"page","version":"1"}}}'

# -- on the wire


@pytest.mark.parametrize("origin", APPS)
@pytest.mark.parametrize(
    "path", ["/mcp/fake", "/mcp/fake/", "/sse/fake", "/messages/fake?session_id=x", "/mcp/nowhere"]
)
def test_a_preflight_of_an_allowed_origin_is_answered_here_without_a_key(house, origin, path):
    seen = len(house.fake.requests)
    answer = house.preflight(
        origin,
        path,
        "authorization, X-API-Key,content-type,mcp-session-id,Mcp-Param-Region,x-evil,mcp-param-\u00e9".encode().decode(
            "latin-1"
        ),
    )
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert answer.headers["Vary"] == "Origin"
    assert answer.headers["Access-Control-Allow-Methods"] == "GET, POST, DELETE, OPTIONS"
    assert int(answer.headers["Access-Control-Max-Age"]) >= 600
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Access-Control-Allow-Credentials"] is None
    assert answer.headers["Access-Control-Allow-Private-Network"] is None
    allowed = {name.strip().lower() for name in answer.headers["Access-Control-Allow-Headers"].split(",")}
    assert allowed >= {
        "authorization", "x-api-key", "content-type", "accept", "mcp-protocol-version", "mcp-session-id", "last-event-id",
        "mcp-method", "mcp-name", "mcp-param-region",
    }  # fmt: skip
    assert not {"x-evil", "*", "cookie"} & allowed and all(name.isascii() for name in allowed)
    assert len(house.fake.requests) == seen


def test_a_page_may_send_no_more_parameters_than_are_read(house):
    answer = house.preflight(APPS[0], "/mcp/fake", ",".join(f"mcp-param-p{number}" for number in range(100)))
    allowed = [name.strip() for name in answer.headers["Access-Control-Allow-Headers"].split(",")]
    assert [name for name in allowed if name.startswith("mcp-param-")] == [f"mcp-param-p{n}" for n in range(64)]


def test_a_granted_preflight_leaves_no_event(house):
    since = house.gateway.now()
    assert [house.preflight(origin).status for origin in APPS] == [204] * len(APPS)
    house.preflight("https://evil.example")
    assert house.gateway.event(since)["reason"] == "bad_origin"


@pytest.mark.parametrize(("origin", "which"), FOREIGN)
def test_any_other_origin_is_refused_by_name_and_recorded(house, origin, which):
    since, seen = house.gateway.now(), len(house.fake.requests)
    answer = house.preflight(origin)
    assert answer.status == 403
    assert "SENTINEL_ALLOWED_ORIGINS" in json.loads(answer.body)["error"]["message"]
    event = house.gateway.event(since)
    assert (event["reason"], event["status_code"], event["outcome"]) == ("bad_origin", 403, "invalid")
    assert event["details"]["origin"] == origin and event["api_key_id"] is None
    since = house.gateway.now()
    refused = house.ask("POST", "/mcp/fake", origin, call("echo"), **bearer(house.admin))
    assert refused.status == 403
    event = house.gateway.event(since)
    assert (event["reason"], event["key_name"], event["details"]["origin"]) == ("bad_origin", "root", origin)
    for one in (answer, refused):
        assert not [name for name in one.headers if name.lower().startswith("access-control-")]
    assert len(house.fake.requests) == seen


def test_a_flood_of_refused_origins_is_counted(house):
    since = house.gateway.now()
    for _ in range(120):
        assert house.preflight("https://flood.example").status == 403
    for _ in range(30):  # what is counted is written each second
        events = house.gateway.events(since)
        if sum(event["count"] for event in events) == 120:
            break
    assert sum(event["count"] for event in events) == 120
    assert len(events) < 60 and {event["reason"] for event in events} == {"bad_origin"}


def test_a_preflight_for_another_host_is_refused(house):
    since = house.gateway.now()
    answer = house.preflight(APPS[0], Host="evil.example")
    assert answer.status == 400 and house.gateway.event(since)["reason"] == "bad_host"


def test_two_origins_are_none(house):
    connection = http.client.HTTPConnection("127.0.0.1", house.gateway.port, timeout=20)
    connection.putrequest("OPTIONS", "/mcp/fake")
    for name, value in (("Origin", APPS[0]), ("Origin", APPS[0]), ("Access-Control-Request-Method", "POST")):
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.getresponse().status == 403
    connection.close()


def test_a_private_network_is_opened_to_who_asks_by_name(house):
    asked = {"Access_Control_Request_Private_Network": "true"}
    assert house.preflight(APPS[0], **asked).headers["Access-Control-Allow-Private-Network"] == "true"
    assert house.preflight("https://evil.example", **asked).headers["Access-Control-Allow-Private-Network"] is None


def test_what_only_looks_like_a_preflight_is_an_ordinary_request(house):
    assert house.ask("OPTIONS", "/mcp/fake", APPS[0]).status == 401
    answer = house.ask("OPTIONS", "/mcp/fake", APPS[0], **bearer(house.admin))
    assert answer.status == 405 and answer.headers["Allow"] == "POST, GET, DELETE"
    assert house.ask("OPTIONS", "/mcp/fake", None, Access_Control_Request_Method="POST").status == 401


def test_every_answer_may_be_read_by_a_page_of_an_allowed_origin(house):
    house.fake.script(sse([], answer={"content": []}), method="tools/call", name="stream")
    house.fake.script(status(500, b"down", Access_Control_Allow_Origin="*"), method="tools/call", name="down")
    admin, user = bearer(house.admin), bearer(house.user)
    wanted = [
        (200, call("echo"), admin), (200, call("stream"), admin), (401, call("echo"), {}), (403, call("drop"), user),
        (200, call("tight"), admin), (429, call("tight"), admin), (502, call("down"), admin), (400, b"{", admin),
        (415, b"{}", admin | {"Content_Type": "text/plain"}),
    ]  # fmt: skip
    for expected, body, headers in wanted:
        for origin in APPS[:2] if expected != 429 else APPS[:1]:
            if body == call("tight") and origin != APPS[0]:
                continue
            answer = house.ask("POST", "/mcp/fake", origin, body, **headers)
            assert answer.status == expected, answer.body
            assert answer.headers.get_all("Access-Control-Allow-Origin") == [origin]
            assert answer.headers["Vary"] == "Origin"
            exposed = answer.headers["Access-Control-Expose-Headers"].lower().replace(" ", "").split(",")
            assert {"mcp-session-id", "mcp-protocol-version", "www-authenticate", "retry-after"} <= set(exposed)
    for verb, path, expected in (("GET", "/mcp/fake", 405), ("PUT", "/mcp/fake", 405), ("POST", "/mcp/nowhere", 404)):
        answer = house.ask(verb, path, APPS[0], call("echo") if verb == "POST" else b"", **admin)
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (expected, APPS[0])


@pytest.mark.parametrize("own", [False, True])
def test_without_a_foreign_origin_nothing_is_said(house, own):
    origin = house.gateway.url if own else None
    house.fake.script(
        status(404, b"{}", "application/json", Access_Control_Allow_Origin="*"), method="tools/call", name="cors"
    )
    for name in ("echo", "cors"):
        answer = house.ask("POST", "/mcp/fake", origin, call(name), **bearer(house.admin))
        assert not [each for each in answer.headers if each.lower().startswith("access-control-")]


def test_the_call_of_a_page_names_its_origin_in_the_event(house):
    since = house.gateway.now()
    assert house.ask("POST", "/mcp/fake", APPS[1], call("echo"), **bearer(house.admin)).status == 200
    event = house.gateway.event(since)
    assert (event["outcome"], event["details"]["origin"]) == ("allowed", APPS[1])


# -- in a browser

TALK = """async ({url, key, body, verb = 'POST', session = '', more = {}}) => {
  const headers = {'Accept': 'application/json, text/event-stream', 'MCP-Protocol-Version': '2025-11-25', ...more};
  if (key) headers['Authorization'] = 'Bearer ' + key;
  if (body) headers['Content-Type'] = 'application/json';
  if (session) headers['Mcp-Session-Id'] = session;
  try {
    const answer = await fetch(url, {method: verb, headers, body});
    return {status: answer.status, session: answer.headers.get('mcp-session-id'), asks: answer.headers.get('www-authenticate'),
            body: await answer.text()};
  } catch (error) { return {failed: String(error)}; }
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    found = chromium()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found.executable, args=list(found.args), env=found.env)
        yield started
        started.close()


def talk(page: Any, house: House, **what: Any) -> Any:
    return page.evaluate(TALK, {"url": f"{house.gateway.url}/mcp/fake"} | what)


@pytest.mark.slow
def test_a_page_holds_a_session(house, browser):
    page = browser.new_page()
    page.goto(house.page)
    key = house.admin.key
    begun = talk(page, house, key=key, body=INITIALIZE.decode())
    assert begun["status"] == 200 and begun["session"]
    called = talk(
        page, house, key=key, body=call("echo").decode(), session=begun["session"], more={"Mcp-Param-Region": "eu"}
    )
    assert called["status"] == 200 and json.loads(called["body"])["result"]
    house.fake.script(
        sse(
            [{"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}}],
            answer={"content": []},
        ),
        method="tools/call",
        name="flow",
    )
    streamed = talk(page, house, key=key, body=call("flow").decode(), session=begun["session"])
    assert streamed["status"] == 200 and "notifications/message" in streamed["body"]
    assert talk(page, house, key=key, verb="DELETE", session=begun["session"])["status"] == 200
    again = talk(page, house, key=key, body=call("echo").decode(), session=begun["session"])
    assert again["status"] == 404  # so that it begins anew
    page.close()


@pytest.mark.slow
def test_a_page_reads_why_it_is_refused(house, browser):
    page = browser.new_page()
    page.goto(house.page)
    keyless = talk(page, house, body=call("echo").decode())
    assert keyless["status"] == 401 and keyless["asks"].startswith("Bearer")
    denied = talk(page, house, key=house.user.key, body=call("drop").decode())
    assert denied["status"] == 403 and json.loads(denied["body"])["error"]["data"]["reason"] == "no_rule"
    page.close()


@pytest.mark.slow
def test_a_page_of_another_origin_gets_nothing(house, browser):
    page = browser.new_page()
    page.goto(house.foreign)
    since, seen = house.gateway.now(), len(house.fake.requests)
    assert "failed" in talk(page, house, key=house.admin.key, body=call("echo").decode())
    event = house.gateway.event(since)
    assert (event["reason"], event["details"]["origin"]) == ("bad_origin", house.foreign)
    assert len(house.fake.requests) == seen
    page.close()
