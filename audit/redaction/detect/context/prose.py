"""Secrets in sentences (pure): the password is x, use "x" as the token, the key x was rotated."""

from __future__ import annotations

import re
from collections.abc import Iterator

from audit.redaction.detect.budget import Effort
from audit.redaction.detect.heuristics import SAID_OF_PASSWORDS, TRAILING, is_secret_word, is_words
from audit.redaction.detect.matching import SecretPlace
from audit.redaction.detect.names import Name
from audit.redaction.detect.randomness import has_digit, looks_random, mixed

__all__ = ("nearby", "read_prose", "said_before")

_CONNECT = re.compile(
    rb"(?i)(?:(?:[ \t]{1,4}(?:for|of|on|in|at|to)[ \t]{1,4}[^\s\"'`,;]{1,40}(?:[ \t]{1,4}[^\s\"'`,;]{1,40}){0,2}?)?)"
    rb"(?:[ \t]{1,4}(?:is|was|are|equals|being|reads|=|:|-|\xe2\x80\x93|\xe2\x80\x94)|[ \t]{0,4}[,:]?[ \t]{1,4}(?:set|changed|equal|reset|rotated|updated)[ \t]{1,4}to|[ \t]{1,4}(?:i[ \t]{1,4}(?:use|used)|we[ \t]{1,4}use|you[ \t]{1,4}need|to[ \t]{1,4}use|provided|given|used|found|sent|received|value|here)[ \t]{0,4}(?:is|was|:|=)?|(?P<loose>[ \t]{1,4}as|[ \t]{1,4}of|[ \t]{1,4}to)|\xe2\x80\x99s|'s)"
    rb"[ \t]{0,4}(?:(?:now|just|still|currently|simply|always|probably|the|new|set[ \t]{1,4}to|called|this|following|string|value)[ \t:]{1,4}){0,3}"
)
_WITHIN = re.compile(
    rb"(?:[ \t]{1,4}[A-Za-z'()]{1,20}){1,5}[ \t]{0,4}(?::|=|->|-|\xe2\x80\x93|\xe2\x80\x94)(?:[ \t]{0,4}(?:\r?\n){1,2})?[ \t]{0,4}"
)
_QUOTED_TOKEN = re.compile(
    rb"(?P<q>\\{0,8}[\"'`]|\xe2\x80\x9c|\xe2\x80\x98|\*\*|<)(?P<value>[^\s\"'`<>]{3,2048}?)(?=\\{0,8}[\"'`]|\xe2\x80\x9d|\xe2\x80\x99|\*\*|>)"
)
_BARE_TOKEN = re.compile(rb"[^\s\"'`<>]{3,4096}")
_RANDOM_TOKEN = re.compile(rb"(?<![A-Za-z0-9+/=_\-.~:@%])[A-Za-z0-9+/_\-.~]{16,4096}={0,2}")


def read_prose(text: bytes, end: int, name: Name, effort: Effort) -> SecretPlace | None:
    """Find the secret that a sentence gives after its name, which ends at `end`."""
    while end < len(text) and text[end : end + 1] in b"\"'`*":
        end += 1
    connected = _CONNECT.match(text, end)
    if connected is not None:
        if found := _word(text, connected.end(), name, effort):
            value = text[found.start : found.end]
            if not connected["loose"] or name.kind == "password" or not is_words(value):
                return found
        elif name.kind == "password" and (word := _plain_word(text, connected)):
            return word
    elif connected := _WITHIN.match(text, end):
        found = _word(text, connected.end(), name, effort)
        if found and looks_random(text[found.start : found.end], name.hexadecimal, least=8):
            return found
    direct = _DIRECT.match(text, end)
    if direct is None or name.textual:
        return None
    quoted = _QUOTED_TOKEN.match(text, direct.end())
    if quoted:
        value = quoted["value"]
        effort.spend(len(value))
        digits = len(value) >= 8 and has_digit(value)
        if is_secret_word(value, name, True) and (digits or not is_words(value)):
            return SecretPlace(*quoted.span("value"), name.kind)
        return None
    bare = _BARE_TOKEN.match(text, direct.end())
    if bare is None or not name.strong:
        return None
    effort.spend(len(bare[0]))
    value = bare[0].rstrip(TRAILING)
    if len(value) < 6 or b"=" in value[:24] or b":" in value or not is_secret_word(value, name, False):
        return None
    if is_words(value) and not (name.kind == "password" and _WORD_AND_DIGITS.match(value)):
        return None
    return SecretPlace(bare.start(), bare.start() + len(value), name.kind)


def _plain_word(text: bytes, connected: re.Match[bytes]) -> SecretPlace | None:
    """Find a word that is the password: `the password is swordfish`, and not `the password is wrong`."""
    if connected["loose"] or not _SAYS.search(connected[0]):
        return None
    word = _ONE_WORD.match(text, connected.end())
    if word is None or word["word"].lower() in SAID_OF_PASSWORDS or _SUFFIX.search(word["word"].lower()):
        return None
    return SecretPlace(*word.span("word"), "password")


def said_before(text: bytes, start: int, name: Name) -> SecretPlace | None:
    """Find a secret that stands in front of its name, as in `use "x" as the password`."""
    match = _SAID_BEFORE.search(text, max(0, start - 160), start)
    if match is None:
        return None
    value = match["value"].rstrip(TRAILING)
    if is_words(value) or not is_secret_word(value, name, False):
        return None
    return SecretPlace(match.start("value"), match.start("value") + len(value), name.kind)


_SAID_BEFORE = re.compile(
    rb"(?:(?<=[\s\"'`(*])|^)(?P<value>[^\s\"'`(*]{6,150})[\"'`*]{0,2},?[ \t]{1,4}(?:as|is|was|for)[ \t]{1,4}"
    rb"(?:(?:the|my|your|our|his|her|their|this|its|a|an|new|old|current|correct|temporary|initial|default|root|admin|db|database|user)[ \t]{1,4}){0,4}[\"'`*]?\Z"
)
_SAYS = re.compile(rb"(?i)\A[ \t]{1,4}(?:is|was)[ \t]{1,4}(?:(?:now|still|just|currently|simply)[ \t]{1,4})?\Z")
# The sentence goes on with another clause, or ends.
_ONE_WORD = re.compile(
    rb"(?P<word>[A-Za-z]{5,24})(?=[.!]?(?:[ \t]*[\r\n]|[ \t]*\Z)|\.[ \t]|,?[ \t](?:and|but|so|please|can|could|would|for[ \t]the|you)[ \t])"
)
_SUFFIX = re.compile(
    rb"(?:ed|ing|able|ible|ly|ive|ent|ant|ary|ory|ful|less|ous|al|ic|ical|tion|sion|ment|ness|ity|word|words|ate|ese)\Z"
)
_DIRECT = re.compile(rb"[ \t]{0,4}[(\[](?=\S)|[ \t]{0,4}[:(\[]?[ \t]{1,4}")
_WORD_AND_DIGITS = re.compile(rb"[A-Za-z]{3,}[0-9]{1,4}\Z")


def _word(text: bytes, at: int, name: Name, effort: Effort) -> SecretPlace | None:
    quoted = _QUOTED_TOKEN.match(text, at)
    if quoted:
        effort.spend(len(quoted[0]))
        return SecretPlace(*quoted.span("value"), name.kind) if is_secret_word(quoted["value"], name, True) else None
    bare = _BARE_TOKEN.match(text, at)
    if bare is None:
        return None
    effort.spend(len(bare[0]))
    value = bare[0].rstrip(TRAILING)
    if value and is_secret_word(value, name, False):
        return SecretPlace(at, at + len(value), name.kind)
    return None


def nearby(text: bytes, spoken: list[int]) -> Iterator[SecretPlace]:
    """Yield words that only a generator writes, within a sentence that speaks of a secret."""
    ahead = 0
    for match in _RANDOM_TOKEN.finditer(text):
        while ahead < len(spoken) and spoken[ahead] < match.start() - 160:
            ahead += 1
        if ahead == len(spoken):
            return
        if spoken[ahead] > match.end() + 160:
            continue
        value = match[0].rstrip(b".-")
        if len(value) >= 20 and value[:8] not in _PUBLIC_KEYS and _MIXED(value) and looks_random(value, False, 20):
            yield SecretPlace(match.start(), match.start() + len(value), "token")


_MIXED = mixed(2, 2, 2)
_PUBLIC_KEYS = (b"AAAAB3Nz", b"AAAAC3Nz", b"AAAAE2Vj")
