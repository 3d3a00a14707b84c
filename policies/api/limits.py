"""Limits, one by one; each change is a new version of the policy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.db import transaction
from rest_framework.request import Request
from rest_framework.response import Response

from core.api.fields import read
from core.api.problems import invalid, wrong
from core.api.views import ApiView, actor_of
from policies import specs
from policies.api.idempotency import once
from policies.api.parts import operations, pick, strangers
from policies.api.serializers import rules as forms
from policies.api.serializers.parts import shown
from policies.documents.sentences import limit_sentence
from policies.services import policy as policy_acts
from policies.specs import LIMIT, LimitSpec, PolicySpec

__all__ = ["Limits", "OneLimit"]

_LIMITS, _LIMIT = operations(
    "Limit", "Limits", "a limit", forms.LimitChangeSerializer, forms.LimitSerializer, model="ratelimit",
)  # fmt: skip


def limit_form(limit: LimitSpec) -> dict[str, Any]:
    """Return a limit as it is answered."""
    return {"id": limit.id, **shown(limit, forms.LimitChangeSerializer), "sentence": limit_sentence(limit)}


def read_limit(asked: dict[str, Any], before: LimitSpec | None, policy: PolicySpec) -> LimitSpec:
    """Make a limit of what was asked for, on top of what it was; refuse what could not be stored."""
    plain = {**asked, **{row.name: row.take(asked[row.name]) for row in LIMIT if row.name in asked}}
    for name in ("upstream", "kind", "pattern"):
        if name in plain:
            plain[name] = plain[name] or ""
    spec = replace(before or LimitSpec(1, 1), **plain)
    errors = [
        *strangers([spec.role] if spec.role else None, [spec.key] if spec.key else None, policy),
    ]
    if not spec.kind and (spec.pattern or spec.is_default or "tool" in spec.per):
        errors.append(wrong("kind", "A limit that tells names apart says of which kind they are."))
    if spec.is_default and spec.pattern:
        errors.append(wrong("is_default", "A default names no pattern."))
    errors += [wrong(row.name, f"Not more than the {row.within}.") for row in specs.exceeding(specs.plain(spec))]
    if errors:
        raise invalid(*errors)
    return spec


def limit_of(pk: int) -> LimitSpec:
    """Return a stored limit, or say that there is none."""
    spec: LimitSpec = pick(policy_acts.current_spec().limits, pk, "limit")
    return spec


class Limits(ApiView):
    """All limits."""

    operations = _LIMITS

    def get(self, request: Request) -> Response:
        """Return one page."""
        return self.page_of(policy_acts.current_spec().limits, limit_form)

    def post(self, request: Request) -> Response:
        """Add one."""
        asked = read(forms.LimitChangeSerializer, request.data)

        def act() -> Response:
            policy_acts.lock_policy()
            made = policy_acts.create_limit(
                read_limit(asked, None, policy_acts.current_spec()), actor=actor_of(request)
            )
            return self.made(limit_form(limit_of(made)), made)

        return once(request, act)


class OneLimit(ApiView):
    """One limit."""

    operations = _LIMIT

    def get(self, request: Request, pk: int) -> Response:
        """Return it."""
        return self.one(limit_form(limit_of(pk)))

    @transaction.atomic
    def patch(self, request: Request, pk: int) -> Response:
        """Change it in place; what it has counted stays."""
        asked = read(forms.LimitChangeSerializer, request.data, partial=True)
        policy_acts.lock_policy()
        policy = policy_acts.current_spec()
        before: LimitSpec = pick(policy.limits, pk, "limit")
        self.check_match(limit_form(before))
        policy_acts.update_limit(pk, read_limit(asked, before, policy), actor=actor_of(request))
        return self.one(limit_form(limit_of(pk)))

    @transaction.atomic
    def delete(self, request: Request, pk: int) -> Response:
        """Remove it."""
        policy_acts.lock_policy()
        self.check_match(limit_form(limit_of(pk)))
        policy_acts.delete_limit(pk, actor=actor_of(request))
        return Response(status=204)
