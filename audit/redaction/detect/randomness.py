"""Whether a word was made by a generator or written by a person (pure)."""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections import Counter
from collections.abc import Callable

from audit.redaction.detect.automata import compile_bytes, starter

__all__ = ("PUBLIC_REFERENCE", "decode_base64", "entropy", "has_digit", "looks_random", "mixed", "only_words")

_UUID = rb"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
# What stands before the secret names a key of ours and opens nothing.
PUBLIC_REFERENCE = re.compile(rb"mcps_[a-z]{2,8}_[A-Za-z0-9]{12}\Z")


def entropy(text: bytes) -> float:
    """Bits of information per byte, by how often each occurs."""
    size = len(text)
    return -sum(n / size * math.log2(n / size) for n in Counter(text).values())


_HEX = re.compile(rb"[0-9a-fA-F]+\Z")
_UUID_RE = re.compile(_UUID + rb"\Z")
# Words, numbers and versions, joined by punctuation; in one linear look, since a value may have thousands of parts.
_ONLY_WORDS = starter(
    compile_bytes(
        rb"[\-_./+:=@~\\ ]*(?:(?:[A-Z]?[a-z]+|[A-Z]+|[A-Z]?[a-z]{2,}(?:[A-Z][a-z]+)+|v?[0-9]{1,8}|[a-z]{3,}[0-9]{1,4}|[0-9]{1,4}[a-z]{1,2})"
        rb"(?:[\-_./+:=@~\\ ]+|\z))*\z",
        captures=False,
    )
)
_RUN = re.compile(rb"[a-z]{7,}|[A-Z][a-z]{6,}")


def looks_random(value: bytes, hexadecimal: bool = True, least: int = 12) -> bool:
    """Whether a text looks like something a generator made, and not like words, a path, a number or a version."""
    size = len(value)
    if size < least or size > 4096:
        return False
    if _HEX.match(value):
        return hexadecimal and size >= 16 and not value.isdigit() and entropy(value) > 2.5
    if _UUID_RE.match(value):
        return hexadecimal
    if value[:5] == b"mcps_" and PUBLIC_REFERENCE.match(value):
        return False
    if value[:2] == b"0x" and _HEX.match(value, 2):
        return hexadecimal and size >= 66
    digits, upper, lower = _counts(value)
    if digits == size:
        return False
    if not (lower or upper):
        return False
    if only_words(value):
        return False
    if b"://" in value or (value.startswith((b"/", b"./", b"../", b"~/")) and b"." in value):
        return False
    if digits == 0 and not (lower and upper and size >= 20):
        return False
    if len(_RUN.findall(value)) >= max(2, size // 14):
        return False
    return entropy(value) >= (2.8 if size < 20 else 3.2)


def _counts(value: bytes) -> tuple[int, int, int]:
    size = len(value)
    return tuple(size - len(value.translate(None, letters)) for letters in _LETTERS)  # type: ignore[return-value]


_LETTERS = (b"0123456789", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"abcdefghijklmnopqrstuvwxyz")


def has_digit(value: bytes) -> bool:
    """Whether there is a digit in it."""
    return _DIGIT.search(value) is not None


_DIGIT = re.compile(rb"[0-9]")


def mixed(least_digits: int = 2, least_upper: int = 1, least_lower: int = 1) -> Callable[[bytes], bool]:
    """Make a check for so many digits, capitals and small letters at least."""

    def check(value: bytes) -> bool:
        digits, upper, lower = _counts(value)
        return digits >= least_digits and upper >= least_upper and lower >= least_lower

    return check


def only_words(value: bytes) -> bool:
    """Whether a text is words, numbers and versions, joined by punctuation."""
    return bool(_ONLY_WORDS(value, 0, len(value))[0][1] >= 0)


def decode_base64(value: bytes) -> bytes | None:
    """Decode standard or URL-safe base64 with or without padding, or say None."""
    body = value.rstrip(b"=").translate(_TO_STANDARD)
    body = body[: len(body) - 1] if len(body) % 4 == 1 else body
    try:
        return base64.b64decode(body + b"=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
