"""Django's admin with the product's own site."""

from __future__ import annotations

import sys

from django.contrib.admin.apps import AdminConfig, SimpleAdminConfig

# They show no page; loading every page's module would take each of them 0.3 s.
WITHOUT_PAGES = (["serve"], ["drain"])


class SentinelAdminConfig(AdminConfig):
    """Registers the admin; a module of its own, because an application's apps.py may hold one default only."""

    default_site = "sentinel.site.site.SentinelAdminSite"

    def ready(self) -> None:
        """Load the pages, in processes that may show them."""
        if sys.argv[1:2] in WITHOUT_PAGES:
            SimpleAdminConfig.ready(self)
        else:
            super().ready()
