"""Django's admin with the product's own site."""

from __future__ import annotations

from django.contrib.admin.apps import AdminConfig


class SentinelAdminConfig(AdminConfig):
    """Registers the admin; a module of its own, because an application's apps.py may hold one default only."""

    default_site = "sentinel.admin_site.SentinelAdminSite"
