"""Secrets in one text, however it is wrapped (pure).

A text may be JSON, an event stream, percent- or base64-wrapped, written with escapes or entities, or any of these within
another, four deep. It is redacted until it stays as it is, so that redacting twice changes nothing.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from audit.redaction import escapes, json_digits
from audit.redaction.detect import base64_text, spelling
from audit.redaction.detect.budget import Effort, TooDear
from audit.redaction.detect.context import lexical
from audit.redaction.detect.context.spans import merge
from audit.redaction.detect.heuristics import TOKEN
from audit.redaction.detect.matching import SecretPlace
from audit.redaction.detect.randomness import looks_random, mixed
from audit.redaction.prefilter import hinted
from audit.redaction.rules import RedactionRuleSet

__all__ = ("Texts", "as_bytes", "keep")

_MAX_WRAPPED = 4
_MAX_ROUNDS = 4
_MAX_HIDDEN = 50


class Texts:
    """Redacts texts, and counts what it replaces."""

    __slots__ = ("_escape", "again", "count", "effort", "fingerprint", "inside", "rules")

    def __init__(
        self,
        rules: RedactionRuleSet,
        fingerprint: Callable[[bytes], str],
        again: bool = False,
        escape: Callable[[str], str] | None = None,
        effort: Effort | None = None,
    ) -> None:
        self.rules = rules
        self.fingerprint = fingerprint
        self.again = again  # the text was redacted and escaped before
        self.count = 0
        self._escape = escape
        self.inside = effort is not None  # a text that holds this one pays, and is replaced when it cannot
        if effort is not None:
            self.effort = effort

    def within(self, value: Any) -> Any:
        raise NotImplementedError

    def replace(self, kind: str, value: str | bytes) -> str:
        """Give what stands in the place of a secret; a secret with a form of its own names its kind."""
        raw = as_bytes(value) if isinstance(value, str) else value
        self.count += 1
        if kind not in _OWN_KINDS:
            kind = _own_kind(raw) or kind
        return f"[REDACTED:{kind}:{self.fingerprint(raw)}]"

    def text(self, text: str, wrapped: int, cut: bool = False) -> str:
        """Redact a text until it stays as it is, then escape what cannot be seen."""
        size = len(text)
        short = size < 5 or (size <= 16 and text.isalnum() and text.isascii())
        if short and not (
            size and self.rules.more
        ):  # nothing so short is always a secret, but an own pattern may say so
            return text if text.isascii() and text.isprintable() else self.escaped(text)
        # Stored text is read as it was before it was escaped, so that looking twice finds the same.
        plain = escapes.unescape(text) if self.again and not wrapped and "\\u{" in text else text
        before = self.count
        try:
            if not wrapped and not self.inside:
                self.effort = Effort(size)
            shown = self.redacted(plain, wrapped, cut)
        except TooDear:
            if wrapped or self.inside:
                raise
            self.count = before
            shown = self.replace("text", plain)
        if shown is plain or shown == plain:
            return text if wrapped or plain is not text else self.escaped(text)
        if wrapped:
            return shown
        return escapes.escape(shown) if plain is not text else self.escaped(shown)

    def escaped(self, text: str) -> str:
        if self._escape is not None:
            return self._escape(text)
        if text.isascii() and text.isprintable() and "\\" not in text:
            return text
        try:
            if not escapes.hides(text.encode()):
                return text
        except UnicodeEncodeError:
            pass  # a lone surrogate
        return escapes.escape(text, again=self.again)

    def redacted(self, text: str, wrapped: int, cut: bool) -> str:
        """Redact a text until it stays as it is; what cannot be seen or only looks otherwise does not hide what can."""
        new = self.settled(text, wrapped, cut)
        if new.isascii():
            return new
        plain = unicodedata.normalize("NFKC", escapes.visible(new))
        if plain == new:
            return new
        found = self.settled(plain, wrapped, cut)
        return new if found == plain else found

    def settled(self, text: str, wrapped: int, cut: bool) -> str:
        """Redact a text until it stays as it is; one that never does is replaced whole."""
        raw = as_bytes(text)
        self.effort.spend(4 * len(raw) + 128)
        if not self.hinted(raw):
            return text
        start = self.count
        for _ in range(_MAX_ROUNDS):
            new = self.once(raw, wrapped, cut)
            if new == raw:
                return raw.decode("utf-8", "surrogatepass")
            raw = new
        self.count = start
        return self.replace("text", text)

    def hinted(self, raw: bytes) -> bool:
        """Whether a text may hold anything to redact."""
        return raw[:1] in b'{["' or hinted(raw) or (self.rules.more and self.rules.hinted(raw))

    def once(self, raw: bytes, wrapped: int, cut: bool) -> bytes:
        """Redact what one look finds: in the text as it stands, then in what it wraps. Raises TooDear."""
        self.effort.spend(8 * len(raw) + 384)
        if wrapped < _MAX_WRAPPED:
            inner = raw.strip()
            if inner[:1] in (b"{", b"[", b'"') and inner[-1:] in (b"}", b"]", b'"') and not TOKEN.match(inner):
                found = self.json_text(raw, inner, wrapped)
                if found is not None:
                    return found
            if _EVENT_STREAM.match(raw):
                raw = self.sse(raw, wrapped, cut)
        raw = self.spans(raw, self.found(raw, cut))
        if wrapped >= _MAX_WRAPPED:
            return raw
        if b"%" in raw:
            raw = _RUN.sub(lambda match: self.percent(match[0], wrapped), raw)
        if b"\\" in raw or b"%" in raw:
            plain = spelling.plain(raw)
            if plain != raw:
                self.effort.spend(8 * len(raw))
                new = self.spans(plain, self.found(plain, cut))
                raw = raw if new == plain else new
        if b"&" in raw and _ENTITY.search(raw):
            text = html.unescape(raw.decode("utf-8", "replace"))
            before = self.count
            new_text = self.redacted(text, wrapped + 1, cut)
            if new_text != text:
                return as_bytes(new_text)
            self.count = before
        return self.base64(raw, wrapped)

    def found(self, raw: bytes, cut: bool) -> list[SecretPlace]:
        """Find the secrets in a text as it stands."""
        found = lexical.find(raw, cut=cut, effort=self.effort)
        return merge(raw, [*found, *self.rules.find(raw, self.effort)]) if self.rules.more else found

    def spans(self, raw: bytes, found: list[SecretPlace]) -> bytes:
        """Put replacements where secrets were found."""
        if not found:
            return raw
        parts, position = [], 0
        for one in found:
            parts += [
                raw[position : one.start],
                b"[REDACTED:%s:%s]" % (one.kind.encode(), self.fingerprint(raw[one.start : one.end]).encode()),
            ]
            position = one.end
            self.count += 1
        return b"".join([*parts, raw[position:]])

    def json_text(self, raw: bytes, inner: bytes, wrapped: int) -> bytes | None:
        """Redact a text that is JSON as JSON; None when it is not."""
        try:
            value = json_digits.loads(inner)
            if isinstance(value, (dict, list)) and b":" in inner and json_digits.dumps(value) != inner:
                value = _every_member(inner, value)
        except (ValueError, TypeError, RecursionError):
            return None
        before = self.count
        try:
            if isinstance(value, str):
                if len(inner) < 7:
                    return None
                new: Any = self.text(value, wrapped + 1)
            else:
                new = self.within(value)
            # Only what was found is written anew; the text of its writer stays where nothing was.
            return raw if new == value and self.count == before else json_digits.dumps(new)
        except (TypeError, RecursionError):
            return None

    def sse(self, raw: bytes, wrapped: int, cut: bool) -> bytes:
        """Redact the data of an event stream as a reader joins it, whatever lines it came in."""
        blocks = _BLANK_LINE.split(raw)
        made = []
        for block in blocks:
            lines = block.splitlines()
            data = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
            if not data:
                made.append(block)
                continue
            joined = b"\n".join(data)
            new = joined.decode("utf-8", "surrogatepass")
            new = self.redacted(new, wrapped + 1, cut) if joined else new
            encoded = as_bytes(new)
            if encoded == joined:
                made.append(block)
            else:
                others = [line for line in lines if not line.startswith(b"data:")]
                made.append(b"\n".join([*others, *(b"data: " + line for line in encoded.split(b"\n"))]))
        return b"\n\n".join(made)

    def percent(self, run: bytes, wrapped: int) -> bytes:
        """Redact a percent-encoded run as what it decodes to, up to three times over."""
        decoded = run
        for _ in range(3 if _PERCENT.search(run) else 0):
            plainer = unquote_to_bytes(decoded)
            if plainer == decoded:
                break
            decoded = plainer
            text = decoded.decode("utf-8", "replace")
            before = self.count
            new = self.redacted(text, wrapped + 1, False)
            if new != text:
                return as_bytes(new)
            self.count = before
        return run

    def base64(self, raw: bytes, wrapped: int) -> bytes:
        """Replace runs of base64 that wrap a text with a secret in it."""
        parts, position = [], 0
        for start, end, decoded in base64_text.base64_runs(raw):
            if start < position or raw[max(0, start - 12) : start].startswith(b"[REDACTED:"):
                continue
            text = decoded.decode("utf-8", "replace")
            before = self.count
            if self.redacted(text, wrapped + 1, False) == text and not _bare_secret(decoded):
                continue
            self.count = before + 1
            parts += [raw[position:start], b"[REDACTED:base64:%s]" % self.fingerprint(raw[start:end]).encode()]
            position = end
        return b"".join([*parts, raw[position:]]) if parts else raw


def _own_kind(raw: bytes) -> str:
    """The kind of a secret whose own form is all there is of it."""
    try:
        found = lexical.find(raw) if len(raw) <= 4096 else []
    except TooDear:
        return ""
    return found[0].kind if len(found) == 1 and (found[0].start, found[0].end) == (0, len(raw)) else ""


_OWN_KINDS = frozenset(("text", "bearer", "basic"))
_RUN = re.compile(rb"[^\s\"'<>]+")
_PERCENT = re.compile(rb"%[0-9A-Fa-f]{2}")
_ENTITY = re.compile(rb"&(?:quot|apos|lt|gt|amp|equals|colon|lowbar|#[0-9]{2,9}|#[xX][0-9a-fA-F]{2,9});")
_EVENT_STREAM = re.compile(rb"(?:(?:event|id|retry):[^\r\n]*\r?\n|:[^\r\n]*\r?\n){0,4}data:(?![a-z]{2,20}/)")
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_USER_PASSWORD = re.compile(rb"[A-Za-z0-9_.+@\-]{1,64}:(?=[^\s]*[0-9])(?=[^\s]*[A-Za-z])[^\s:/]{6,256}\Z")


def _every_member(inner: bytes, value: Any) -> Any:
    """Give a JSON value with the members that a later one of the same name would hide, under names of their own."""
    twice = False

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        made = dict(pairs)
        if len(made) == len(pairs):
            return made
        if len(pairs) - len(made) > _MAX_HIDDEN:
            raise ValueError("read as text")
        twice, made = True, {}
        for name, item in pairs:
            while name in made:
                name += "'"  # names are judged without it
            made[name] = item
        return made

    whole = json_digits.exact(inner, members)
    return whole if twice else value


def keep(text: str) -> str:
    """Escape nothing: for a text that stands within another, which is escaped as a whole."""
    return text


_MIXED = mixed(2, 2, 2)


def _bare_secret(decoded: bytes) -> bool:
    """Whether what was wrapped is nothing but a secret: a word that only a generator writes, or user and password."""
    decoded = decoded.strip()
    if _USER_PASSWORD.match(decoded):
        return True
    return 20 <= len(decoded) <= 512 and b" " not in decoded and _MIXED(decoded) and looks_random(decoded, False, 20)


def as_bytes(text: str) -> bytes:
    """Encode any text, lone surrogates included."""
    return text.encode("utf-8", "surrogatepass")
