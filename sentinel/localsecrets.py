"""Secrets made once for local use, kept in SENTINEL_VAR where only its owner can read them; and what a weak one is."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

_KNOWN = ("change", "secret", "insecure", "password", "example", "default", "sentinel", "0123456789")


def kept(folder: Path, name: str, length: int = 32) -> str:
    """Return the hex secret kept under this name, made on the first use; of two processes at once, both get the same."""
    place = folder / name
    try:
        return place.read_text("ascii").strip()
    except FileNotFoundError:
        pass
    folder.mkdir(mode=0o700, exist_ok=True)
    draft = folder / f".{name}.{os.getpid()}.{secrets.token_hex(4)}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(length) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, place)  # unlike a rename it never replaces: the first process wins
        except FileExistsError:
            pass
    finally:
        draft.unlink()
    return place.read_text("ascii").strip()


def derived(secret: str, purpose: str) -> bytes:
    """Make a key for one purpose from a secret: the same on every machine that has the secret, and no way back."""
    return hashlib.blake2b(purpose.encode(), key=hashlib.sha512(secret.encode()).digest(), digest_size=32).digest()


def weakness(secret: str) -> str:
    """Say what is wrong with a secret in a few words, or nothing."""
    if len(secret) < 32:
        return "is shorter than 32 characters"
    if len(set(secret)) < 10:
        return "has too few different characters"
    lowered = secret.lower()
    if any(lowered.count(word) * len(word) * 2 >= len(lowered) or lowered.startswith(word) for word in _KNOWN):
        return "looks like an example"
    return ""


def weak_pepper(key: bytes) -> str:
    """Say what is wrong with one key of the ring, or nothing."""
    if len(key) < 16:
        return "is shorter than 32 hexadecimal digits"
    if len(set(key)) < 8:
        return "has too few different bytes"
    return ""
