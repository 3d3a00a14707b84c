"""The document's form as a JSON Schema, for editors (pure). docs/policy.schema.json is what this makes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from policies import vocabulary
from policies.keys.credentials import PREFIX
from policies.members import REQUIRED, Member, TextMember, WholeMember, Word, Words
from policies.specs import LIMIT, RATE, RULE

_TEXT = {"type": "string"}


def _object(properties: dict[str, Any], required: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": properties, **more}
    if required:
        found["required"] = list(required)
    return found


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _words(words: tuple[str, ...]) -> dict[str, Any]:
    return {"enum": list(words)}


def _text(most: int, description: str = "") -> dict[str, Any]:
    return {"type": "string", "maxLength": most, **({"description": description} if description else {})}


_PATTERN = {
    "type": "string",
    "minLength": 1,
    "maxLength": vocabulary.MAX_PATTERN,
    "description": "The whole name, case-sensitive; * stands for any characters, ? for one.",
}
_SHORT = {
    "type": "string",
    "minLength": 1,
    "description": "NAME (a tool), prompt:NAME, resource:URI, method:NAME, each also as @UPSTREAM/...; * alone is everything.",
}
_SLUG = {"type": "string", "pattern": vocabulary.SLUG}
_KEY = {"type": "string", "pattern": f"^{PREFIX}[0-9A-Za-z]{{12}}$", "description": "A key by its visible part."}
_TARGET: dict[str, Any] = {
    **{kind: _PATTERN for kind in vocabulary.KINDS},
    "kinds": _list(_words(vocabulary.KINDS)),
    "pattern": _PATTERN,
}
_VALUES: dict[str | None, dict[str, Any]] = {
    "scalar": {"type": ["string", "number", "boolean"]},
    "array": {"type": "array", "minItems": 1, "maxItems": 1000, "items": {"type": ["string", "number", "boolean"]}},
    "number": {"type": "number", "minimum": -(2**53), "maximum": 2**53},
    "string": _TEXT,
    None: {"const": True},
}


def _plain(table: Iterable[Member]) -> dict[str, Any]:
    return {row.called: {**_form(row), **({"description": row.described} if row.described else {})} for row in table}


def _form(row: Member) -> dict[str, Any]:
    match row:
        case TextMember():
            return _text(row.most)
        case WholeMember():
            return {"type": "integer", "minimum": 1, **({} if row.within else {"maximum": row.most})}
        case Word():
            return _words(row.words)
        case Words():
            return _list(_words(row.words))
    return {"type": "boolean"}


def _condition() -> dict[str, Any]:
    operators = {name: _VALUES[form] for name, form in vocabulary.OPERATORS.items()}
    operators["type"] = _words(vocabulary.JSON_TYPES)
    subjects = ("argument", "annotation", "subject")
    return _object(
        {
            "argument": _text(300, "Like amount, filter.table, items[].path"),
            "annotation": _text(300, "Like destructiveHint"),
            "subject": {"const": "name", "description": "The target's own name."},
            "items": _words(vocabulary.QUANTIFIERS),
            **operators,
        },
        allOf=[
            {"oneOf": [{"required": [name]} for name in subjects]},
            {"oneOf": [{"required": [name]} for name in operators]},
        ],
    )


def _rule() -> dict[str, Any]:
    time = {"type": "string", "pattern": r"^\d\d:\d\d(:\d\d)?$"}
    moment = {"type": "string", "format": "date-time"}
    plain = _plain(RULE)
    return _object(
        {
            "name": plain.pop("name"),
            "effect": plain.pop("effect"),
            "roles": {"oneOf": [{"const": "*"}, _list(_TEXT)]},
            "keys": _list(_KEY),
            **_TARGET,
            "upstreams": _list(_SLUG),
            "when": _list(_condition()),
            "hours": _object(
                {"days": _list(_words(vocabulary.WEEKDAYS)), "from": time, "to": time, "zone": _text(64)},
                dependentRequired={"from": ["to"], "to": ["from"]},
            ),
            "valid": _object({"from": moment, "until": moment}),
            "networks": _list(_TEXT),
            **plain,
        },
        ("effect", "roles"),
    )


def schema() -> dict[str, Any]:
    rate, limit = _plain(RATE), _plain(LIMIT)
    needed = tuple(row.called for row in RATE if row.default is REQUIRED)
    rates = {"oneOf": [_object(rate, needed), _list(_object(rate, needed))]}
    role = _object({"description": _text(500), "allow": _list(_SHORT), "deny": _list(_SHORT)})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "MCP Sentinel policy",
        "type": ["object", "null"],
        "additionalProperties": False,
        "properties": {
            "version": {"const": 1},
            "roles": {
                "type": ["object", "null"],
                "propertyNames": {"pattern": vocabulary.ROLE_NAME},
                "additionalProperties": {"anyOf": [role, {"type": "null"}]},
            },
            "rules": _list(_rule()),
            "rate_limits": _object(
                {
                    "per_api_key": rates,
                    "per_tool": _object(
                        {"default": rates, "overrides": {"type": "object", "additionalProperties": rates}}
                    ),
                    "limits": _list(
                        _object(
                            {
                                "name": limit.pop("name"),
                                "key": _KEY,
                                "role": _TEXT,
                                "upstream": _SLUG,
                                **{kind: _PATTERN for kind in vocabulary.KINDS},
                                "kind": _words(vocabulary.KINDS),
                                "per": limit.pop("per"),
                                **limit,
                            },
                            needed,
                        )
                    ),
                }
            ),
            "audit": _list(
                _object(
                    {"level": _words(vocabulary.AUDIT_LEVELS), "role": _TEXT, "upstream": _SLUG, **_TARGET}, ("level",)
                )
            ),
        },
    }
