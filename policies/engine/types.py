"""What is asked of the policy, what it answers, and the reasons it gives (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from policies.engine.conditions import MISSING

ABSENT = MISSING

ALLOWED_BY_RULE = "allowed_by_rule"
OPEN_METHOD = "open_method"
DEFINITION_CHANGED = "tool_definition_changed"
NO_RULE = "no_rule"
DENIED_BY_RULE = "denied_by_rule"
POLICY_ERROR = "policy_error"
AMBIGUOUS = "ambiguous_target"
NESTED = "nested_call"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who the key stands for."""

    key_id: UUID | None
    key_name: str
    key_prefix: str
    role: str
    upstreams: frozenset[str] = frozenset()

    def reaches(self, upstream: str) -> bool:
        """Whether the key may speak with this upstream at all."""
        return not self.upstreams or upstream in self.upstreams


@dataclass(frozen=True, slots=True)
class Target:
    """What a message names: its kind, the upstream, the name as sent, and the call's arguments if it is a call.

    `annotations` are the tool's own, from the catalogue or the list item; None when the tool is not known, which reads
    as the protocol's cautious defaults.
    """

    kind: str
    upstream: str
    name: str
    arguments: Any = ABSENT
    annotations: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """The clock and the place of one decision."""

    now: float | datetime  # seconds since 1970, or an aware moment
    client_ip: str | None = None


@dataclass(frozen=True, slots=True)
class RuleRef:
    """A rule as events name it."""

    id: int
    name: str
    effect: str

    def as_dict(self) -> dict[str, Any]:
        """The form that events and JSON answers carry."""
        return {"id": self.id, "name": self.name, "effect": self.effect}


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer that explains itself. `errors` are rules that could not be decided; `observed` shadow rules that match."""

    allowed: bool
    reason: str
    rule: RuleRef | None
    message: str
    policy_version: int
    observed: tuple[RuleRef, ...] = ()
    errors: tuple[RuleRef, ...] = ()
