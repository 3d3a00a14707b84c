"""Secrets made once for local use, kept in SENTINEL_VAR where only its owner can read them; and what a weak one is."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path

_KNOWN = ("change", "secret", "insecure", "password", "example", "default", "sentinel", "0123456789")


class UnusableSecret(Exception):
    """A kept secret cannot be used; the text is one line that names its file, and holds nothing of it."""


def kept(folder: Path, name: str, length: int = 32) -> str:
    """Return the hex secret kept under this name, made on the first use; of two processes at once, both get the same.

    What is there and is no such secret is never replaced: something may be sealed or signed with what it was.
    """
    place = folder / name
    try:
        if not place.is_symlink() and not place.exists():
            _make(place, length)
        return _read(place, length)
    except OSError as error:
        raise UnusableSecret(f"{place} cannot be used: {error.strerror or error}") from None


def _make(place: Path, length: int) -> None:
    place.parent.mkdir(mode=0o700, exist_ok=True)
    draft = place.with_name(f".{place.name}.{os.getpid()}.{secrets.token_hex(4)}")
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
    folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(place: Path, length: int) -> str:
    with place.open("rb") as file:
        raw = file.read(4096)
        status = os.fstat(file.fileno())
        if status.st_mode & 0o077 and status.st_uid == os.geteuid():
            os.fchmod(file.fileno(), 0o600)
    text = raw.decode("latin-1").strip(" \t\r\n")
    what = ""
    if not re.fullmatch(f"(?:[0-9a-fA-F]{{2}}){{{length},}}", text):
        what = f"does not hold at least {2 * length} hexadecimal digits" if text else "is empty"
    elif length >= 16:
        what = weak_pepper(bytes.fromhex(text))
    if what:
        raise UnusableSecret(f"{place} {what}; put it back from a backup, or remove it if nothing was made with it yet")
    return text


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
