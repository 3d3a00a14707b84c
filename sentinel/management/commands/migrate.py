"""migrate as the owning role, and then what the serving role may do."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.core.management.commands import migrate
from django.db import connections

from sentinel import grants, migrating


class Command(migrate.Command):
    """Django's command; without --database it works as the owning role."""

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        super().add_arguments(parser)
        parser.set_defaults(database="owner")

    def handle(self, *arguments: Any, **options: Any) -> None:
        """Migrate, then grant."""
        with migrating.by_hand():
            super().handle(*arguments, **options)
            if not options["plan"] and not options["check_unapplied"] and options["database"] == "owner":
                serving = settings.DATABASES["default"]["USER"]
                if serving and serving != settings.DATABASES["owner"]["USER"]:
                    grants.apply(connections["owner"], serving)
