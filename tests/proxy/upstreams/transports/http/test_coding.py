"""Answers that come compressed: read as what was compressed, in bounds, or refused."""

from __future__ import annotations

import asyncio
import gzip
import random
import time
import tracemalloc
import zlib

import brotli
import pytest
from backports import zstd

from proxy.upstreams.transports.base import Broken, BufferedResponse, TooLarge, UpstreamResponse
from proxy.upstreams.transports.http import coding
from proxy.upstreams.transports.http.coding import decoded

MB = 1024 * 1024


def raw_deflate(data: bytes) -> bytes:
    engine = zlib.compressobj(wbits=-15)
    return engine.compress(data) + engine.flush()


def zstd_without_sizes(data: bytes) -> bytes:
    engine = zstd.ZstdCompressor()
    return engine.compress(data) + engine.flush()


WAYS = {
    "gzip": (b"gzip", gzip.compress),
    "x-gzip": (b" X-GZip ", gzip.compress),
    "deflate": (b"deflate", zlib.compress),
    "raw deflate": (b"Deflate", raw_deflate),
    "br": (b"br", brotli.compress),
    "zstd": (b"zstd", zstd.compress),
    "zstd, sizes unknown": (b"zstd", zstd_without_sizes),
    "two": (b"gzip, br", lambda data: brotli.compress(gzip.compress(data))),
    "three": (b"zstd,\tidentity, deflate ,gzip", lambda data: gzip.compress(zlib.compress(zstd.compress(data)))),
    "twice the same": (b"gzip,gzip", lambda data: gzip.compress(gzip.compress(data))),
    "gzip in parts": (b"gzip", lambda data: b"".join(gzip.compress(data[at : at + 999]) for at in range(0, len(data), 999))),
    "zstd in parts": (b"zstd", lambda data: zstd.compress(data[:1000]) + b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc" + zstd.compress(data[1000:])),
}  # fmt: skip
TEXT = (
    b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"'
    + b"caf\xc3\xa9 \xe2\x98\x95 " * 4000
    + b'"}]}}'
)


class Pieces(UpstreamResponse):
    """A body that comes in pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__(200, [])
        self.pieces = pieces
        self.aborted = False

    async def read(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    def abort(self) -> None:
        self.aborted = True


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 7, 1000, MB])
@pytest.mark.parametrize("way", WAYS)
async def test_what_was_compressed_comes_out(way, size):
    name, compress = WAYS[way]
    inner = Pieces(cut(compress(TEXT), size))
    assert await decoded(inner, name, 64 * MB).body(MB) == TEXT


@pytest.mark.parametrize("name", [b"", b"identity", b" Identity , identity"])
async def test_what_is_not_compressed_is_left_alone(name):
    inner = BufferedResponse(200, [], TEXT)
    assert decoded(inner, name, MB) is inner


@pytest.mark.parametrize(
    "name", [b"compress", b"x-compress", b"dcb", b"gzip2", b"gzip;q=1", b"gzip, snappy", b"*", b"\xff", b"gzip," * 5]
)
async def test_a_coding_that_is_not_known_is_refused_and_the_call_may_have_run(name):
    inner = Pieces([TEXT])
    with pytest.raises(Broken, match="may have run") as caught:
        decoded(inner, name, MB)
    assert caught.value.executed and inner.aborted


@pytest.mark.parametrize("way", WAYS)
async def test_a_cut_end_breaks_it(way):
    name, compress = WAYS[way]
    data = compress(TEXT)
    for kept in (1, 2, 5, len(data) // 2, len(data) - 1):
        with pytest.raises(Broken):
            await decoded(Pieces(cut(data[:kept], 50)), name, 64 * MB).body(MB)


@pytest.mark.parametrize("rest", [b"\0", b"garbage", b"\x1f", b"\x1f\x8b", TEXT])
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("way", WAYS)
async def test_bytes_behind_the_end_break_it(way, rest, together):
    name, compress = WAYS[way]
    pieces = [compress(TEXT) + rest] if together else [compress(TEXT), rest]
    with pytest.raises(Broken):
        await decoded(Pieces(pieces), name, 64 * MB).body(MB)


@pytest.mark.parametrize("way", ["br", "deflate", "raw deflate"])
async def test_what_has_one_part_has_no_second(way):
    name, compress = WAYS[way]
    with pytest.raises(Broken):
        await decoded(Pieces([compress(TEXT), compress(TEXT)]), name, 64 * MB).body(MB)


async def test_others_have_their_turn_while_much_comes_out():
    turns = 0

    async def beat():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    beating = asyncio.create_task(beat())
    assert len(await decoded(Pieces([gzip.compress(b"\0" * (60 * MB))]), b"gzip", 64 * MB).body(64 * MB)) == 60 * MB
    beating.cancel()
    assert turns > 1


@pytest.mark.parametrize("way", WAYS)
async def test_damage_breaks_it_or_is_none(way):
    name, compress = WAYS[way]
    data = compress(TEXT)
    chance = random.Random(7)
    for _ in range(60):
        at = chance.randrange(len(data))
        damaged = data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]
        try:
            got = await decoded(Pieces(cut(damaged, 400)), name, 64 * MB).body(MB)
        except Broken:
            continue
        assert got == TEXT or way in (
            "raw deflate",
            "br",
            "zstd",
            "zstd, sizes unknown",
            "zstd in parts",
        )  # no check sum


@pytest.mark.parametrize("way", WAYS)
async def test_something_else_than_it_says_breaks_it(way):
    with pytest.raises(Broken):
        await decoded(Pieces([TEXT]), WAYS[way][0], 64 * MB).body(MB)


@pytest.mark.parametrize("name", [b"gzip", b"br", b"zstd", b"deflate", b"gzip, br"])
async def test_nothing_at_all_is_nothing(name):
    assert await decoded(Pieces([]), name, MB).body(MB) == b""


def _flushed(name: str, parts: list[bytes]) -> list[bytes]:
    if name == "br":
        engine = brotli.Compressor()
        return [engine.process(part) + engine.flush() for part in parts] + [engine.finish()]
    if name == "zstd":
        engine = zstd.ZstdCompressor()
        return [engine.compress(part, zstd.ZstdCompressor.FLUSH_BLOCK) for part in parts] + [engine.flush()]
    engine = zlib.compressobj(wbits=31 if name == "gzip" else 15)
    return [engine.compress(part) + engine.flush(zlib.Z_SYNC_FLUSH) for part in parts] + [engine.flush()]


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd"])
async def test_each_event_of_a_stream_comes_when_it_was_sent(name):
    parts = [b"data: %d %s\n\n" % (number, b"x" * 50 * number) for number in range(20)]
    sent = asyncio.Queue()

    class Live(Pieces):
        async def read(self):
            return await sent.get()

    answer = decoded(Live([]), name.encode(), MB)
    for part, piece in zip([*parts, b""], _flushed(name, parts), strict=True):
        sent.put_nowait(piece)
        got = b""
        while len(got) < len(part):
            got += await asyncio.wait_for(answer.read(), 2)
        assert got == part
    sent.put_nowait(b"")
    assert await asyncio.wait_for(answer.read(), 2) == b""


@pytest.mark.parametrize("way", ["gzip", "deflate", "br", "zstd", "two", "twice the same", "three"])
async def test_a_bomb_takes_little_memory_and_no_long_turn(way):
    name, compress = WAYS[way]
    bomb = compress(b"\0" * (48 * MB))
    longest, last = 0.0, time.monotonic()

    async def beat():
        nonlocal longest, last
        while True:
            await asyncio.sleep(0)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()

    beating = asyncio.create_task(beat())
    await asyncio.sleep(0)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            await decoded(Pieces([bomb]), name, 64 * MB).body(8 * MB)
        assert tracemalloc.get_traced_memory()[1] < 30 * MB
    finally:
        tracemalloc.stop()
        beating.cancel()
    assert longest < 0.5


async def test_a_stream_that_is_mostly_air_is_cut_once_it_is_larger_than_an_answer():
    answer = decoded(Pieces([brotli.compress(b"\n" * (50 * MB))]), b"br", 8 * MB)
    got = 0
    with pytest.raises(TooLarge):
        while piece := await answer.read():
            got += len(piece)
    assert got < 9 * MB


async def test_a_large_stream_that_is_none_goes_on():
    data = random.Random(1).randbytes(4 * MB)
    assert await decoded(Pieces(cut(gzip.compress(data, 1), 60_000)), b"gzip", MB).body(8 * MB) == data


@pytest.mark.parametrize(
    ("name", "nothing"),
    [(b"gzip", gzip.compress(b"", mtime=0)), (b"zstd", zstd.compress(b"")), (b"zstd", b"\x50\x2a\x4d\x18\0\0\0\0")],
)
async def test_parts_that_hold_nothing_are_few(name, nothing):
    assert await decoded(Pieces([nothing * 10 + nothing]), name, MB).body(MB) == b""
    with pytest.raises(Broken):
        await decoded(Pieces([nothing * 100_000]), name, MB).body(MB)


async def test_a_zstd_stream_may_not_ask_for_much_memory():
    engine = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    greedy = engine.compress(b"x" * 100) + engine.flush()
    with pytest.raises(Broken):
        await decoded(Pieces([greedy]), b"zstd", MB).body(MB)


@pytest.mark.parametrize("bits", range(10, 25))
async def test_what_a_brotli_stream_keeps_counts(bits):
    data = random.Random(1).randbytes((1 << bits) + 2 * MB)
    answer = decoded(Pieces(cut(brotli.compress(data, quality=2, lgwin=bits), 60_000)), b"br", 64 * MB)
    assert answer.waiting == 0
    got = 0
    while got < (1 << bits) + MB:
        got += len(await answer.read())
    assert 1 << bits <= answer.waiting < (1 << bits) + 2 * coding.STEP


@pytest.mark.parametrize(
    ("way", "kept"),
    [("gzip", 32 * 1024), ("deflate", 32 * 1024), ("zstd", 8 * MB), ("twice the same", 2 * 32 * 1024), ("two", 4 * MB)],
)
async def test_what_other_streams_keep_counts_and_is_given_back_at_the_end(way, kept):
    name, compress = WAYS[way]
    data = random.Random(1).randbytes(12 * MB)
    answer = decoded(Pieces(cut(compress(data), 60_000)), name, 64 * MB)
    got = 0
    while got < 10 * MB:
        got += len(await answer.read())
    assert kept <= answer.waiting < kept + 4 * coding.STEP + 32 * 1024
    while await answer.read():
        pass
    assert answer.waiting == 0


def test_the_codings_are_those_that_servers_use():
    assert set(coding._CODERS) == {b"gzip", b"x-gzip", b"deflate", b"br", b"zstd"}
