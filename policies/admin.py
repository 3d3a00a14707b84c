"""Keys, roles, rules, limits and versions in the admin: each file below registers its pages."""

from __future__ import annotations

from policies.key_pages import ApiKeyAdmin
from policies.rule_pages import PolicyVersionAdmin, RateLimitAdmin, RoleAdmin, RuleAdmin

__all__ = ["ApiKeyAdmin", "PolicyVersionAdmin", "RateLimitAdmin", "RoleAdmin", "RuleAdmin"]
