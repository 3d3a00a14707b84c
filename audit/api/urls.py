"""Addresses of events."""

from __future__ import annotations

from django.urls import path

from audit.api import views

urlpatterns = [
    path("events/", views.Events.as_view()),
    path("events/export/", views.EventExport.as_view()),
    path("events/<uuid:event>/", views.OneEvent.as_view()),
]
