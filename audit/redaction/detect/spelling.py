"""Letters written in another way (pure): `pass\\u0077ord`, `pass%77ord` and `pass&#119;ord` are all `password` to some reader.

However often the text around them was quoted: each time doubles the backslashes, which is why any number of them may stand
in front of one escape.
"""

from __future__ import annotations

import html
import re
import unicodedata

__all__ = ("ESCAPES", "name", "plain")

# What letters, digits, "-" and "_" are in a URL; nobody has to write them so. Other characters are kept apart by it.
_LETTER = r"(?:2[dD]|3[0-9]|4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aA])"
ESCAPES = (
    r"(?:\\{1,16}|%)u(?:\{[0-9A-Fa-f]{1,6}\}|[0-9A-Fa-f]{4})|\\{1,16}(?:x[0-9A-Fa-f]{2}|U[0-9A-Fa-f]{8}|[01][0-7]{2})|"
    rf"%(?:25){{1,3}}{_LETTER}|%{_LETTER}"
)
_ESCAPE = re.compile(ESCAPES.encode())
_SIGNS = b"\\%u{}xU"


def plain(text: bytes) -> bytes:
    """Give a text with every visible character that is written as an escape put in its place, in its plainest form."""
    return _ESCAPE.sub(_character, text)


def name(text: str) -> str:
    """Give the name of a member as a reader that takes such escapes reads it."""
    if "&" in text:
        text = html.unescape(text)
    if "\\" in text or "%" in text:
        text = plain(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")
    return text


def _character(match: re.Match[bytes]) -> bytes:
    written = match[0]
    if written[:1] == b"%" and written[1:2] != b"u":
        return bytes([int(written[-2:], 16)])
    digits = written.lstrip(b"\\").strip(_SIGNS)
    point = int(digits, 8 if len(digits) == 3 and written.lstrip(b"\\") == digits else 16)
    if not 0x20 <= point <= 0x10FFFF or 0xD800 <= point <= 0xDFFF:
        return written
    return unicodedata.normalize("NFKC", chr(point)).encode()
