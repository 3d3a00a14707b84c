"""The policies application."""

from __future__ import annotations

from django.apps import AppConfig


class PoliciesConfig(AppConfig):
    """Registers the policies application."""

    name = "policies"
