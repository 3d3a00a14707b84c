"""`python -m bench.streams`: what open streams cost in memory, and what they cost the calls beside them.

Opens streams in steps (GET in the legacy era, each with its own connection to the upstream), tells the memory of the worker
that holds them per stream, and measures calls one after another before, with all streams open, and after them. The calls go
in blocks by turns (with streams, without) as often as there are rounds, so that a machine that does other things too slows both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.support.gateway import Gateway

SETTINGS: dict[str, Any] = {
    "SENTINEL_MAX_STREAMS_PER_KEY": "100000",
    "SENTINEL_MAX_STREAMS": "100000",
    "SENTINEL_CATALOGUE_REFRESH": "0",
}
CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "public.echo", "arguments": {"text": "hi"}},
}
ANSWER = {"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "hi"}]}}

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer calls, and open a stream that says nothing for every GET."""
    body = json.dumps(ANSWER).encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with suppress(OSError, asyncio.IncompleteReadError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if head.startswith(b"get"):
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                await reader.read()
                break
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
            writer.write(answer)
    writer.close()


async def open_stream(port: int, key: str) -> Connection:
    """Open one stream and wait for its head."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"GET /mcp/streams HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\nAccept: text/event-stream\r\n\r\n"
    writer.write(head.encode())
    status = await reader.readuntil(b"\r\n\r\n")
    if not status.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(status.decode())
    return reader, writer


async def calls(port: int, key: str, number: int) -> list[float]:
    """Call so often, one after another on one connection; the milliseconds of each."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps(CALL).encode()
    head = (
        f"POST /mcp/streams HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"Accept: application/json, text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    took = []
    for _ in range(number):
        begun = time.perf_counter()
        writer.write(head + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        took.append((time.perf_counter() - begun) * 1000)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(answer.decode())
    writer.close()
    return took


def worker(gateway: Gateway) -> int:
    """The process id of the one worker."""
    assert gateway.process is not None
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            parent = int((entry / "stat").read_text().rpartition(") ")[2].split()[1])
            if parent == gateway.process.pid and b"worker" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    (pid,) = found
    return pid


def resident(pid: int) -> int:
    """Bytes of a process in memory, without what it shares with files."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


def percentile(values: list[float], share: float) -> float:
    """The value below which this share of them lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


class Run:
    """One gateway with one worker, its upstream and its streams."""

    def __init__(self, gateway: Gateway, key: str) -> None:
        self.gateway = gateway
        self.key = key
        self.pid = worker(gateway)
        self.streams: list[Connection] = []

    async def grow(self, number: int) -> None:
        """Open streams until there are so many."""
        while len(self.streams) < number:
            batch = min(50, number - len(self.streams))
            self.streams += await asyncio.gather(*(open_stream(self.gateway.port, self.key) for _ in range(batch)))

    async def shrink(self) -> None:
        """Close all streams."""
        for _, writer in self.streams:
            writer.close()
        self.streams.clear()
        await asyncio.sleep(2)

    async def measure(self, number: int, rounds: int, block: int) -> dict[str, float]:
        """Give memory per stream, and percentiles of calls without and with the streams."""
        await calls(self.gateway.port, self.key, 300)  # whatever is loaded once is loaded
        await self.grow(20)
        await self.shrink()
        empty = resident(self.pid)
        without: list[float] = []
        beside: list[float] = []
        full = 0
        for _ in range(rounds):
            without += await calls(self.gateway.port, self.key, block)
            await self.grow(number)
            await asyncio.sleep(2)
            full = full or resident(self.pid)
            beside += await calls(self.gateway.port, self.key, block)
            await self.shrink()
        left = resident(self.pid)
        return {
            "streams": number,
            "bytes per stream": round((full - empty) / number),
            "bytes left per stream": round((left - empty) / number),
            "p50 without": statistics.median(without),
            "p50 beside": statistics.median(beside),
            "p99 without": percentile(without, 0.99),
            "p99 beside": percentile(beside, 0.99),
        }


async def bench(number: int, rounds: int, block: int) -> dict[str, float]:
    """Start all, measure, stop all."""
    server = await asyncio.start_server(upstream, "127.0.0.1", 0, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    gateway = Gateway(workers=1, **SETTINGS)
    try:
        await asyncio.to_thread(gateway.start)
        await asyncio.to_thread(gateway.add_upstream, "streams", f"http://127.0.0.1:{port}/mcp")
        key = (await asyncio.to_thread(gateway.create_key, "streams", "admin")).key
        await asyncio.sleep(1)
        return await Run(gateway, key).measure(number, rounds, block)
    finally:
        await asyncio.to_thread(gateway.__exit__)
        server.close()


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.streams", description=(__doc__ or "").strip())
    parser.add_argument("--streams", type=int, default=2000, help="open streams (2000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often with and without (3)")
    parser.add_argument("--calls", type=int, default=500, help="calls in one block (500)")
    options = parser.parse_args(argv)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found = asyncio.run(bench(options.streams, options.rounds, options.calls))
    for name, value in found.items():
        print(f"{name:>22}: {value:,.2f}" if isinstance(value, float) else f"{name:>22}: {value:,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
