"""One worker of `serve`: uvicorn on the socket the supervisor has opened."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import socket
import struct
import sys
import time
from typing import Any

import uvicorn

from core import processes
from core.conf.settings import Config
from sentinel.server import runtime
from sentinel.server.connections import Connections, raise_limit
from sentinel.server.http_protocol import GuardedProtocol

#: what drops the first packet of each new connection at a listening socket: `tcp[13] & SYN ? 0 : all of it` (classic BPF)
_NO_NEW = struct.pack("=" + "HBBI" * 4, 0x30, 0, 0, 13, 0x45, 0, 1, 2, 0x06, 0, 0, 0, 0x06, 0, 0, 0xFFFFFFFF)
_SO_ATTACH_FILTER = 26
ACCEPT_REST_SECONDS = 0.3
IDLE_SECONDS = 1.0
STEP_SECONDS = 0.05


class Server(uvicorn.Server):
    """uvicorn's server, which tells the supervisor when it is ready and the application when it stops."""

    def __init__(self, config: uvicorn.Config, ready: int, delay: float = 0.0) -> None:
        super().__init__(config)
        self._ready = ready
        self._delay = delay

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets=sockets)
        # Calls leave no cycles behind, and what is loaded now stays: a collector that looks at all of it several times a
        # second takes a tenth of the worker's time, and tens of milliseconds at once.
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)
        if self.started and self._ready >= 0:
            os.write(self._ready, b"ready")
            os.close(self._ready)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Have streams closed first: uvicorn waits for every open exchange."""
        if self._delay:
            await self._leave(sockets or [])
        runtime.stopping()
        await super().shutdown(sockets=sockets)

    async def _leave(self, sockets: list[socket.socket]) -> None:
        """Let those in front go elsewhere first: whatever reaches a worker that stops is answered, and nothing is cut off.

        A proxy that asks `/readyz` leaves at once. One that does not finds no connection to use again, since each ends with
        its answer; then no new one, refused before it could send a call, which it may therefore give to another instance.
        """
        runtime.leaving()
        GuardedProtocol.leaving = True
        await self._pause(self._delay)
        for listening in sockets:
            _refuse_new(listening)
        await self._pause(ACCEPT_REST_SECONDS)  # those that are connected by now are accepted: closing would reset them
        for server in self.servers:
            server.close()
        for listening in sockets:
            listening.close()
        deadline = time.monotonic() + IDLE_SECONDS
        while self.server_state.connections and time.monotonic() < deadline:
            await self._pause(STEP_SECONDS)

    async def _pause(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_SECONDS)):
            if self.force_exit:
                return
            await asyncio.sleep(STEP_SECONDS)


def _refuse_new(listening: socket.socket) -> None:
    """Take no new connection, without a reset for those that wait to be accepted, as closing the socket would give them."""
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(_NO_NEW)
    described = struct.pack("HP", 4, ctypes.addressof(program))  # aligned as C does
    with contextlib.suppress(OSError):  # some sandboxes have no filters: then those few are reset
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)


def uvicorn_config(config: Config, application: Any = "sentinel.asgi:application") -> uvicorn.Config:
    """Return uvicorn's configuration: nothing is logged per request, no header of a client is believed."""
    GuardedProtocol.header_timeout = config.header_timeout
    GuardedProtocol.scheme_outside = config.public_url.partition(":")[0]
    GuardedProtocol.counted = Connections.fitting(
        config.max_connections, config.max_connections_per_source, config.trusted_proxies, raise_limit()
    )
    return uvicorn.Config(
        application,
        http=GuardedProtocol,
        loop="uvloop",
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=2048,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(config.graceful_timeout)),
    )


def run(config: Config, *, descriptor: int, slot: int, ready: int, parent: int) -> None:
    """Serve until told to stop."""
    processes.end_with_parent(parent)
    processes.title(f"worker {slot} of instance {config.instance}")
    os.environ["SENTINEL_WORKER"] = str(slot)
    listening = socket.socket(fileno=descriptor)
    listening.setblocking(False)
    server = Server(uvicorn_config(config), ready, config.stop_seconds)
    server.run(sockets=[listening])
    if not server.started:
        sys.exit(3)
