"""Events over any chunk borders, byte for byte, in linear time."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.mcp.sse import EventTooLarge, SseEvent, SseReader, encode, frame

pieces = st.sampled_from([b"data: a", b"data:b", b"data", b"event: m", b"id: 1", b"retry: 5", b": c", b"", b"x", b"data: \xe2\x80\xa8", b"id: a\0b"])  # fmt: skip
ends = st.sampled_from([b"\n", b"\r", b"\r\n"])
streams = st.lists(st.tuples(pieces, ends), max_size=25).map(lambda lines: b"".join(a + b for a, b in lines))


def simple(stream: bytes) -> list[tuple[str, bytes]]:
    """The standard's algorithm, line by line, on the whole stream."""
    found: list[tuple[str, bytes]] = []
    name, data = "", []
    lines = re.split(rb"\r\n|\r|\n", stream)
    for line in lines[:-1]:
        if not line:
            if data:
                found.append((name, b"\n".join(data)))
            name, data = "", []
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode()
    return found


def has_data(raw: bytes) -> bool:
    return re.search(rb"(?:^|[\r\n])data(?:[:\r\n]|$)", raw) is not None


@given(streams, st.lists(st.integers(1, 9), min_size=1, max_size=8))
@settings(max_examples=600, deadline=None)
def test_any_chunks(stream: bytes, sizes: list[int]) -> None:
    reader = SseReader()
    events: list[SseEvent] = []
    place = turn = 0
    while place < len(stream):
        size = sizes[turn % len(sizes)]
        events += reader.feed(stream[place : place + size])
        place, turn = place + size, turn + 1
    assert b"".join(event.raw for event in events) + reader.rest() == stream
    assert [(e.event, e.data) for e in events if has_data(e.raw)] == simple(stream)
    assert reader.pending == len(reader.rest())


def test_an_event_comes_with_its_blank_line_at_once() -> None:
    reader = SseReader()
    assert reader.feed(b"data: x\n") == []
    assert [e.data for e in reader.feed(b"\n")] == [b"x"]
    assert [e.data for e in reader.feed(b"data: y\r\n\r")] == [b"y"]
    assert [e.raw for e in reader.feed(b"\ndata: z\r\r")] == [b"\n", b"data: z\r\r"]
    assert reader.rest() == b""


def test_fields() -> None:
    (event,) = SseReader().feed(b"\xef\xbb\xbfevent:message\nid: 7\nretry: 10\n: note\ndata: {\ndata:  1}\n\n")
    assert (event.event, event.id, event.data) == ("message", b"7", b"{\n 1}")
    (priming,) = SseReader().feed(b"id: 1\ndata: \n\n")
    assert (priming.id, priming.data) == (b"1", b"")
    (comment,) = SseReader().feed(b": keep-alive\n\n")
    assert (comment.event, comment.id, comment.data) == ("", None, b"")


def test_eight_mebibytes_in_one_line_cut_into_seven_bytes() -> None:
    stream = b'data: {"x":"' + b"A" * (8 << 20) + b'"}\n\n'
    reader = SseReader(max_event=9 << 20)
    since = time.perf_counter()
    events = []
    for place in range(0, len(stream), 7):
        events += reader.feed(stream[place : place + 7])
    assert time.perf_counter() - since < 30  # some 2 s; a quadratic reader takes hours
    assert [event.raw for event in events] == [stream]


@pytest.mark.parametrize("size", [1, 100, 5000])
def test_events_are_bounded(size: int) -> None:
    stream = b"data: " + b"x" * 5000 + b"\n\n"
    reader = SseReader(max_event=1000)
    with pytest.raises(EventTooLarge):
        for place in range(0, len(stream), size):
            reader.feed(stream[place : place + size])
            assert reader.pending < 1000 + size
    reader = SseReader(max_event=1000)
    for _ in range(100):
        assert len(reader.feed(b"data: " + b"x" * 900 + b"\n\n")) == 1


@given(st.text(max_size=50), st.text(alphabet="ab :", max_size=5))
def test_what_is_encoded_is_one_event(text: str, name: str) -> None:
    data = text.encode("utf-8", "surrogatepass").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events = SseReader().feed(encode(data, event=name, event_id=b"1"))
    assert len(events) == 1
    assert events[0].data == data and events[0].id == b"1"


def test_fields_cannot_be_smuggled() -> None:
    for bad in ("a\nid: 1", "a\rdata: x"):
        with pytest.raises(ValueError, match="one line"):
            encode(b"{}", event=bad)
    with pytest.raises(ValueError, match="one line"):
        encode(b"{}", event_id=b"1\n\ndata: x")
    assert len(SseReader().feed(encode(b"a\n\ndata: b\r\revent: c"))) == 1


PLAIN = [
    b"\n",
    b": keep-alive\n\n",
    b"id: 7\nretry: 100\ndata:\n\n",
    b"event: message\nid: 7\ndata: {}\n\n",
    b"event:message\r\ndata:{}\r\n\r\n",
    b"data: {}\r\n\r",
    b'data: {"a":\ndata: "b"}\n\n',
    b"data: {\xe2\x80\xa8}\n\n",
]


@pytest.mark.parametrize("raw", PLAIN, ids=repr)
def test_what_every_reader_reads_alike_is_written_as_it_came(raw: bytes) -> None:
    (event,) = SseReader().feed(raw)
    assert frame(event) is event.raw


ODD = {
    b"\xef\xbb\xbfdata: {}\n\n": b"data: {}\n\n",
    b"data: {}\r\r": b"data: {}\n\n",
    b"data: {}\r\n\n": b"data: {}\n\n",
    b"Data: {x}\ndata: {}\n\n": b"data: {}\n\n",
    b" data: {x}\n\n": b"",
    b"data : {x}\n\n": b"",
    b'{"jsonrpc":"2.0"}\n\n': b"",
    b"data\ndata: {}\n\n": b"data:  {}\n\n",
    b"data: [\ndata: {x}\ndata: ]\n\n": b"data: [ {x} ]\n\n",
    b"event: ping\nid: 4\ndata: {x}\n\n": b"id: 4\n\n",
    b"event: endpoint\ndata: /x\n\n": b"",
    b"event: a\nevent: message\ndata: {}\n\n": b"event: message\ndata: {}\n\n",
    b"id: 1\nid: 2\ndata: {}\n\n": b"id: 2\ndata: {}\n\n",
    b"id: a\0b\ndata: {}\n\n": b"data: {}\n\n",
    b"id: \xc3\xa9\ndata: {}\n\n": b"data: {}\n\n",
    b": \xe2\x80\xa8data: {x}\ndata: {}\n\n": b"data: {}\n\n",
    b": a\x0bdata: {x}\n\n": b"",
    b': {"jsonrpc":"2.0"}\ndata: {}\n\n': b"data: {}\n\n",
    b'id: {"jsonrpc":"2.0"}\ndata: {}\n\n': b"data: {}\n\n",
    b"id: [1]\n\n": b"",
    b"retry: 1x\ndata: {}\n\n": b"data: {}\n\n",
    b"retry: 99999999999\n\n": b"",
    b"x: y\nretry: 5\n\n": b"retry: 5\n\n",
}


@pytest.mark.parametrize("raw", ODD, ids=repr)
def test_what_readers_may_read_otherwise_is_written_anew(raw: bytes) -> None:
    (event,) = SseReader().feed(raw)
    assert not event.plain and frame(event) == ODD[raw]
    if ODD[raw]:
        (again,) = SseReader().feed(ODD[raw])
        assert again.plain and again.message == event.message.replace(b"\n", b" ")


@given(streams)
@settings(max_examples=600, deadline=None)
def test_what_is_written_says_what_a_client_would_have_read(stream: bytes) -> None:
    events = SseReader().feed(stream)
    written = SseReader().feed(b"".join(map(frame, events)))
    assert [e.message.replace(b"\n", b" ") for e in events if e.message] == [
        e.message.replace(b"\n", b" ") for e in written if e.message
    ]
