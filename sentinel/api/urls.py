"""Every address of the API."""

from __future__ import annotations

from django.urls import include, path, re_path

from sentinel.api import views

v1 = path(
    "api/v1/",
    include(
        [
            path("", include("audit.api.urls")),
            path("", include("policies.api.urls")),
            path("", include("proxy.api.urls")),
            path("health/", views.Health.as_view()),
        ]
    ),
)

urlpatterns = [
    v1,
    path("api/schema/", views.Schema.as_view()),
    path("api/docs/", views.Docs.as_view()),
    re_path(r"^api/", views.Nothing.as_view()),
]
