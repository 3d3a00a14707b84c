"""Whether Host and Origin are ours (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import urlsplit


def host_allowed(hosts: Sequence[bytes], allowed: Sequence[str]) -> bool:
    """Exactly one Host header, naming a host we answer for, on any port."""
    return len(hosts) == 1 and _named(hosts[0], tuple(allowed))


@lru_cache(maxsize=1024)
def _named(value: bytes, allowed: tuple[str, ...]) -> bool:
    host = value.decode("latin-1").lower()
    if any(c in host for c in "/?#@\\ \t,"):
        return False
    name = host.rsplit(":", 1)[0] if host.count(":") == 1 else host
    if host.startswith("["):
        name, _, rest = host.partition("]")
        name += "]"
        if rest and not (rest.startswith(":") and rest[1:].isdigit()):
            return False
    elif ":" in host and not host.rsplit(":", 1)[1].isdigit():
        return False
    name = name.rstrip(".")
    for pattern in allowed:
        pattern = pattern.lower()
        if (
            pattern == "*"
            or pattern == name
            or (pattern.startswith(".") and (name.endswith(pattern) or name == pattern[1:]))
        ):
            return True
    return False


def origin_named(origins: Sequence[bytes], allowed: Sequence[str]) -> bool:
    """Exactly one Origin, and one of the configured ones, `null` and those of other schemes than http included."""
    return len(origins) == 1 and normal(origins[0]).decode("latin-1") in allowed


def normal(origin: bytes) -> bytes:
    """Give an Origin as browsers write it and settings name it; only what HTTP means by white space may surround it."""
    return origin.strip(b" \t").lower()


def origin_allowed(origins: Sequence[bytes], allowed: Sequence[str], host: bytes, hosts_allowed: Sequence[str]) -> bool:
    """No Origin, one of the configured origins, or our own (a host we answer for, and the one that was asked)."""
    if not origins or origin_named(origins, allowed):
        return True
    if len(origins) != 1:
        return False
    origin = normal(origins[0]).decode("latin-1")
    if not (origin.isascii() and origin.isprintable()):  # urlsplit would look past it
        return False
    try:
        parts = urlsplit(origin)
        netloc = parts.netloc
    except ValueError:
        return False
    if parts.scheme not in {"http", "https"} or not netloc or parts.path or parts.query:
        return False
    return netloc == host.decode("latin-1").lower() and host_allowed([netloc.encode("latin-1")], hosts_allowed)
