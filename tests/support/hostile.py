"""Hostile requests, made from a seed: what no client would send, in every place of a request that HTTP lets through."""

from __future__ import annotations

import base64
import http.client
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

R = random.Random

WORDS = (
    "password", "token", "name", "value", "Authorization", "arguments", "params", "jsonrpc", "id", "method", "\x00", "\u202e", "\u200b", "\ud800", "\x1b[31m", "\r\n", "é", "名",
    "<script>alert(1)</script>", "{{7*7}}", "${jndi:ldap://x}", "=cmd|' /C calc'!A0", "../..", "%00", "\\u0000", "' OR 1=1--", "[REDACTED:token:01234567]", "ghp_abcdEFGH1234567890abcdEFGH1234567890",
    "mcps_live_AbCdEf123456_0123456789abcdef", "-----BEGIN PRIVATE KEY-----", "limit" * 20 + "zkey", "token_" + "0" * 60 + "x", "password=[" + "a" * 80, "data: ", "eyJhbGciOiJIUzI1NiJ9.e30.x", "x" * 300, "",
)  # fmt: skip
NUMBERS = ("1e999", "-0", "1" * 5_000, "NaN", "Infinity", "0.1e-400", "9007199254740993", "1.0", "00", "-", str(2**64))
METHODS = (
    "tools/call", "tools/list", "initialize", "ping", "resources/read", "prompts/get", "completion/complete", "notifications/initialized", "server/discover", "tasks/get", "nope/nope", "", "tools/call\x00",
    "TOOLS/CALL", "x" * 600,
)  # fmt: skip
NAMES = (
    "get_customer",
    "list_customers",
    "public.echo",
    "delete_customer",
    "get_customer\u202e",
    "Get_Customer",
    "x" * 10_000,
    "",
    "../x",
)
HEADERS = (
    "MCP-Protocol-Version", "Mcp-Method", "Mcp-Name", "Mcp-Session-Id", "Last-Event-ID", "Accept", "Origin", "X-Forwarded-For", "X-Role", "User-Agent", "Traceparent", "Idempotency-Key", "Content-Encoding", "Referer", "Cookie",
)  # fmt: skip


@dataclass(slots=True)
class Hostile:
    """One request."""

    verb: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes | None


def value(r: R, depth: int = 0) -> str:
    """Text that is JSON or nearly."""
    kind = r.randrange(9 if depth < 4 else 4)
    if kind == 0:
        return r.choice((*NUMBERS, "null", "true", str(r.randrange(10**6))))
    if kind < 4:
        text = "".join(r.choice(WORDS) for _ in range(r.randint(0, 4)))
        return json.dumps(text, ensure_ascii=r.random() < 0.5)
    if kind < 6:
        return "[" + ",".join(value(r, depth + 1) for _ in range(r.randint(0, 4))) + "]"
    members = (f"{json.dumps(r.choice(WORDS))}:{value(r, depth + 1)}" for _ in range(r.randint(0, 5)))
    return "{" + ",".join(members) + "}"


def message(r: R) -> str:
    """A JSON-RPC message with something wrong, or only hostile."""
    params = {0: "{}", 1: value(r), 2: f'{{"name":{json.dumps(r.choice(NAMES))}}}'}.get(
        r.randrange(6), f'{{"name":{json.dumps(r.choice(NAMES))},"arguments":{value(r)}}}'
    )
    members = [
        f'"jsonrpc":{json.dumps("2.0" if r.random() < 0.95 else r.choice(WORDS))}',
        f'"id":{r.randrange(9) if r.random() < 0.7 else r.choice((json.dumps(r.choice(WORDS)), "null", "1.5", value(r)))}',
        f'"method":{json.dumps(r.choice(METHODS if r.random() < 0.3 else METHODS[:2]))}',
        f'"params":{params}',
    ]
    for _ in range(r.randrange(3) if r.random() < 0.3 else 0):
        members.append(r.choice((r.choice(members), f'"{r.choice(("Method", "PARAMS", "_meta", "x"))}":{value(r)}')))
    if r.random() < 0.1:
        members.pop(r.randrange(len(members)))
    return "{" + ",".join(members) + "}"


def body(r: R) -> bytes:
    """A body: bytes of any sort."""
    kind = r.randrange(24)
    if kind == 0:
        return r.randbytes(r.randrange(400))
    if kind == 1:
        return ("[" * r.choice((10, 200, 100_000))).encode()
    if kind == 2:
        return f"[{message(r)},{message(r)}]".encode("utf-8", "surrogatepass")
    if kind == 3:
        return message(r).encode("utf-16", "surrogatepass")
    if kind == 4:
        return b"\xef\xbb\xbf" + message(r).encode("utf-8", "surrogatepass")
    if kind == 5:
        many = r.choice(('"a":1,' * 20_000, '"' + "x" * 200_000 + '":1,', f'"n":{"9" * 6_000},'))
        return f'{{{many}"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"get_customer"}}}}'.encode()
    raw = message(r).encode("utf-8", "surrogatepass")
    if kind < 10 and raw:
        at = r.randrange(len(raw))
        return raw[:at] + r.choice((b"", r.randbytes(1), b"\x00", b'"', b"}", raw[:at])) + raw[at + r.randrange(2) :]
    return raw


def header_text(r: R) -> str:
    """A header's value that HTTP lets through."""
    text = "".join(r.choice(WORDS) for _ in range(r.randint(1, 3)))
    if r.random() < 0.2:
        text = f"=?base64?{base64.b64encode(text.encode('utf-8', 'replace')).decode()}?="
    clean = "".join(c if c.isprintable() and c.isascii() else "\xff" for c in text).strip("\xff ")
    return clean[:600] or "x"


def make(r: R, keys: Sequence[str]) -> Hostile:
    """Make one request; `keys` are live keys."""
    verb = "POST" if r.random() < 0.92 else r.choice(("PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"))
    target = (
        "/mcp/fake"
        if r.random() < 0.9
        else "/mcp/" + r.choice(("nope", "", "fake/x", quote("é\x00"), "a" * 300, "%2e%2e", "Fake"))
    )
    headers: list[tuple[str, str]] = []
    key = r.choice(keys)
    credential = r.randrange(12)
    if credential < 8:
        headers.append(r.choice((("Authorization", f"Bearer {key}"), ("X-API-Key", key))))
    elif credential == 8:
        headers += [("Authorization", f"Bearer {key}"), ("X-API-Key", key)]
    elif credential == 9:
        headers.append(("Authorization", header_text(r)))
    elif credential == 10:
        target += f"?api_key={key}" + r.choice(("", "&api_key=x", "&x=%00%ff"))
    if r.random() < 0.85:
        headers.append(("Content-Type", "application/json"))
    else:
        headers.append(
            ("Content-Type", r.choice(("text/plain", "application/json; charset=utf-16", "", header_text(r))))
        )
    for _ in range(r.randrange(4) if r.random() < 0.5 else 0):
        headers.append((r.choice(HEADERS), r.choice((header_text(r), "2026-07-28", "2025-06-18", "tools/call", "*/*"))))
    return Hostile(verb, target, headers, body(r) if verb in ("POST", "PUT", "PATCH") else None)


@dataclass(slots=True)
class Sender:
    """Sends requests on one connection, which is made anew when the server closes it."""

    url: str
    statuses: dict[int, int] = field(default_factory=dict)
    _connection: http.client.HTTPConnection | None = None

    def send(self, one: Hostile) -> int:
        """Send one request; gives the status."""
        parts = urlsplit(self.url)
        if self._connection is None:
            self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        connection = self._connection
        connection.putrequest(one.verb, one.target, skip_accept_encoding=True)
        if not any(name == "Accept" for name, _ in one.headers):
            connection.putheader("Accept", "application/json, text/event-stream")
        for name, text in one.headers:
            connection.putheader(name, text.encode("latin-1"))
        if one.body is not None:
            connection.putheader("Content-Length", str(len(one.body)))
        connection.endheaders()
        try:
            if one.body:
                connection.send(one.body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all of it was read: the answer is there
        answer = connection.getresponse()
        answer.read()
        if answer.will_close:
            connection.close()
            self._connection = None
        self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
        return answer.status

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
