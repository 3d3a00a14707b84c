"""What the serving role may do in the database that the owning role has made; audit.grants says it."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from audit import grants


def apply(connection: Any, role: str) -> None:
    """Give the serving role its rights; doing it again changes nothing."""
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        for statement in grants.statements(role):
            cursor.execute(statement)
