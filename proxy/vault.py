"""Credentials of upstreams: taken from the environment, or encrypted at rest and never shown again.

A stored value has one of two forms:

    env:NAME            the value of an environment variable of the gateway, read when upstreams are loaded
    sealed:v1:BASE64    AES-256-GCM under SENTINEL's data key, bound to the place it was written for
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_PREFIX = "sealed:v1:"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
#: what stands for a stored secret wherever one is shown or recorded
HIDDEN = "(stored, encrypted)"


class VaultError(Exception):
    """A stored value cannot be had, with the reason as its text (which holds no secret)."""


def seal(key: bytes, place: str, value: str) -> str:
    """Encrypt a value for one place, such as `header:authorization`."""
    nonce = os.urandom(12)
    return _PREFIX + base64.b64encode(nonce + _cipher(key).encrypt(nonce, value.encode(), place.encode())).decode()


def store(key: bytes, place: str, value: str) -> str:
    """Give the form in which a value that somebody entered is stored: references as they are, literals sealed."""
    if value.startswith("env:"):
        if not _VARIABLE.match(value[4:]):
            raise VaultError(f"{value[4:]!r} is not the name of an environment variable.")
        return value
    return seal(key, place, value)


def is_sealed(stored: str) -> bool:
    """Tell whether a stored value is encrypted."""
    return stored.startswith(_PREFIX)


def reveal(key: bytes, place: str, stored: str, environ: Mapping[str, str] = os.environ) -> str:
    """Give the value behind a stored form; raises VaultError."""
    if stored.startswith("env:"):
        value = environ.get(stored[4:])
        if not value:
            raise VaultError(f"The environment variable {stored[4:]} is not set.")
        return value
    if not stored.startswith(_PREFIX):
        raise VaultError("A stored value has no known form.")
    try:
        raw = base64.b64decode(stored[len(_PREFIX) :], validate=True)
        return _cipher(key).decrypt(raw[:12], raw[12:], place.encode()).decode()
    except (InvalidTag, ValueError):
        raise VaultError("A stored value cannot be decrypted: the data key has changed, or it was moved.") from None


def shown(stored: str) -> str:
    """Give what may be shown of a stored value."""
    return stored if stored.startswith("env:") else HIDDEN


def _cipher(key: bytes) -> AESGCM:
    # the data key may have any length from 16 bytes on
    return AESGCM(hashlib.blake2b(key[:64], digest_size=32, person=b"upstream-vault").digest())
