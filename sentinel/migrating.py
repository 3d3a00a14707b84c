"""Which migrations the database lacks, and bringing the embedded one up to date by itself, one process at a time."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pkgutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.apps import apps
from django.conf import settings
from django.core.management import call_command

from sentinel import runtime
from sentinel.postgres import OWNER

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
    with psycopg.connect(conninfo, autocommit=True) as connection:
        try:
            applied = set(connection.execute("SELECT app, name FROM django_migrations").fetchall())
        except psycopg.errors.UndefinedTable:
            applied = set()
    return on_disk() - applied


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
                if pending(runtime.embedded().conninfo(OWNER)):
                    call_command("migrate", database="owner", verbosity=0, interactive=False)
            _done = True
        finally:
            _inside = False


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
