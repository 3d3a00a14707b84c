"""The proxy application."""

from __future__ import annotations

from django.apps import AppConfig


class ProxyConfig(AppConfig):
    """Registers the proxy application."""

    name = "proxy"
