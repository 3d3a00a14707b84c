"""The policies application."""

from __future__ import annotations

from django.apps import AppConfig

from core.access import members
from policies.specs import LIMIT, RULE


class PoliciesConfig(AppConfig):
    """Registers the policies application, and whose the plain members of rules and limits are."""

    name = "policies"

    def ready(self) -> None:
        """Let who may change a rule or a limit change any plain member of it."""
        members.register("rule", "policies.change_rule", (row.name for row in RULE))
        members.register("ratelimit", "policies.change_ratelimit", (row.name for row in LIMIT))
