"""`python -m tests.chaos.neighbours [--each] [--seconds N]`: an honest caller beside twenty hostile ones, in figures.

Hostile are: strangers with large and with deep bodies, keys that are refused under ever-new names, streams that nobody reads,
bodies that drip, answers of an upstream that are huge or never end, floods of connections, large arguments. The honest caller
has a key and an upstream of its own, and another address. What is measured: its median and 99th percentile alone and beside them, and what the
hostile ones take of memory, descriptors, rows and log lines. `--each` tells it for each kind alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.gateway import Gateway, Key
from tests.support.upstream import FakeUpstream, huge, result, sse
from tests.support.wire import request

ROOT = Path(__file__).resolve().parents[2]
#: where hostile clients come from: not where the honest one does
HOSTILE_SOURCE = ("127.0.0.2", 0)
MEDIAN_TIMES, TAIL_TIMES = 3.0, 10.0

# --- the hostile side, a process of its own ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """What hostile clients know: the gateway's port, a key that may do all, one that may do nothing."""

    port: int
    key: str
    refused: str


def head(target: Target, length: int, *, key: str = "", path: str = "/mcp/hostile", verb: str = "POST") -> bytes:
    """The head of a request."""
    lines = [f"{verb} {path} HTTP/1.1", f"Host: 127.0.0.1:{target.port}", "Accept: application/json, text/event-stream"]
    if verb == "POST":
        lines += ["Content-Type: application/json", f"Content-Length: {length}"]
    if key:
        lines.append(f"Authorization: Bearer {key}")
    return "\r\n".join([*lines, "", ""]).encode()


async def connected(target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection from the hostile address."""
    return await asyncio.open_connection("127.0.0.1", target.port, local_addr=HOSTILE_SOURCE)


async def posts(target: Target, body: Callable[[], bytes], key: str = "") -> None:
    """Post again and again, and read what comes."""
    while True:
        reader, writer = await connected(target)
        with contextlib.closing(writer):
            data = body()
            writer.write(head(target, len(data), key=key) + data)
            await reader.read(1 << 16)


def call(name: str, arguments: Any = None) -> bytes:
    """A call of a tool."""
    return json.dumps(request("tools/call", {"name": name, "arguments": arguments or {}})).encode()


async def unread(target: Target) -> None:
    """Open streams of which nothing is read, and have large answers sent to those of the older transport."""

    async def one(older: bool) -> None:
        reader, writer = await connected(target)
        with contextlib.closing(writer):
            path = "/sse/hostile" if older else "/mcp/hostile"
            writer.write(head(target, 0, key=target.key, path=path, verb="GET"))
            told = await reader.readuntil(b"\n\n\r\n") if older else b""
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            endpoint = told.partition(b"data: ")[2].partition(b"\n")[0].decode()
            while endpoint and not writer.is_closing():
                _, post = await connected(target)
                with contextlib.closing(post):
                    post.write(head(target, len(LARGE), key=target.key, path=endpoint) + LARGE)
                    await asyncio.sleep(0.3)
            await asyncio.sleep(3600)

    await asyncio.gather(*(one(bool(number % 2)) for number in range(30)), return_exceptions=True)


LARGE = call("large")


async def dripping(target: Target) -> None:
    """Bodies that come a byte at a time, after nearly all of them."""

    async def one() -> None:
        _, writer = await connected(target)
        with contextlib.closing(writer):
            writer.write(head(target, 4_000_000, key=target.key) + b'{"x":"' + b"x" * 3_000_000)
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.5)

    while True:
        await asyncio.gather(*(one() for _ in range(20)), return_exceptions=True)


async def connections(target: Target) -> None:
    """Ever more connections that say nothing."""
    opened = []
    while True:
        opened.append(await connected(target))
        if len(opened) > 1500:
            for _, writer in opened[:750]:
                writer.close()
            del opened[:750]
            await asyncio.sleep(0.5)


KINDS: dict[str, tuple[int, Callable[[Target], Awaitable[None]]]] = {
    "large": (3, lambda t: posts(t, lambda: call("x" * 60_000))),
    "deep": (3, lambda t: posts(t, lambda: b"[" * 60_000)),
    "names": (3, lambda t: posts(t, lambda: call(os.urandom(2048).hex()), t.refused)),
    "unread": (2, unread),
    "drip": (2, dripping),
    "lists": (2, lambda t: posts(t, lambda: json.dumps(request("tools/list")).encode(), t.key)),
    "endless": (2, lambda t: posts(t, lambda: call("endless"), t.key)),
    "arguments": (2, lambda t: posts(t, lambda: call("echo", {"text": ["value"] * 250_000}), t.key)),
    "connections": (1, connections),
}


def hostile() -> None:
    """Be hostile: an upstream and clients. Speaks lines of JSON: tells the upstream's address, is told what to do."""
    os.nice(5)
    with FakeUpstream() as fake:
        note = {
            "jsonrpc": "2.0",
            "method": "notifications/message",
            "params": {"level": "info", "data": "x" * 1_000_000},
        }
        fake.script(sse([note] * 300, hold=600), verb="GET")
        fake.script(huge(20 << 20), method="tools/list")
        fake.script(sse([note] * 300), method="tools/call", name="endless")
        large = {"content": [{"type": "text", "text": "x" * 1_500_000}]}
        fake.script(result(large), method="tools/call", name="large")
        print(json.dumps({"url": fake.url}), flush=True)
        for line in sys.stdin:
            told = json.loads(line)
            target = Target(**told["target"])
            with contextlib.suppress(TimeoutError):
                asyncio.run(_all(target, told["kinds"], told["seconds"]))
            print(json.dumps({"done": told["kinds"]}), flush=True)


async def _all(target: Target, kinds: list[str], seconds: float) -> None:
    async def keep_on(kind: Callable[[Target], Awaitable[None]]) -> None:
        while True:
            try:
                await kind(target)
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.05)

    async with asyncio.timeout(seconds):
        await asyncio.gather(*(keep_on(KINDS[k][1]) for k in kinds for _ in range(KINDS[k][0])))


# --- the honest side --------------------------------------------------------------------------------------------------


@dataclass
class Figures:
    """How the honest caller fared, and what the gateway took meanwhile."""

    kinds: str
    times: list[float]
    failed: int
    memory: int  # most bytes that all processes of the gateway had, beyond what they had before
    descriptors: int  # most that one of them had open
    log_bytes: int
    seconds: float
    rows: int = 0
    problems: list[str] = field(default_factory=list)

    def at(self, share: float) -> float:
        """A percentile of the times, in seconds."""
        ordered = sorted(self.times)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else float("inf")

    def __str__(self) -> str:
        return (
            f"{self.kinds:12} {len(self.times):5} calls, {self.failed} failed, p50 {self.at(0.5) * 1e3:7.1f} ms, "
            f"p99 {self.at(0.99) * 1e3:8.1f} ms, +{self.memory >> 20} MB, {self.descriptors} descriptors, "
            f"{self.rows} rows, {self.log_bytes} bytes of log in {self.seconds:.0f} s"
        )


class Place:
    """A gateway, an honest caller, and the hostile process."""

    def __init__(self, gateway: Gateway, keys: dict[str, Key], process: subprocess.Popen[str]) -> None:
        self.gateway = gateway
        self.keys = keys
        self.process = process

    def measure(self, seconds: float, kinds: list[str], settle: float = 1.0) -> Figures:
        """Call for so long, beside hostile clients of these kinds."""
        client = self.gateway.client(self.keys["honest"], "fake", era="modern")
        logged = self.gateway.log.stat().st_size
        before = sum(resident(pid) for pid in processes(self.gateway))
        since = self.gateway.now()
        if kinds:
            self._tell(kinds, seconds + settle)
            time.sleep(settle)
        times: list[float] = []
        failed = most = descriptors = 0
        begun = looked = time.monotonic()
        while time.monotonic() - begun < seconds:
            try:
                answer = client.call("public.echo", {"text": "hello"}, timeout=30)
                times.append(answer.elapsed)
                failed += answer.status != 200
            except OSError:
                failed += 1
            time.sleep(0.005)
            if time.monotonic() - looked > 0.5:
                looked = time.monotonic()
                most = max(most, sum(resident(pid) for pid in processes(self.gateway)) - before)
                descriptors = max(descriptors, *(opened(pid) for pid in processes(self.gateway)))
        passed = time.monotonic() - begun
        if kinds:
            self._hear()
        figures = Figures(
            "+".join(kinds) if len(kinds) < 2 else "all" if kinds else "alone",
            times, failed, most, descriptors, self.gateway.log.stat().st_size - logged, passed,
        )  # fmt: skip
        figures.kinds = figures.kinds or "alone"
        time.sleep(2)  # counts of floods are written, and what is written is stored
        rows = self.gateway.events(since)
        figures.rows = sum(event["key_name"] != "honest" for event in rows)
        return figures

    def _tell(self, kinds: list[str], seconds: float) -> None:
        assert self.process.stdin is not None
        target = {
            "port": self.gateway.port,
            "key": self.keys["hostile"].key,
            "refused": self.keys["refused"].key,
        }
        self.process.stdin.write(json.dumps({"target": target, "kinds": kinds, "seconds": seconds}) + "\n")
        self.process.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told


@contextlib.contextmanager
def place(workers: int = 2, **settings: str) -> Iterator[Place]:
    """Start everything."""
    command = [sys.executable, "-m", "tests.chaos.neighbours", "hostile"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        with FakeUpstream() as fake, Gateway(workers=workers, SENTINEL_CATALOGUE_REFRESH="0", **settings) as gateway:
            policy = gateway.home / "policy.yaml"
            policy.write_text("roles:\n  all: {allow: ['*']}\n  none: {allow: []}\n")
            roles = {"honest": "all", "hostile": "all", "refused": "none"}
            _, _, _, *made = gateway.commands(
                ["upstreams", "add", "fake", "--url", fake.url],
                ["upstreams", "add", "hostile", "--url", url],
                ["policy", "apply", str(policy)],
                *(["keys", "create", name, "--role", role, "--json"] for name, role in roles.items()),
            )
            told = dict(zip(roles, map(json.loads, made), strict=True))
            time.sleep(1.0)
            yield Place(gateway, {name: Key(one["id"], one["key"], name) for name, one in told.items()}, process)
    finally:
        process.kill()
        process.communicate(timeout=10)


def processes(gateway: Gateway) -> list[int]:
    """The worker processes and the host of upstreams."""
    assert gateway.process is not None
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            if parent == gateway.process.pid and (b"worker " in words or b"upstreamhost" in words):
                found.append(pid)
    return found


def resident(pid: int) -> int:
    """Bytes of memory that a process has; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def opened(pid: int) -> int:
    """Descriptors that a process has open; 0 when it is gone."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def main() -> int:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.neighbours", description=__doc__)
    parser.add_argument("act", nargs="?", choices=["hostile"], help=argparse.SUPPRESS)
    parser.add_argument("--each", action="store_true", help="each kind alone too")
    parser.add_argument("--kinds", default="", help=f"only these, comma-separated: {', '.join(KINDS)}")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each measurement (20)")
    options = parser.parse_args()
    if options.act:
        hostile()
        return 0
    chosen = options.kinds.split(",") if options.kinds else list(KINDS)
    missed = False
    with place() as here:
        here.measure(3, [])  # whatever is loaded once is loaded
        alone = here.measure(options.seconds, [])
        print(alone, flush=True)
        for kinds in [*([[kind] for kind in chosen] if options.each else []), chosen]:
            beside = here.measure(options.seconds, kinds)
            median, tail = beside.at(0.5) / alone.at(0.5), beside.at(0.99) / alone.at(0.99)
            good = median <= MEDIAN_TIMES and tail <= TAIL_TIMES and not beside.failed
            missed = missed or not good
            print(f"{beside}; {median:.1f} x and {tail:.1f} x: {'ok' if good else 'TOO MUCH'}", flush=True)
            time.sleep(3)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
