"""serve: run the gateway."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from core import processes
from core.conf import environ
from core.conf import settings as conf
from sentinel import checks, demo
from sentinel.postgres import databases, migrating
from sentinel.server import runtime
from sentinel.server import supervisor as serve


class Command(BaseCommand):
    """Run the gateway: workers, drainer, and the embedded PostgreSQL when there is no DATABASE_URL."""

    help = "Run the gateway: workers, drainer, and the embedded PostgreSQL when there is no DATABASE_URL."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        config = settings.SENTINEL
        parser.add_argument("--host", default=config.host, help="address to listen on (default: %(default)s)")
        parser.add_argument(
            "--port", type=int, default=config.port, help="port to listen on, 0 for a free one (default: %(default)s)"
        )
        parser.add_argument(
            "--workers",
            type=int,
            default=config.workers or serve.default_workers(),
            help="worker processes (default: %(default)s)",
        )
        parser.add_argument(
            "--demo", action="store_true", default=config.demo, help="with a demo upstream, and a key per role"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not 0 <= options["port"] <= 65535:
            raise conf.ConfigError("--port must be a number from 0 to 65535.")
        if not 1 <= options["workers"] <= 64:
            raise conf.ConfigError("--workers must be a number from 1 to 64.")
        # The children read the same settings: what was said on this command line reaches them so.
        os.environ["SENTINEL_HOST"] = options["host"]
        os.environ["SENTINEL_DEMO"] = "1" if options["demo"] else ""
        before = settings.SENTINEL
        config = dataclasses.replace(conf.load(), dsn=before.dsn, owner_dsn=before.owner_dsn)
        settings.SENTINEL = config
        environ.take(conf.SECRETS)
        runtime.refuse_unfit(config)
        for name in conf.unknown():
            if name not in checks.NOT_MEANT:
                self.stderr.write(f"Warning: {name} is set, and is no setting of MCP Sentinel.")
        database = None if config.database_url else databases.embedded(config)
        supervisor = serve.Supervisor(
            config, host=options["host"], port=options["port"], workers=options["workers"], database=database
        )
        supervisor.claim()
        supervisor.bind()
        os.environ["SENTINEL_PORT"] = str(supervisor.port)
        processes.title(f"serve {config.var}")
        self._database(database)
        shown = None
        if options["demo"]:
            careless, shown = demo.prepare(config)
            supervisor.extra.append(serve.ChildProcess("demo", lambda child: careless, ready=True))

        def announce(address: str) -> None:
            count = f"{options['workers']} worker" + ("s" if options["workers"] > 1 else "")
            self.stdout.write(f"MCP Sentinel ready on {address} ({count})")
            if shown is not None:
                self.stdout.write(shown(address))
            self.stdout.flush()

        supervisor.announce = announce
        raise SystemExit(supervisor.run())

    def _database(self, database: Any) -> None:
        """Have a database with the code's schema, or refuse."""
        from django.db import connection

        if database is None:
            migrating.refuse_pending()
        connection.ensure_connection()
        connection.close()
        for notice in getattr(database, "notices", ()):
            self.stderr.write(notice)
        migrating.warn_about_one_role(self.stderr.write)
