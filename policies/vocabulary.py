"""The closed word lists of policy: one place for models, documents, engine and forms (pure)."""

from __future__ import annotations

from typing import Final

KINDS: Final = ("tool", "prompt", "resource", "method")
# Beside the kinds of targets: a tool whose name is read by another tool, which calls it, so that nobody knows how.
UNSEEN: Final = "tool called by another"
EFFECTS: Final = ("allow", "deny")
DUTIES: Final = ("viewer", "auditor", "policy-manager", "operator", "administrator")
AUDIT_LEVELS: Final = ("full", "request", "digest", "none")
LIMIT_IDENTITIES: Final = ("key", "role", "upstream", "tool")
WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
SUBJECTS: Final = ("arguments", "annotations", "name")
QUANTIFIERS: Final = ("every", "any")

# Which JSON type an operator's value has; None: it takes no value.
OPERATORS: Final[dict[str, str | None]] = {
    "eq": "scalar",
    "ne": "scalar",
    "in": "array",
    "not_in": "array",
    "lt": "number",
    "le": "number",
    "gt": "number",
    "ge": "number",
    "like": "string",
    "not_like": "string",
    "matches": "string",
    "not_matches": "string",
    "under": "string",
    "not_under": "string",
    "min_length": "number",
    "max_length": "number",
    "type": "string",
    "present": None,
    "absent": None,
}
JSON_TYPES: Final = ("string", "number", "integer", "boolean", "array", "object")

# What a name may look like where people invent it.
ROLE_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
SLUG: Final = r"^[a-z0-9][a-z0-9_-]{0,62}$"
MAX_PATTERN: Final = 512
MAX_REASON: Final = 500
