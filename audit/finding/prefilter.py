"""The prefilter (pure): one linear look at a text that may say "nothing here", and is then right.

Several automata look in turn, since one that counts several things at once is slow on random text. A test compares the
answer with the full walk.
"""

from __future__ import annotations

from audit.finding import lexical, wrapping
from audit.finding.matching import LOOSE, OPENINGS, UNANCHORED, compile_bytes

__all__ = ("hinted", "suspicious")

_PLACES = (
    r":[^\s@:/\"'<>(),;]{3,}@|(?:^|[^A-Za-z0-9])(?:-u|-U|--user|--proxy-user|--basic)(?:[^A-Za-z0-9]|$)|"
    r"[?&#;](?:amp;)?(?i:sig|sign|code|hmac|oauth_|code_|client_|hdn|policy|access|pass|pin|otp|pw|p|u|crumb|state|invite|t|k|s|m|l|x-amz|x-goog|auth|id_token|logout)[a-z_\-]*(?:=|%3)|"
    r"://[^\s\"'<>]*@|%[0-9A-Fa-f]{2}|&(?:[a-z]{2,6}|#[0-9]{2,4}|#x[0-9a-fA-F]{2,4});|\\u00|\\u\{|\x7f|(?i:identified|connection[ \t]+string|(?:recovery|backup|verification|security|time|activation|factor)[ \t_\-]*codes?)|"
    r"/[^@\s\"']*@|[^\s/][ \t]{1,4}/[ \t]{1,4}[^\s\"'<>]{6}|[\s\"',](?:-p|-P|-a|-w|-pw|/p:|-passin|-k)|"
    r"PRIVATE KEY|(?i:bearer|basic)|data:"
)
_SHORT_NAMES = "pin pw psw sas pem sig sid pat mac pass otp cvv cvc psk jwt auth creds cookie"
_HINT = compile_bytes(
    "|".join(
        (
            f"(?i:{lexical.TRIGGERS})",
            "(?i:(?:[^a-z]|^)(?:" + _SHORT_NAMES.replace(" ", "|") + ")(?:[^a-z]|$))",
            "(?:" + "|".join(f"{word.title()}|{word.upper()}" for word in _SHORT_NAMES.split()) + ")(?:[^a-z]|$)",
            OPENINGS,
        )
    ),
    captures=False,
    memory=64,
)._regexp.Match
_PLACE = compile_bytes(_PLACES, captures=False)._regexp.Match
_LOOSE = compile_bytes(LOOSE, captures=False)._regexp.Match
_BASE64 = compile_bytes(wrapping.BASE64_OF_TEXT, captures=False)._regexp.Match
# Names may be written with separators between any two letters; without them their letters stand together.
_FOLDED = compile_bytes(lexical.TRIGGERS, captures=False)._regexp.Match
_FOLD = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"abcdefghijklmnopqrstuvwxyz")
_NOT_ALNUM = bytes(c for c in range(256) if not (48 <= c <= 57 or 65 <= c <= 90 or 97 <= c <= 122))


def hinted(text: bytes) -> bool:
    """Whether a text may hold a secret."""
    size = len(text)
    if _HINT(UNANCHORED, text, 0, size)[0][1] >= 0 or _PLACE(UNANCHORED, text, 0, size)[0][1] >= 0:
        return True
    if size < 16:
        return False
    return bool(_LOOSE(UNANCHORED, text, 0, size)[0][1] >= 0 or _BASE64(UNANCHORED, text, 0, size)[0][1] >= 0)


def suspicious(document: bytes) -> bool:
    """Whether the compact JSON text of a payload might hold anything that is redacted or escaped."""
    if b"\\" in document or not document.isascii():
        return True
    if b'"progressToken":' in document:
        document = document.replace(b'"progressToken":', b'"":')
    if hinted(document):
        return True
    folded = document.translate(_FOLD, _NOT_ALNUM)
    return bool(_FOLDED(UNANCHORED, folded, 0, len(folded))[0][1] >= 0)
