"""Raw sockets against the protocol that `serve` uses, around a small application that tells what it was given."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn

from sentinel.server import http_protocol
from sentinel.server.http_protocol import GuardedProtocol, Outgoing

Connect = Callable[[], socket.socket]
HOST = b"Host: localhost\r\n"
OFFER = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/early":
        await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})
        return
    if scope["path"] == "/flood":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(2000):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        await send({"type": "http.response.body"})
        return
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(1.0)
        await send({"type": "http.response.body", "body": b"late"})
        return
    if scope["path"] == "/busy":
        time.sleep(0.2)  # bytes shall be waiting when the answer is out
    if scope["path"] == "/slow":
        await asyncio.sleep(0.4)
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    told = {
        "path": scope["path"],
        "body": body.decode(),
        "headers": [[n.decode(), v.decode("latin1")] for n, v in scope["headers"]],
    }
    answer = json.dumps(told).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(answer))]})
    if scope["method"] != "HEAD":  # as uvicorn's own end of such an answer: no write at all
        await send({"type": "http.response.body", "body": answer})
    else:
        await send({"type": "http.response.body"})


@pytest.fixture(scope="module")
def connect() -> Iterator[Connect]:
    listening = socket.create_server(("127.0.0.1", 0))
    protocol = type("Quick", (GuardedProtocol,), {"header_timeout": 0.5})
    config = uvicorn.Config(
        application,
        http=protocol,
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_keep_alive=1.5,  # type: ignore[arg-type]  # it is handed to the loop as it is
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    opened: list[socket.socket] = []

    def open_one() -> socket.socket:
        opened.append(socket.create_connection(listening.getsockname(), timeout=5))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.close()
    server.should_exit = True
    thread.join(10)


def everything(connection: socket.socket) -> bytes:
    received = b""
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionResetError:
        pass
    return received


def exchange(connect: Connect, raw: bytes) -> bytes:
    connection = connect()
    connection.sendall(raw)
    connection.shutdown(socket.SHUT_WR)
    return everything(connection)


@pytest.mark.parametrize(
    "raw",
    [
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3, 3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0x3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n",
        b"GET / HTTP/1.1\nHost: localhost\n\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X: a\rb\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: localhost\r\n\r\n",
        b"GET / HTTP/2.0\r\n" + HOST + b"\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http://localhost.evil.example/ HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http://localhost HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http://localhost?/ HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http://x@localhost/ HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http://localhost:1/ HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET https://localhost/ HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http://localhost/ HTTP/1.1\r\n\r\n",
        b"GET http:/// HTTP/1.1\r\nHost:\r\n\r\n",
        b"GET http://localhost/ HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
        b"GET /x#y HTTP/1.1\r\n" + HOST + b"\r\n",
        b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + OFFER + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + OFFER + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\n" + HOST + OFFER + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + OFFER + b"Transfer-Encoding: chunked\r\n\r\nz\r\nabc\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: a/?x=\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: user@localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"not http at all\r\n\r\n",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(connect: Connect, raw: bytes) -> None:
    received = exchange(connect, raw)
    assert received.startswith(b"HTTP/1.1 400 "), received
    assert received.count(b"connection: close") == 1
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["code"] == 400


OFFERS = [b"h2c", b"websocket", b"TLS/1.0, HTTP/1.1", b"anything"]
BODIES = [b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"]


@pytest.mark.parametrize("pause", [False, True])
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("offer", OFFERS)
def test_an_offer_to_upgrade_is_ignored(connect: Connect, offer: bytes, body: bytes, pause: bool) -> None:
    """The request is served with its body; whatever follows on the connection is read as nothing."""
    head = b"POST /echo HTTP/1.1\r\n" + HOST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + offer + b"\r\n"
    after = b"GET /after HTTP/1.1\r\n" + HOST + b"\r\n"
    with connect() as connection:
        if pause:
            cut = body.index(b"\r\n\r\n") + 5
            connection.sendall(head + body[:cut])
            time.sleep(0.1)
            connection.sendall(body[cut:] + after)
        else:
            connection.sendall(head + body + after)
        received = everything(connection)
    assert received.startswith(b"HTTP/1.1 200 "), received
    assert received.count(b"HTTP/1.1 ") == 1 and b"/after" not in received
    assert b"abc" in received


def test_nothing_after_a_refusal_is_answered(connect: Connect) -> None:
    good = b"GET /after HTTP/1.1\r\n" + HOST + b"\r\n"
    bad = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    received = exchange(connect, bad + good)
    assert received.count(b"HTTP/1.1 ") == 1
    assert b"/after" not in received


def test_an_answer_under_way_is_not_cut_into_by_a_refusal(connect: Connect) -> None:
    received = exchange(connect, b"GET /slow HTTP/1.1\r\n" + HOST + b"\r\n" + b"BAD\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("path", [b"/mcp/x", b"/sse/x", b"/messages/x", b"/livez"])
def test_the_gateway_itself_refuses_a_bad_host_on_its_own_addresses(connect: Connect, path: bytes) -> None:
    received = exchange(connect, b"GET " + path + b" HTTP/1.1\r\n" + HOST + HOST + b"\r\n")
    assert received.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("host", [b"localhost", b"localhost:8000", b"[::1]:8000", b"127.0.0.1", b"a.example.", b"h_1"])
def test_good_hosts_pass(connect: Connect, host: bytes) -> None:
    assert exchange(connect, b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_http_1_0_needs_no_host(connect: Connect) -> None:
    assert exchange(connect, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("host", [b"localhost", b"localhost:8000", b"[::1]:8000"])
@pytest.mark.parametrize("scheme", [b"http", b"HTTP"])
def test_the_whole_address_of_this_host_is_as_good_as_its_path(connect: Connect, scheme: bytes, host: bytes) -> None:
    raw = b"POST %b://%b/a/b?c=d HTTP/1.1\r\nHost: %b\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"
    received = exchange(connect, raw % (scheme, host.upper(), host))
    assert received.startswith(b"HTTP/1.1 200 ") and b'"path": "/a/b", "body": "abc"' in received


def test_http_1_0_is_answered_without_chunks_to_the_end_of_the_connection(connect: Connect) -> None:
    connection = connect()
    connection.sendall(b"GET /stream HTTP/1.0\r\n\r\n")
    head, _, body = everything(connection).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head and b"connection: close" in head
    assert body == b"late"


async def test_what_is_framed_for_http_1_0_goes_out_bare() -> None:
    class Plain:
        sent = b""
        is_closing = close = staticmethod(lambda: False)

        def write(self, data: bytes) -> None:
            self.sent += data

    plain: Any = Plain()
    answer = http_protocol.Unchunked(plain)
    chunks = [b"", b"5\r\nab\r\n1\r\n", b"", b"2\r\n0\r\r\n", b"3\r\nend\r\n0\r\n\r\n"]
    for piece in [b"HTTP/1.1 200 OK\r\nx: y\r\ntransfer-encoding: chunked\r\n\r\n", *chunks, b"0\r\n\r\n"]:
        answer.write(piece)
    assert plain.sent == b"HTTP/1.1 200 OK\r\nx: y\r\n\r\nab\r\n10\rend"


def test_requests_are_pipelined_in_order(connect: Connect) -> None:
    connection = connect()
    connection.sendall(b"".join(b"GET /%d HTTP/1.1\r\n" % n + HOST + b"\r\n" for n in range(4)))
    connection.sendall(b"GET /4 HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n")
    received = everything(connection)
    assert [received.find(b'"/%d"' % n) for n in range(5)] == sorted(received.find(b'"/%d"' % n) for n in range(5))
    assert received.count(b"HTTP/1.1 200 ") == 5


def test_a_trailer_never_becomes_a_header(connect: Connect) -> None:
    received = exchange(
        connect,
        b"POST / HTTP/1.1\r\n"
        + HOST
        + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nAuthorization: Bearer x\r\n\r\n",
    )
    told = json.loads(received.partition(b"\r\n\r\n")[2])
    assert told["body"] == "abc"
    assert "authorization" not in dict(told["headers"])


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
    ],
)
def test_heads_are_bounded(connect: Connect, raw: bytes, status: int) -> None:
    assert exchange(connect, raw).startswith(b"HTTP/1.1 %d " % status)


def test_a_head_in_drips_is_cut_off(connect: Connect) -> None:
    connection = connect()
    begun = time.monotonic()
    connection.settimeout(0.05)
    received = b""
    while time.monotonic() - begun < 4:
        try:
            connection.sendall(b"G" if time.monotonic() - begun < 0.01 else b"E")
            received = connection.recv(1000)
            break
        except TimeoutError:
            continue
        except OSError:
            break
    assert time.monotonic() - begun < 2
    assert received.startswith((b"HTTP/1.1 408", b"HTTP/1.1 400")) or not received


def test_a_slow_head_that_is_otherwise_good_is_told_408(connect: Connect) -> None:
    connection = connect()
    connection.sendall(b"GET / HTTP/1.1\r\nHost: local")
    assert everything(connection).startswith(b"HTTP/1.1 408 ")


def test_a_silent_connection_is_closed(connect: Connect) -> None:
    before = http_protocol.refused["silent"]
    connection = connect()
    begun = time.monotonic()
    assert everything(connection) == b""
    assert 0.3 < time.monotonic() - begun < 2
    assert http_protocol.refused["silent"] == before + 1


def test_a_kept_alive_connection_is_under_the_same_deadline(connect: Connect) -> None:
    connection = connect()
    connection.sendall(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
    assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    time.sleep(0.8)  # idle between requests is no fault
    connection.sendall(b"GET /")
    begun = time.monotonic()
    assert everything(connection).startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - begun < 2


def test_only_a_connection_that_is_idle_for_long_is_closed(connect: Connect) -> None:
    connection = connect()
    for _ in range(3):
        connection.sendall(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        answered = time.monotonic()
        time.sleep(1.0)
    assert everything(connection) == b""
    assert 1.4 < time.monotonic() - answered < 4


def test_the_rest_of_a_body_after_its_answer_is_no_reprieve(connect: Connect) -> None:
    connection = connect()
    connection.sendall(b"POST /early HTTP/1.1\r\n" + HOST + b"Content-Length: 10\r\n\r\n12345")
    assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
    time.sleep(0.2)
    connection.sendall(b"67890")
    begun = time.monotonic()
    assert everything(connection) == b""
    assert time.monotonic() - begun < 4


def test_an_answer_without_a_body_is_out_before_what_follows_is_refused(connect: Connect) -> None:
    connection = connect()
    connection.sendall(b"HEAD /busy HTTP/1.1\r\n" + HOST + b"\r\n")
    time.sleep(0.05)
    connection.sendall(b"GARBAGE\x00\r\n\r\n")
    received = everything(connection)
    assert received.startswith(b"HTTP/1.1 200 ") and b"HTTP/1.1 400 " in received


def test_a_stream_begins_before_it_has_anything_to_say(connect: Connect) -> None:
    connection = connect()
    begun = time.monotonic()
    connection.sendall(b"GET /stream HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
    head = connection.recv(65536)
    assert time.monotonic() - begun < 0.8
    assert head.startswith(b"HTTP/1.1 200 ") and head.endswith(b"\r\n\r\n")
    assert everything(connection) == b"4\r\nlate\r\n0\r\n\r\n"


class Written:
    """A transport that remembers each write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


async def test_a_head_and_what_follows_it_at_once_are_one_write() -> None:
    transport: Any = Written()
    outgoing = Outgoing(transport, asyncio.get_running_loop())
    for piece in (b"HTTP/1.1 200 OK\r\n\r\n", b"one", b"two"):
        outgoing.write(piece)
    assert transport.writes == [b"HTTP/1.1 200 OK\r\n\r\none", b"two"]
    outgoing.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    await asyncio.sleep(0.01)
    assert transport.writes[2:] == [b"HTTP/1.1 204 No Content\r\n\r\n"]
    outgoing.write(b"HTTP/1.1 200 OK\r\n\r\n")
    outgoing.close()
    assert transport.writes[3:] == [b"HTTP/1.1 200 OK\r\n\r\n"] and transport.closed
    outgoing.write(b"HTTP/1.1 200 OK\r\n\r\n")
    await asyncio.sleep(0.01)
    assert len(transport.writes) == 4  # nobody is there any more


async def test_a_large_answer_is_not_copied_for_one_write() -> None:
    transport: Any = Written()
    outgoing = Outgoing(transport, asyncio.get_running_loop())
    large = b"x" * 100_000
    outgoing.write(b"HTTP/1.1 200 OK\r\n\r\n")
    outgoing.write(large)
    assert transport.writes == [b"HTTP/1.1 200 OK\r\n\r\n", large] and transport.writes[1] is large


def test_what_is_left_of_a_body_after_its_answer_is_not_read_for_ever(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "LEFTOVER_MOST", 1024 * 1024)
    monkeypatch.setattr(http_protocol, "LEFTOVER_TIME", 2.0)
    connection = connect()
    connection.sendall(b"POST /early HTTP/1.1\r\n" + HOST + b"Content-Length: 100000000\r\n\r\n")
    assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
    begun = time.monotonic()
    sent = 0
    try:
        while time.monotonic() - begun < 10:
            sent += connection.send(b"x" * 65536)
    except OSError:
        pass
    assert time.monotonic() - begun < 5
    assert sent < 20_000_000


def test_a_small_leftover_keeps_the_connection(connect: Connect) -> None:
    connection = connect()
    connection.sendall(b"POST /early HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\n")
    assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
    connection.sendall(b"abcde" + b"GET /next HTTP/1.1\r\n" + HOST + b"\r\n")
    assert b'"/next"' in connection.recv(65536)


def test_a_peer_that_does_not_read_is_cut_off(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "READER_PATIENCE", 0.3)
    before = http_protocol.refused["not_reading"]
    connection = connect()
    connection.sendall(b"GET /flood HTTP/1.1\r\n" + HOST + b"\r\n")
    deadline = time.monotonic() + 5
    while http_protocol.refused["not_reading"] == before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert http_protocol.refused["not_reading"] == before + 1


def test_many_slow_heads_do_not_slow_others(connect: Connect) -> None:
    for _ in range(300):
        connect().sendall(b"GET / HT")
    begun = time.monotonic()
    for _ in range(20):
        assert exchange(connect, b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n").startswith(
            b"HTTP/1.1 200 "
        )
    assert time.monotonic() - begun < 2
