"""Scripted raw upstreams for the transport tests: they say exactly the bytes a test wants, well-formed or not."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network

from proxy.upstreams.egress import Egress, parse_url
from proxy.upstreams.transports.base import TransportLimits
from proxy.upstreams.transports.http.streamable_http import StreamableHttpTransport

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@dataclass
class Peer:
    """One connection as the upstream sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    server: Upstream

    async def request(self) -> tuple[str, dict[str, str], bytes] | None:
        """Read one request; None when the connection ends first."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (entry.partition(":") for entry in lines)}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        self.server.requests.append((line, headers, body))
        return line, headers, body

    async def say(self, *pieces: bytes, pause: float = 0.0) -> None:
        """Write pieces as they are, each flushed."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            if pause:
                await asyncio.sleep(pause)

    async def answer(self, body: bytes = b"{}", *, status: str = "200 OK", extra: bytes = b"") -> None:
        """Write a plain JSON answer."""
        await self.say(
            b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n%b"
            % (status.encode(), len(body), extra, body)
        )


Script = Callable[[Peer], Awaitable[None]]


@dataclass
class Upstream:
    """A listening scripted upstream."""

    port: int = 0
    connections: int = 0
    closed: int = 0
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    def url(self, scheme: str = "http", path: str = "/mcp") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def transport(
        self, *, url: str = "", limits: TransportLimits | None = None, **options: object
    ) -> StreamableHttpTransport:
        return StreamableHttpTransport(
            parse_url(url or self.url()),
            Egress(LOOPBACK),
            limits=limits or TransportLimits(connect=2, first_byte=2, idle=2),
            **options,
        )  # type: ignore[arg-type]


async def echo(peer: Peer) -> None:
    """Answer each request with its own body."""
    while (request := await peer.request()) is not None:
        await peer.answer(request[2])


def once(*pieces: bytes, pause: float = 0.0, hold: float = 0.0) -> Script:
    """Answer the first request with these bytes, then close."""

    async def script(peer: Peer) -> None:
        if await peer.request() is not None:
            await peer.say(*pieces, pause=pause)
            await asyncio.sleep(hold)

    return script


@asynccontextmanager
async def upstream(script: Script = echo, *, context: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    """Run a scripted upstream on a port of its own."""
    state = Upstream()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state.connections += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await script(Peer(reader, writer, state))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except Exception as error:  # noqa: BLE001 - a script's failure must show in the test
            state.errors.append(error)
        finally:
            state.closed += 1
            tasks.discard(task)
            writer.transport.abort() if writer.transport.is_closing() else writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context, limit=1 << 20)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if state.errors:
            raise state.errors[0]
