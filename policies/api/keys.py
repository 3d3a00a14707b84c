"""Keys: listed, created, changed, rotated, revoked. A secret is in the answer that made it, and nowhere else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from audit.export.formats import moment
from core.access import duties
from core.api.fields import read
from core.api.problems import Problem, invalid, wrong
from core.api.views import FIELDS, ApiView, Operation, Parameter, actor_of, paging
from policies import vocabulary
from policies.api.idempotency import once
from policies.api.serializers import keys as forms
from policies.models import ApiKey
from policies.services import keys as key_acts

__all__ = ["KeyRevocation", "KeyRotation", "Keys", "OneKey"]

STATES = ("live", "expired", "revoked")


def shown(key: ApiKey) -> dict[str, Any]:
    """Return a key as it is answered."""
    usage = getattr(key, "usage", None)
    return {
        **key_acts.shown(key),
        "expires_at": moment(key.expires_at),
        "state": key.state,
        "revoked_at": moment(key.revoked_at),
        "revoked_by": key.revoked_by,
        "created_at": moment(key.created_at),
        "created_by": key.created_by,
        "secrets": [
            {
                "generation": secret.generation,
                "last4": secret.last4,
                "created_at": moment(secret.created_at),
                "not_after": moment(secret.not_after),
            }
            for secret in sorted(key.secrets.all(), key=lambda secret: -secret.generation)
        ],
        "last_used_at": moment(usage.last_used_at) if usage else None,
        "last_ip": usage.last_ip if usage else None,
    }


def made(created: key_acts.CreatedKey) -> dict[str, Any]:
    return {**shown(find(created.key.pk)), "key": created.secret, "key_already_shown": False}


def find(key_id: UUID, *, lock: bool = False) -> ApiKey:
    """Return a key, or say that there is none."""
    keys = ApiKey.objects.select_related("role", "usage").prefetch_related("secrets")
    key = (keys.select_for_update(of=("self",)) if lock else keys).filter(pk=key_id).first()
    if key is None:
        raise Problem("not_found", "There is no such key.")
    return key


class _KeyView(ApiView):
    volatile = frozenset(("last_used_at", "last_ip", "state", "key", "key_already_shown"))

    def may_hold(self, duty: str | None) -> None:
        """Refuse whoever would handle more than they hold: an administrative key is worth its duty."""
        if duty and duty not in duties.grantable(self.request.user):
            raise Problem("permission_denied", f"Only who holds all that the duty {duty} holds may do this.")

    def live(self, key_id: UUID) -> ApiKey:
        """Return a live key, locked, that this caller may handle and that has not changed since it was read."""
        key = find(key_id, lock=True)
        self.may_hold(key.duty)
        self.check_match(shown(key))
        if not key.is_live:
            raise Problem("conflict", f"The key {key.name} is {key.state}; that is for good.")
        return key


class Keys(_KeyView):
    """All keys."""

    operations = {
        "get": Operation(
            id="listKeys",
            tag="keys",
            summary="List keys, never their secrets",
            permissions=("policies.view_apikey",),
            query=(
                *paging("uuid"),
                Parameter(name="state", description="Only keys in this state.", choices=STATES),
                Parameter(name="role", description="Only keys with this role.", longest=64),
                Parameter(
                    name="duty", description="Only administrative keys with this duty.", choices=vocabulary.DUTIES
                ),
                Parameter(name="name", description="Only keys of this name.", longest=100),
            ),
            response=forms.KeySerializer,
            page=True,
        ),
        "post": Operation(
            id="createKey",
            tag="keys",
            summary="Create a key and show its secret this once",
            description="Say a role (for an agent) or a duty (an administrative key, for this API). Nobody gives a duty that "
            "holds more than they hold.",
            permissions=("policies.add_apikey",),
            request=forms.KeyCreationSerializer,
            response=forms.NewKeySerializer,
            status=201,
            creates=True,
        ),
    }

    def get(self, request: Request) -> Response:
        keys = ApiKey.objects.select_related("role", "usage").prefetch_related("secrets")
        now = timezone.now()
        live = Q(revoked_at=None) & (Q(expires_at=None) | Q(expires_at__gt=now))
        states = {"live": live, "expired": Q(revoked_at=None, expires_at__lte=now), "revoked": ~Q(revoked_at=None)}
        if state := self.query.get("state"):
            keys = keys.filter(states[state])
        for name, column in (("role", "role__name"), ("duty", "duty"), ("name", "name")):
            if name in self.query:
                keys = keys.filter(**{column: self.query[name]})
        return self.page_of(keys, shown)

    def post(self, request: Request) -> Response:
        asked = read(forms.KeyCreationSerializer, request.data)
        duty, role = asked.pop("duty", None), asked.pop("role", None)
        if bool(duty) == bool(role):
            raise invalid(wrong("role", "A key holds a role or an administrative duty, and not both."))
        self.may_hold(duty)

        def act() -> Response:
            created = key_acts.create_key(actor=actor_of(request), role=role, duty=duty, **asked)
            return self.made(made(created), created.key.pk)

        return once(request, act)


class OneKey(_KeyView):
    """One key."""

    operations = {
        "get": Operation(
            id="getKey",
            tag="keys",
            summary="Read one key, without its secret",
            permissions=("policies.view_apikey",),
            query=(FIELDS,),
            response=forms.KeySerializer,
            problems=(404,),
        ),
        "patch": Operation(
            id="changeKey",
            tag="keys",
            summary="Change what may be changed of a live key",
            permissions=("policies.change_apikey",),
            request=forms.KeyChangeSerializer,
            response=forms.KeySerializer,
            problems=(404, 409),
            conditional=True,
        ),
    }

    def get(self, request: Request, key_id: UUID) -> Response:
        return self.one(shown(find(key_id)))

    @transaction.atomic
    def patch(self, request: Request, key_id: UUID) -> Response:
        asked = read(forms.KeyChangeSerializer, request.data, partial=True)
        key = self.live(key_id)
        key_acts.update_key(key.pk, actor=actor_of(request), **asked)
        return self.one(shown(find(key_id)))


class KeyRotation(_KeyView):
    """A new secret for a key."""

    operations = {
        "post": Operation(
            id="rotateKey",
            tag="keys",
            summary="Give a key a new secret and show it this once",
            description="The old secret stays good for the overlap, at most seven days.",
            permissions=("policies.revoke_apikey",),
            request=forms.RotationSerializer,
            response=forms.NewKeySerializer,
            problems=(404, 409),
            creates=True,
            conditional=True,
        )
    }

    def post(self, request: Request, key_id: UUID) -> Response:
        asked = read(forms.RotationSerializer, request.data)

        def act() -> Response:
            key = self.live(key_id)
            overlap = timedelta(seconds=asked["overlap_seconds"])
            return self.one(made(key_acts.rotate_key(key.pk, actor=actor_of(request), overlap=overlap)))

        return once(request, act)


class KeyRevocation(_KeyView):
    """The end of a key."""

    operations = {
        "post": Operation(
            id="revokeKey",
            tag="keys",
            summary="Revoke a key for good",
            description="Workers stop accepting it within a second; its open streams end within five. Doing it again changes nothing.",
            permissions=("policies.revoke_apikey",),
            request=forms.RevocationSerializer,
            response=forms.KeySerializer,
            problems=(404,),
            conditional=True,
        )
    }

    @transaction.atomic
    def post(self, request: Request, key_id: UUID) -> Response:
        asked = read(forms.RevocationSerializer, request.data)
        key = find(key_id, lock=True)
        self.may_hold(key.duty)
        self.check_match(shown(key))
        key_acts.revoke_key(key.pk, actor=actor_of(request), reason=asked["reason"])
        return self.one(shown(find(key_id)))
