"""What the addresses of roles, rules and limits share: finding one by its id, and what a change may not name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from core.api.problems import Problem, wrong
from policies.keys.credentials import PREFIX
from policies.models import ApiKey
from policies.specs import PolicySpec

__all__ = ["pick", "strangers"]


def strangers(
    role_names: Iterable[str] | None, keys: Iterable[str] | None, policy: PolicySpec
) -> Iterable[dict[str, str]]:
    """Name the roles and keys that there are not."""
    known = {role.name for role in policy.roles}
    for role in sorted(role_names or ()):
        if role not in known:
            yield wrong("roles", f"There is no role {role!r}.")
    wanted = {key.removeprefix(PREFIX) for key in keys or ()}
    there = set(ApiKey.objects.filter(public_id__in=wanted).values_list("public_id", flat=True)) if wanted else set()
    for key in sorted(keys or ()):
        if not key.startswith(PREFIX) or key.removeprefix(PREFIX) not in there:
            yield wrong("keys", f"There is no key {key!r}; keys are named by their prefix.")


def pick(found: Iterable[Any], wanted: int, what: str) -> Any:
    """Return the one with this id, or say that there is none."""
    spec = next((one for one in found if one.id == wanted), None)
    if spec is None:
        raise Problem("not_found", f"There is no such {what}.")
    return spec
