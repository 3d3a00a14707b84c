"""What GuardedProtocol and the worker take from uvicorn and httptools beyond their public word: it holds for the release that is installed."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import httptools
import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from sentinel.server import http_protocol
from sentinel.server.http_protocol import GuardedProtocol
from sentinel.server.worker import Server

REQUEST = b"POST /x?a=b HTTP/1.%d\r\nHost: here\r\nContent-Length: 2\r\n\r\nok"


class Transport(asyncio.Transport):
    """Keeps what is written, write by write."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.reading = True

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


async def answer(scope: Any, receive: Any, send: Any) -> None:
    body = (await receive())["body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-asked", scope["raw_path"])]})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b"!"})


def opened(kind: type[HttpToolsProtocol] = HttpToolsProtocol, app: Any = answer) -> tuple[Any, Transport]:
    config = uvicorn.Config(
        app, http=kind, ws="none", lifespan="off", log_config=None, access_log=False, date_header=False
    )
    config.load()
    protocol = kind(config, ServerState(), {}, asyncio.get_running_loop())
    transport = Transport()
    protocol.connection_made(transport)
    return protocol, transport


@pytest.mark.parametrize(("own", "base"), [(GuardedProtocol, HttpToolsProtocol), (Server, uvicorn.Server)])
def test_what_is_overridden_is_there_and_is_called_as_it_is_written(own: type, base: type) -> None:
    ours = {
        "busy",
        "sending",
        "give_way",
        "_read_on",
        "_head_overdue",
        "_refuse",
        "_raise",
        "_begin_idle",
        "_idle",
        "_reader_gone",
    }
    ours |= {"_leave", "_pause", "__init__"}
    for name, method in vars(own).items():
        if inspect.isfunction(method) and name not in ours:
            assert hasattr(base, name), f"{base.__name__}.{name} is gone"
            theirs = [one for one in inspect.signature(getattr(base, name)).parameters]
            assert [*inspect.signature(method).parameters] == theirs, name


async def test_a_connection_has_what_is_read_of_it() -> None:
    protocol, transport = opened()
    assert protocol.transport is transport and protocol.client is None and protocol.cycle is None
    assert not protocol.pipeline and isinstance(protocol.parser, httptools.HttpRequestParser)
    assert isinstance(protocol.timeout_keep_alive, int | float)
    assert protocol.server_state.total_requests == 0 and protocol in protocol.server_state.connections
    protocol.flow.pause_reading()
    assert not transport.reading
    protocol.flow.resume_reading()
    assert transport.reading


async def test_a_cycle_can_be_given_another_way_out_before_it_runs() -> None:
    protocol, transport = opened()
    started: list[RequestResponseCycle] = []
    begin = protocol._start_asgi_task
    protocol._start_asgi_task = lambda cycle, app: (started.append(cycle), begin(cycle, app))
    protocol.parser.feed_data(REQUEST % 1)
    cycle = protocol.cycle
    assert started == [cycle] and cycle.keep_alive and not cycle.more_body and not cycle.response_started
    other = cycle.transport = Transport()
    cycle.keep_alive = False
    await asyncio.gather(*protocol.tasks)
    assert cycle.response_complete and not transport.written
    # A head is one write; so is each chunk, with its size in front: this is what joins and unframes them.
    head, *chunks = other.written
    assert head.startswith(b"HTTP/1.1 200 OK\r\n") and head.endswith(b"\r\n\r\n") and b"connection: close\r\n" in head
    assert http_protocol._CHUNKED in head and b"x-asked: /x\r\n" in head
    assert b"".join(chunks) == b"2\r\nok\r\n1\r\n!\r\n0\r\n\r\n"
    for chunk in chunks:
        size, _, rest = chunk.partition(b"\r\n")
        assert rest[int(size, 16) : int(size, 16) + 2] == b"\r\n"


async def test_what_is_sent_before_its_turn_waits_in_order() -> None:
    asked: list[str] = []
    hold = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await hold.wait()
        await answer(scope, receive, send)

    protocol, _ = opened(app=slow)
    protocol.parser.feed_data(b"".join(b"GET /%d HTTP/1.1\r\nHost: here\r\n\r\n" % number for number in range(3)))
    assert len(protocol.pipeline) == 2 and protocol.cycle.scope["path"] == "/2"
    assert [cycle.scope["path"] for cycle, _ in protocol.pipeline] == ["/2", "/1"], (
        "the next one is taken from the right"
    )
    hold.set()
    for _ in range(50):
        await asyncio.sleep(0)
    assert asked == ["/0", "/1", "/2"]


async def test_an_old_client_gets_its_answer_unframed() -> None:
    protocol, transport = opened(GuardedProtocol)
    protocol.data_received(REQUEST % 0)
    await asyncio.gather(*protocol.tasks)
    assert b"".join(transport.written).endswith(b"\r\n\r\nok!") and b"chunked" not in b"".join(transport.written)
    protocol.connection_lost(None)


@pytest.mark.parametrize("status", [400, 408, 414, 431, 503])
def test_status_lines_are_whole(status: int) -> None:
    assert STATUS_LINE[status].startswith(b"HTTP/1.1 %d " % status) and STATUS_LINE[status].endswith(b"\r\n")


def test_the_parser_wraps_what_a_callback_raises_and_says_where_an_offer_to_upgrade_stopped_it() -> None:
    class Raises:
        def on_url(self, url: bytes) -> None:
            raise RuntimeError

    with pytest.raises(httptools.HttpParserError):
        httptools.HttpRequestParser(Raises()).feed_data(b"GET / HTTP/1.1\r\n\r\n")
    told: list[bool] = []

    class Asks:
        def on_headers_complete(self) -> None:
            told.append(parser.should_upgrade())

    parser = httptools.HttpRequestParser(Asks())
    head = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n"
    with pytest.raises(httptools.HttpParserUpgrade) as paused:
        parser.feed_data(head + b"ok")
    assert told == [True] and paused.value.args[0] == len(head)


def test_a_server_has_what_a_stop_uses() -> None:
    server = uvicorn.Server(uvicorn.Config(answer))
    assert server.force_exit is False and server.started is False and server.should_exit is False
    assert server.server_state.connections == set() and inspect.iscoroutinefunction(server.startup)
    assert "self.servers" in inspect.getsource(uvicorn.Server.startup)
