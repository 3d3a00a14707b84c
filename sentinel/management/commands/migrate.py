"""migrate as the owning role, and then what the serving role may do."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from django.core.management.base import CommandParser
from django.core.management.commands import migrate

from sentinel.postgres import migrating


class Command(migrate.Command):
    """Django's command; without --database it works as the owning role."""

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.set_defaults(database="owner")

    def handle(self, *arguments: Any, **options: Any) -> None:
        """Migrate, then grant."""
        as_owner = options["database"] == "owner"
        with migrating.by_hand(), migrating.owner_as_default() if as_owner else nullcontext():
            super().handle(*arguments, **{**options, "database": "default" if as_owner else options["database"]})
            if as_owner and not options["plan"] and not options["check_unapplied"]:
                migrating.grant()
