"""`manage.py restore FILE`: fill an empty installation from a backup."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import orjson
import psycopg
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from audit.backup import BackupError, restore
from audit.keeping import database
from audit.management.commands.backup import is_given, secret_checks


class Command(BaseCommand):
    """Restore a backup."""

    help = "Fill an empty installation (a new SENTINEL_VAR, an empty database) from a backup."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Define the arguments."""
        parser.add_argument("file", metavar="FILE", help="The backup.")
        parser.add_argument("--json", action="store_true", help="Print one JSON object.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Restore it."""
        config = settings.SENTINEL
        connection.ensure_connection()
        connection.close()
        try:
            with database("owner" if "owner" in settings.DATABASES else "default") as target:
                manifest = restore(Path(options["file"]), target, config.var)
        except (BackupError, psycopg.Error, OSError) as error:
            raise CommandError(str(error).splitlines()[0]) from None
        events = manifest["tables"]["audit_auditevent"]["rows"]
        other = other_secrets(config, manifest)
        if options["json"]:
            self.stdout.write(
                orjson.dumps({"events": events, "instance": manifest["instance"], "other_secrets": other}).decode()
            )
            return
        self.stdout.write(
            f"{events} events and {len(manifest['journal'])} journal files restored; start the gateway to go on"
        )
        if other:
            self.stderr.write(
                f"warning: {', '.join(other)} differ from those of the backup: its keys will not be known"
            )


def other_secrets(config: Any, manifest: dict[str, Any]) -> list[str]:
    """Name the secrets given by the environment that are not those the backup was made with."""
    here = secret_checks(config)
    names = []
    if is_given(config, "SENTINEL_SECRET_KEY") and manifest["check"].get("secret_key") != here["secret_key"]:
        names.append("SENTINEL_SECRET_KEY")
    peppers = {name: value for name, value in manifest["check"].items() if name.startswith("pepper_")}
    if is_given(config, "SENTINEL_KEY_PEPPERS") and any(here.get(name) != value for name, value in peppers.items()):
        names.append("SENTINEL_KEY_PEPPERS")
    return names
