"""Addresses of keys, roles, rules, limits and policy."""

from __future__ import annotations

from django.urls import path

from core.api import converters  # noqa: F401 - makes <id:...> known
from policies.api import keys, limits, policy, replays, roles, rules, versions

urlpatterns = [
    path("keys/", keys.Keys.as_view()),
    path("keys/<uuid:key_id>/", keys.OneKey.as_view()),
    path("keys/<uuid:key_id>/rotate/", keys.KeyRotation.as_view()),
    path("keys/<uuid:key_id>/revoke/", keys.KeyRevocation.as_view()),
    path("roles/", roles.Roles.as_view()),
    path("roles/<id:pk>/", roles.OneRole.as_view()),
    path("rules/", rules.Rules.as_view()),
    path("rules/<id:pk>/", rules.OneRule.as_view()),
    path("limits/", limits.Limits.as_view()),
    path("limits/<id:pk>/", limits.OneLimit.as_view()),
    path("policy/", policy.Policy.as_view()),
    path("policy/apply/", policy.Apply.as_view()),
    path("policy/check/", policy.Check.as_view()),
    path("policy/diff/", policy.Diff.as_view()),
    path("policy/explain/", policy.Explain.as_view()),
    path("policy/versions/", versions.Versions.as_view()),
    path("policy/versions/<id:number>/", versions.OneVersion.as_view()),
    path("policy/versions/<id:number>/restore/", versions.Restore.as_view()),
    path("policy/replays/", replays.Replays.as_view()),
    path("policy/replays/<uuid:job_id>/", replays.OneReplay.as_view()),
]
