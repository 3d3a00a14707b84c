"""Personal data that an installation may ask to have redacted too (pure); off by default.

Each finder is linear and checks what can be checked: a card by Luhn and length, an IBAN by its country's form and mod 97.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from audit.redaction.detect.matching import SecretPlace

__all__ = ("KINDS",)

_EMAIL = re.compile(
    rb"(?<![A-Za-z0-9._%+\-])(?!git@)[A-Za-z0-9][A-Za-z0-9._%+\-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,62})\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9])"
)
_CARD = re.compile(rb"(?<![0-9A-Za-z.\-])[3-6][0-9]{3}(?:[ \-]?[0-9]){9,15}(?![0-9A-Za-z]|[.\-][0-9])")
_IBAN = re.compile(rb"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
_IBAN_LENGTH = dict(
    pair.split(":")
    for pair in """AD:24 AE:23 AL:28 AT:20 AZ:28 BA:20 BE:16 BG:22 BH:22 BR:29 BY:28 CH:21 CR:22 CY:28 CZ:24 DE:22 DK:18 DO:28
    EE:20 EG:29 ES:24 FI:18 FO:18 FR:27 GB:22 GE:22 GI:23 GL:18 GR:27 GT:28 HR:21 HU:28 IE:22 IL:23 IQ:23 IS:26 IT:27 JO:30
    KW:30 KZ:20 LB:28 LC:32 LI:21 LT:20 LU:20 LV:21 LY:25 MC:27 MD:24 ME:22 MK:19 MR:27 MT:31 MU:30 NL:18 NO:15 PK:24 PL:28
    PS:29 PT:25 QA:29 RO:24 RS:22 SA:24 SC:31 SE:24 SI:19 SK:24 SM:27 TL:23 TN:24 TR:26 UA:29 VA:22 VG:24 XK:20""".split()
)
_PHONE = re.compile(
    rb"(?<![A-Za-z0-9_+\-.])(?:\+[1-9][0-9]{0,2}[ .\-]?(?:\([0-9]{1,4}\)[ .\-]?)?(?:[0-9]{2,4}[ .\-]?){2,5}[0-9]{2}|\([0-9]{3}\) ?[0-9]{3}[ .\-][0-9]{4}|[0-9]{3}[.\-][0-9]{3}[.\-][0-9]{4})(?![A-Za-z0-9_]|[.\-][0-9])"
)


def _emails(text: bytes) -> Iterator[SecretPlace]:
    for match in _EMAIL.finditer(text):
        yield SecretPlace(*match.span(), "email")


def _cards(text: bytes) -> Iterator[SecretPlace]:
    for match in _CARD.finditer(text):
        digits = [c - 48 for c in match[0] if 48 <= c <= 57]
        if 13 <= len(digits) <= 19 and len(set(digits)) > 1 and _luhn(digits):
            yield SecretPlace(*match.span(), "card")


def _luhn(digits: list[int]) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        total += digit if place % 2 == 0 else digit * 2 - 9 * (digit > 4)
    return total % 10 == 0


def _ibans(text: bytes) -> Iterator[SecretPlace]:
    for match in _IBAN.finditer(text):
        plain = match[0].replace(b" ", b"").decode()
        if (
            _IBAN_LENGTH.get(plain[:2]) == str(len(plain))
            and int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1
        ):
            yield SecretPlace(*match.span(), "iban")


def _phones(text: bytes) -> Iterator[SecretPlace]:
    for match in _PHONE.finditer(text):
        if 9 <= sum(48 <= c <= 57 for c in match[0]) <= 15:
            yield SecretPlace(*match.span(), "phone")


KINDS: dict[str, Callable[[bytes], Iterator[SecretPlace]]] = {
    "email": _emails,
    "card": _cards,
    "iban": _ibans,
    "phone": _phones,
}
