"""The one way to a PostgreSQL connection of one's own, which never waits without end: a server that hangs is treated like one that is gone.

Django's connections have the same bounds on the network (`NETWORK`), and ask for the rest by their statements.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict

if TYPE_CHECKING:
    from psycopg.abc import PQGen

__all__ = ["NETWORK", "BoundedConnection", "connect", "connection_parameters"]

#: how libpq notices that the other side is gone, where TCP is between
NETWORK = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
RV = TypeVar("RV")


class BoundedConnection(psycopg.Connection[Any]):
    """A connection whose every wait ends: after `patience` seconds without completion it is closed and raises.

    Without patience it waits for as long as the other side is there.
    """

    patience: float | None = None

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Drive one operation of libpq, at most so long; a wait that brings its own limit only stops waiting."""
        if timeout is not None or self.patience is None:
            return super().wait(gen, interval, timeout)
        since = time.monotonic()
        try:
            return super().wait(gen, interval, self.patience)
        except psycopg.Error as error:
            if isinstance(error, psycopg.DatabaseError) and time.monotonic() - since < self.patience:
                raise
            self.pgconn.finish()
            raise psycopg.OperationalError(f"the database has not answered for {self.patience:g} s") from error


def connect(
    where: str | Mapping[str, Any], name: str, *, seconds: float | None, patience: float | None = None
) -> BoundedConnection:
    """Open a connection in autocommit, named for whoever looks at pg_stat_activity.

    The server cancels what takes longer than `seconds`, and gives up a transaction in which nothing happens, so that what
    is left behind holds no lock. Where not even that is heard within `patience` (a second more, unless it is given), the
    connection is cut here. `seconds=None`: statements of a command that somebody watches may take their time.
    """
    bounds = "-c timezone=UTC -c lock_timeout=5000"
    if seconds is not None:
        bounds += f" -c statement_timeout={seconds * 1000:.0f} -c idle_in_transaction_session_timeout=20000"
    given: dict[str, Any] = conninfo_to_dict(where) if isinstance(where, str) else dict(where)
    given = {**NETWORK, **given, "application_name": name}
    given["options"] = f"{given.get('options') or ''} {bounds}".strip()
    given["connect_timeout"] = max(2, int(min(seconds or 5, 5)))  # libpq takes one second for two
    connection = BoundedConnection.connect(**given, autocommit=True, prepare_threshold=None)
    if seconds is not None:
        connection.patience = patience or seconds + 1
    return connection


def connection_parameters(using: str = "default") -> dict[str, Any]:
    """Give what Django knows of a database as libpq's parameters; starts the embedded server when that is where it is."""
    from django.db import connections

    known = connections[using].get_connection_params()
    return {
        name: value for name, value in known.items() if isinstance(value, str | int) and not isinstance(value, bool)
    }
