"""A hung database is treated like a dead one: whoever waits for it too long has the connection cut under it."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

__all__ = ["Watchdog", "connect", "connection_parameters"]

CONNECT_SECONDS = 3
TRANSACTION_SECONDS = 20.0
# The server gives up by itself as well, so that a backend we left does not hold its locks for good.
SERVER_OPTIONS = (
    "-c statement_timeout=15000 -c lock_timeout=5000 -c idle_in_transaction_session_timeout=20000 -c timezone=UTC"
)


def connection_parameters(using: str = "default") -> dict[str, Any]:
    """Give what Django knows of a database as libpq's parameters; starts the embedded server when that is where it is."""
    from django.db import connections

    known = connections[using].get_connection_params()
    return {
        name: value for name, value in known.items() if isinstance(value, str | int) and not isinstance(value, bool)
    }


def connect(parameters: str | dict[str, Any], options: str = SERVER_OPTIONS) -> psycopg.Connection[Any]:
    """Open a connection that notices when the other side is gone."""
    given = {"conninfo": parameters} if isinstance(parameters, str) else dict(parameters)
    given["options"] = f"{given.get('options', '')} {options}".strip()
    given |= {"connect_timeout": CONNECT_SECONDS, "keepalives": 1, "keepalives_idle": 5, "keepalives_interval": 2}
    given |= {"keepalives_count": 3, "tcp_user_timeout": 10_000, "application_name": "sentinel-drainer"}
    return psycopg.connect(**given, autocommit=True, prepare_threshold=None)


class Watchdog:
    """Cuts a connection whose answer does not come in time; libpq alone would wait for ever on a stopped server."""

    def __init__(self, seconds: float = TRANSACTION_SECONDS) -> None:
        self.seconds = seconds
        self._condition = threading.Condition()
        self._deadline: float | None = None
        self._fd = -1
        self._thread: threading.Thread | None = None

    @contextmanager
    def over(self, connection: psycopg.Connection[Any]) -> Iterator[None]:
        """Allow what is inside the time of one transaction."""
        with self._condition:
            self._fd = os.dup(connection.fileno())
            self._deadline = time.monotonic() + self.seconds
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
                self._thread.start()
            self._condition.notify()
        try:
            yield
        finally:
            with self._condition:
                self._deadline = None
                os.close(self._fd)
                self._fd = -1

    def _watch(self) -> None:
        with self._condition:
            while True:
                if self._deadline is None:
                    self._condition.wait()
                    continue
                left = self._deadline - time.monotonic()
                if left > 0:
                    self._condition.wait(left)
                    continue
                self._deadline = None
                with suppress(OSError), socket.socket(fileno=os.dup(self._fd)) as cut:
                    cut.shutdown(socket.SHUT_RDWR)
