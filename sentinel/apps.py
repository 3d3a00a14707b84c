"""The sentinel application."""

from __future__ import annotations

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class SentinelConfig(AppConfig):
    """Registers the sentinel application."""

    name = "sentinel"

    def ready(self) -> None:
        """Connect what must happen after migrations and at log-in."""
        from core.access import duties
        from sentinel.users import seeds, signals

        # The last of the project's applications to be migrated: by then every permission exists.
        post_migrate.connect(duties.sync_groups, dispatch_uid="sentinel.duties")
        signals.connect()
        seeds.connect()
