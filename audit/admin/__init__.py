"""The log in the admin: `events` and `redaction` register pages; the other modules are views that `events` gives addresses to."""

from audit.admin import events, redaction

__all__ = ["events", "redaction"]
