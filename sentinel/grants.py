"""What the serving role may do in the database that the owning role has made."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from psycopg import sql


def apply(connection: Any, role: str) -> None:
    """Let the serving role read and write every table and sequence; what is narrower comes from the packages."""
    name = sql.Identifier(role)
    statements = (
        "GRANT USAGE ON SCHEMA public TO {role}",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
        "GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA public TO {role}",
        "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {role}",
    )
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(sql.SQL(statement).format(role=name))
        try:
            from audit import grants as narrower
        except ImportError:
            return
        narrower.apply(connection, role)
