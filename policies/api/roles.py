"""Roles, one by one; each change is a new version of the policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from core.access.actors import Actor
from core.api.problems import Problem, refused
from core.api.resources import Resource
from policies.api.serializers import rules as forms
from policies.models import Role
from policies.services import policy as policy_acts

__all__ = ["RoleResource"]


class RoleResource(Resource):
    """Roles, with their number of live keys."""

    name, names, words, plural, tag = "Role", "Roles", "a role", "roles", "roles"
    model = "policies.role"
    change, answer = forms.RoleChangeSerializer, forms.RoleSerializer
    volatile = frozenset(("live_keys",))

    def all(self, query: Mapping[str, Any]) -> QuerySet[Role]:
        live = Q(api_keys__revoked_at=None) & (
            Q(api_keys__expires_at=None) | Q(api_keys__expires_at__gt=timezone.now())
        )
        return Role.objects.annotate(live=Count("api_keys", filter=live & Q(api_keys__isnull=False)))

    def find(self, pk: int, *, lock: bool = False) -> Role:
        """Return a role, or say that there is none."""
        if lock:
            policy_acts.lock_policy()
        role = self.all({}).filter(pk=pk).first()
        if role is None:
            raise Problem("not_found", "There is no such role.")
        return role

    def shown(self, thing: Any) -> dict[str, Any]:
        """Return a role as it is answered."""
        return {"id": thing.pk, "name": thing.name, "description": thing.description, "live_keys": thing.live}

    def add(self, asked: dict[str, Any], actor: Actor) -> int:
        return int(policy_acts.create_role(actor=actor, **asked).pk)

    def update(self, thing: Role, asked: dict[str, Any], actor: Actor) -> None:
        policy_acts.update_role(thing.pk, actor=actor, **asked)

    def remove(self, thing: Role, actor: Actor) -> None:
        """Drop it; refused while live keys hold it."""
        try:
            policy_acts.delete_role(thing.pk, actor=actor)
        except policy_acts.PolicyRefused as error:
            raise refused(error, "conflict") from None
