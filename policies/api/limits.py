"""Limits, one by one; each change is a new version of the policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from core.access.actors import Actor
from core.api.problems import invalid, wrong
from core.api.resources import Resource
from policies import specs
from policies.api.parts import pick, strangers
from policies.api.serializers import rules as forms
from policies.api.serializers.parts import shown
from policies.documents.sentences import limit_sentence
from policies.services import policy as policy_acts
from policies.specs import LIMIT, LimitSpec, PolicySpec

__all__ = ["LimitResource"]


def limit_form(limit: LimitSpec) -> dict[str, Any]:
    """Return a limit as it is answered."""
    return {"id": limit.id, **shown(limit, forms.LimitChangeSerializer), "sentence": limit_sentence(limit)}


def read_limit(asked: dict[str, Any], before: LimitSpec | None, policy: PolicySpec) -> LimitSpec:
    """Make a limit of what was asked for, on top of what it was; refuse what could not be stored."""
    plain = {**asked, **{row.name: row.take(asked[row.name]) for row in LIMIT if row.name in asked}}
    for name in ("upstream", "kind", "pattern"):
        if name in plain:
            plain[name] = plain[name] or ""
    spec = replace(before or LimitSpec(1, 1), **plain)
    errors = [
        *strangers([spec.role] if spec.role else None, [spec.key] if spec.key else None, policy),
    ]
    if not spec.kind and (spec.pattern or spec.is_default or "tool" in spec.per):
        errors.append(wrong("kind", "A limit that tells names apart says of which kind they are."))
    if spec.is_default and spec.pattern:
        errors.append(wrong("is_default", "A default names no pattern."))
    errors += [wrong(row.name, f"Not more than the {row.within}.") for row in specs.exceeding(specs.plain(spec))]
    if errors:
        raise invalid(*errors)
    return spec


class LimitResource(Resource):
    """Limits: changed in place, so that what one has counted stays."""

    name, names, words, plural, tag = "Limit", "Limits", "a limit", "limits", "limits"
    model = "policies.ratelimit"
    change, answer = forms.LimitChangeSerializer, forms.LimitSerializer

    def all(self, query: Mapping[str, Any]) -> Any:
        return policy_acts.current_spec().limits

    def find(self, pk: int, *, lock: bool = False) -> LimitSpec:
        """Return a stored limit, or say that there is none."""
        if lock:
            policy_acts.lock_policy()
        found: LimitSpec = pick(policy_acts.current_spec().limits, pk, "limit")
        return found

    def shown(self, thing: LimitSpec) -> dict[str, Any]:
        """Return a limit as it is answered."""
        return limit_form(thing)

    def add(self, asked: dict[str, Any], actor: Actor) -> int:
        policy_acts.lock_policy()
        return policy_acts.create_limit(read_limit(asked, None, policy_acts.current_spec()), actor=actor)

    def update(self, thing: LimitSpec, asked: dict[str, Any], actor: Actor) -> None:
        policy_acts.update_limit(thing.id, read_limit(asked, thing, policy_acts.current_spec()), actor=actor)

    def remove(self, thing: LimitSpec, actor: Actor) -> None:
        policy_acts.delete_limit(thing.id, actor=actor)
