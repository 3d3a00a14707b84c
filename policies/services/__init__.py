"""Everything that can be done to keys and policy: one function per act, used by the admin, the API and the commands.

Each act is one transaction: the rows, the event that tells of it, and for policy the new version, or none of them.
Refusals are `KeyRefused` and `PolicyRefused`, both Django's ValidationError, with words for people.
"""

from __future__ import annotations

from policies.services.keys import (
    CreatedKey,
    KeyRefused,
    asked_about,
    create_key,
    find,
    revoke_key,
    rotate_key,
    shown,
    update_key,
)
from policies.services.policy import (
    Applied,
    PolicyRefused,
    apply_document,
    check,
    create_audit_level,
    create_limit,
    create_role,
    create_rule,
    current_spec,
    delete_audit_level,
    delete_limit,
    delete_role,
    delete_rule,
    editing_policy,
    export,
    holders,
    lock_policy,
    roll_back,
    update_limit,
    update_role,
    update_rule,
)

__all__ = [
    "Applied",
    "CreatedKey",
    "KeyRefused",
    "PolicyRefused",
    "apply_document",
    "asked_about",
    "check",
    "create_audit_level",
    "create_key",
    "create_limit",
    "create_role",
    "create_rule",
    "current_spec",
    "delete_audit_level",
    "delete_limit",
    "delete_role",
    "delete_rule",
    "editing_policy",
    "export",
    "find",
    "holders",
    "lock_policy",
    "revoke_key",
    "roll_back",
    "rotate_key",
    "shown",
    "update_key",
    "update_limit",
    "update_role",
    "update_rule",
]
