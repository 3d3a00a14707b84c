"""The sentinel application."""

from __future__ import annotations

from django.apps import AppConfig


class SentinelConfig(AppConfig):
    """Registers the sentinel application."""

    name = "sentinel"
