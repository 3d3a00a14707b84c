"""The log in the admin: each module below registers its pages."""

from audit.admin import events, redaction

__all__ = ["events", "redaction"]
