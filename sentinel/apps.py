"""The sentinel application."""

from __future__ import annotations

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class SentinelConfig(AppConfig):
    """Registers the sentinel application."""

    name = "sentinel"

    def ready(self) -> None:
        """Connect what must happen after migrations and at log-in, and answer for people, sessions and the API."""
        from core import registry
        from core.access import duties
        from sentinel.site.suggestions import suggestions
        from sentinel.users import second_factor, seeds, sessions, signals

        # The last of the project's applications to be migrated: by then every permission exists.
        post_migrate.connect(duties.sync_groups, dispatch_uid="sentinel.duties")
        signals.connect()
        seeds.connect()
        registry.asks_code.answered_by(second_factor.enrolled)
        registry.give_code.answered_by(lambda request, code: second_factor.give(request, code).problem)
        registry.session_stands.answered_by(sessions.stands)
        registry.saved_views.answered_by(lambda user: list(user.saved_views.values_list("name", "query", "pk")[:50]))
        registry.suggestions.answered_by(suggestions)
        registry.save_view_page.answered_by(registry.page("admin:save_view"))
        registry.api.answered_by(registry.page("/api/v1/"))
        registry.api_problem.answered_by(registry.page("/api/docs/#problem-{}"))
