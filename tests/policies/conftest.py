"""A connection beside the tests' own transaction, for what other processes would see."""

import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest
from django.db import connection

from policies.keys import credentials

PEPPERS = {1: b"p" * 32}


@pytest.fixture
def dsn(django_db_setup, django_db_blocker) -> str:
    """Where the test database is."""
    with django_db_blocker.unblock():
        parameters = connection.get_connection_params()
    wanted = ("host", "port", "user", "password", "dbname")
    return psycopg.conninfo.make_conninfo(**{k: v for k, v in parameters.items() if k in wanted and v})


@pytest.fixture
def outside(dsn) -> Iterator[psycopg.Connection]:
    """Commits at once; keys, rules and roles that a test makes with it are removed."""
    with psycopg.connect(dsn, autocommit=True) as raw:
        roles = [row[0] for row in raw.execute("SELECT id FROM policies_role")]
        rules = [row[0] for row in raw.execute("SELECT id FROM policies_rule")]
        yield raw
        raw.execute("DELETE FROM policies_keyusage")
        raw.execute("DELETE FROM policies_keysecret")
        raw.execute("DELETE FROM policies_rulecondition WHERE NOT rule_id = ANY(%s)", [rules])
        raw.execute("DELETE FROM policies_rule_roles WHERE NOT rule_id = ANY(%s)", [rules])
        raw.execute("DELETE FROM policies_rule WHERE NOT id = ANY(%s)", [rules])
        raw.execute("DELETE FROM policies_apikey")
        raw.execute("DELETE FROM policies_role WHERE NOT id = ANY(%s)", [roles])


@pytest.fixture
def add_key(outside) -> Callable[[], tuple[uuid.UUID, str]]:
    """Store a key of a role of its own; gives id and whole key."""
    role = outside.execute(
        "INSERT INTO policies_role (name, description) VALUES ('outside', '') RETURNING id"
    ).fetchone()[0]

    def add() -> tuple[uuid.UUID, str]:
        key_id, public_id = uuid.uuid4(), credentials.new_public_id()
        text = credentials.generate(public_id)
        digest = credentials.digest(PEPPERS[1], public_id, credentials.parse(text).secret)
        with outside.transaction():
            outside.execute(
                "INSERT INTO policies_apikey (id, public_id, name, role_id, owner, description, networks, upstreams, query_allowed,"
                " created_at, created_by, revoked_by, revoked_reason, former_role)"
                " VALUES (%s, %s, 'k', %s, '', '', '{}', '{}', true, now(), '', '', '', '')",
                [key_id, public_id, role],
            )
            outside.execute(
                "INSERT INTO policies_keysecret (key_id, generation, digest, pepper_id, last4, created_at)"
                " VALUES (%s, 1, %s, 1, 'abcd', now())",
                [key_id, digest],
            )
        return key_id, text

    return add
