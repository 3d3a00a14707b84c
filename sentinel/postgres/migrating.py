"""Which migrations the database lacks, and bringing the embedded one up to date by itself, one process at a time."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pkgutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.apps import apps
from django.conf import settings
from django.db import connections
from psycopg.conninfo import conninfo_to_dict

from core.conf import environ
from core.conf.settings import PROJECT, ConfigError
from core.db import connect
from sentinel.postgres import databases, grants
from sentinel.postgres.server import OWNER, PostgresError

offline = False
_done = False
_busy = threading.RLock()
_inside = False


def on_disk() -> set[tuple[str, str]]:
    """Return (application, migration) of every migration the code has, without loading any."""
    found = set()
    for config in apps.get_app_configs():
        spec = importlib.util.find_spec(f"{config.name}.migrations")
        places = spec.submodule_search_locations if spec else None
        for module in pkgutil.iter_modules(list(places or ())):
            if not module.ispkg and module.name[0] not in "_~":
                found.add((config.label, module.name))
    return found


def pending(conninfo: str) -> set[tuple[str, str]]:
    """Return the migrations that the database lacks; raises psycopg.OperationalError when it cannot be asked."""
    with connect(conninfo, "mcp-sentinel migrations", seconds=5) as connection:
        try:
            applied = set(connection.execute("SELECT app, name FROM django_migrations").fetchall())
        except psycopg.errors.UndefinedTable:
            applied = set()
    return on_disk() - applied


def refuse_pending() -> None:
    """Refuse to work on a database of one's own that lacks migrations; one that does not answer is the command's matter."""
    if not settings.SENTINEL.database_url:
        return
    try:
        lacking = pending(settings.SENTINEL.dsn)
    except psycopg.Error:
        return
    if lacking:
        count = f"{len(lacking)} migrations" if len(lacking) > 1 else "a migration"
        raise ConfigError(f"the database of DATABASE_URL lacks {count}: run `python manage.py migrate` first.")


def bring_up_to_date(parameters: dict[str, Any]) -> None:
    """Migrate the embedded database once in the life of this process, unless this is the migration."""
    global _done, _inside
    if _done or _inside:
        return
    with _busy:
        if _done or _inside or parameters.get("dbname") != settings.DATABASES["owner"]["NAME"]:
            return
        _inside = True
        try:
            with _alone():
                if pending(databases.embedded(settings.SENTINEL).conninfo(OWNER)):
                    _migrate()
            _done = True
        finally:
            _inside = False


def _migrate() -> None:
    """Migrate in a process of its own: this one is in the middle of making a connection."""
    command = [sys.executable, str(PROJECT / "manage.py"), "migrate", "--no-input", "--verbosity", "0"]
    done = subprocess.run(  # noqa: S603 - our own command
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=environ.whole()
    )
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it says nothing"]
        raise PostgresError(f"the embedded database cannot be migrated: {said[-1].strip()}")


@contextmanager
def owner_as_default() -> Iterator[None]:
    """Let the default connection be the owning role's, so that migrations need not care which alias they run under."""
    mine = connections.databases["default"]
    kept = dict(mine)
    connections["default"].close()
    mine.update(
        {name: connections.databases["owner"][name] for name in ("NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS")}
    )
    try:
        yield
    finally:
        connections["default"].close()
        mine.update(kept)


def grant() -> None:
    """Give the serving role its rights, on a connection of the owner; with one role for both there is nothing to give."""
    serving = conninfo_to_dict(settings.SENTINEL.dsn).get("user")
    if serving and serving != conninfo_to_dict(settings.SENTINEL.owner_dsn).get("user"):
        grants.apply(connections["default"], str(serving))


@contextmanager
def by_hand() -> Iterator[None]:
    """Migrate without the automatic migration: what was asked for is done, no more and no less."""
    global _inside
    before, _inside = _inside, True
    try:
        yield
    finally:
        _inside = before


@contextmanager
def without_database() -> Iterator[None]:
    """Let nothing start the embedded server."""
    global offline
    before, offline = offline, True
    try:
        yield
    finally:
        offline = before


@contextmanager
def _alone() -> Iterator[None]:
    descriptor = os.open(settings.SENTINEL.var / "migrate.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def warn_about_one_role(say: Callable[[str], object]) -> None:
    """Warn when the serving role owns the tables: then only a trigger, and no right, keeps it from altering the log."""
    parameters = conninfo_to_dict(settings.SENTINEL.dsn)
    if parameters.get("user") == conninfo_to_dict(settings.SENTINEL.owner_dsn).get("user"):
        say(
            "Warning: one database role both serves and owns the tables, so that grants do not protect the audit log"
            " (a trigger does); give the owning role in SENTINEL_OWNER_DATABASE_URL."
        )
