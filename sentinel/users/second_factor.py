"""The second factor: who owes one, what is accepted as one, and the codes for whoever has lost theirs.

Whoever has set up an authenticator gives a code at every log-in; until then their session opens nothing but the page that
asks for it. All doors ask `owed`, and every code passes through `give`: one throttle, one place for its events.
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone
from django_otp import DEVICE_ID_SESSION_KEY
from django_otp import login as otp_login
from django_otp.models import Device
from django_otp.plugins.otp_totp.models import TOTPDevice

from audit.services.acts import record
from sentinel.models import RecoveryCode, User
from sentinel.refused_acts import RefusedActs

__all__ = ["CODES", "Given", "enrolled", "forget", "give", "left", "new_codes", "owed", "usable"]

CODES = 10
ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing that is read for something else
LENGTH = 16  # 79 bits: too many to be guessed from a digest
NEXT = "sentinel_next"  # where in the session stands what somebody asked for before a code was asked of them
_failures = RefusedActs(per_second=20)


@dataclass(frozen=True, slots=True)
class Given:
    """What came of a code: whether it was right, and for how many seconds none is looked at."""

    right: bool
    wait: int = 0

    @property
    def problem(self) -> str:
        """Say what is wrong with it, in words for whoever gave it."""
        if self.right:
            return ""
        if self.wait:
            return f"Too many wrong codes. Wait {self.wait} second{'' if self.wait == 1 else 's'} and try again."
        return "That code is not right. Codes change every 30 seconds and each is good once; check the clock of your device."


def enrolled(user: Any) -> bool:
    """Tell whether this person has set up a second factor."""
    return bool(TOTPDevice.objects.filter(user_id=user.pk, confirmed=True).exists())


def owed(user: Any) -> bool:
    """Tell whether this session has still to give a second factor before it opens anything."""
    if not user.is_authenticated or user.is_verified():
        return False
    return enrolled(user) or _demanded(user)


def stands(session: Any, user: Any) -> bool:
    """Tell whether a session, as it is stored, has given what `owed` asks for."""
    device = Device.from_persistent_id(session.get(DEVICE_ID_SESSION_KEY) or "")
    if device is not None and device.user_id == user.pk and device.confirmed:
        return True
    return not (enrolled(user) or _demanded(user))


def _demanded(user: Any) -> bool:
    demanded = settings.SENTINEL.second_factor_groups
    if not demanded:
        return False
    if user.is_superuser and "administrator" in demanded:
        return True
    return bool(user.groups.filter(name__in=demanded).exists())


def give(request: HttpRequest, text: str) -> Given:
    """Take a code of the authenticator, or a recovery code, from the person of this session, and record how it went."""
    user: Any = request.user
    code = _plain(text)
    with transaction.atomic():
        # Locked, so that codes sent at once are judged one after the other: each once, each counted.
        devices = list(TOTPDevice.objects.select_for_update().filter(user_id=user.pk, confirmed=True).order_by("pk"))
        wait = max((_wait(device) for device in devices), default=0)
        used = None if wait else _used(request, devices, code)
        if used is None:
            _failed(request, wait)
    if used is None:
        return Given(False, wait)
    verified(request, used)
    return Given(True)


def confirm(request: HttpRequest, device: TOTPDevice, text: str) -> Given:
    """Take the first code of an authenticator that is being set up, which turns it on."""
    with transaction.atomic():
        device = TOTPDevice.objects.select_for_update().get(pk=device.pk)
        wait = _wait(device)
        right = not wait and not device.confirmed and device.verify_token(_plain(text))
        if right:
            device.confirmed = True
            device.save(update_fields=["confirmed"])
            record("admin.second_factor.enrolled", request, target=device.user.get_username())
        else:
            _failed(request, wait)
    if right:
        verified(request, device)
    return Given(right, wait)


def verified(request: HttpRequest, device: TOTPDevice) -> None:
    """Let this session through, under a new id: whoever knew the old one has nothing of it."""
    if not request.user.is_verified():  # type: ignore[union-attr]
        request.session.cycle_key()
    otp_login(request, device)


def _used(request: HttpRequest, devices: list[TOTPDevice], code: str) -> TOTPDevice | None:
    """Use a code up, and record it; gives the device that it stands for."""
    user: Any = request.user
    if not devices:
        return None
    if re.fullmatch(r"[0-9]{6,8}", code):
        device = next((device for device in devices if device.verify_token(code)), None)
        if device is not None:
            record("admin.second_factor.given", request, target=user.get_username())
        return device
    unused = RecoveryCode.objects.filter(user_id=user.pk, digest=_digest(user, code), used_at=None)
    if unused.update(used_at=timezone.now()) != 1:
        devices[0].throttle_increment()
        return None
    devices[0].throttle_reset()
    details = {"left": left(user)}
    record("admin.second_factor.recovery_code_used", request, target=user.get_username(), details=details)
    return devices[0]


def usable(user: Any, codes: list[str]) -> bool:
    """Tell whether all of these are unused recovery codes of this person."""
    digests = {_digest(user, _plain(code)) for code in codes}
    return RecoveryCode.objects.filter(user_id=user.pk, digest__in=digests, used_at=None).count() == len(codes) > 0


def left(user: Any) -> int:
    """Return how many recovery codes are unused."""
    return RecoveryCode.objects.filter(user_id=user.pk, used_at=None).count()


def new_codes(user: Any) -> list[str]:
    """Make new recovery codes in place of all there were; only their digests are kept."""
    codes = ["".join(secrets.choice(ALPHABET) for _ in range(LENGTH)) for _ in range(CODES)]
    with transaction.atomic():
        RecoveryCode.objects.filter(user_id=user.pk).delete()
        RecoveryCode.objects.bulk_create(RecoveryCode(user_id=user.pk, digest=_digest(user, code)) for code in codes)
    return ["-".join(code[place : place + 4] for place in range(0, LENGTH, 4)) for code in codes]


def forget(user: User) -> bool:
    """Take a second factor away, recovery codes and all; tells whether there was one."""
    RecoveryCode.objects.filter(user_id=user.pk).delete()
    there = enrolled(user)
    TOTPDevice.objects.filter(user_id=user.pk).delete()
    return there


def _plain(text: str) -> str:
    return re.sub(r"[\s-]", "", text[:100]).lower()


def _digest(user: Any, code: str) -> str:
    return hashlib.sha256(f"sentinel recovery code {user.pk} {code}".encode("utf-8", "surrogatepass")).hexdigest()


def _wait(device: TOTPDevice) -> int:
    """Return for how many seconds a device looks at no code."""
    allowed, why = device.verify_is_allowed()
    if allowed or why is None or "locked_until" not in why:
        return 0
    left: float = (why["locked_until"] - timezone.now()).total_seconds()
    return max(1, math.ceil(left))


def _failed(request: HttpRequest, wait: int) -> None:
    dropped = _failures.admit(request.user.pk, "second_factor", known=True)
    if dropped is None:
        return
    details: dict[str, Any] = {"throttled": True} if wait else {}
    if dropped:
        details["not_recorded_before"] = dropped
    status = 429 if wait else 401
    user: Any = request.user
    record("admin.second_factor.failed", request, target=user.get_username(), details=details, status_code=status)
