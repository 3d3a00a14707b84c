"""A pytest plugin that gives the tests what an installation has: a database, secrets, a state folder.

Loaded by pyproject.toml before Django's settings are read. With no DATABASE_URL it starts an embedded PostgreSQL of
its own in a temporary folder, and stops it at the end; with one it uses that server.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import psycopg

from sentinel.postgres.server import SUPERUSER, EmbeddedPostgres

SECRETS = {
    "SENTINEL_SECRET_KEY": "tests-only-4f1d8a7be2c94a7c9a6f0e3d5b8c7a61",
    "SENTINEL_KEY_PEPPERS": "1:8f14e45fceea167a5a36dedd4bea2543c9f0f895fb98ab9159f51fd0297e236d",
    "SENTINEL_UPSTREAM_NETWORKS": "127.0.0.0/8,::1/128",
}


def _provide() -> None:
    for name, value in SECRETS.items():
        os.environ.setdefault(name, value)
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker:  # the controller has provided; each worker only gets a state folder of its own
        os.environ["SENTINEL_VAR"] = str(Path(os.environ["SENTINEL_VAR"]) / worker)
    elif "SENTINEL_VAR" not in os.environ:
        folder = Path(tempfile.mkdtemp(prefix="sentinel-tests-"))
        os.environ["SENTINEL_VAR"] = str(folder)
        os.environ["SENTINEL_TEST_PREPARED"] = str(folder / "prepared")
        atexit.register(_remove, folder, os.getpid())
    if "DATABASE_URL" not in os.environ:
        server = EmbeddedPostgres(Path(os.environ["SENTINEL_VAR"]) / "server", "00000000")
        server.var.mkdir(mode=0o700, exist_ok=True)
        server.ensure()
        at = server.parameters(SUPERUSER)
        os.environ["DATABASE_URL"] = f"postgresql://{at['user']}:{at['password']}@/tests?host={at['host']}"
        with psycopg.connect(**{**at, "dbname": "postgres"}, autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'tests'").fetchone():
                connection.execute("CREATE DATABASE tests")
            for name in ("fsync", "full_page_writes", "synchronous_commit"):
                connection.execute(f"ALTER SYSTEM SET {name} = off")  # what a crash would lose is not missed
            connection.execute("SELECT pg_reload_conf()")


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


_provide()
