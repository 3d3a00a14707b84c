"""Peers that are slow or send a byte at a time: the right answer all the same, and nobody else waits for them."""

from __future__ import annotations

import json
import re
import socket
import time

import pytest

from tests.support.fixtures import Stage
from tests.support.upstream import FakeUpstream, drip, sse
from tests.support.wire import Client

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("stage")]

ANSWER = {"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "grüß dich"}], "big": 2**70}}


def head(client: Client, length: int | None, port: int) -> bytes:
    fields = client.headers("tools/call", "public.echo") | {
        "Host": f"127.0.0.1:{port}",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "Connection": "close",
    }
    fields |= {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
    return "".join(["POST /mcp/fake HTTP/1.1\r\n", *(f"{n}: {v}\r\n" for n, v in fields.items()), "\r\n"]).encode()


def read_all(sock: socket.socket) -> bytes:
    received = b""
    while data := sock.recv(65536):
        received += data
    return received


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks-of-one-byte"])
def test_a_request_that_comes_byte_by_byte(stage: Stage, fake: FakeUpstream, era: str, chunked: bool) -> None:
    client = stage.client(era=era)
    body = json.dumps(client.body("tools/call", {"name": "public.echo", "arguments": {"é": 1.10}})).encode()
    since = stage.gateway.now()
    with socket.create_connection(("127.0.0.1", stage.gateway.port), timeout=60) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in head(client, None if chunked else len(body), stage.gateway.port):
            sock.sendall(bytes([byte]))
            time.sleep(0.001)
        for byte in body:
            sock.sendall(b"1\r\n%c\r\n" % byte if chunked else bytes([byte]))
            time.sleep(0.005)
        if chunked:
            sock.sendall(b"0\r\n\r\n")
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert fake.seen("tools/call")[0].body == body
    assert stage.gateway.event(since)["outcome"] == "allowed"


def test_a_client_that_stops_in_the_middle_of_its_body(stage: Stage, fake: FakeUpstream) -> None:
    client = stage.client()
    since = stage.gateway.now()
    with socket.create_connection(("127.0.0.1", stage.gateway.port), timeout=60) as sock:
        sock.sendall(head(client, 1000, stage.gateway.port) + b'{"jsonrpc":"2.0","id":1,"method":"tools/call",')
        assert stage.client().call("get_customer").status == 200  # nobody else waits
        sock.shutdown(socket.SHUT_WR)
        read_all(sock)
    events = stage.gateway.events(since, 2)
    assert sorted(event["outcome"] for event in events) == ["allowed", "cancelled"], events
    assert fake.count("tools/call") == 1


def test_an_answer_that_comes_byte_by_byte(stage: Stage, fake: FakeUpstream) -> None:
    body = json.dumps(ANSWER, ensure_ascii=False, indent=1).encode()
    fake.script(drip(body, pause=0.002), method="tools/call")
    assert stage.client().call("public.echo").body == body


def test_a_list_that_comes_byte_by_byte_is_filtered(stage: Stage, fake: FakeUpstream) -> None:
    tools = {"tools": [{"name": "list_customers", "inputSchema": {}}, {"name": "delete_customer", "inputSchema": {}}]}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": tools}).encode()
    fake.script(drip(body, pause=0.001), method="tools/list")
    assert stage.client("readonly").tools() == ["list_customers"]
    fake.script(sse([], size=1, answer=tools), method="tools/list")
    assert stage.client("readonly").tools() == ["list_customers"]


def test_a_client_that_reads_its_answer_slowly(stage: Stage, fake: FakeUpstream) -> None:
    text = "x" * 3_000_000
    fake.script(sse([], answer={"content": [{"type": "text", "text": text}]}), method="tools/call")
    since = stage.gateway.now()
    client = stage.client()
    body = json.dumps(client.body("tools/call", {"name": "public.echo"})).encode()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(60)
        sock.connect(("127.0.0.1", stage.gateway.port))
        sock.sendall(head(client, len(body), stage.gateway.port) + body)
        received = b""
        while data := sock.recv(65536):
            received += data
            time.sleep(0.02 if len(received) < 200_000 else 0)
    assert text.encode() in re.sub(rb"\r\n[0-9a-f]+\r\n", b"", received)  # an answer goes out in chunks of its own
    assert stage.gateway.event(since)["outcome"] == "allowed"
