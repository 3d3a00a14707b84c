"""The closed word lists of policy: one place for models, documents, engine and forms (pure)."""

from __future__ import annotations

from typing import Final

KINDS: Final = ("tool", "prompt", "resource", "method")
# Beside the kinds of targets: a tool whose name is read by another tool, which calls it, so that nobody knows how.
UNSEEN: Final = "tool called by another"
# Beside them, too: a method of a client's that needs no rule, and one that a server asks of a client.
OPEN: Final = "method that needs no rule"
ASKED: Final = "method of a server's"
EFFECTS: Final = ("allow", "deny")
DUTIES: Final = ("viewer", "auditor", "policy-manager", "operator", "administrator")
AUDIT_LEVELS: Final = ("full", "request", "digest", "none")
LIMIT_IDENTITIES: Final = ("key", "role", "upstream", "tool")
WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
SUBJECTS: Final = ("arguments", "annotations", "name")
QUANTIFIERS: Final = ("every", "any")

# What executes or reads something. Rate limits count these; everything else is how client and server keep in touch.
CALLS: Final = frozenset({"tools/call", "prompts/get", "resources/read", "completion/complete"})
# What every client sends by itself: open to each key that reaches the upstream, unless a rule denies it by name. Lists are
# filtered, and answers, streams and the end of a session have no name to speak of. docs/policy.md has the same table.
OPEN_REQUESTS: Final = frozenset(
    {
        "initialize",
        "ping",
        "server/discover",
        "logging/setLevel",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "tasks/list",
    }
)
# What is done with a task that a call has made: needs no rule either, since the tool of that call decides.
TASK_METHODS: Final = frozenset({"tasks/get", "tasks/result", "tasks/cancel", "tasks/update"})
# Those of the protocol's revisions, in whichever direction. A name of somebody's own may make a server do something.
OPEN_NOTIFICATIONS: Final = frozenset(
    "notifications/" + name
    for name in (
        "initialized",
        "cancelled",
        "progress",
        "message",
        "roots/list_changed",
        "tools/list_changed",
        "prompts/list_changed",
        "resources/list_changed",
        "resources/updated",
        "elicitation/complete",
        "subscriptions/acknowledged",
        "tasks",
        "tasks/status",
    )
)
OPEN_METHODS: Final = OPEN_REQUESTS | OPEN_NOTIFICATIONS

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
