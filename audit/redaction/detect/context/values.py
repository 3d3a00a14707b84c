"""The value that follows a name and an operator, read the way its writer meant it (pure): quoted, bracketed or plain."""

from __future__ import annotations

import re

from audit.redaction.detect.budget import Effort
from audit.redaction.detect.heuristics import (
    ALGORITHM,
    CALL,
    CODE,
    NUMERIC,
    QUANTITY,
    REFERENCE,
    REFERENCE_AT,
    REFERENCE_ONLY,
    TOKEN,
    WORDS_NOT_VALUES,
    accepts,
    is_words,
    looks_like_our_token,
)
from audit.redaction.detect.matching import SecretPlace
from audit.redaction.detect.names import Name
from audit.redaction.detect.randomness import has_digit, looks_random, only_words

__all__ = ("read_value",)

_MAX_VALUE = 16_384
_OPENER = re.compile(rb"(?:[rbfuRBFU]{1,2})?\\{0,16}[\"'`]")
_SCHEME = re.compile(
    rb"(?i:(?:bearer|basic|token|apikey|api-key|ssws|bot|hmac|dpop|geniekey|mac|oauth|negotiate|ntlm|key|splunk|digest|"
    rb"aws4-hmac-sha256|aws|signature|sharedaccesssignature|sharedkey)(?:[ \t]|%20|\+)+)+"
)
_WHOLE_LINE_SCHEMES = re.compile(rb"(?i)digest|aws|signature|hmac|mac|oauth|shared")
_PLAIN_VALUE = re.compile(
    rb"(?:[^\s;&\"'`<>,)\]}\\|]|\\(?![\"'nrt])|\|(?!\|)|[,)\]}](?=[^\s,;&\"'`<>)\]}\\])(?![A-Za-z_][A-Za-z0-9_.\-]{0,40}\s?[=:])){1,16384}"
)
_LINE_VALUE = re.compile(rb"[^\r\n\"'`]{1,16384}")
_WHOLE_LINE = re.compile(rb"[^\r\n]{1,16384}")
_COOKIES = re.compile(rb"[^\r\n\"'`\\]{1,16384}")


def read_value(
    text: bytes,
    at: int,
    name: Name,
    cut: bool,
    effort: Effort,
    *,
    quoted_name: bool = False,
    whole_line: bool = False,
    spaced: bool = False,
    colon: bool = False,
    written: bytes = b"",
    start: int = -1,
) -> SecretPlace | None:
    """Read the value that begins at a place: quoted, bracketed or plain."""
    opener = _OPENER.match(text, at)
    if opener and spaced and not quoted_name and _closes(text, start, opener[0][-1:]):
        return None
    if opener:
        return _quoted(text, opener, name, effort)
    first = text[at : at + 1]
    if REFERENCE_AT.match(text, at) or (first in (b"/", b"~") and written.lower() in (b"pwd", b"oldpwd")):
        return None
    if first in (b"{", b"[") and not TOKEN.match(text, at) and (quoted_name or not spaced):
        if not (name.strong and quoted_name):
            return None
        return SecretPlace(at, _closing(text, at), name.kind)
    if name.kind == "cookie" and not quoted_name and (cookies := _COOKIES.match(text, at)):
        effort.spend(len(cookies[0]))
        value = cookies[0].strip()
        if looks_like_our_token(value) or not (b"=" in value or looks_random(value)):
            return None
        return SecretPlace(*cookies.span(), "cookie")
    begin = at
    if scheme := _SCHEME.match(text, at):
        begin = scheme.end()
        effort.spend(len(scheme[0]))
        if _WHOLE_LINE_SCHEMES.match(scheme[0]) and (rest := _WHOLE_LINE.match(text, begin)):
            effort.spend(len(rest[0]))
            return (
                SecretPlace(begin, rest.end(), name.kind)
                if b"=" in rest[0]
                else _plain(text, begin, name, effort, False, False, colon=False)
            )
    elif whole_line and (rest := _LINE_VALUE.match(text, at)):
        effort.spend(len(rest[0]))
        value = rest[0].rstrip()
        if REFERENCE.match(value) or looks_like_our_token(value) or not accepts(name, value):
            return None
        return SecretPlace(at, at + len(value), name.kind)
    return _plain(
        text, begin, name, effort, spaced and not scheme, quoted_name, colon=colon, written=written, start=start
    )


def _closes(text: bytes, before: int, quote: bytes) -> bool:
    """Whether a quote closes the text in which a name stands, as in `ask("Password: ")`."""
    line = text[max(0, before - 120) : before]
    return line[line.rfind(b"\n") + 1 :].count(quote) % 2 == 1


def _plain(
    text: bytes,
    at: int,
    name: Name,
    effort: Effort,
    spaced: bool,
    quoted_name: bool,
    *,
    colon: bool,
    written: bytes = b"",
    start: int = -1,
) -> SecretPlace | None:
    plain = _PLAIN_VALUE.match(text, at)
    if plain is None or REFERENCE_AT.match(text, at):
        return None
    value = plain[0]
    effort.spend(len(value))
    stripped = value.rstrip(b".,") if not quoted_name else value
    if REFERENCE.match(value) or TOKEN.match(value) or not stripped:
        return None
    after = text[plain.end() : plain.end() + 1]
    before = text[start - 1 : start] if start > 0 else b""
    if name.textual and (value.isdigit() or value in (b"true", b"false", b"null")):
        return None
    if value in (b"null", b"None", b"undefined", b"nil"):
        return None
    if not quoted_name:
        if _ONLY_BRACKETS.match(stripped) or (_CMDLET.match(stripped) and after == b" "):
            return None  # code
        if colon and not spaced and before == b"/" and _IMAGE.search(text, max(0, start - 200), start):
            return None  # an image's tag: registry.example/team/auth:1.2.3
        if spaced and is_words(stripped) and start > 0 and _FAULT.search(text, max(0, start - 24), start):
            return None  # "unexpected token: identifier"
        lowered = stripped.lower()
        if lowered in WORDS_NOT_VALUES or lowered == written.lower() or CALL.match(value):
            return None
        if (spaced or (colon and after in (b" ", b""))) and not has_digit(stripped) and CODE.match(stripped):
            # Plain words after a blank: code or prose, unless it is a whole line of its own, as in a configuration.
            identifier = (
                b"_" in stripped
                or b"." in stripped
                or b"(" in stripped
                or after in (b"(", b"[")
                or not stripped.islower()
            )
            made = colon and len(stripped) >= 14 and not only_words(stripped) and looks_random(stripped * 2)
            if ((identifier and not made) or (after == b" " and colon)) or not _own_line(text, plain.end()):
                return None
        if colon and not spaced and before == b":" and not looks_random(stripped):
            return None  # a part of a name such as an ARN
        if spaced and (
            (ALGORITHM.match(stripped) and not looks_random(stripped, least=10))
            or (QUANTITY.match(stripped) and name.kind not in NUMERIC)
        ):
            return None
        if written[:1] in (b"P", b"p", b"O") and written.lower() in (b"pwd", b"oldpwd") and value[:1] in (b"/", b"~"):
            return None
    if not accepts(name, stripped):
        return None
    return SecretPlace(at, at + len(stripped), name.kind)


_ONLY_BRACKETS = re.compile(rb"[(\[{][)\]}]{0,2}\Z")
_CMDLET = re.compile(rb"(?:Read|Get|New|Import|Convert(?:To|From))-[A-Z][A-Za-z]{2,40}\Z")
_IMAGE = re.compile(rb"(?:^|[\s\"'=])(?:[a-z0-9][a-z0-9.\-]{0,80}(?::[0-9]{2,5})?/){1,6}\Z")
_FAULT = re.compile(rb"(?i)(?:unexpected|invalid|unknown|missing|duplicate|expected|unrecognized|illegal)[ \t]\Z")


def _own_line(text: bytes, end: int) -> bool:
    return text[end : end + 1] in (b"\n", b"\r", b"") or text[end : end + 2] in (b"\\n", b"\\r")


def _quoted(text: bytes, opener: re.Match[bytes], name: Name, effort: Effort) -> SecretPlace | None:
    quote, escapes = opener[0][-1:], opener[0].count(b"\\")
    begin = opener.end()
    at = begin
    while True:
        at = text.find(quote, at)
        if at < 0:
            at = len(text)
            break
        slashes = 0
        while at - slashes - 1 >= begin and text[at - slashes - 1] == 0x5C:
            slashes += 1
        # At the same depth of escaping the quote closes; deeper down it is part of the value.
        if slashes <= escapes or (escapes == 0 and slashes % 2 == 0):
            at -= min(slashes, escapes)
            break
        at += 1
    value = text[begin:at]
    effort.spend(len(value))
    inner = value.strip()
    if REFERENCE_ONLY.match(inner):
        return None  # "Bearer {token}": a template
    if not inner or looks_like_our_token(inner) or (REFERENCE.match(inner) and inner[:1] != b"-"):
        return None
    if (scheme := _SCHEME.match(value)) and scheme.end() < len(value) and not _WHOLE_LINE_SCHEMES.match(scheme[0]):
        begin += scheme.end()
        if looks_like_our_token(text[begin:at].strip()):
            return None
    if accepts(name, inner):
        return SecretPlace(begin, at, name.kind)
    return None


_BRACKETS = re.compile(rb"[\[\]{}]|\"(?:[^\"\\]|\\.)*+\"?")


def _closing(text: bytes, at: int) -> int:
    """Where a bracketed value ends; at the end of the text when nothing closes it."""
    depth, size = 0, min(len(text), at + _MAX_VALUE)
    for mark in _BRACKETS.finditer(text, at, size):
        first = mark[0][:1]
        if first in (b"{", b"["):
            depth += 1
        elif first in (b"}", b"]"):
            depth -= 1
            if depth <= 0:
                return mark.end()
    return size
