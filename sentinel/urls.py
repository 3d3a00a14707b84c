"""What Django itself answers: the admin and the REST API."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from sentinel.site.pages import front

handler404 = "sentinel.site.pages.not_found"
urlpatterns = [path("", front), path("admin/", admin.site.urls), path("", include("sentinel.api.urls"))]
