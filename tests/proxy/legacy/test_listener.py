"""Streams of an upstream that the gateway goes on from by itself, and listens to, as its client."""

from __future__ import annotations

import pytest

from proxy.legacy import listener
from proxy.legacy.listener import Cursor, Resumed, SessionEnded, listen
from proxy.mcp.sse import KEEP_ALIVE, SseReader, bare
from proxy.upstreams.transports.base import Broken, BufferedResponse, Unreachable, UpstreamError, UpstreamResponse

STREAM = [(b"content-type", b"text/event-stream")]
pytestmark = pytest.mark.anyio


class Said(UpstreamResponse):
    """A stream of these pieces; an error among them is raised."""

    def __init__(self, *pieces: bytes | UpstreamError) -> None:
        super().__init__(200, STREAM)
        self._pieces = list(pieces)
        self.aborted = False

    async def read(self) -> bytes:
        piece = self._pieces.pop(0) if self._pieces else b""
        if isinstance(piece, UpstreamError):
            raise piece
        return piece

    def abort(self) -> None:
        self.aborted = True


class Server:
    """Opens these streams one after the other, and knows which event each was to go on from."""

    def __init__(self, *streams: UpstreamResponse | UpstreamError) -> None:
        self.streams = list(streams)
        self.asked: list[bytes] = []

    async def open(self, last_id: bytes) -> UpstreamResponse:
        self.asked.append(last_id)
        stream = self.streams.pop(0)
        if isinstance(stream, UpstreamError):
            raise stream
        return stream


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "PAUSE", 0.0)


async def whole(response: UpstreamResponse) -> bytes:
    pieces = []
    while piece := await response.read():
        pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("cut", [b"", Broken("cut")])
async def test_an_answer_over_several_streams(cut) -> None:
    first = Said(b"id: 1\nretry: 0\ndata:\n\ndata: a\n\ndata: hal", *([cut] if cut else []))
    server = Server(Said(b"id: 2\ndata: b\n", b"\n"), Unreachable("away"), Said(b"data: c\n\n"))
    answered = False

    def wanted() -> bool:
        return not answered

    response = Resumed(first, 1000, wanted, server.open)
    assert await response.read() == KEEP_ALIVE + b"data: a\n\n"
    assert await response.read() == b"data: b\n\n", "and nothing of the event that was cut"
    assert await response.read() == b"data: c\n\n"
    answered = True
    assert await response.read() == b""
    assert server.asked == [b"1", b"2", b"2"] and first.aborted


@pytest.mark.parametrize(
    ("streams", "error"),
    [
        ([BufferedResponse(404, [])], Broken),
        ([Unreachable("away")] * 3, Unreachable),
        ([BufferedResponse(503, [])] * 3, Broken),
    ],
)
async def test_what_cannot_be_gone_on_from(streams, error) -> None:
    server = Server(*streams)
    response = Resumed(Said(b"id: 1\nretry: 0\ndata:\n\n"), 1000, lambda: True, server.open)
    with pytest.raises(error):
        await whole(response)
    assert not server.streams


async def test_without_an_id_it_ends_where_it_ends() -> None:
    assert await whole(Resumed(Said(b"data: a\n\ndata: b"), 1000, lambda: True, Server().open)) == b"data: a\n\ndata: b"
    with pytest.raises(Broken, match="cut"):
        await whole(Resumed(Said(b"data: a\n\n", Broken("cut")), 1000, lambda: True, Server().open))


async def test_a_server_that_ends_every_stream_without_a_word() -> None:
    server = Server(*[Said() for _ in range(9)])
    assert await whole(Resumed(Said(b"id: 1\nretry: 0\ndata:\n\n"), 1000, lambda: True, server.open)) == KEEP_ALIVE
    assert len(server.asked) == listener.MOST_FAILURES


async def test_listening_goes_on_until_the_session_is_over() -> None:
    heard: list[bytes] = []

    async def offer(piece: bytes) -> None:
        heard.append(piece)

    streams = [
        Said(b"retry: 0\nid: 4\ndata: a\n\n"),
        Unreachable("away"),
        Said(b"data: b\n\n"),
        BufferedResponse(404, []),
    ]
    server = Server(*streams)
    with pytest.raises(SessionEnded):
        await listen(server.open, 1000, lambda _: None, offer)
    assert (heard, server.asked) == ([b"data: a\n\n", b"data: b\n\n"], [b"", b"4", b"4", b"4"])


@pytest.mark.parametrize("status", [400, 404, 405, 406])
async def test_a_server_that_has_no_such_stream_is_left_alone(status: int) -> None:
    server = Server(BufferedResponse(status, []))
    await listen(server.open, 1000, lambda _: None, pytest.fail)  # type: ignore[arg-type]
    assert server.asked == [b""]


@pytest.mark.parametrize(
    ("raw", "left"),
    [
        (b"id: 1\ndata: x\n\n", b"data: x\n\n"),
        (b"data: x\r\nid\r\nretry: 5\r\n\r\n", b"data: x\r\n\r\n"),
        (b"id: 1\nretry: 1\n\n", b""),
        (b"\xef\xbb\xbfid: 1\ndata: x\n\n", b"data: x\n\n"),
        (b"id: 1\nevent: message\ndata: \n\n", b""),
        (b"data\ndata: \n\n", b""),
        (b": note\r\ndata:\r\n\r\n", b": note\r\n\r\n"),
        (b"event: message\nid: 1\ndata: x\ndata:\n\n", b"event: message\ndata: x\ndata:\n\n"),
        (b"identity: 1\ndata: id: 3\n\n", b"identity: 1\ndata: id: 3\n\n"),
    ],
)
async def test_what_is_between_the_server_and_the_gateway_goes_no_further(raw: bytes, left: bytes) -> None:
    (event,) = SseReader().feed(raw)
    assert bare(event) == left


@pytest.mark.parametrize(
    "silent", [b"id: 1\nretry: 1\ndata: \n\n", b"data:\n\n", b"event: message\ndata:  \n\n", b": x\n\n"]
)
async def test_what_says_nothing_is_no_message_but_a_sign_of_life(silent: bytes) -> None:
    (told,) = SseReader().feed(await Cursor(1000).read(Said(silent)))
    assert told.raw == (silent if silent.startswith(b":") else KEEP_ALIVE)


async def test_a_pause_is_no_longer_than_it_may_be() -> None:
    cursor = Cursor(1000)
    await cursor.read(Said(b"retry: 9999999999\ndata: x\n\n"))
    assert cursor.pause == listener.LONGEST_PAUSE
