"""Where the database is: Django's DATABASES and the libpq strings, from a URL or from the embedded server."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from psycopg.conninfo import make_conninfo

from core.conf.settings import Config
from core.db import NETWORK
from sentinel.postgres.server import DATABASE, OWNER, SERVING, EmbeddedPostgres

PATIENCE = {**{name: str(value) for name, value in NETWORK.items()}, "application_name": "mcp-sentinel"}


@lru_cache(maxsize=1)
def _of(var: Path, instance: str) -> EmbeddedPostgres:
    return EmbeddedPostgres(var, instance)


def embedded(config: Config) -> EmbeddedPostgres:
    """Return this process's one handle on the embedded server of its state folder."""
    return _of(config.var, config.instance)


def configure(config: Config) -> tuple[Config, dict[str, dict[str, Any]]]:
    """Return the configuration with its libpq strings, and Django's DATABASES: `default` serves, `owner` migrates."""
    if not config.database_url:
        server = embedded(config)
        serving, owner = server.parameters(SERVING), server.parameters(OWNER)
        engine = "sentinel.postgres.backend"
    else:
        serving = from_url(config.database_url)
        owner = from_url(config.owner_database_url) if config.owner_database_url else serving
        engine = "django.db.backends.postgresql"
    serving, owner = {**PATIENCE, **serving}, {**PATIENCE, **owner}
    config = dataclasses.replace(config, dsn=make_conninfo(**serving), owner_dsn=make_conninfo(**owner))
    return config, {
        "default": django_form(serving, engine),
        "owner": {**django_form(owner, engine), "TEST": {"MIRROR": "default"}},
    }


def from_url(url: str) -> dict[str, str]:
    """Take a postgresql:// URL apart into libpq's parameters."""
    parts = urlsplit(url)
    found = {
        "host": unquote(parts.hostname or ""),
        "port": str(parts.port or ""),
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "dbname": unquote(parts.path.lstrip("/")) or DATABASE,
        **dict(parse_qsl(parts.query)),
    }
    return {name: value for name, value in found.items() if value}


def django_form(parameters: dict[str, str], engine: str) -> dict[str, Any]:
    """Turn libpq's parameters into Django's form."""
    rest = dict(parameters)
    return {
        "ENGINE": engine,
        "NAME": rest.pop("dbname"),
        "USER": rest.pop("user", ""),
        "PASSWORD": rest.pop("password", ""),
        "HOST": rest.pop("host", ""),
        "PORT": rest.pop("port", ""),
        "OPTIONS": rest,
    }
