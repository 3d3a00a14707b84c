"""Whether a word is a value or one more word: templates, code, algorithms, dates and stop words are none (pure)."""

from __future__ import annotations

import re

from audit.redaction.detect.names import Name
from audit.redaction.detect.randomness import has_digit, looks_random

__all__ = (
    "ALGORITHM",
    "CALL",
    "CODE",
    "DATE",
    "NUMERIC",
    "QUANTITY",
    "REFERENCE",
    "REFERENCE_AT",
    "REFERENCE_ONLY",
    "TOKEN",
    "TRAILING",
    "WORDS_NOT_VALUES",
    "accepts",
    "is_secret_word",
    "is_words",
    "looks_like_our_token",
)

TOKEN = re.compile(rb"\[REDACTED:[a-z0-9\-]{1,40}:[0-9a-f]{8}\]")
REFERENCE = re.compile(
    rb"(?:\$\{[^}\s]{1,80}\}|\$\{\{[^}]{1,120}\}\}|\$\([^)]{1,80}\)|\$[A-Za-z_][A-Za-z0-9_]{0,60}|\{\{[^}]{1,80}\}\}|<[A-Za-z][A-Za-z0-9 _\-]{0,60}>|"
    rb"(?i:your|insert|enter|example|sample|placeholder|replace)(?:[-_][A-Za-z]+){0,6}|[A-Za-z]+(?:[-_][A-Za-z]+){0,6}[-_](?i:here)|"
    rb"\{[a-z_][a-z0-9_.]{0,40}\}|%[sdr]|%\([a-z_]+\)s|%[A-Z_]{2,40}%|\*{3,}|x{4,}|X{4,}|\.{3,}|\xe2\x80\xa6|\xe2\x80\xa2+|-|\?|\[\]|\{\}|\(none\)|N/A|n/a)\Z"
)
REFERENCE_AT = re.compile(
    rb"[\[(][a-z]{2}[a-z \-]{0,103}[\])]|"
    rb"\$\{[^}\s]{1,80}\}|\$\{\{[^}]{1,120}\}\}|\$\([^)]{1,80}\)|\{\{[^}]{1,80}\}\}|"
    rb"(?:self|settings|config|cfg|conf|os|process|env|environ|secrets|args|request|req|options|opts|params|ctx|context|this|props|vault|keyring|"
    rb"var|local|module|credentials|creds|user|form|session|app|state|data)(?:\.|\?\.|->)[A-Za-z_][A-Za-z0-9_.\[\]\"']{0,80}(?![A-Za-z0-9_.])"
)
REFERENCE_ONLY = re.compile(
    rb"(?:(?:[Bb]earer|[Bb]asic|[Tt]oken) +)?(?:\$?\{[A-Za-z_][A-Za-z0-9_.()]{0,60}\}|\$\{\{?[^}]{1,80}\}?\}|\{\{[^}]{1,80}\}\}|\$[A-Za-z_][A-Za-z0-9_]{0,60}|<[A-Za-z][A-Za-z0-9 _\-]{0,60}>|%s)\Z"
)
WORDS_NOT_VALUES = frozenset(
    rb"""null none true false nil undefined void empty yes no on off required optional string str int integer number bool boolean
    bytes any object array list dict map tuple set text char varchar nvarchar uuid date datetime float double long byte
    str|none string|null optional[str] missing invalid expired valid wrong incorrect correct unknown hidden redacted masked
    encrypted hashed secret password token key weak strong default changed unchanged unset given provided blank default_token
    the a an and or not is are was be it its this that these those your our my their his her for from with by in of to as at
    self request args kwargs options params config settings env process data input value values name type field http https
    bearer basic digest oauth jwt sha256 sha1 sha512 md5 bcrypt argon2 hmac secretstr slicestr interface const readonly""".split()
)
# What a sentence may say of a password without giving it; what ends like an adjective need not stand here.
SAID_OF_PASSWORDS = frozenset(
    rb"""about above after again alone already always another available bad below better blank broken case clear common complex
    correct different easy either empty enough equal exactly expired false fine first forgotten generated given good great
    hard hashed here hidden identical incorrect inside invalid known later local lost longer meant missing myself needed
    never none nothing often okay only optional other plain plaintext present private public random ready right safe same
    secret secure sent short shorter simple someone something still strong stronger stored their there these those today
    together tomorrow unchanged undefined under unique unknown unsafe until upper useless valid visible weak weaker what
    where which while wrong yours ready reset older newer longer fresh encrypted bcrypt argon required stale gone theirs
    complete definite english spanish polish turkish rubbish finite white unsure obscure shown modern robust oldest newest worst
    latest whatever whichever because before between beyond being cannot could every everything hers mandatory might must maybe
    neither nobody ours perhaps probably quite rather should since somewhere such than that then though through too unless
    usually very well were when whether will with within without would""".split()
)
CODE = re.compile(
    rb"[A-Za-z_$][A-Za-z0-9_$]{0,60}(?:(?:\.|->|::|\?\.)[A-Za-z_$][A-Za-z0-9_$]{0,60}){0,8}(?:[(\[{][^\s]{0,200})?[)\]},;]{0,4}\Z"
)
CALL = re.compile(rb"[A-Za-z_$][A-Za-z0-9_$.:]{0,80}[(\[]")
ALGORITHM = re.compile(
    rb"(?i)(?:sha|md|aes|rsa|hs|rs|es|ps|ed|base|utf|pbkdf|argon|bcrypt|scrypt|oauth|http|https|tls|ssl|rfc|x|v|iso|ipv|p|curve|"
    rb"secp|hmac|blake|crc|s|ec|python|node|es|k|u|t|r|q)-?[0-9]{1,5}(?:[-_./a-z0-9]{0,16})\Z"
)
DATE = re.compile(rb"[0-9]{1,4}[-/.:][0-9]{1,2}(?:[-/.:T][0-9:.]{1,16}Z?)?\Z")
QUANTITY = re.compile(
    rb"(?i)[0-9]{1,6}(?:\.[0-9]+)?(?:%|[a-z]{1,7}|-(?:bit|byte|char|characters?|day|hour|minute|second|digit|month|year|chars?)s?)?\Z"
)
TRAILING = b".,;:!?)]}"


def looks_like_our_token(value: bytes) -> bool:
    """Whether a value is a replacement that stands here already."""
    return TOKEN.fullmatch(value) is not None


def accepts(name: Name, value: bytes) -> bool:
    if name.kind == "credential" and value in (b"include", b"same-origin", b"omit"):
        return False  # what a browser's fetch() takes
    return name.strong or looks_random(value, name.hexadecimal)


_LETTER = re.compile(rb"[A-Za-z]")
_SYMBOL = re.compile(rb"[!@#$%^&*+=~?{}|]")
NUMERIC = frozenset(("password", "pin"))


def is_secret_word(value: bytes, name: Name, quoted: bool) -> bool:
    """Whether a word that follows a name in a sentence is a secret and not one more word of the sentence."""
    if value[:1] in (b"{", b"<") or value[:2] in (b"${", b"$(", b"%{") or REFERENCE_AT.match(value):
        return False
    lowered = value.lower()
    if (
        lowered in WORDS_NOT_VALUES
        or REFERENCE.match(value)
        or TOKEN.match(value)
        or b"[REDACTED:" in value
        or b"://" in value
    ):
        return False
    if (
        (ALGORITHM.match(value) and not (len(value) >= 10 and looks_random(value, least=10)))
        or DATE.match(value)
        or (QUANTITY.match(value) and not (name.kind in NUMERIC and value.isdigit() and len(value) >= 3))
    ):
        return False
    if not name.strong:
        return looks_random(value, name.hexadecimal, least=16)
    digit = has_digit(value)
    letter = _LETTER.search(value) is not None
    symbol = _SYMBOL.search(value) is not None
    if quoted:
        if CALL.match(value) or (
            not digit and not symbol and (b"_" in value or b"-" in value or b"." in value or b"/" in value)
        ):
            return False
        return (digit or symbol or len(value) >= 6) and not (value.istitle() and not digit)
    if name.kind == "password" and value.count(b"-") >= 3 and len(value) >= 16:
        return True  # a phrase of words
    if b"(" in value or value[:1] in (b"/", b"."):
        return looks_random(value)
    return len(value) >= (3 if name.kind == "pin" else 4) and (
        (digit and letter)
        or (symbol and letter and len(value) >= 6)
        or looks_random(value)
        or (digit and name.kind in NUMERIC)
    )


_is_words_re = re.compile(rb"(?:[A-Za-z]+[0-9]{0,2}|[0-9]{1,4})(?:[-_./'][A-Za-z]+[0-9]{0,2}|[-_./][0-9]{1,4})*\Z")


def is_words(value: bytes) -> bool:
    """Whether a value is words and numbers as people join them."""
    return _is_words_re.match(value) is not None and not looks_random(value, least=10)
