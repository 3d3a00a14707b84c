"""API keys as strings: made, recognised, and digested (pure).

    mcps_live_<public id: 12 base62>_<secret: 43 base62, 256 bits><checksum: 6 base62 of CRC-32 over all before it>

The public id names the key and may be shown; the checksum lets a secret scanner tell a real key from a look-alike
without asking anyone. Stored is HMAC-SHA256 under a numbered pepper: a random 256-bit secret needs no slow hash, and a
copy of the database without the peppers proves nothing.
"""

from __future__ import annotations

import functools
import hmac
import re
import secrets
import string
import zlib
from typing import Final, NamedTuple

ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
PREFIX: Final = "mcps_live_"
KEY_REGEX: Final = r"mcps_live_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}"
KEY_LENGTH: Final = len(PREFIX) + 12 + 1 + 43 + 6
PUBLIC_ID_REGEX: Final = r"[0-9A-Za-z]{12}"

_FULL = re.compile(KEY_REGEX, re.ASCII).fullmatch
_CHECKED = slice(0, KEY_LENGTH - 6)
_PUBLIC = slice(len(PREFIX), len(PREFIX) + 12)
_SECRET = slice(len(PREFIX) + 13, KEY_LENGTH - 6)


class ParsedKey(NamedTuple):
    """A well-formed key, its checksum right; whether it is anyone's is not known yet."""

    public_id: str
    secret: str

    @property
    def prefix(self) -> str:
        """The part that may be kept and shown."""
        return PREFIX + self.public_id

    def __repr__(self) -> str:
        return f"ParsedKey({self.prefix})"


_PAIRS: Final = [first + second for first in ALPHABET for second in ALPHABET]


def checksum(text: str) -> str:
    """Six base62 characters over everything that stands before them."""
    rest, low = divmod(zlib.crc32(text.encode("ascii")), 3844)
    high, middle = divmod(rest, 3844)
    return _PAIRS[high] + _PAIRS[middle] + _PAIRS[low]


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def new_public_id() -> str:
    return _random(12)


def generate(public_id: str) -> str:
    """A whole new key for this public id, to be shown once."""
    if not re.fullmatch(PUBLIC_ID_REGEX, public_id):
        raise ValueError("a public id is twelve base62 characters")
    body = f"{PREFIX}{public_id}_{_random(43)}"
    return body + checksum(body)


def parse(presented: str) -> ParsedKey | None:
    """Read a presented key; None when its form or its checksum is wrong."""
    if len(presented) != KEY_LENGTH or _FULL(presented) is None or checksum(presented[_CHECKED]) != presented[-6:]:
        return None
    return ParsedKey(presented[_PUBLIC], presented[_SECRET])


def digest(pepper: bytes, public_id: str, secret: str) -> bytes:
    """What is stored of a secret: 32 bytes, bound to the key it belongs to."""
    keyed = _keyed(pepper).copy()
    keyed.update(f"{public_id}_{secret}".encode("ascii"))
    return keyed.digest()


@functools.lru_cache(maxsize=16)
def _keyed(pepper: bytes) -> hmac.HMAC:
    # Kept and copied: the one-shot function is slower, and gives up the interpreter in the middle of every request.
    return hmac.new(pepper, digestmod="sha256")


def matches(expected: bytes, actual: bytes) -> bool:
    """Compare two digests in constant time."""
    return hmac.compare_digest(expected, actual)


def newest_pepper(peppers: dict[int, bytes]) -> int:
    """The number of the pepper that new secrets use."""
    if not peppers:
        raise ValueError("no pepper is configured (SENTINEL_KEY_PEPPERS)")
    return max(peppers)
