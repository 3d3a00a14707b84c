"""`manage.py backup FILE`: all that this installation is, in one file; the gateway may serve meanwhile."""

from __future__ import annotations

import signal
import sys
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
from sentinel.backup import BackupError, back_up, check_value

#: the secrets an installation may be given by its environment, and what is lost without the one that was there
SECRETS = {
    "SENTINEL_SECRET_KEY": "sessions end, and what is derived from it changes",
    "SENTINEL_KEY_PEPPERS": "no key of the backup will be known",
    "SENTINEL_REDACTION_KEY": "fingerprints and digests will not be comparable",
    "SENTINEL_DATA_KEY": "stored credentials of upstreams cannot be read",
}


class Command(BaseCommand):
    """Write a backup."""

    help = "Write the database, the journal and the secrets of this installation into one file (a ZIP archive that holds secrets)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", help="The file to write; replaced when it exists.")
        parser.add_argument("--json", action="store_true", help="Print one JSON object.")

    def handle(self, *args: Any, **options: Any) -> None:
        config = settings.SENTINEL
        # The draft is full of secrets: it goes with us.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        connection.ensure_connection()
        target = Path(options["file"]).absolute()
        given = [name for name in SECRETS if is_given(config, name)]
        about = {"instance": config.instance, "check": secret_checks(config), "given": given}
        try:
            with database("owner" if "owner" in settings.DATABASES else "default") as source:
                manifest = back_up(target, source, config.var, about)
        except (BackupError, psycopg.Error, OSError) as error:
            raise CommandError(str(error).splitlines()[0]) from None
        record_act(method="admin.backup.made", actor=Actor.system(), target=target.name)
        events = manifest["tables"]["audit_auditevent"]["rows"]
        found = {
            "file": str(target),
            "bytes": target.stat().st_size,
            "events": events,
            "journal_files": len(manifest["journal"]),
            "secrets": manifest["secrets"],
        }
        if options["json"]:
            self.stdout.write(orjson.dumps(found).decode())
            return
        self.stdout.write(
            f"{target}: {events} events, {found['journal_files']} journal files, {found['bytes'] / 1e6:.1f} MB"
        )
        if given:
            self.stdout.write(f"not in it, because the environment gives it: {', '.join(given)}; keep it as well")


def is_given(config: Config, variable: str) -> bool:
    """Say whether a secret comes from the environment, not from SENTINEL_VAR."""
    name = variable.removeprefix("SENTINEL_").lower()
    return name not in config.generated


def secret_checks(config: Config) -> dict[str, str]:
    """Make values that tell at a restore whether secrets are the same: by setting, of the pepper ring by number."""
    checks = {name: check_value(getattr(config, name)) for name in ("redaction_key", "data_key")}
    checks["secret_key"] = check_value(config.secret_key.encode())
    for number, pepper in config.key_peppers.items():
        checks[f"pepper_{number}"] = check_value(pepper)
    return checks
