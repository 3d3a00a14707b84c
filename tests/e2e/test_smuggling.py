"""Requests that two servers could read in two ways, straight to the gateway and through nginx: nobody is answered another's answer.

Each form carries a second request inside itself, as a smuggler would have it. Whether it is read as one request or as two does not
matter; that all read it alike does: what nginx passed on is what the log has, what was executed is what the log calls allowed,
and a bystander on a connection of its own always gets its own answer. SENTINEL_TEST_SMUGGLING=200 repeats it so often.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.gateway import Gateway
from tests.support.nginx import ENVIRONMENT, NAME, Proxy
from tests.support.upstream import FakeUpstream

ROUNDS = int(os.environ.get("SENTINEL_TEST_SMUGGLING", "1"))
pytestmark = pytest.mark.timeout(240 + 60 * ROUNDS)

END = b"\r\n"


def framings(inner: bytes) -> Iterator[tuple[list[bytes], bytes]]:
    """Ways to say where a body ends, that leave room for another opinion: header lines, and what follows them."""
    size, chunk = b"%d" % len(inner), b"%x\r\n%s\r\n0\r\n\r\n" % (len(inner), inner)
    short = b"0\r\n\r\n" + inner
    yield [b"Content-Length: %d" % len(short), b"Transfer-Encoding: chunked"], short
    yield [b"Transfer-Encoding: chunked", b"Content-Length: 4"], chunk
    yield [b"Content-Length: 0", b"Content-Length: " + size], inner
    yield [b"Content-Length: " + size, b"Content-Length: 0"], inner
    yield [b"Content-Length: 0, " + size], inner
    yield [b"Content-Length: +" + size], inner
    yield [b"Content-Length: 0" + size], inner
    yield [b"Content-Length: -1"], inner
    yield [b"Content-Length: 0x10"], inner
    yield [b"Content-Length : 0"], inner
    yield [b"Content-Length:\x0b0"], inner
    yield [b"Content_Length: 0", b"Content-Length: " + size], inner
    yield [b"X: y\nContent-Length: 0", b"Content-Length: " + size], inner
    yield [b"X: y\rContent-Length: 0", b"Content-Length: " + size], inner
    yield [b"X: y\0", b"Content-Length: 0"], inner
    yield [b"Content-Length: 0\r\n " + size], inner
    for coding in (
        b"xchunked",
        b"chunked, identity",
        b"identity, chunked",
        b"gzip, chunked",
        b"chunked\x0b",
        b"\x00chunked",
        b'"chunked"',
        b"chunked;q=1",
        b"CHUNKED",
        b" \tchunked",
        b"chunked\r\n\t, x",
    ):
        yield [b"Transfer-Encoding: " + coding, b"Content-Length: %d" % len(short)], short
        yield [b"Transfer-Encoding: " + coding], short
    yield [b"Transfer-Encoding : chunked", b"Content-Length: " + size], short
    yield [b"Transfer_Encoding: chunked", b"Content-Length: " + size], inner
    yield [b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"], short
    yield [b" Transfer-Encoding: chunked", b"Content-Length: 0"], inner
    for body in (
        b"0\n\n" + inner,
        b"0\r\n\n" + inner,
        b"0;x=y\r\n\r\n" + inner,
        b"0;\nx\r\n\r\n" + inner,
        b"00000000000000000000\r\n\r\n" + inner,
        b"0x0\r\n\r\n" + inner,
        b"+0\r\n\r\n" + inner,
        b"-1\r\n\r\n" + inner,
        b"fffffffffffffffff\r\n" + inner,
        b"1\r\nab\r\n0\r\n\r\n" + inner,
        b"2\r\n{}0\r\n\r\n" + inner,
        b"2\n{}\n0\n\n" + inner,
        b"0\r\nContent-Length: 5\r\n\r\n" + inner,
        b"0\r\nX: y\rZ: a\r\n\r\n" + inner,
    ):
        yield [b"Transfer-Encoding: chunked"], body
    yield [b"Connection: content-length", b"Content-Length: " + size], inner
    yield [b"Connection: upgrade", b"Upgrade: h2c", b"Content-Length: 0"], inner
    yield [b"Expect: 100-continue", b"Content-Length: 0"], inner
    yield [b"Content-Length: 0"], inner  # honest pipelining
    yield [], inner  # no length at all: a request without a body


def request(host: bytes, key: str, trace: int, extra: list[bytes], body: bytes, version: bytes = b"1.1") -> bytes:
    lines = [
        b"POST /mcp/fake HTTP/" + version,
        b"Host: " + host,
        b"Authorization: Bearer " + key.encode(),
        b"Content-Type: application/json",
        b"Accept: application/json, text/event-stream",
        b"traceparent: 00-%032x-00000000000000ff-01" % trace,
        *extra,
    ]
    return END.join(lines) + END + END + body


def call(rpc_id: str) -> bytes:
    body = {"jsonrpc": "2.0", "id": rpc_id, "method": "tools/call", "params": {"name": "public.echo", "arguments": {}}}
    return json.dumps(body).encode()


def whole(host: bytes, key: str, trace: int, rpc_id: str) -> bytes:
    body = call(rpc_id)
    return request(host, key, trace, [b"Content-Length: %d" % len(body)], body)


class Line:
    """A connection by which raw bytes go one way or the other."""

    def __init__(self, way: Gateway | Proxy) -> None:
        self.socket: socket.socket = socket.create_connection(("127.0.0.1", way.port), timeout=20)
        if isinstance(way, Proxy):
            self.socket = way.context().wrap_socket(self.socket, server_hostname=NAME)

    def everything(self, raw: bytes) -> bytes:
        """Send, wait for what comes back and is not followed by more, and leave."""
        received = b""
        with suppress(OSError):
            self.socket.sendall(raw)
            self.socket.settimeout(0.25)
            while part := self.socket.recv(65536):
                received += part
        self.socket.close()
        return received

    def one(self, raw: bytes) -> bytes:
        """Send a decent request and read its answer; the connection stays."""
        self.socket.sendall(raw)
        received = b""
        while True:
            part = self.socket.recv(65536)
            assert part, received
            received += part
            head, end, body = received.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            if end and length and len(body) >= int(length[1]):
                return received


@pytest.fixture(params=["direct", "behind-nginx"])
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Gateway | Proxy, Gateway, FakeUpstream]]:
    with FakeUpstream() as fake:
        if request.param == "direct":
            with Gateway(workers=1) as gateway:
                gateway.add_upstream("fake", fake.url)
                yield gateway, gateway, fake
        else:
            with Gateway(workers=1, **ENVIRONMENT) as gateway, Proxy(tmp_path, gateway.port) as proxy:
                gateway.add_upstream("fake", fake.url)
                yield proxy, gateway, fake


def test_all_read_alike(way: tuple[Gateway | Proxy, Gateway, FakeUpstream]) -> None:
    path, gateway, fake = way
    proxy = path if isinstance(path, Proxy) else None
    host = NAME.encode() if proxy else b"127.0.0.1"
    key = gateway.create_key("smuggler", role="admin").key
    time.sleep(1.2)  # a key made elsewhere is known within a second
    since, passed_before = gateway.now(), proxy.passed_on() if proxy else 0
    rng, trace = random.Random(26), 0
    tried = answered = unread = 0
    bystander = Line(path)
    for _ in range(ROUNDS):
        forms = list(range(sum(1 for _ in framings(b"x"))))
        rng.shuffle(forms)
        for form in forms:
            trace += 3
            extra, body = list(framings(whole(host, key, trace + 1, f"inner{trace}")))[form]
            raw = request(host, key, trace, extra, body, b"1.0" if rng.random() < 0.1 else b"1.1")
            received = Line(path).everything(raw)
            statuses = re.findall(rb"HTTP/1\.1 (\d{3})", received)
            assert not {b"500", b"502"} & set(statuses), (raw, received)
            unread += received.count(b'{"error":{"code":4')  # no request at all, to the HTTP server
            answered += len(statuses) - statuses.count(b"100")
            answer = bystander.one(whole(host, key, trace + 2, f"mine{trace}"))
            assert answer.startswith(b"HTTP/1.1 200") and b'"mine%d"' % trace in answer, (raw, answer)
            tried += 1
    bystander.socket.close()
    if proxy is not None:  # what it passed on is what the log has
        until = time.monotonic() + 20
        while True:  # nginx writes a line once all of a request is over
            passed = proxy.passed_on() - passed_before - unread
            events = gateway.events(since)
            recorded = sum(event["count"] or 1 for event in events)
            if recorded == passed or time.monotonic() > until:
                break
        assert recorded == passed
    else:
        gateway.events(since, tried)
        events = gateway.events(since)
        assert sum(event["count"] or 1 for event in events) >= tried + answered - unread
    allowed = sorted(event["trace_id"] for event in events if event["outcome"] == "allowed")
    executed = [(seen.header("traceparent") or "")[3:35] for seen in fake.seen("tools/call")]
    left = {event["trace_id"] for event in events if event["outcome"] == "cancelled"}
    assert len(set(executed)) == len(executed)
    assert set(allowed) <= set(executed) <= set(allowed) | left  # who left early may have been heard
    assert len(set(allowed)) == len(allowed) >= tried
    assert {f"{number:032x}" for number in range(5, trace + 3, 3)} <= set(allowed)  # the bystander's
    if proxy is None:
        assert unread > tried // 3  # so it was the server that refused them
