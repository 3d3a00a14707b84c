"""changepassword as Django has it, and an event of what it does."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.management.commands import changepassword

from sentinel.users.events import recorded


class Command(changepassword.Command):
    """Django's command; what it does stands in the log."""

    def handle(self, *arguments: Any, **options: Any) -> Any:
        with recorded("admin.user.password_set"):
            return super().handle(*arguments, **options)
