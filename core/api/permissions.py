"""Who may: asked of the table of each view."""

from __future__ import annotations

from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request


class HoldsPermissions(BasePermission):
    """Whoever calls holds every permission that the operation names."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Refuse by name."""
        user: Any = request.user
        if user is None or not user.is_authenticated:
            return False
        operation = view.operation
        if operation is not None:
            view.demand(*operation.permissions)
        return True
