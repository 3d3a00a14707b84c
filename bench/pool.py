"""The upstream client alone: calls a second on one core, beside aiohttp when it is installed.

    python -m bench.pool [--seconds 3] [--concurrency 32]

The upstream is a process of its own with nothing but a socket and a canned answer, so that the client is what is
measured. Rounds are interleaved; the median counts.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import statistics
import time
from ipaddress import ip_network

import uvloop

from proxy.upstreams.egress import Egress, parse_url
from proxy.upstreams.transports.base import UpstreamRequest
from proxy.upstreams.transports.http.streamable_http import StreamableHttpTransport

BODY = (
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"'
    + b"x" * 290
    + b'"}}}'
)
ANSWER = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"' + b"y" * 530 + b'"}]}}'
CANNED = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER) + ANSWER
HEADERS = [
    (b"accept", b"application/json, text/event-stream"), (b"content-type", b"application/json"),
    (b"mcp-protocol-version", b"2025-11-25"), (b"user-agent", b"mcp-sentinel"),
]  # fmt: skip


class Canned(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.left = transport, 0

    def data_received(self, data):
        # every request of this benchmark is one segment or a few of known total length
        self.left += len(data)
        if data.endswith(b'"}}}'):
            self.left = 0
            self.transport.write(CANNED)


def serve(port, core):
    if core is not None:
        os.sched_setaffinity(0, {core})

    async def main():
        server = await asyncio.get_running_loop().create_server(Canned, "127.0.0.1", 0)
        port.value = server.sockets[0].getsockname()[1]
        await server.serve_forever()

    uvloop.run(main())


async def ours(port, concurrency, seconds):
    transport = StreamableHttpTransport(parse_url(f"http://127.0.0.1:{port}/mcp"), Egress((ip_network("127.0.0.0/8"),)))

    async def call():
        response = await transport.send(UpstreamRequest(b"POST", HEADERS, BODY))
        assert len(await response.read()) == len(ANSWER)

    try:
        return await load(call, concurrency, seconds)
    finally:
        await transport.close()


async def aiohttp_(port, concurrency, seconds):
    import aiohttp

    headers = {name.decode(): value.decode() for name, value in HEADERS}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def call():
            async with session.post(f"http://127.0.0.1:{port}/mcp", data=BODY, headers=headers) as response:
                assert len(await response.read()) == len(ANSWER)

        return await load(call, concurrency, seconds)


async def load(call, concurrency, seconds):
    end = time.perf_counter() + seconds
    done, times = 0, []

    async def client():
        nonlocal done
        while (start := time.perf_counter()) < end:
            await call()
            done += 1
            times.append(time.perf_counter() - start)

    cpu, start = time.process_time(), time.perf_counter()
    await asyncio.gather(*(client() for _ in range(concurrency)))
    elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
    times.sort()
    return done / elapsed, done / cpu, times[len(times) // 2] * 1e3, times[int(len(times) * 0.99)] * 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    two = (os.cpu_count() or 1) > 1
    port = multiprocessing.Value("i", 0)
    server = multiprocessing.Process(target=serve, args=(port, 0 if two else None), daemon=True)
    server.start()
    if two:
        os.sched_setaffinity(0, {1})
    while not port.value:
        time.sleep(0.01)
    clients = {"own pool": ours}
    try:
        import aiohttp  # noqa: F401

        clients["aiohttp"] = aiohttp_
    except ImportError:
        pass
    results = {name: [] for name in clients}
    for _ in range(options.rounds):
        for name, client in clients.items():
            results[name].append(uvloop.run(client(port.value, options.concurrency, options.seconds)))
    print("| client | calls/s | calls per CPU second | p50 ms | p99 ms |\n|---|---|---|---|---|")
    for name, rounds in results.items():
        per_second, per_cpu, p50, p99 = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"| {name} | {per_second:,.0f} | {per_cpu:,.0f} | {p50:.2f} | {p99:.2f} |")
    server.terminate()
    server.join()


if __name__ == "__main__":
    main()
