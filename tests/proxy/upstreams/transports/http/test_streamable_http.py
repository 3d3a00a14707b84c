from __future__ import annotations

import asyncio
import socket
import struct
import time

import pytest

from audit.reasons import answering
from proxy.upstreams.transports.base import (
    Broken,
    Redirected,
    TimedOut,
    TooLarge,
    TransportLimits,
    Unreachable,
    UpstreamRequest,
)
from proxy.upstreams.transports.http.connection import HIGH_WATER
from tests.proxy.upstream import Peer, once, upstream


def post(body: bytes = b'{"id":1}', **options) -> UpstreamRequest:
    return UpstreamRequest(b"POST", [(b"content-type", b"application/json")], body, **options)


async def call(transport, request=None) -> bytes:
    response = await transport.send(request or post())
    return await response.body(1 << 30)


async def settled(transport) -> None:
    await asyncio.sleep(0.01)
    assert transport.counts == (0, 0)


async def test_a_connection_is_reused_last_in_first_out():
    async with upstream() as server:
        transport = server.transport()
        assert [await call(transport, post(b"%d" % n)) for n in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
        assert server.connections == 1
        await asyncio.gather(*(call(transport) for _ in range(10)))
        assert server.connections == 10
        assert transport.counts == (0, 10)
        await transport.close()


async def test_the_request_is_written_as_given_and_asks_for_no_compression():
    async with upstream() as server:
        transport = server.transport(headers=[(b"Authorization", b"Bearer up"), (b"X-Tenant", b"a")])
        request = UpstreamRequest(b"POST", [(b"authorization", b"Bearer caller"), (b"mcp-name", b"x")], b"{}")
        await call(transport, request)
        line, headers, body = server.requests[0]
        assert line == "POST /mcp HTTP/1.1"
        assert body == b"{}"
        assert headers == {
            "host": f"127.0.0.1:{server.port}", "accept-encoding": "identity", "authorization": "Bearer up",
            "x-tenant": "a", "mcp-name": "x", "content-length": "2",
        }  # fmt: skip
        await transport.close()


async def test_a_header_cannot_smuggle_a_line():
    async with upstream() as server:
        transport = server.transport()
        for value in (b"a\r\nx: y", b"a\nx: y", b"a\rb", b"a\0"):
            with pytest.raises(ValueError, match="line break"):
                await transport.send(UpstreamRequest(b"POST", [(b"mcp-name", value)], b""))
        assert server.requests == []


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", b"hello"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nx-trailer: 1\r\n\r\n",
            b"hello",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", b"hello"),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", b"hello"),
    ],
)
async def test_every_framing_is_read_whole_and_in_single_bytes(wire, expected):
    for pieces in ([wire], [bytes([byte]) for byte in wire]):
        async with upstream(once(*pieces)) as server:
            transport = server.transport()
            response = await transport.send(post())
            assert await response.body(1000) == expected
            assert await response.read() == b""
            assert b"link" not in dict(response.headers)
            assert b"x-trailer" not in dict(response.headers)
            await transport.close()


@pytest.mark.parametrize(
    "wire",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"\x16\x03\x01\x00",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0x5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx : a\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 99 Odd\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 30,
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"",
    ],
)
async def test_garbage_is_broken_and_nothing_is_sent_twice(wire):
    async with upstream(once(wire)) as server:
        transport = server.transport()
        with pytest.raises(Broken) as caught:
            await call(transport)
        assert answering(caught.value.reason).status == 502
        assert caught.value.executed
        assert len(server.requests) == 1
        await settled(transport)
        await transport.close()


async def test_a_redirect_is_named_and_not_followed():
    wire = b"HTTP/1.1 307 Temporary\r\nlocation: http://169.254.169.254/x?token=secret\r\ncontent-length: 0\r\n\r\n"
    async with upstream(once(wire)) as server:
        with pytest.raises(Redirected, match="fix the upstream's URL") as caught:
            await call(server.transport())
        assert caught.value.reason == "upstream_redirect"
        assert caught.value.detail == "to another address", "the rest is the upstream's word, so a payload"
        assert caught.value.said == "to http://169.254.169.254/x"
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: y\r\n" % n for n in range(200)) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        + b"400\r\n"
        + b"x" * 1024
        + b"\r\n"
        + b"3e8\r\n"
        + b"x" * 1000
        + b"\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5000,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"
        + b"".join(b"x-%d: y\r\n" % n for n in range(200))
        + b"\r\n",
    ],
)
async def test_what_is_too_large_is_cut(wire):
    async with upstream(once(wire)) as server:
        transport = server.transport(limits=TransportLimits(answer_bytes=2000))
        with pytest.raises(TooLarge):
            await call(transport)
        await settled(transport)


async def test_a_stream_is_not_bounded_by_the_size_of_answers():
    wire = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + b"data: x\n\n" * 1000
    async with upstream(once(wire)) as server:
        transport = server.transport(limits=TransportLimits(answer_bytes=2000))
        assert len(await call(transport)) == 9000


async def test_no_answer_times_out_and_closes():
    async with upstream(once(hold=5)) as server:
        transport = server.transport(limits=TransportLimits(first_byte=0.2))
        started = time.monotonic()
        with pytest.raises(TimedOut) as caught:
            await call(transport)
        assert 0.15 < time.monotonic() - started < 1
        assert answering(caught.value.reason).status == 504
        assert caught.value.executed


async def test_a_dripping_head_times_out_all_the_same():
    wire = b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1000
    async with upstream(once(*(bytes([b]) for b in wire), pause=0.02)) as server:
        with pytest.raises(TimedOut):
            await call(server.transport(limits=TransportLimits(first_byte=0.3)))


async def test_a_dripping_body_times_out_but_a_dripping_stream_goes_on():
    json_head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"
    async with upstream(once(json_head, *[b"x"] * 1000, pause=0.02)) as server:
        with pytest.raises(TimedOut):
            await call(server.transport(limits=TransportLimits(idle=0.3, answer_seconds=0.5)))
    sse_head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    async with upstream(once(sse_head, *[b": x\n\n"] * 40, pause=0.02)) as server:
        transport = server.transport(limits=TransportLimits(idle=0.3, answer_seconds=0.5))
        assert await call(transport) == b": x\n\n" * 40


async def test_an_idle_stream_times_out_unless_told_otherwise():
    wire = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: hi\n\n"
    async with upstream(once(wire, hold=0.6)) as server:
        transport = server.transport(limits=TransportLimits(idle=0.2))
        response = await transport.send(post())
        assert await response.read() == b": hi\n\n"
        with pytest.raises(TimedOut):
            await response.read()
        response = await transport.send(post(idle_timeout=0))
        assert await response.body(100) == b": hi\n\n"


async def test_pieces_arrive_as_they_come():
    wire = [b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"] + [b"data: %d\n\n" % n for n in range(5)]
    async with upstream(once(*wire, pause=0.1)) as server:
        response = await server.transport().send(post())
        started = time.monotonic()
        times = []
        while await response.read():
            times.append(time.monotonic() - started)
        assert len(times) == 5
        assert times[0] < 0.2 < times[3]


async def test_a_slow_reader_holds_the_upstream_back_with_flat_memory():
    sent = 0
    total = 40 * HIGH_WATER

    async def flood(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        while sent < total:
            await peer.say(b"x" * 65536)
            sent += 65536

    async with upstream(flood) as server:
        transport = server.transport(limits=TransportLimits(idle=0.3))
        response = await transport.send(post())
        await asyncio.sleep(0.6)  # longer than the idle limit: it is the reader who is slow
        assert sent < total / 2
        assert response._size <= HIGH_WATER * 2
        assert len(await response.body(total)) == total
        assert transport.counts == (0, 1)
        await transport.close()


async def test_the_connection_of_a_paused_answer_is_readable_again():
    async def script(peer: Peer) -> None:
        while await peer.request() is not None:
            await peer.answer(b"x" * (2 * HIGH_WATER))

    async with upstream(script) as server:
        transport = server.transport()
        for _ in range(3):
            response = await transport.send(post())
            await asyncio.sleep(0.05)
            assert len(await response.body(1 << 30)) == 2 * HIGH_WATER
        assert server.connections == 1


async def test_abort_and_cancellation_close_at_once():
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: x\n\n")
        assert await peer.reader.read() == b""
        gone.set()

    async with upstream(script) as server:
        transport = server.transport()
        response = await transport.send(post())
        await response.read()
        response.abort()
        response.abort()
        await asyncio.wait_for(gone.wait(), 1)
        with pytest.raises(Broken):
            await response.read()
        await settled(transport)

    gone.clear()

    async def silent(peer: Peer) -> None:
        await peer.request()
        await peer.reader.read()
        gone.set()

    async with upstream(silent) as server:
        task = asyncio.create_task(server.transport().send(post()))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait_for(gone.wait(), 1)
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_connection_closed_while_idle_is_not_used():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer()

    async with upstream(script) as server:
        transport = server.transport()
        for _ in range(20):
            assert await call(transport) == b"{}"
            await asyncio.sleep(0.005)
        assert server.connections == 20


async def test_a_close_the_loop_has_not_seen_yet_is_seen_in_the_socket():
    listener = socket.create_server(("127.0.0.1", 0))
    from proxy.upstreams.egress import Egress, parse_url
    from proxy.upstreams.transports.http.streamable_http import StreamableHttpTransport
    from tests.proxy.upstream import LOOPBACK

    transport = StreamableHttpTransport(parse_url(f"http://127.0.0.1:{listener.getsockname()[1]}/"), Egress(LOOPBACK))
    loop = asyncio.get_running_loop()

    def serve() -> socket.socket:
        peer, _ = listener.accept()
        peer.recv(65536)
        peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        return peer

    served = loop.run_in_executor(None, serve)
    assert await call(transport) == b"{}"
    first = await served
    served = loop.run_in_executor(None, serve)
    await asyncio.sleep(0)
    first.close()  # no turn of the loop between this and the next use
    time.sleep(0.01)
    assert await call(transport) == b"{}"
    (await served).close()
    listener.close()
    await transport.close()


async def test_a_reset_after_the_request_is_an_error_and_not_a_retry():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer()
        await peer.request()
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.writer.transport.abort()

    async with upstream(script) as server:
        transport = server.transport()
        await call(transport)
        with pytest.raises(Broken) as caught:
            await call(transport, post(b"second"))
        assert caught.value.executed
        assert [body for _, _, body in server.requests] == [b'{"id":1}', b"second"]


async def test_unasked_bytes_on_an_idle_connection_poison_no_later_answer():
    async def script(peer: Peer) -> None:
        while await peer.request() is not None:
            await peer.answer(b"right")
            await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong")

    async with upstream(script) as server:
        transport = server.transport()
        for _ in range(10):
            assert await call(transport) == b"right"
            await asyncio.sleep(0.002)


async def test_an_answer_before_the_request_is_read_is_taken_but_the_connection_is_not_kept():
    async def script(peer: Peer) -> None:
        await peer.answer(b'{"error":1}', status="413 Too Large")
        await asyncio.sleep(0.3)

    async with upstream(script) as server:
        transport = server.transport()
        response = await transport.send(post(b"x" * 20_000_000))
        assert response.status == 413
        assert await response.body(100) == b'{"error":1}'
        await settled(transport)


async def test_idle_connections_are_closed_after_a_while_and_the_keep_alive_header_is_heeded():
    async with upstream() as server:
        transport = server.transport(limits=TransportLimits(keep_alive=0.2))
        await asyncio.gather(*(call(transport) for _ in range(3)))
        assert transport.counts == (0, 3)
        await asyncio.sleep(0.5)
        await settled(transport)
        assert transport._sweeper is None
        assert server.closed == 3

    async def brief(peer: Peer) -> None:
        while await peer.request() is not None:
            await peer.answer(extra=b"keep-alive: timeout=1\r\n")

    async with upstream(brief) as server:
        transport = server.transport()
        await call(transport)
        await settled(transport)


async def test_refused_connection_says_so_and_nothing_ran():
    async with upstream() as server:
        transport = server.transport()
    with pytest.raises(Unreachable) as caught:
        await call(transport)
    assert not caught.value.executed
    assert "refused" in caught.value.detail.lower()


async def test_a_connect_that_hangs_times_out():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        fillers.append(filler)
    from proxy.upstreams.egress import Egress, parse_url
    from proxy.upstreams.transports.http.streamable_http import StreamableHttpTransport
    from tests.proxy.upstream import LOOPBACK

    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    transport = StreamableHttpTransport(parse_url(url), Egress(LOOPBACK), limits=TransportLimits(connect=0.3))
    started = time.monotonic()
    with pytest.raises(Unreachable):
        await call(transport)
    assert time.monotonic() - started < 1
    for each in (*fillers, listener):
        each.close()


async def test_close_waits_for_running_exchanges_within_the_grace():
    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.2)
        await peer.answer(b"late")

    async with upstream(script) as server:
        transport = server.transport()
        running = asyncio.create_task(call(transport))
        await asyncio.sleep(0.05)
        await transport.close(grace=2)
        assert await running == b"late"
        with pytest.raises(Unreachable):
            await call(transport)

        transport = server.transport()
        running = asyncio.create_task(call(transport))
        await asyncio.sleep(0.05)
        await transport.close(grace=0.05)
        with pytest.raises(Broken):
            await running


async def test_two_hundred_callers_each_get_their_own_answer():
    async with upstream() as server:
        transport = server.transport(limits=TransportLimits(connect=20, first_byte=20, idle=20))
        for _ in range(3):
            bodies = [b"caller-%d" % n for n in range(200)]
            assert await asyncio.gather(*(call(transport, post(body)) for body in bodies)) == bodies
        await transport.close()
