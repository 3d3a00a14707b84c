"""One worker of `serve`: uvicorn on the socket the supervisor has opened."""

from __future__ import annotations

import gc
import os
import socket
import sys
from typing import Any

import uvicorn

from sentinel import processes, runtime
from sentinel.conf import Config
from sentinel.connections import Connections, raise_limit
from sentinel.http_protocol import GuardedProtocol


class Server(uvicorn.Server):
    """uvicorn's server, which tells the supervisor when it is ready and the application when it stops."""

    def __init__(self, config: uvicorn.Config, ready: int) -> None:
        super().__init__(config)
        self._ready = ready

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
        runtime.stopping()
        await super().shutdown(sockets=sockets)


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
    server = Server(uvicorn_config(config), ready)
    server.run(sockets=[listening])
    if not server.started:
        sys.exit(3)
