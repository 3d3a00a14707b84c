"""Every address of the API."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from django.urls import include, path, re_path

from audit.api.redaction import RedactionRuleResource
from core.api import converters  # noqa: F401 - makes <id:...> known
from policies.api.idempotency import once
from sentinel.api import schema, views

redaction_rules, one_redaction_rule = RedactionRuleResource().views(once)

v1 = path(
    "api/v1/",
    include(
        [
            path("", include("audit.api.urls")),
            # Here and not among the log's own: what Idempotency-Key was answered with is kept by `policies`.
            path("redaction-rules/", redaction_rules),
            path("redaction-rules/<id:pk>/", one_redaction_rule),
            path("", include("policies.api.urls")),
            path("", include("proxy.api.urls")),
            path("health/", views.Health.as_view()),
        ]
    ),
)


@lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    """Return the description of the API; what it says changes with the code alone."""
    return schema.described(v1)


urlpatterns = [
    v1,
    path("api/schema/", views.Schema.as_view(document=document)),
    path("api/docs/", views.Docs.as_view(document=document)),
    re_path(r"^api/", views.Nothing.as_view()),
]
