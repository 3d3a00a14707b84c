"""Addresses of upstreams and tools."""

from __future__ import annotations

from django.urls import path

from core.api import converters  # noqa: F401 - makes <id:...> known
from proxy.api import tools, upstreams

urlpatterns = [
    path("upstreams/", upstreams.Upstreams.as_view()),
    path("upstreams/<str:slug>/", upstreams.OneUpstream.as_view()),
    path("upstreams/<str:slug>/check/", upstreams.UpstreamCheck.as_view()),
    path("tools/", tools.Tools.as_view()),
    path("tools/<id:pk>/", tools.OneTool.as_view()),
    path("tools/<id:pk>/approve/", tools.ToolApproval.as_view()),
    path("tools/<id:pk>/quarantine/", tools.ToolQuarantine.as_view()),
]
