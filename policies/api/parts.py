"""What the addresses of roles, rules and limits share: how they are described, and what a change may not name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from core.api.problems import Problem, wrong
from core.api.views import FIELDS, Operation, Parameter, paging
from policies.keys.credentials import PREFIX
from policies.models import ApiKey
from policies.specs import PolicySpec

__all__ = ["operations", "pick", "strangers"]


def operations(
    name: str, plural: str, words: str, change: Any, answer: Any, *extra: Parameter, model: str
) -> tuple[dict[str, Operation], dict[str, Operation]]:
    """Return the operations of a list and of one of its things."""
    low = plural[0].lower() + plural[1:]

    def made(verb: str, act: str, summary: str, **more: Any) -> Operation:
        ident = f"{verb}{plural if more.get('page') else name}"
        return Operation(id=ident, tag=low, summary=summary, permissions=(f"policies.{act}_{model}",), **more)

    many = {
        "get": made("list", "view", f"List {low}", query=(*paging(), *extra), response=answer, page=True),
        "post": made("create", "add", f"Add {words}", request=change, response=answer, status=201, creates=True),
    }
    one = {
        "get": made("get", "view", f"Read {words}", query=(FIELDS,), response=answer, problems=(404,)),
        "patch": made(
            "change",
            "change",
            f"Change {words}",
            request=change,
            response=answer,
            problems=(404, 409),
            conditional=True,
        ),
        "delete": made("delete", "delete", f"Delete {words}", status=204, problems=(404, 409), conditional=True),
    }
    return many, one


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
