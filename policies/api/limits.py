"""Limits, one by one; each change is a new version of the policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from core.access.actors import Actor
from core.api.problems import invalid, wrong
from core.api.resources import Resource
from policies import services, vocabulary
from policies.api.parts import pick, strangers
from policies.api.serializers import rules as forms
from policies.documents.sentences import limit_sentence
from policies.specs import LimitSpec, PolicySpec

__all__ = ["LimitResource"]


def limit_form(limit: LimitSpec) -> dict[str, Any]:
    """Return a limit as it is answered."""
    return {
        "id": limit.id,
        "name": limit.name,
        "requests": limit.requests,
        "window_seconds": limit.window_seconds,
        "burst": limit.burst,
        "per": list(limit.per),
        "key": limit.key,
        "role": limit.role,
        "upstream": limit.upstream or None,
        "kind": limit.kind or None,
        "pattern": limit.pattern or None,
        "is_default": limit.is_default,
        "enabled": limit.enabled,
        "sentence": limit_sentence(limit),
    }


def read_limit(asked: dict[str, Any], before: LimitSpec | None, policy: PolicySpec) -> LimitSpec:
    """Make a limit of what was asked for, on top of what it was; refuse what could not be stored."""
    plain = {name: value for name, value in asked.items() if name != "per"}
    for name in ("upstream", "kind", "pattern"):
        if name in plain:
            plain[name] = plain[name] or ""
    if "per" in asked:
        plain["per"] = tuple(word for word in vocabulary.LIMIT_IDENTITIES if word in asked["per"])
    spec = replace(before or LimitSpec(1, 1), **plain)
    errors = [
        *strangers([spec.role] if spec.role else None, [spec.key] if spec.key else None, policy),
    ]
    if not spec.kind and (spec.pattern or spec.is_default or "tool" in spec.per):
        errors.append(wrong("kind", "A limit that tells names apart says of which kind they are."))
    if spec.is_default and spec.pattern:
        errors.append(wrong("is_default", "A default names no pattern."))
    if spec.burst is not None and spec.burst > spec.requests:
        errors.append(wrong("burst", "Not more than the requests."))
    if errors:
        raise invalid(*errors)
    return spec


class LimitResource(Resource):
    """Limits: changed in place, so that what one has counted stays."""

    name, names, words, plural, tag = "Limit", "Limits", "a limit", "limits", "limits"
    model = "policies.ratelimit"
    change, answer = forms.LimitChangeSerializer, forms.LimitSerializer

    def all(self, query: Mapping[str, Any]) -> Any:
        """Return those that a list shows."""
        return services.current_spec().limits

    def find(self, pk: int, *, lock: bool = False) -> LimitSpec:
        """Return a stored limit, or say that there is none."""
        if lock:
            services.lock_policy()
        found: LimitSpec = pick(services.current_spec().limits, pk, "limit")
        return found

    def shown(self, thing: LimitSpec) -> dict[str, Any]:
        """Return a limit as it is answered."""
        return limit_form(thing)

    def add(self, asked: dict[str, Any], actor: Actor) -> int:
        """Add one."""
        services.lock_policy()
        return services.create_limit(read_limit(asked, None, services.current_spec()), actor=actor)

    def update(self, thing: LimitSpec, asked: dict[str, Any], actor: Actor) -> None:
        """Change one."""
        services.update_limit(thing.id, read_limit(asked, thing, services.current_spec()), actor=actor)

    def remove(self, thing: LimitSpec, actor: Actor) -> None:
        """Remove one."""
        services.delete_limit(thing.id, actor=actor)
