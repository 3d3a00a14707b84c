"""A PostgreSQL connection that never waits without end, so that a server that hangs is treated like one that is gone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg

if TYPE_CHECKING:
    from psycopg.abc import PQGen

PATIENCE_SECONDS = 6.0
RV = TypeVar("RV")


class BoundedConnection(psycopg.Connection[Any]):
    """A connection whose every wait ends: after `PATIENCE_SECONDS` without completion it is closed and raises."""

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Drive one operation of libpq, at most so long; a wait that brings its own limit only stops waiting."""
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        since = time.monotonic()
        try:
            return super().wait(gen, interval, PATIENCE_SECONDS)
        except psycopg.Error as error:
            if isinstance(error, psycopg.DatabaseError) and time.monotonic() - since < PATIENCE_SECONDS:
                raise
            self.pgconn.finish()
            raise psycopg.OperationalError(f"the database has not answered for {PATIENCE_SECONDS:g} s") from error
