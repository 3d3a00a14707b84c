"""Roles, rules and limits, one by one; each change is a new version of the policy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import time
from typing import Any
from zoneinfo import available_timezones

from django.db import transaction
from django.db.models import Count, Q, QuerySet
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from audit.api.base import FIELDS, ApiView, Operation, Parameter, actor_of, paging
from audit.api.fields import read
from audit.api.problems import Problem, refused
from audit.export import moment
from policies import services, vocabulary
from policies.api import serializers as forms
from policies.api.idempotency import once
from policies.compiled import CompiledRule, PolicyError
from policies.credentials import PREFIX
from policies.models import ApiKey, Role
from policies.specs import ConditionSpec, LimitSpec, PolicySpec, RuleSpec, WindowSpec
from policies.words import limit_sentence, rule_sentence

__all__ = ["Limits", "OneLimit", "OneRole", "OneRule", "Roles", "Rules"]

MAX_EXACT = 2**53


def _error(field: str, message: str) -> dict[str, str]:
    return {"field": field, "message": message, "code": "invalid"}


def _operations(
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


# -- roles

_ROLES, _ROLE = _operations(
    "Role", "Roles", "a role", forms.RoleChange, forms.Role, model="role",
)  # fmt: skip


def role_form(role: Any) -> dict[str, Any]:
    """Return a role as it is answered."""
    return {"id": role.pk, "name": role.name, "description": role.description, "live_keys": role.live}


def roles() -> QuerySet[Role]:
    """Return roles with their number of live keys."""
    live = Q(api_keys__revoked_at=None) & (Q(api_keys__expires_at=None) | Q(api_keys__expires_at__gt=timezone.now()))
    return Role.objects.annotate(live=Count("api_keys", filter=live & Q(api_keys__isnull=False)))


def find_role(role_id: int) -> Any:
    """Return a role, or say that there is none."""
    role = roles().filter(pk=role_id).first()
    if role is None:
        raise Problem("not_found", "There is no such role.")
    return role


class Roles(ApiView):
    """All roles."""

    operations = _ROLES
    volatile = frozenset(("live_keys",))

    def get(self, request: Request) -> Response:
        """Return one page."""
        return self.page_of(roles(), role_form)

    def post(self, request: Request) -> Response:
        """Add one."""
        asked = read(forms.RoleChange, request.data)

        def act() -> Response:
            made = services.create_role(actor=actor_of(request), **asked)
            return self.one(role_form(find_role(made.pk)), status=201, location=f"{request.path}{made.pk}/")

        return once(request, act)


class OneRole(ApiView):
    """One role."""

    operations = _ROLE
    volatile = frozenset(("live_keys",))

    def get(self, request: Request, pk: int) -> Response:
        """Return it."""
        return self.one(role_form(find_role(pk)))

    @transaction.atomic
    def patch(self, request: Request, pk: int) -> Response:
        """Change it."""
        asked = read(forms.RoleChange, request.data, partial=True)
        services.lock_policy()
        self.check_match(role_form(find_role(pk)))
        services.update_role(pk, actor=actor_of(request), **asked)
        return self.one(role_form(find_role(pk)))

    @transaction.atomic
    def delete(self, request: Request, pk: int) -> Response:
        """Drop it; refused while live keys hold it."""
        services.lock_policy()
        self.check_match(role_form(find_role(pk)))
        try:
            services.delete_role(pk, actor=actor_of(request))
        except services.PolicyRefused as error:
            raise refused(error, "conflict") from None
        return Response(status=204)


# -- rules

_RULES, _RULE = _operations(
    "Rule", "Rules", "a rule", forms.RuleChange, forms.Rule,
    Parameter(name="effect", description="Only rules with this effect.", choices=vocabulary.EFFECTS),
    Parameter(name="role", description="Only rules that hold for this role.", longest=64),
    model="rule",
)  # fmt: skip


def rule_form(rule: RuleSpec) -> dict[str, Any]:
    """Return a rule as it is answered."""
    window = rule.window
    return {
        "id": rule.id,
        "name": rule.name,
        "effect": rule.effect,
        "roles": None if rule.roles is None else sorted(rule.roles),
        "keys": None if rule.keys is None else sorted(rule.keys),
        "kinds": list(rule.kinds),
        "pattern": rule.pattern,
        "upstreams": list(rule.upstreams),
        "conditions": [
            {
                "subject": one.subject, "path": one.path, "quantifier": one.quantifier, "operator": one.operator,
                "value": list(one.value) if isinstance(one.value, tuple) else one.value,
            }
            for one in rule.conditions
        ],
        "window": {
            "days": list(window.days),
            "from_time": window.from_time and window.from_time.isoformat(),
            "to_time": window.to_time and window.to_time.isoformat(),
            "zone": window.zone,
            "valid_from": moment(window.valid_from),
            "valid_until": moment(window.valid_until),
        },
        "networks": list(rule.networks),
        "reason": rule.reason,
        "note": rule.note,
        "enabled": rule.enabled,
        "observe": rule.observe,
        "sentence": rule_sentence(rule),
    }  # fmt: skip


def read_rule(asked: dict[str, Any], before: RuleSpec | None, policy: PolicySpec) -> RuleSpec:
    """Make a rule of what was asked for, on top of what it was; refuse what could not be stored or would not compile."""
    spec = before or RuleSpec("", ("tool",), "", None)
    plain: dict[str, Any] = {
        name: asked[name]
        for name in ("name", "effect", "pattern", "reason", "note", "enabled", "observe")
        if name in asked
    }
    for name in ("roles", "keys"):
        if name in asked:
            plain[name] = None if asked[name] is None else frozenset(asked[name])
    if "kinds" in asked:
        plain["kinds"] = tuple(kind for kind in vocabulary.KINDS if kind in asked["kinds"])
    if "upstreams" in asked:
        plain["upstreams"] = tuple(sorted(set(asked["upstreams"])))
    if "networks" in asked:
        plain["networks"] = tuple(asked["networks"])
    if "conditions" in asked:
        plain["conditions"] = tuple(_condition(one, at) for at, one in enumerate(asked["conditions"]))
    if "window" in asked:
        plain["window"] = _window(asked["window"])
    spec = replace(spec, **plain)
    errors = [*_strangers(spec.roles, spec.keys, policy)]
    if spec.name and any(other.name == spec.name and other.id != spec.id for other in policy.rules):
        errors.append(_error("name", "Another rule has this name."))
    if errors:
        raise Problem("invalid", f"{errors[0]['field']}: {errors[0]['message']}", errors=errors)
    try:
        CompiledRule(spec)
    except PolicyError as error:
        raise Problem("refused", str(error)) from None
    return spec


def _strangers(
    role_names: Iterable[str] | None, keys: Iterable[str] | None, policy: PolicySpec
) -> Iterable[dict[str, str]]:
    known = {role.name for role in policy.roles}
    for role in sorted(role_names or ()):
        if role not in known:
            yield _error("roles", f"There is no role {role!r}.")
    wanted = {key.removeprefix(PREFIX) for key in keys or ()}
    there = set(ApiKey.objects.filter(public_id__in=wanted).values_list("public_id", flat=True)) if wanted else set()
    for key in sorted(keys or ()):
        if not key.startswith(PREFIX) or key.removeprefix(PREFIX) not in there:
            yield _error("keys", f"There is no key {key!r}; keys are named by their prefix.")


def _condition(asked: dict[str, Any], at: int) -> ConditionSpec:
    field, value = f"conditions[{at}].value", asked["value"]
    if isinstance(value, list):
        value = tuple(value)
    many = value if isinstance(value, tuple) else (value,)
    if len(many) > 1000 or any(isinstance(one, dict | list) for one in many):
        raise Problem(
            "invalid", errors=[_error(field, "Text, a number, true, false, or a list of at most 1,000 of them.")]
        )
    if any(isinstance(one, int | float) and abs(one) > MAX_EXACT for one in many):
        raise Problem("invalid", errors=[_error(field, "Numbers lie within 2 to the 53rd.")])
    if any(isinstance(one, str) and len(one) > 4000 for one in many) or (isinstance(value, tuple) and None in value):
        raise Problem("invalid", errors=[_error(field, "Texts have at most 4,000 characters, and a list has no null.")])
    return ConditionSpec(asked["operator"], value, asked["path"], asked["subject"], asked["quantifier"])


def _window(asked: dict[str, Any]) -> WindowSpec:
    start, end = (time.fromisoformat(asked[name]) if asked[name] else None for name in ("from_time", "to_time"))
    errors = []
    if (start is None) != (end is None) or (start is not None and start == end):
        errors.append(_error("window.to_time", "Give both ends, and let them differ."))
    if asked["zone"] not in available_timezones():
        errors.append(_error("window.zone", "There is no such time zone."))
    since, until = asked["valid_from"], asked["valid_until"]
    if since is not None and until is not None and since >= until:
        errors.append(_error("window.valid_until", "It is later than valid_from."))
    if errors:
        raise Problem("invalid", f"{errors[0]['field']}: {errors[0]['message']}", errors=errors)
    days = tuple(day for day in vocabulary.WEEKDAYS if day in asked["days"])
    return WindowSpec(days, start, end, asked["zone"], since, until)


def _one(found: Iterable[Any], wanted: int, what: str) -> Any:
    spec = next((one for one in found if one.id == wanted), None)
    if spec is None:
        raise Problem("not_found", f"There is no such {what}.")
    return spec


def rule_of(pk: int) -> RuleSpec:
    """Return a stored rule, or say that there is none."""
    spec: RuleSpec = _one(services.current_spec().rules, pk, "rule")
    return spec


class Rules(ApiView):
    """All rules."""

    operations = _RULES

    def get(self, request: Request) -> Response:
        """Return one page."""
        effect, role = self.query.get("effect"), self.query.get("role")
        found = [
            rule
            for rule in services.current_spec().rules
            if (effect is None or rule.effect == effect) and (role is None or rule.roles is None or role in rule.roles)
        ]
        return self.page_of(found, rule_form)

    def post(self, request: Request) -> Response:
        """Add one."""
        asked = read(forms.RuleChange, request.data)

        def act() -> Response:
            services.lock_policy()
            made = services.create_rule(read_rule(asked, None, services.current_spec()), actor=actor_of(request))
            return self.one(rule_form(rule_of(made)), status=201, location=f"{request.path}{made}/")

        return once(request, act)


class OneRule(ApiView):
    """One rule."""

    operations = _RULE

    def get(self, request: Request, pk: int) -> Response:
        """Return it."""
        return self.one(rule_form(rule_of(pk)))

    @transaction.atomic
    def patch(self, request: Request, pk: int) -> Response:
        """Change it in place; its id stays."""
        asked = read(forms.RuleChange, request.data, partial=True)
        services.lock_policy()
        policy = services.current_spec()
        before: RuleSpec = _one(policy.rules, pk, "rule")
        self.check_match(rule_form(before))
        services.update_rule(pk, read_rule(asked, before, policy), actor=actor_of(request))
        return self.one(rule_form(rule_of(pk)))

    @transaction.atomic
    def delete(self, request: Request, pk: int) -> Response:
        """Remove it."""
        services.lock_policy()
        self.check_match(rule_form(rule_of(pk)))
        services.delete_rule(pk, actor=actor_of(request))
        return Response(status=204)


# -- limits

_LIMITS, _LIMIT = _operations(
    "Limit", "Limits", "a limit", forms.LimitChange, forms.Limit, model="ratelimit",
)  # fmt: skip


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
        *_strangers([spec.role] if spec.role else None, [spec.key] if spec.key else None, policy),
    ]
    if not spec.kind and (spec.pattern or spec.is_default or "tool" in spec.per):
        errors.append(_error("kind", "A limit that tells names apart says of which kind they are."))
    if spec.is_default and spec.pattern:
        errors.append(_error("is_default", "A default names no pattern."))
    if spec.burst is not None and spec.burst > spec.requests:
        errors.append(_error("burst", "Not more than the requests."))
    if errors:
        raise Problem("invalid", f"{errors[0]['field']}: {errors[0]['message']}", errors=errors)
    return spec


def limit_of(pk: int) -> LimitSpec:
    """Return a stored limit, or say that there is none."""
    spec: LimitSpec = _one(services.current_spec().limits, pk, "limit")
    return spec


class Limits(ApiView):
    """All limits."""

    operations = _LIMITS

    def get(self, request: Request) -> Response:
        """Return one page."""
        return self.page_of(services.current_spec().limits, limit_form)

    def post(self, request: Request) -> Response:
        """Add one."""
        asked = read(forms.LimitChange, request.data)

        def act() -> Response:
            services.lock_policy()
            made = services.create_limit(read_limit(asked, None, services.current_spec()), actor=actor_of(request))
            return self.one(limit_form(limit_of(made)), status=201, location=f"{request.path}{made}/")

        return once(request, act)


class OneLimit(ApiView):
    """One limit."""

    operations = _LIMIT

    def get(self, request: Request, pk: int) -> Response:
        """Return it."""
        return self.one(limit_form(limit_of(pk)))

    @transaction.atomic
    def patch(self, request: Request, pk: int) -> Response:
        """Change it in place; what it has counted stays."""
        asked = read(forms.LimitChange, request.data, partial=True)
        services.lock_policy()
        policy = services.current_spec()
        before: LimitSpec = _one(policy.limits, pk, "limit")
        self.check_match(limit_form(before))
        services.update_limit(pk, read_limit(asked, before, policy), actor=actor_of(request))
        return self.one(limit_form(limit_of(pk)))

    @transaction.atomic
    def delete(self, request: Request, pk: int) -> Response:
        """Remove it."""
        services.lock_policy()
        self.check_match(limit_form(limit_of(pk)))
        services.delete_limit(pk, actor=actor_of(request))
        return Response(status=204)
