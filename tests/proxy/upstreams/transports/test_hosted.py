"""A stream out of the host ends in the worker as it ended there, however its bytes are cut."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.upstreams.transports.base import Broken, BufferedResponse, Busy, Cancelled, TimedOut, Unread, UpstreamError
from proxy.upstreams.transports.conversation import STREAM_HEADERS, as_event
from proxy.upstreams.transports.hosted import HostedStream, ending

EVENTS = as_event(b'{"jsonrpc":"2.0","method":"a","params":{"text":": Broken {}"}}') + as_event(b'{"id":1}')
KINDS: list[UpstreamError] = [
    TimedOut("too slow", detail="7 s"),
    Cancelled("taken back"),
    Unread("unread"),
    Broken("ended", said="last\nwords\n\n: x", executed=False),
    Busy("busy", retry_after=2.5),
]


class Pieces(BufferedResponse):
    """Gives a body in pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__(200, list(STREAM_HEADERS))
        self.pieces = pieces
        self.waiting_bytes = 0

    async def read(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


async def read(pieces: list[bytes]) -> tuple[bytes, UpstreamError | None]:
    stream: Any = HostedStream(Pieces([piece for piece in pieces if piece]))  # type: ignore[arg-type]
    data = b""
    try:
        while piece := await stream.read():
            data += piece
    except UpstreamError as error:
        return data, error
    return data, None


@pytest.mark.parametrize("error", KINDS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("events", [EVENTS, b""])
async def test_how_it_ended_is_told_wherever_it_is_cut(error: UpstreamError, events: bytes) -> None:
    whole = events + ending(error)
    for at in range(len(whole)):
        data, found = await read([whole[:at], whole[at:]])
        assert data == events
        assert type(found) is type(error) and found is not None
        assert (found.message, found.detail, found.said) == (error.message, error.detail, error.said)
        assert (found.executed, found.retry_after) == (error.executed, error.retry_after)
    data, found = await read([whole[at : at + 1] for at in range(len(whole))])
    assert data == events and type(found) is type(error)


async def test_what_ends_well_is_passed_as_it_is() -> None:
    for at in range(len(EVENTS)):
        assert await read([EVENTS[:at], EVENTS[at:]]) == (EVENTS, None)
