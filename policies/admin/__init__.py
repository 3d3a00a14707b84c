"""Keys, roles, rules, limits and versions in the admin: each module registers its pages; `explain` has views that `rules` gives addresses to."""

from __future__ import annotations

from policies.admin.keys import ApiKeyAdmin
from policies.admin.rules import RateLimitAdmin, RoleAdmin, RuleAdmin
from policies.admin.versions import PolicyVersionAdmin

__all__ = ["ApiKeyAdmin", "PolicyVersionAdmin", "RateLimitAdmin", "RoleAdmin", "RuleAdmin"]
