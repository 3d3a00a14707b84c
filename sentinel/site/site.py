"""The admin site: its pages, its navigation, and what every template of it may rely on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest
from django.urls import NoReverseMatch, URLPattern, URLResolver, path, reverse

OWN = ("audit", "policies", "proxy", "sentinel")


@dataclass(frozen=True, slots=True)
class NavigationLink:
    """One entry of the navigation."""

    label: str
    view: str
    icon: str
    permission: str


NAVIGATION: tuple[tuple[str, tuple[NavigationLink, ...]], ...] = (
    (
        "Watch",
        (
            NavigationLink("Overview", "admin:index", "overview", "sentinel.view_overview"),
            NavigationLink("Events", "admin:audit_auditevent_changelist", "events", "audit.view_auditevent"),
            NavigationLink("Live", "admin:audit_live", "live", "audit.view_auditevent"),
            NavigationLink("Integrity", "admin:audit_integrity", "seal", "audit.verify_auditevent"),
            NavigationLink("Redaction", "admin:audit_redactionrule_changelist", "lock", "audit.view_redactionrule"),
            NavigationLink("Health", "admin:health", "limits", "sentinel.view_health"),
        ),
    ),
    (
        "Access",
        (
            NavigationLink("Keys", "admin:policies_apikey_changelist", "keys", "policies.view_apikey"),
            NavigationLink("Roles", "admin:policies_role_changelist", "roles", "policies.view_role"),
            NavigationLink("Rules", "admin:policies_rule_changelist", "rules", "policies.view_rule"),
            NavigationLink("Limits", "admin:policies_ratelimit_changelist", "clock", "policies.view_ratelimit"),
            NavigationLink("Explain", "admin:policies_explain", "explain", "policies.explain_policy"),
            NavigationLink("Replay", "admin:policies_replay", "replay", "policies.replay_policy"),
            NavigationLink(
                "Versions", "admin:policies_policyversion_changelist", "policy", "policies.view_policyversion"
            ),
        ),
    ),
    (
        "Servers",
        (
            NavigationLink("Upstreams", "admin:proxy_upstream_changelist", "upstreams", "proxy.view_upstream"),
            NavigationLink("Tools", "admin:proxy_catalogueitem_changelist", "tools", "proxy.view_catalogueitem"),
        ),
    ),
    ("People", (NavigationLink("Users", "admin:sentinel_user_changelist", "users", "sentinel.view_user"),)),
)


class SentinelAdminSite(AdminSite):
    """Django's admin under the product's name, with the overview as its front page."""

    site_header = "MCP Sentinel"
    site_title = "MCP Sentinel"
    index_title = "Overview"
    site_url = None
    enable_nav_sidebar = False
    empty_value_display = "–"

    def register(self, model_or_iterable: Any, admin_class: Any = None, **options: Any) -> None:
        """Take only the project's own pages: other applications' would show secrets, or let groups drift from the duties."""
        models: list[Any] = [model_or_iterable] if isinstance(model_or_iterable, type) else list(model_or_iterable)
        own = [model for model in models if model._meta.app_label in OWN]
        if own:
            super().register(own, admin_class, **options)

    def get_urls(self) -> list[URLResolver | URLPattern]:
        """Put the site's own pages before those of the models."""
        from sentinel.site import pages
        from sentinel.users import pages as second_factor_pages

        wrap = self.admin_view
        own = [
            path("preferences/", wrap(pages.preferences), name="preferences"),
            path("second-factor/", wrap(second_factor_pages.ask), name="second_factor"),
            path("second-factor/codes/", wrap(second_factor_pages.codes), name="second_factor_codes"),
            path("second-factor/codes/file/", wrap(second_factor_pages.codes_file), name="second_factor_codes_file"),
            path("second-factor/off/", wrap(second_factor_pages.turn_off), name="second_factor_off"),
            path("components/", wrap(pages.components), name="components"),
            path("views/", wrap(pages.save_view), name="save_view"),
            path("health/", wrap(pages.health), name="health"),
        ]
        return [*own, *super().get_urls()]

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        """Add navigation, theme and zone to what templates get."""
        context = super().each_context(request)
        context["navigation"] = navigation(request)
        context["theme"] = getattr(request.user, "theme", "auto") if request.user.is_authenticated else "auto"
        return context

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Let somebody change their own password."""
        from sentinel.users.pages import OwnPassword

        context = {**self.each_context(request), **(extra_context or {})}
        return OwnPassword.as_view(extra_context=context)(request)

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        from sentinel.site import overview

        return overview.page(request, self.each_context(request) | (extra_context or {}))

    def app_index(self, request: HttpRequest, app_label: str, extra_context: dict[str, Any] | None = None) -> Any:
        """Applications are no places people look for; the front page is."""
        from django.shortcuts import redirect

        return redirect("admin:index")


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the groups and links that this person may follow, with the present one marked."""
    allowed = []
    for title, links in NAVIGATION:
        for link in links:
            if request.user.has_perm(link.permission):
                try:
                    allowed.append((title, link, reverse(link.view)))
                except NoReverseMatch:
                    continue
    # A page below another's address belongs to the nearest one.
    fitting = [
        url
        for _, link, url in allowed
        if request.path == url or (link.view != "admin:index" and request.path.startswith(url))
    ]
    here = max(fitting, key=len, default="")
    groups: list[dict[str, Any]] = []
    for title, link, url in allowed:
        if not groups or groups[-1]["title"] != title:
            groups.append({"title": title, "links": []})
        groups[-1]["links"].append({"label": link.label, "url": url, "icon": link.icon, "here": url == here})
    return groups
