"""What a serving role may do: everything the gateway needs, and nothing that could change an event."""

from __future__ import annotations

from typing import Any

from django.db import transaction

__all__ = ["INSERT_ONLY", "READ_ONLY", "apply", "statements"]

INSERT_ONLY = ("audit_auditevent",)
READ_ONLY = ("audit_tombstone", "django_migrations")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def statements(role: str, schema: str = "public") -> list[str]:
    """Give the SQL that the owner runs after each migration; running it again changes nothing.

    The partitions of the log are left without any right: rows go in and come out through the parent table only.
    """
    who, where = quoted(role), quoted(schema)
    sql = [
        f"GRANT USAGE ON SCHEMA {where} TO {who}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {where} TO {who}",
        f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {where} TO {who}",
        f"GRANT EXECUTE ON FUNCTION {where}.audit_create_partition(date) TO {who}",
    ]
    sql += [f"REVOKE UPDATE, DELETE, TRUNCATE ON {where}.{table} FROM {who}" for table in INSERT_ONLY]
    sql += [f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON {where}.{table} FROM {who}" for table in READ_ONLY]
    sql.append(
        "DO $$ DECLARE part regclass; BEGIN"  # noqa: S608
        f" FOR part IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = '{schema}.audit_auditevent'::regclass"
        f" LOOP EXECUTE format('REVOKE ALL ON %s FROM {who.replace(chr(39), chr(39) * 2)}', part); END LOOP; END $$"
    )
    return sql


def apply(connection: Any, role: str) -> None:
    """Give the serving role its rights; doing it again changes nothing."""
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        for statement in statements(role):
            cursor.execute(statement)
