"""makemigrations, without starting the embedded database."""

from __future__ import annotations

import warnings
from typing import Any

from django.conf import settings
from django.core.management.commands import makemigrations

from sentinel.postgres import migrating


class Command(makemigrations.Command):
    """Django's command; it compares files, and asks only a database that runs by itself."""

    def handle(self, *arguments: Any, **options: Any) -> None:
        """Do the work."""
        if settings.SENTINEL.database_url:
            super().handle(*arguments, **options)
            return
        with migrating.without_database(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Got an error checking a consistent migration history", RuntimeWarning)
            super().handle(*arguments, **options)
