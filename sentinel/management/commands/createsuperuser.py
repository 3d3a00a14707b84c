"""createsuperuser as Django has it, and an event of what it makes."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.management.commands import createsuperuser

from sentinel.users.events import recorded


class Command(createsuperuser.Command):
    """Django's command; what it makes stands in the log."""

    def handle(self, *arguments: Any, **options: Any) -> Any:
        with recorded("admin.user.created"):
            return super().handle(*arguments, **options)
