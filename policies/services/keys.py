"""Acts on keys, each in one transaction with its event. A secret is returned once and kept nowhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from audit.services.acts import record_act
from core.access.actors import Actor
from policies import vocabulary
from policies.engine.types import Principal
from policies.keys import credentials
from policies.models import ApiKey, KeySecret, Role

MAX_OVERLAP = timedelta(days=7)
#: how long an administrative key lives when nothing else is said; it always expires
ADMINISTRATIVE_LIFE = timedelta(days=90)


class KeyRefused(ValidationError):
    """An act on a key that cannot be done; its message says why."""


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A key and the secret that is shown this once."""

    key: ApiKey
    secret: str

    def __repr__(self) -> str:
        return f"CreatedKey({self.key.prefix})"


@transaction.atomic
def create_key(
    *,
    name: str,
    actor: Actor,
    role: str | None = None,
    duty: str | None = None,
    owner: str = "",
    description: str = "",
    expires_at: datetime | None = None,
    networks: Sequence[str] = (),
    upstreams: Sequence[str] = (),
    query_allowed: bool = True,
) -> CreatedKey:
    """Create an agent's key (with a role) or an administrative one (with a duty), which expires in 90 days if not said."""
    key = ApiKey(
        public_id=credentials.new_public_id(),
        name=_name(name),
        role=_role(role) if role else None,
        duty=duty or None,
        owner=owner,
        description=description,
        expires_at=_expiry(expires_at or _end_of_duty(duty)),
        networks=list(networks),
        upstreams=_upstreams(upstreams),
        query_allowed=query_allowed,
        created_by=actor.name[:150],
    )
    key.full_clean()
    key.save(force_insert=True)
    secret = _new_secret(key, generation=1)
    record_act(method="admin.key.created", actor=actor, target=key.name, after=shown(key))
    return CreatedKey(key, secret)


@transaction.atomic
def update_key(key_id: UUID | str, *, actor: Actor, **changes: Any) -> ApiKey:
    """Change what may be changed of a live key: name, role, owner, description, expires_at, networks, upstreams,
    query_allowed.
    """
    key = _live(key_id)
    before = shown(key)
    for field, value in changes.items():
        if field == "role":
            if key.duty:
                raise KeyRefused("An administrative key has no role.")
            key.role = _role(value)
        elif field == "expires_at":
            if key.duty and value is None:
                raise KeyRefused({"expires_at": "An administrative key always expires."})
            key.expires_at = value if value == key.expires_at else _expiry(value)
        elif field == "upstreams":
            key.upstreams = _upstreams(value)
        elif field == "networks":
            key.networks = list(value)
        elif field in ("name", "owner", "description", "query_allowed"):
            setattr(key, field, _name(value) if field == "name" else value)
        else:
            raise TypeError(f"{field} of a key cannot be changed")
    key.full_clean()
    after = shown(key)
    if after != before:
        key.save()
        record_act(method="admin.key.changed", actor=actor, target=key.name, before=before, after=after)
    return key


@transaction.atomic
def rotate_key(key_id: UUID | str, *, actor: Actor, overlap: timedelta = timedelta(0)) -> CreatedKey:
    """Give a key a new secret; the old one stays valid for `overlap`, at most 7 days."""
    if not timedelta(0) <= overlap <= MAX_OVERLAP:
        raise KeyRefused("The overlap is from nothing to 7 days.")
    key = _live(key_id)
    ends = timezone.now() + overlap
    newest = key.secrets.order_by("-generation").first()
    key.secrets.filter(Q(not_after__isnull=True) | Q(not_after__gt=ends)).update(not_after=ends)
    generation = (newest.generation if newest else 0) + 1
    secret = _new_secret(key, generation)
    record_act(
        method="admin.key.rotated",
        actor=actor,
        target=key.name,
        after={**shown(key), "generation": generation},
        details={"overlap_seconds": int(overlap.total_seconds())},
    )
    return CreatedKey(key, secret)


@transaction.atomic
def revoke_key(key_id: UUID | str, *, actor: Actor, reason: str = "") -> ApiKey:
    """Revoke a key for good; a key that is revoked already stays as it is."""
    key = find(key_id, lock=True)
    if key.revoked_at is not None:
        return key
    before = shown(key)
    key.revoked_at, key.revoked_by, key.revoked_reason = timezone.now(), actor.name[:150], reason[:500]
    key.save(update_fields=["revoked_at", "revoked_by", "revoked_reason"])
    record_act(
        method="admin.key.revoked",
        actor=actor,
        target=key.name,
        before=before,
        after=shown(key),
        details={"reason": reason[:500]} if reason else None,
    )
    return key


def find(reference: UUID | str, *, lock: bool = False) -> ApiKey:
    """A key by its id, its public id, its visible part, or by its name when only one live key has that name."""
    keys = ApiKey.objects.select_for_update(of=("self",)) if lock else ApiKey.objects.all()
    keys = keys.select_related("role")
    text = str(reference).strip()
    try:
        found = keys.filter(pk=UUID(text)).first()
    except ValueError:
        public = text.removeprefix(credentials.PREFIX)
        found = keys.filter(public_id=public).first() if re.fullmatch(credentials.PUBLIC_ID_REGEX, public) else None
        if found is None:
            named = list(keys.filter(name=text, revoked_at__isnull=True)[:2])
            if len(named) > 1:
                raise KeyRefused(f"Several live keys are named {text}; say which by its id.") from None
            found = named[0] if named else None
    if found is None:
        raise KeyRefused(f"There is no key {text[:100]}.")
    return found


def shown(key: ApiKey) -> dict[str, Any]:
    """What events and JSON say of a key: never a secret."""
    return {
        "id": str(key.pk),
        "name": key.name,
        "prefix": key.prefix,
        "role": key.role_name or None,
        "duty": key.duty,
        "owner": key.owner,
        "description": key.description,
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
        "networks": list(key.networks),
        "upstreams": list(key.upstreams),
        "query_allowed": key.query_allowed,
        "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
        "revoked_reason": key.revoked_reason,
    }


def asked_about(key: ApiKey) -> tuple[Principal, list[str]]:
    """Who a key stands for when it is asked what it may do, and what should be said of the key itself."""
    notes = [] if key.is_live else [f"The key {key.name} is {key.state}: every call is refused."]
    if key.duty:
        notes.append(f"The key {key.name} is administrative: it never passes the gateway.")
    return Principal(key.pk, key.name, key.prefix, key.role_name, frozenset(key.upstreams)), notes


def _live(key_id: UUID | str) -> ApiKey:
    key = find(key_id, lock=True)
    if key.revoked_at is not None:
        raise KeyRefused(f"The key {key.name} is revoked; that is for good.")
    if key.expires_at is not None and key.expires_at <= timezone.now():
        raise KeyRefused(f"The key {key.name} has expired; create a new one.")
    return key


def _new_secret(key: ApiKey, generation: int) -> str:
    peppers: dict[int, bytes] = settings.SENTINEL.key_peppers
    pepper_id = credentials.newest_pepper(peppers)
    text = credentials.generate(key.public_id)
    parsed = credentials.parse(text)
    if parsed is None:
        raise AssertionError("a fresh key must be well-formed")
    KeySecret.objects.create(
        key=key,
        generation=generation,
        digest=credentials.digest(peppers[pepper_id], parsed.public_id, parsed.secret),
        pepper_id=pepper_id,
        last4=text[-4:],
    )
    return text


def _name(name: str) -> str:
    cleaned = name.strip()
    if not cleaned or len(cleaned) > 100 or not cleaned.isprintable():
        raise KeyRefused({"name": "A key's name has 1 to 100 printable characters."})
    return cleaned


def _role(name: str | None) -> Role:
    role = Role.objects.filter(name=name).first() if name else None
    if role is None:
        known = ", ".join(Role.objects.values_list("name", flat=True)) or "none"
        raise KeyRefused(f"There is no role {name}; there are: {known}.")
    return role


def _end_of_duty(duty: str | None) -> datetime | None:
    """When an administrative key ends of which nothing is said: where keys live shorter than that, as long as they may."""
    if not duty:
        return None
    longest = settings.SENTINEL.key_max_days
    return timezone.now() + min(ADMINISTRATIVE_LIFE, timedelta(days=longest or ADMINISTRATIVE_LIFE.days))


def _expiry(moment: datetime | None) -> datetime | None:
    longest = settings.SENTINEL.key_max_days
    if moment is None:
        if longest:
            raise KeyRefused({"expires_at": f"Keys must expire here, within {longest} days."})
        return None
    if moment <= timezone.now():
        raise KeyRefused({"expires_at": "That moment has passed."})
    if longest and moment > timezone.now() + timedelta(days=longest, minutes=1):
        raise KeyRefused({"expires_at": f"Keys must expire here, within {longest} days."})
    return moment


def _upstreams(slugs: Sequence[str]) -> list[str]:
    for slug in slugs:
        if not re.fullmatch(vocabulary.SLUG, slug):
            raise KeyRefused({"upstreams": f"{slug[:60]!r} is not an upstream's name."})
    return sorted(set(slugs))
