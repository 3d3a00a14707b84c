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

from audit.services.acts import record_act
from audit.services.maintenance import database
from core.access.actors import Actor
from core.conf.settings import Config
from sentinel.backup import BackupError, restore
from sentinel.management.commands.backup import SECRETS, is_given, secret_checks


class Command(BaseCommand):
    """Restore a backup."""

    help = "Fill an empty installation (a new SENTINEL_VAR, an empty database) from a backup."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", help="The backup.")
        parser.add_argument(
            "--other-secrets",
            action="store_true",
            help="Restore although a secret that the backup's environment gave is not given here, or is another.",
        )
        parser.add_argument("--json", action="store_true", help="Print one JSON object.")

    def handle(self, *args: Any, **options: Any) -> None:
        config = settings.SENTINEL
        connection.ensure_connection()
        connection.close()
        other: list[str] = []

        def check(manifest: dict[str, Any]) -> None:
            other.extend(other_secrets(config, manifest))
            if other and not options["other_secrets"]:
                lost = "; ".join(f"{name} ({SECRETS[name]})" for name in other)
                raise BackupError(
                    f"these secrets are not those of the backup: {lost}. Set them as they were where it was made;"
                    " --other-secrets restores all the same"
                )

        try:
            with database("owner" if "owner" in settings.DATABASES else "default") as target:
                manifest = restore(Path(options["file"]), target, config.var, check)
        except (BackupError, psycopg.Error, OSError) as error:
            raise CommandError(str(error).splitlines()[0]) from None
        record_act(method="admin.backup.restored", actor=Actor.system(), target=Path(options["file"]).name)
        events = manifest["tables"]["audit_auditevent"]["rows"]
        if options["json"]:
            self.stdout.write(
                orjson.dumps({"events": events, "instance": manifest["instance"], "other_secrets": other}).decode()
            )
            return
        self.stdout.write(
            f"{events} events and {len(manifest['journal'])} journal files restored; start the gateway to go on"
        )
        if other:
            self.stderr.write(f"warning: not as in the backup: {', '.join(other)}")


def other_secrets(config: Config, manifest: dict[str, Any]) -> list[str]:
    """Name the settings whose secret will not be the backup's once it is restored."""
    here, there, given_there = secret_checks(config), manifest["check"], manifest.get("given", ())
    names: list[str] = []
    for variable in SECRETS:
        setting = variable.removeprefix("SENTINEL_").lower()
        if is_given(config, variable):
            kept = [name for name in there if name.startswith("pepper_")] if setting == "key_peppers" else [setting]
            same = all(here.get(name) == there.get(name) for name in kept)
        elif variable in given_there:
            same = False  # nobody gives here what the environment gave there
        else:  # its file comes with the backup, or it is derived from the secret key
            same = setting in ("secret_key", "key_peppers") or "SENTINEL_SECRET_KEY" not in names
        if not same:
            names.append(variable)
    return names
