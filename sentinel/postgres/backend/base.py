"""The backend: before a connection is made the embedded server runs and has the code's schema."""

from __future__ import annotations

import os
from typing import Any

import psycopg
from django.conf import settings
from django.db.backends.postgresql import base

from proxy.upstreams.registry import HOST_VARIABLE
from sentinel.postgres import databases, migrating
from sentinel.postgres.server import START_PATIENCE, PostgresError


class DatabaseWrapper(base.DatabaseWrapper):
    """Connects to the embedded server, and starts and migrates it first."""

    def get_connection_params(self) -> dict[str, Any]:
        """Return the parameters; the socket's place is known for certain only once the server runs."""
        if migrating.offline:
            raise psycopg.OperationalError("this command works without a database")
        server = databases.embedded(settings.SENTINEL)
        supervised = HOST_VARIABLE in os.environ
        try:
            # Below `serve` it is the supervisor's to start again: a worker that tried would hold up who waits for it.
            server.ensure(0 if supervised else START_PATIENCE)
        except PostgresError as error:
            if supervised:
                raise psycopg.OperationalError(str(error)) from error
            raise
        parameters: dict[str, Any] = super().get_connection_params()
        parameters["host"] = str(server.socket_folder)
        return parameters

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Make a connection, to a migrated database."""
        migrating.bring_up_to_date(conn_params)
        return super().get_new_connection(conn_params)
