"""Connections of one source are bounded; who comes next gets in, and who left is known to have left."""

from __future__ import annotations

import asyncio
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

import pytest
import uvicorn

from core.conf.settings import PROJECT
from sentinel.server import http_protocol
from sentinel.server.connections import Connections
from sentinel.server.http_protocol import GuardedProtocol

GET = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n"
seen: list[str] = []


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/wait":
        gone = asyncio.ensure_future(_gone(receive))
        await asyncio.wait({gone}, timeout=2.0)
        seen.append("left" if gone.done() else "stayed")
        gone.cancel()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def _gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


class Place:
    def __init__(self, port: int, counted: Connections) -> None:
        self.port = port
        self.counted = counted

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=5, source_address=(source, 0))

    def ask(self, source: str = "127.0.0.1") -> bytes:
        with self.connect(source) as connection:
            connection.sendall(GET % b"/")
            return connection.recv(4096)


@pytest.fixture
def place() -> Iterator[Place]:
    listening = socket.create_server(("127.0.0.1", 0))
    counted = Connections(64, 16, [ip_network("127.0.0.9/32")])
    protocol = type("Few", (GuardedProtocol,), {"header_timeout": 30.0, "counted": counted})
    config = uvicorn.Config(
        application, http=protocol, loop="uvloop", ws="none", lifespan="on", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    seen.clear()
    yield Place(listening.getsockname()[1], counted)
    server.should_exit = True
    thread.join(10)


def until(condition: Any) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to that")


def test_a_source_that_opens_ever_more_has_its_oldest_idle_ones_closed(place: Place) -> None:
    before = http_protocol.refused["too_many_connections"]
    opened = [place.connect() for _ in range(60)]
    try:
        until(lambda: place.counted.total <= 16 and http_protocol.refused["too_many_connections"] - before >= 44)
        assert place.ask().endswith(b"ok")  # the same source, by a new one
        assert place.ask("127.0.0.2").endswith(b"ok")
        assert place.counted.total <= 17
    finally:
        for connection in opened:
            connection.close()
    until(lambda: place.counted.total == 0)


def test_what_is_being_answered_does_not_give_way(place: Place) -> None:
    busy = [place.connect() for _ in range(8)]
    for connection in busy:
        connection.sendall(GET % b"/wait")
    time.sleep(0.3)
    opened = [place.connect() for _ in range(60)]
    for connection in busy:
        assert connection.recv(4096).endswith(b"ok")
    assert seen == ["stayed"] * 8
    for connection in [*busy, *opened]:
        connection.close()


def test_a_trusted_proxy_brings_many(place: Place) -> None:
    opened = [place.connect("127.0.0.9") for _ in range(40)]
    until(lambda: place.counted.total == 40)
    assert place.ask("127.0.0.9").endswith(b"ok") and place.ask().endswith(b"ok")
    for connection in opened:
        connection.close()


@pytest.mark.parametrize("more", [b"", GET % b"/", GET % b"/" * 50, b"GET / HT"], ids=["alone", "one", "many", "half"])
@pytest.mark.parametrize("linger", [0, 1], ids=["reset", "closed"])
def test_a_client_that_leaves_is_seen_whatever_it_has_sent_already(
    place: Place, more: bytes, linger: int, caplog: pytest.LogCaptureFixture
) -> None:
    connection = place.connect()
    connection.sendall(GET % b"/wait" + more)
    time.sleep(0.2)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1 - linger, 0))
    connection.close()
    until(lambda: seen)
    assert seen == ["left"]
    assert not caplog.records  # and it is nobody's error


def test_requests_that_pile_up_on_one_connection_are_bounded(place: Place) -> None:
    with place.connect() as connection:
        connection.sendall(GET % b"/wait" + GET % b"/" * 2000)
        received = b""
        try:
            while part := connection.recv(65536):
                received += part
        except ConnectionResetError:
            pass
    assert received.count(b"HTTP/1.1 200") < 300
    assert http_protocol.refused["pipelined"]


def test_descriptors_are_raised_and_what_is_left_is_shared() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 2048));"
        "from sentinel.server.connections import Connections, raise_limit as up;"
        "print(up(), resource.getrlimit(resource.RLIMIT_NOFILE)[0], Connections.fitting(10000, 1000, (), up())._shares.most)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, check=True)
    assert told.stdout.split() == ["2048", "2048", "896"]
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 0
