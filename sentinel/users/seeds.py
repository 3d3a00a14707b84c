"""The seeds of second factors, sealed at rest: whoever reads the database must not be able to make codes.

django-otp's own device stays in use everywhere; only what stands in its column differs. A seed is sealed for its person
under the data key, as credentials of upstreams are. One that does not open (the data key is another) accepts no code.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import secrets
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.db.models.signals import post_init, post_save, pre_save

log = logging.getLogger("sentinel")

PREFIX = "sealed:"
#: what fits the column once it is sealed; django-otp makes seeds of 20 bytes
LONGEST = 26


def seal(person: int, seed: str) -> str:
    """Give the form in which a seed (hexadecimal) is stored."""
    raw = bytes.fromhex(seed)
    if len(raw) > LONGEST:
        return seed
    nonce = os.urandom(12)
    return PREFIX + base64.b64encode(nonce + _cipher().encrypt(nonce, raw, _place(person))).decode()


def unseal(person: int, stored: str) -> str:
    """Give a stored seed; raises ValueError."""
    try:
        raw = base64.b64decode(stored.removeprefix(PREFIX), validate=True)
        return _cipher().decrypt(raw[:12], raw[12:], _place(person)).hex()
    except InvalidTag:
        raise ValueError("the data key has changed, or the seed is another person's") from None


def connect() -> None:
    """Have devices seal their seed when they are saved, and open it when they are read."""
    from django_otp.plugins.otp_totp.models import TOTPDevice

    post_init.connect(_open, sender=TOTPDevice, dispatch_uid="sentinel.seeds")
    pre_save.connect(_close, sender=TOTPDevice, dispatch_uid="sentinel.seeds")
    post_save.connect(_open, sender=TOTPDevice, dispatch_uid="sentinel.seeds")


def _open(sender: Any, instance: Any, **_: Any) -> None:
    stored = instance.__dict__.get("key", "")  # a query may have left it out
    if not stored.startswith(PREFIX):
        return
    try:
        instance.key = unseal(instance.user_id, stored)
    except ValueError as error:
        log.error("the second factor of person %s cannot be used: %s", instance.user_id, error)
        instance.key = secrets.token_hex(20)
        instance.unreadable = (instance.key, stored)


def _close(sender: Any, instance: Any, **_: Any) -> None:
    stand_in, stored = getattr(instance, "unreadable", ("", ""))
    if instance.__dict__.get("key", PREFIX).startswith(PREFIX):
        return
    instance.key = stored if stand_in == instance.key else seal(instance.user_id, instance.key)


def _place(person: int) -> bytes:
    return f"totp:{person}".encode()


def _cipher() -> AESGCM:
    key: bytes = settings.SENTINEL.data_key
    return AESGCM(hashlib.blake2b(key[:64], digest_size=32, person=b"second-factor").digest())
