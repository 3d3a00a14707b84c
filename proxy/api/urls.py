"""Addresses of upstreams and tools."""

from __future__ import annotations

from django.urls import path

from audit.api import converters  # noqa: F401 - makes <id:...> known
from proxy.api import views

urlpatterns = [
    path("upstreams/", views.Upstreams.as_view()),
    path("upstreams/<str:slug>/", views.OneUpstream.as_view()),
    path("upstreams/<str:slug>/check/", views.UpstreamCheck.as_view()),
    path("tools/", views.Tools.as_view()),
    path("tools/<id:pk>/", views.OneTool.as_view()),
    path("tools/<id:pk>/approve/", views.ToolApproval.as_view()),
    path("tools/<id:pk>/quarantine/", views.ToolQuarantine.as_view()),
]
