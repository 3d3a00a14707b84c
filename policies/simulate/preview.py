"""What the policy as stored would decide, for pages: what a key may call, who may call a tool, what a rule would match."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from core import registry
from policies.engine.compiled import PolicySet
from policies.engine.decide import decide_reference
from policies.engine.types import Context, Principal, Target
from policies.models import ApiKey
from policies.services.policy import current_spec

__all__ = ["Cell", "PreviewRow", "known_tools", "matrix", "policy", "reach_of"]

MOST = 400


@dataclass(frozen=True, slots=True)
class Cell:
    """An answer for one role and one tool: yes, no, or it depends on the arguments."""

    answer: str
    rule: str = ""


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """One tool and the answers for each role."""

    upstream: str
    tool: str
    cells: tuple[Cell, ...]
    waits: bool = False  # its definition waits for approval, so that nobody may call it yet


def policy() -> PolicySet:
    """Load and compile the policy as it is stored now."""
    return PolicySet(current_spec())


def known_tools() -> list[tuple[str, str, Any, bool]]:
    """Return (upstream, tool, annotations, waits for approval) of the catalogue."""
    return registry.known_tools(MOST)


def matrix(roles: Iterable[str], tools: Iterable[tuple[str, str, Any, bool]], compiled: PolicySet) -> list[PreviewRow]:
    """Answer for each role and tool."""
    principals = [Principal(None, "", "", role) for role in roles]
    return [
        PreviewRow(
            upstream, tool, tuple(_cell(compiled, principal, upstream, tool, notes) for principal in principals), waits
        )
        for upstream, tool, notes, waits in tools
    ]


def _cell(compiled: PolicySet, principal: Principal, upstream: str, tool: str, notes: Any) -> Cell:
    target = Target("tool", upstream, tool, annotations=notes)
    context = Context(time.time())
    listed = decide_reference(compiled, principal, target, context)
    if not listed.allowed:
        return Cell("no", _name(listed.rule))
    # Allowed for some arguments; certain only where no rule asks for any.
    return Cell("depends" if _asks(compiled, principal, target) else "yes", _name(listed.rule))


def _asks(compiled: PolicySet, principal: Principal, target: Target) -> bool:
    found = compiled.candidates(principal.role, principal.key_prefix, target.kind, target.upstream, target.name)
    return any(rule.argument_checks for rule in (*found.denies, *found.allows))


def _name(rule: Any) -> str:
    return "" if rule is None else f"rule {rule.id}{f' “{rule.name}”' if rule.name else ''}"


def reach_of(key: ApiKey) -> list[PreviewRow]:
    """Return what one key may call of the tools that are known."""
    compiled = policy()
    principal = Principal(key.pk, key.name, key.prefix, key.role.name if key.role else "", frozenset(key.upstreams))
    return [
        PreviewRow(upstream, tool, (_cell(compiled, principal, upstream, tool, notes),), waits)
        for upstream, tool, notes, waits in known_tools()
    ]
