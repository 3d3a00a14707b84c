"""Rows to plain values: keys and policy read with bare SQL on a connection of psycopg's own, without Django."""

from __future__ import annotations

import json
from typing import Any

import psycopg

from policies import vocabulary
from policies.keys.credentials import PREFIX
from policies.keys.index import KeyRecord, KeySecretRecord
from policies.members import Member, Words
from policies.specs import (
    LIMIT,
    RULE,
    AuditSpec,
    ConditionSpec,
    LimitSpec,
    PolicySpec,
    RoleSpec,
    RuleSpec,
    WindowSpec,
)

Connection = psycopg.Connection[Any]


def _plain(row: str, table: tuple[Member, ...]) -> str:
    return ", ".join(f"{row}.{one.name}" for one in table)


KEYS = """
SELECT k.id, k.public_id, k.name, coalesce(r.name, k.former_role) AS role, coalesce(k.duty, '') AS duty, k.owner,
       extract(epoch FROM k.expires_at)::float8 AS expires_at, extract(epoch FROM k.revoked_at)::float8 AS revoked_at,
       k.networks::text[] AS networks, k.upstreams::text[] AS upstreams, k.query_allowed,
       coalesce((SELECT json_agg(json_build_array(s.generation, s.pepper_id, encode(s.digest, 'hex'),
                                                  extract(epoch FROM s.not_after)::float8) ORDER BY s.generation DESC)
                 FROM policies_keysecret s WHERE s.key_id = k.id), '[]')::text AS secrets
FROM policies_apikey k LEFT JOIN policies_role r ON r.id = k.role_id
"""
ROLES = "SELECT id, name, description FROM policies_role ORDER BY name"
RULES = f"""
SELECT r.id, {_plain("r", RULE)}, r.kinds::text[] AS kinds, r.upstreams::text[] AS upstreams,
       r.pattern, r.days::text[] AS days, r.from_time, r.to_time,
       coalesce(nullif(r.time_zone, ''), 'UTC') AS zone, r.valid_from, r.valid_until,
       r.networks::text[] AS networks,
       CASE WHEN NOT r.any_role THEN
           ARRAY(SELECT o.name FROM policies_rule_roles l JOIN policies_role o ON o.id = l.role_id
                 WHERE l.rule_id = r.id)::text[] END AS roles,
       CASE WHEN NOT r.any_key THEN
           ARRAY(SELECT '{PREFIX}' || k.public_id FROM policies_rule_keys l JOIN policies_apikey k ON k.id = l.apikey_id
                 WHERE l.rule_id = r.id)::text[] END AS keys
FROM policies_rule r ORDER BY r.id
"""  # noqa: S608 (names of this program's own)
CONDITIONS = """
SELECT rule_id, subject, path, quantifier, operator, value::text AS value FROM policies_rulecondition ORDER BY id
"""
LIMITS = f"""
SELECT l.id, {_plain("l", LIMIT)}, '{PREFIX}' || k.public_id AS key, o.name AS role, l.upstream, l.kind, l.pattern
FROM policies_ratelimit l LEFT JOIN policies_apikey k ON k.id = l.key_id LEFT JOIN policies_role o ON o.id = l.role_id
ORDER BY l.id
"""  # noqa: S608 (names of this program's own)
AUDIT = """
SELECT a.id, o.name AS role, a.upstream, a.kinds::text[] AS kinds, a.pattern, a.level
FROM policies_auditlevel a LEFT JOIN policies_role o ON o.id = a.role_id ORDER BY a.id
"""
_RULE_WORDS, _LIMIT_WORDS = (tuple(one for one in table if isinstance(one, Words)) for table in (RULE, LIMIT))
REVISIONS = "SELECT kind, number FROM policies_revision"


def _rows(connection: Connection, query: str, *parameters: Any) -> list[dict[str, Any]]:
    cursor = connection.cursor(row_factory=psycopg.rows.dict_row)
    return cursor.execute(query, parameters or None).fetchall()


def revisions(connection: Connection) -> dict[str, int]:
    """How often each kind has changed."""
    return {row["kind"]: row["number"] for row in _rows(connection, REVISIONS)}


def load_keys(connection: Connection, public_id: str = "") -> dict[str, KeyRecord]:
    """Every key, live or not (events name revoked ones too), or the one of this public id; by public id."""
    rows = _rows(connection, f"{KEYS} WHERE k.public_id = %s", public_id) if public_id else _rows(connection, KEYS)
    return {row["public_id"]: _key(row) for row in rows}


def _key(row: dict[str, Any]) -> KeyRecord:
    secrets = tuple(
        KeySecretRecord(generation, pepper_id, bytes.fromhex(digest), not_after)
        for generation, pepper_id, digest, not_after in json.loads(row["secrets"])
    )
    parts = {"networks": tuple(row["networks"]), "upstreams": frozenset(row["upstreams"]), "secrets": secrets}
    return KeyRecord(**(row | parts))


def load_policy(connection: Connection, version: int = 0) -> PolicySpec:
    """The whole of roles, rules, limits and audit levels."""
    conditions: dict[int, list[ConditionSpec]] = {}
    for row in _rows(connection, CONDITIONS):
        value = None if row["value"] is None else _frozen(json.loads(row["value"]))
        conditions.setdefault(row.pop("rule_id"), []).append(ConditionSpec(**(row | {"value": value})))
    return PolicySpec(
        roles=tuple(RoleSpec(**row) for row in _rows(connection, ROLES)),
        rules=tuple(_rule(row, tuple(conditions.get(row["id"], ()))) for row in _rows(connection, RULES)),
        limits=tuple(_limit(row) for row in _rows(connection, LIMITS)),
        audit=tuple(
            AuditSpec(**(row | {"kinds": _ordered(row["kinds"], vocabulary.KINDS)})) for row in _rows(connection, AUDIT)
        ),
        version=version,
    )


def _ordered(words: list[str], order: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for word in order if word in words)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _rule(row: dict[str, Any], conditions: tuple[ConditionSpec, ...]) -> RuleSpec:
    days, start, end = _ordered(row.pop("days"), vocabulary.WEEKDAYS), row.pop("from_time"), row.pop("to_time")
    window = WindowSpec(days, start, end, row.pop("zone"), row.pop("valid_from"), row.pop("valid_until"))
    _take(row, _RULE_WORDS)
    row.update(
        kinds=_ordered(row["kinds"], vocabulary.KINDS),
        roles=None if row["roles"] is None else frozenset(row["roles"]),
        keys=None if row["keys"] is None else frozenset(row["keys"]),
        upstreams=tuple(sorted(row["upstreams"])),
        networks=tuple(row["networks"]),
    )
    return RuleSpec(**row, conditions=conditions, window=window)


def _limit(row: dict[str, Any]) -> LimitSpec:
    _take(row, _LIMIT_WORDS)
    return LimitSpec(**row)


def _take(row: dict[str, Any], words: tuple[Words, ...]) -> None:
    """Bring lists of words into the form of a spec; the other plain members have it already."""
    for one in words:
        row[one.name] = one.take(row[one.name])
