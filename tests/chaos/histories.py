"""What really happened: clients and an upstream that each keep their own history, and nothing of the gateway's."""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Call:
    """One call as its client saw it; `status` is 0 when no whole answer came."""

    marker: str
    began: float
    ended: float = 0.0
    status: int = 0
    result: bool = False
    reason: str = ""
    executed: bool = False
    may_have_run: bool = False
    ended_at: float = 0.0  # of the wall clock

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began


@dataclass
class Upstream:
    """A careless MCP server: it does what it is told and remembers the markers; answers come as JSON or as a stream."""

    port: int = 0
    slow: float = 0.15
    executed: dict[str, int] = field(default_factory=dict)
    server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (
                        int(line.split(b":")[1])
                        for line in head.split(b"\r\n")
                        if line.lower().startswith(b"content-length:")
                    ),
                    0,
                )
                body = json.loads(await reader.readexactly(length)) if length else {}
                await self._answer(writer, body)
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            pass
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, body: Any) -> None:
        number = body.get("id")
        if body.get("method") == "tools/call":
            arguments = body["params"]["arguments"]
            self.executed[arguments["marker"]] = self.executed.get(arguments["marker"], 0) + 1
            await asyncio.sleep(arguments.get("wait", 0.0))
            result: Any = {"content": [{"type": "text", "text": arguments["marker"]}]}
        else:
            result = {"tools": []}
        answer = json.dumps({"jsonrpc": "2.0", "id": number, "result": result}).encode()
        if body.get("method") == "tools/call" and body["params"]["arguments"].get("stream"):
            note = b'data: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}\n\n'
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for piece in (note, b"data: " + answer + b"\n\n"):
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
        else:
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer)
                + answer
            )
        await writer.drain()


class Clients:
    """Many clients, each with one call at a time, that write down what they saw."""

    def __init__(self, port: int, key: str, slug: str = "chaos") -> None:
        self.port, self.key, self.slug = port, key, slug
        self.calls: list[Call] = []
        self.flying: set[str] = set()
        self.stopped = False
        self._number = 0
        self._random = random.Random(7)

    async def run(self, count: int, *, rate: float = 0.0, wait: float = 0.15, patience: float = 20.0) -> None:
        """Call until stopped, `rate` times a second all together (0: as fast as they can)."""
        gate = Pace(rate)
        await asyncio.gather(*(self._client(gate, wait, patience) for _ in range(count)))

    async def _client(self, gate: Pace, wait: float, patience: float) -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self.stopped:
            await gate.turn()
            if self.stopped:
                break
            if connection is None:
                try:
                    connection = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.1)  # nobody listens: no call was made
                    continue
            self._number += 1
            call = Call(f"m{self._number}", time.monotonic())
            self.calls.append(call)
            self.flying.add(call.marker)
            try:
                async with asyncio.timeout(patience):
                    await self._exchange(*connection, call, wait)
            except (OSError, asyncio.IncompleteReadError, ValueError, TimeoutError):
                connection[1].close()
                connection = None
                await asyncio.sleep(0.05)
            call.ended, call.ended_at = time.monotonic(), time.time()
            self.flying.discard(call.marker)
        if connection is not None:
            connection[1].close()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, call: Call, wait: float
    ) -> None:
        stream = self._random.random() < 0.4
        arguments = {"marker": call.marker, "wait": round(self._random.random() * wait, 3), "stream": stream}
        body = json.dumps(
            {
                "jsonrpc": "2.0",
                "id": call.marker,
                "method": "tools/call",
                "params": {"name": "do", "arguments": arguments},
            }
        ).encode()
        writer.write(
            f"POST /mcp/{self.slug} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {self.key}\r\n"
            "Accept: application/json, text/event-stream\r\nContent-Type: application/json\r\n"
            f"MCP-Protocol-Version: 2025-11-25\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        await writer.drain()
        status, answer = await read_answer(reader)
        value = last_message(answer, call.marker)
        call.result = "result" in value
        data = value.get("error", {}).get("data") or {}
        call.reason, call.executed = data.get("reason", ""), bool(data.get("executed"))
        call.may_have_run = bool(data.get("may_have_run"))
        call.status = status


class Pace:
    """Lets calls begin at a rate."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._next = time.monotonic()

    async def turn(self) -> None:
        """Wait for one's turn."""
        if not self.rate:
            return
        now = time.monotonic()
        # Those that were late do not all come at once.
        self._next = max(self._next + 1 / self.rate, now - 0.1)
        if self._next > now:
            await asyncio.sleep(self._next - now)


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read one whole answer; anything less raises."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head.split(b" ", 2)[1])
    if b"transfer-encoding: chunked" in head:
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
        return status, body
    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    return status, await reader.readexactly(length)


def last_message(body: bytes, marker: str) -> dict[str, Any]:
    """Give the JSON-RPC answer of a body, plain or in a stream; raises ValueError when there is none."""
    if body.lstrip().startswith(b"{"):
        value: dict[str, Any] = json.loads(body)
        return value
    for line in reversed(body.split(b"\n")):
        if line.startswith(b"data:"):
            value = json.loads(line[5:])
            if value.get("id") == marker:
                return value
    raise ValueError("no answer in the stream")
