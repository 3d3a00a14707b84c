"""Addresses of keys, roles, rules, limits and policy."""

from __future__ import annotations

from django.urls import path

from core.api import converters  # noqa: F401 - makes <id:...> known
from policies.api import keys, policy, replays, versions
from policies.api.idempotency import once
from policies.api.limits import LimitResource
from policies.api.roles import RoleResource
from policies.api.rules import RuleResource

roles, one_role = RoleResource().views(once)
rules, one_rule = RuleResource().views(once)
limits, one_limit = LimitResource().views(once)

urlpatterns = [
    path("keys/", keys.Keys.as_view()),
    path("keys/<uuid:key_id>/", keys.OneKey.as_view()),
    path("keys/<uuid:key_id>/rotate/", keys.KeyRotation.as_view()),
    path("keys/<uuid:key_id>/revoke/", keys.KeyRevocation.as_view()),
    path("roles/", roles),
    path("roles/<id:pk>/", one_role),
    path("rules/", rules),
    path("rules/<id:pk>/", one_rule),
    path("limits/", limits),
    path("limits/<id:pk>/", one_limit),
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
