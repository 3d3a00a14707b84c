"""Roles, one by one; each change is a new version of the policy."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import Count, Q, QuerySet
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from core.api.fields import read
from core.api.problems import Problem, refused
from core.api.views import ApiView, actor_of
from policies.api.idempotency import once
from policies.api.parts import operations
from policies.api.serializers import rules as forms
from policies.models import Role
from policies.services import policy as policy_acts

__all__ = ["OneRole", "Roles"]

_ROLES, _ROLE = operations(
    "Role", "Roles", "a role", forms.RoleChangeSerializer, forms.RoleSerializer, model="role",
)  # fmt: skip


def role_form(role: Any) -> dict[str, Any]:
    """Return a role as it is answered."""
    return {"id": role.pk, "name": role.name, "description": role.description, "live_keys": role.live}


def roles() -> QuerySet[Role]:
    """Return roles with their number of live keys."""
    live = Q(api_keys__revoked_at=None) & (Q(api_keys__expires_at=None) | Q(api_keys__expires_at__gt=timezone.now()))
    return Role.objects.annotate(live=Count("api_keys", filter=live & Q(api_keys__isnull=False)))


def find_role(role_id: int) -> Any:
    """Return a role, or say that there is none."""
    role = roles().filter(pk=role_id).first()
    if role is None:
        raise Problem("not_found", "There is no such role.")
    return role


class Roles(ApiView):
    """All roles."""

    operations = _ROLES
    volatile = frozenset(("live_keys",))

    def get(self, request: Request) -> Response:
        """Return one page."""
        return self.page_of(roles(), role_form)

    def post(self, request: Request) -> Response:
        """Add one."""
        asked = read(forms.RoleChangeSerializer, request.data)

        def act() -> Response:
            made = policy_acts.create_role(actor=actor_of(request), **asked)
            return self.made(role_form(find_role(made.pk)), made.pk)

        return once(request, act)


class OneRole(ApiView):
    """One role."""

    operations = _ROLE
    volatile = frozenset(("live_keys",))

    def get(self, request: Request, pk: int) -> Response:
        """Return it."""
        return self.one(role_form(find_role(pk)))

    @transaction.atomic
    def patch(self, request: Request, pk: int) -> Response:
        """Change it."""
        asked = read(forms.RoleChangeSerializer, request.data, partial=True)
        policy_acts.lock_policy()
        self.check_match(role_form(find_role(pk)))
        policy_acts.update_role(pk, actor=actor_of(request), **asked)
        return self.one(role_form(find_role(pk)))

    @transaction.atomic
    def delete(self, request: Request, pk: int) -> Response:
        """Drop it; refused while live keys hold it."""
        policy_acts.lock_policy()
        self.check_match(role_form(find_role(pk)))
        try:
            policy_acts.delete_role(pk, actor=actor_of(request))
        except policy_acts.PolicyRefused as error:
            raise refused(error, "conflict") from None
        return Response(status=204)
