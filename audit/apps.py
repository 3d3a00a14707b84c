"""The audit application."""

from __future__ import annotations

from django.apps import AppConfig


class AuditConfig(AppConfig):
    """Registers the audit application."""

    name = "audit"
