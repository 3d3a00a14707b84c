"""Keys, roles, rules, limits and versions in the admin: each file below registers its pages."""

from __future__ import annotations

from policies.key_pages import ApiKeyAdmin
from policies.rule_pages import RateLimitAdmin, RoleAdmin, RuleAdmin
from policies.version_pages import PolicyVersionAdmin

__all__ = ["ApiKeyAdmin", "PolicyVersionAdmin", "RateLimitAdmin", "RoleAdmin", "RuleAdmin"]
