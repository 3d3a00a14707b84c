"""The prefilter (pure): one linear look at a text that may say "nothing here", and is then right.

Several automata look in turn, since one that counts several things at once is slow on random text. A test compares the
answer with the full walk.
"""

from __future__ import annotations

import unicodedata

from audit.redaction import escapes
from audit.redaction.detect import base64_text
from audit.redaction.detect.automata import compile_bytes, finder
from audit.redaction.detect.context import lexical
from audit.redaction.detect.matching import LOOSE, OPENINGS

__all__ = ("hinted", "suspicious")

_PLACES = (
    r":[^\s@:/\"'<>(),;]{3,}@|(?:^|[^A-Za-z0-9])(?:-u|-U|--user|--proxy-user|--basic)(?:[^A-Za-z0-9]|$)|"
    r"[?&#;](?:amp;)?(?i:sig|sign|code|hmac|oauth_|code_|client_|hdn|policy|access|pass|pin|otp|pw|p|u|crumb|state|invite|t|k|s|m|l|x-amz|x-goog|auth|id_token|logout)[a-z_\-]*(?:=|%3)|"
    r"://[^\s\"'<>]*@|%[0-9A-Fa-f]{2}|&(?:[a-z]{2,6}|#[0-9]{2,9}|#[xX][0-9a-fA-F]{2,9});|\\[xuU01]|%u|\x7f|(?i:identified|connection[ \t]+string|(?:recovery|backup|verification|security|time|activation|factor)[ \t_\-]*codes?)|"
    r"/[^@\s\"']*@|[^\s/][ \t]{1,4}/[ \t]{1,4}[^\s\"'<>]{6}|[\s\"',](?:-p|-P|-a|-w|-pw|/p:|-passin|-k)|"
    r"PRIVATE KEY|(?i:bearer|basic)|data:"
)
_SHORT_NAMES = "pin pw psw sas pem sig sid pat mac pass otp cvv cvc psk jwt auth creds cookie"
_HINT = finder(
    compile_bytes(
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
    )
)
_PLACE = finder(compile_bytes(_PLACES, captures=False))
_LOOSE = finder(compile_bytes(LOOSE, captures=False))
_BASE64 = finder(compile_bytes(base64_text.BASE64_OF_TEXT, captures=False))
# Names may be written with separators between any two letters; without them their letters stand together.
_FOLD = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"abcdefghijklmnopqrstuvwxyz")
_NOT_ALNUM = bytes(c for c in range(256) if not (48 <= c <= 57 or 65 <= c <= 90 or 97 <= c <= 122))


def hinted(text: bytes, folded: bytes = b"") -> bool:
    """Whether a text may hold a secret."""
    # One look at both: the second call would cost more than the longer text.
    names = text + b"\n" + folded if folded else text
    if _HINT(names, 0, len(names))[0][1] >= 0:
        return True
    size = len(text)
    if _PLACE(text, 0, size)[0][1] >= 0:
        return True
    if size < 16:
        return False
    return bool(_LOOSE(text, 0, size)[0][1] >= 0 or _BASE64(text, 0, size)[0][1] >= 0)


def suspicious(document: bytes) -> bool:
    """Whether the compact JSON text of a payload might hold anything that is redacted or escaped."""
    if b"\\" in document:
        # JSON within a string looks the same without its escapes; any other escape wants the full walk.
        document = document.replace(b'\\"', b'"').replace(b"\\n", b"\n")
        if b"\\" in document:
            return True
    if b'"io.modelcontextprotocol/' in document:
        # Every modern request has these names, which are long enough to look like a secret.
        document = document.replace(b'"io.modelcontextprotocol/', b'"')
    if b'"progressToken":' in document:
        document = document.replace(b'"progressToken":', b'"":')
    if document.isascii():
        return hinted(document, document.translate(_FOLD, _NOT_ALNUM))
    if escapes.hides(document):
        return True
    text = document.decode("utf-8", "replace")
    # Names are judged in their compatibility forms, without case and accents; so here are they looked for.
    plain = unicodedata.normalize("NFKC", text).casefold()
    folded = unicodedata.normalize("NFKD", plain).encode("utf-8", "replace").translate(_FOLD, _NOT_ALNUM)
    return hinted(document, plain.encode("utf-8", "replace") + b"\n" + folded)
