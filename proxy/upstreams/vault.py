"""Credentials of upstreams: taken from the environment, or encrypted at rest and never shown again.

A stored value has one of two forms:

    env:NAME            the value of an environment variable that was meant for upstreams, read when they are loaded
    sealed:v1:BASE64    AES-256-GCM under SENTINEL's data key, bound to the place it was written for

A place of an upstream names its slug, where it is reached (scheme, host and port, or the command) and the header or
variable: a secret that was entered for one server cannot be read by moving it, or the upstream, to another.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from proxy.upstreams.egress import BadUrl, parse_url

_PREFIX = "sealed:v1:"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
#: what stands for a stored secret wherever one is shown or recorded
HIDDEN = "(stored, encrypted)"
#: variables of this name are meant for upstreams; any other must be listed (SENTINEL_UPSTREAM_ENV)
FOR_UPSTREAMS = "MCP_UPSTREAM_"
_COMMAND = "stdio:"


class VaultError(Exception):
    """A stored value cannot be had, with the reason as its text (which holds no secret)."""


@dataclass(frozen=True, slots=True)
class Variables:
    """The variables of the gateway's environment that upstreams may be given, and no others.

    Who configures upstreams chooses where a value is sent, so only what was meant to be sent may be named.
    """

    #: name -> the only origin it may be sent to (`stdio`: to commands), "" for any
    listed: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    def refusal(self, name: str, reach: str) -> str:
        """Say why a variable may not be used for what is reached there, or nothing."""
        only = self.listed.get(name)
        if only is None:
            if name.startswith(FOR_UPSTREAMS):
                return ""
            return (
                f"The environment variable {name} is not permitted for upstreams: "
                f"call it {FOR_UPSTREAMS}…, or have it listed in SENTINEL_UPSTREAM_ENV."
            )
        if only and only != ("stdio" if reach.startswith(_COMMAND) else reach):
            return f"The environment variable {name} is permitted for {only} only (SENTINEL_UPSTREAM_ENV)."
        return ""


def reach_of(*, transport: str, url: str, command: str, directory: str) -> str:
    """Say where an upstream is reached: its origin, or its command and folder; "" when the URL cannot be read."""
    if transport == "stdio":
        return _COMMAND + json.dumps([command, directory])
    try:
        origin = parse_url(url)
    except BadUrl:
        return ""
    return f"{origin.scheme}://{origin.authority}"


@dataclass(frozen=True, slots=True)
class Home:
    """The upstream that secrets belong to: its slug, and where it is reached."""

    slug: str
    reach: str

    def place(self, name: str) -> str:
        """Name the place of one of its secrets, such as `header:authorization`."""
        return json.dumps([self.slug, self.reach, name])


def seal(key: bytes, place: str, value: str) -> str:
    """Encrypt a value for one place."""
    nonce = os.urandom(12)
    return _PREFIX + base64.b64encode(nonce + _cipher(key).encrypt(nonce, value.encode(), place.encode())).decode()


def store(key: bytes, home: Home, name: str, value: str, variables: Variables) -> str:
    """Give the form in which a value that somebody entered is stored: references as they are, literals sealed."""
    if value.startswith("env:"):
        variable = value[4:]
        if not _VARIABLE.match(variable):
            raise VaultError("What follows env: is not the name of an environment variable.")
        if refusal := variables.refusal(variable, home.reach):
            raise VaultError(refusal)
        return value
    return seal(key, home.place(name), value)


def is_sealed(stored: str) -> bool:
    return stored.startswith(_PREFIX)


def reveal(key: bytes, home: Home, name: str, stored: str, variables: Variables) -> str:
    """Give the value behind a stored form; raises VaultError."""
    if stored.startswith("env:"):
        variable = stored[4:]
        if refusal := variables.refusal(variable, home.reach):
            raise VaultError(refusal)
        value = variables.environ.get(variable)
        if not value:
            raise VaultError(f"The environment variable {variable} is not set.")
        return value
    return unseal(key, home.place(name), stored)


def unseal(key: bytes, place: str, stored: str) -> str:
    """Decrypt what was sealed for this place; raises VaultError."""
    if not stored.startswith(_PREFIX):
        raise VaultError("A stored value has no known form.")
    try:
        raw = base64.b64decode(stored[len(_PREFIX) :], validate=True)
        return _cipher(key).decrypt(raw[:12], raw[12:], place.encode()).decode()
    except (InvalidTag, ValueError):
        raise VaultError(
            "A stored secret cannot be decrypted: the data key has changed, or it was moved. Enter it again."
        ) from None


def shown(stored: str) -> str:
    """Give what may be shown of a stored value."""
    return stored if stored.startswith("env:") else HIDDEN


def _cipher(key: bytes) -> AESGCM:
    # the data key may have any length from 16 bytes on
    return AESGCM(hashlib.blake2b(key[:64], digest_size=32, person=b"upstream-vault").digest())
