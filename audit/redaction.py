"""What is a secret in a JSON value or a text, and what stands in its place (pure).

    >>> Redactor(b"k" * 32).value({"user": "ann", "password": "x"})[0]["password"].startswith("[REDACTED:password:")
    True

A replacement reads `[REDACTED:kind:8hex]`; the hex is a keyed fingerprint, so equal secrets can be matched without being
known. Redacting twice changes nothing: a text is redacted until it stays as it is. `suspicious` is the prefilter: one
linear look at the compact text of a whole payload that may say "nothing here", and is then right (a test compares it with
the full walk).
"""

from __future__ import annotations

import hmac
import html
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson
import re2

from audit import escapes
from audit.finding import lexical, pii, wrapping
from audit.finding.matching import LOOSE, OPENINGS, UNANCHORED, Found, compile_bytes
from audit.finding.names import NOTHING, Name, fold, judge
from audit.finding.randomness import looks_random, mixed
from audit.finding.spans import merge
from audit.finding.wording import TOKEN

__all__ = ("MAX_DEPTH", "Redactor", "Rules", "check_pattern")

MAX_DEPTH = 130
_MAX_WRAPPED = 4
_MAX_ROUNDS = 4
_TOKEN_TEXT = re.compile(r"\[REDACTED:[a-z0-9\-]{1,40}:[0-9a-f]{8}\]")
_SCHEME_TEXT = re.compile(r"(?:Bearer|Basic|Token|ApiKey|SSWS|Bot|DPoP|GenieKey|bearer|basic|token) +(?=\S+\Z)")
_HEADER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_][A-Za-z0-9]+)+\Z")
_PLAIN_NAME = re.compile(r"[\w$\-](?:[\w$\-]|\.(?=[\w]{1,40}\Z)){1,80}\Z")
_FLAG = re.compile(r"--?[A-Za-z][A-Za-z0-9_.\-]*\Z")
_USER_FLAGS = frozenset(("-u", "--user", "--proxy-user", "-U"))
_PASSWORD_COMMANDS = frozenset(
    "mysql mysqldump mysqladmin mariadb sshpass 7z 7za zip unzip docker podman redis-cli sqlcmd ldapsearch".split()
)
_NAME_ROLES = frozenset(
    "name key header field variable var param parameter attribute attr property option flag arg argument keyname headername headerkey paramname fieldname".split()
)
_VALUE_ROLES = frozenset(
    "value val values content default defaultvalue stringvalue data text secret plaintext rawvalue current".split()
)
_FIELD_LISTS = frozenset(
    "required enum fields columns names keys scopes scope headers_allowed allowedheaders vary tags labels properties".split()
)
_SCHEMA_WORDS = frozenset(
    """type title description format default examples example const enum anyOf oneOf allOf not $ref minLength maxLength pattern
    items properties required additionalProperties minimum maximum nullable writeOnly readOnly deprecated minItems maxItems
    uniqueItems contentEncoding contentMediaType x-mcp-header enumNames multipleOf exclusiveMinimum exclusiveMaximum $comment""".split()
)
_SCHEMA_VALUES = frozenset(("default", "examples", "example", "const", "enum"))
_HARMLESS = frozenset(("include", "same-origin", "omit"))

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


def _hinted(text: bytes) -> bool:
    """Whether a text may hold a secret; several automata, since one that counts several things at once is slow."""
    size = len(text)
    if _HINT(UNANCHORED, text, 0, size)[0][1] >= 0 or _PLACE(UNANCHORED, text, 0, size)[0][1] >= 0:
        return True
    if size < 16:
        return False
    return bool(_LOOSE(UNANCHORED, text, 0, size)[0][1] >= 0 or _BASE64(UNANCHORED, text, 0, size)[0][1] >= 0)


class PatternError(ValueError):
    """A pattern that cannot be used; the text says why in one line."""


def check_pattern(pattern: str) -> Any:
    """Compile an administrator's pattern for linear-time matching, or say in a PatternError why it cannot be."""
    if len(pattern) > 1_000:
        raise PatternError("the pattern is longer than 1,000 characters")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 4 << 20
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else "it cannot be compiled"
        raise PatternError(
            f"not a pattern RE2 takes: {reason.decode() if isinstance(reason, bytes) else reason}"
        ) from None
    if compiled.search("") is not None:
        raise PatternError("the pattern matches the empty text")
    return compiled


@dataclass(frozen=True, slots=True)
class Rules:
    """What an installation redacts beside what is always redacted."""

    names: tuple[str, ...] = ()
    patterns: tuple[tuple[str, str], ...] = ()  # (kind, pattern in RE2's syntax)
    kinds: frozenset[str] = frozenset()  # of pii.KINDS: email, card, iban, phone
    _compiled: tuple[tuple[str, Any], ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        unknown = self.kinds - pii.KINDS.keys()
        if unknown:
            raise PatternError(f"unknown kinds: {', '.join(sorted(unknown))}")
        compiled = tuple(
            (re.sub(r"[^a-z0-9\-]", "-", kind.lower())[:40] or "custom", check_pattern(p)) for kind, p in self.patterns
        )
        object.__setattr__(self, "_compiled", compiled)


class Redactor:
    """Replaces secrets in values and texts, under one key and one set of rules."""

    def __init__(self, key: bytes, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self._key = hmac.digest(key, b"fingerprint", "sha256")
        self._names = {fold(name): Name("custom", strong=True) for name in self.rules.names if fold(name)}
        self._custom = bool(self._names or self.rules._compiled or self.rules.kinds)

    def fingerprint(self, value: bytes) -> str:
        """Fingerprint a value: the 8 hex of its replacement."""
        return hmac.digest(self._key, value, "sha256")[:4].hex()

    def suspicious(self, document: bytes) -> bool:
        """Whether the compact JSON text of a payload might hold anything that is redacted or escaped."""
        if self._custom or b"\\" in document or not document.isascii():
            return True
        if b'"progressToken":' in document:
            document = document.replace(b'"progressToken":', b'"":')
        if _hinted(document):
            return True
        folded = document.translate(_FOLD, _NOT_ALNUM)
        return bool(_FOLDED(UNANCHORED, folded, 0, len(folded))[0][1] >= 0)

    def value(self, value: Any, *, again: bool = False) -> tuple[Any, int]:
        """Redact and escape a plain JSON value; also say how many replacements there are."""
        walk = _Walk(self, again)
        return walk.value(value, 0, ""), walk.count

    def text(
        self, text: str, *, cut: bool = False, again: bool = False, escape: Callable[[str], str] | None = None
    ) -> tuple[str, int]:
        """Redact and escape a text. `cut`: it may end within a secret."""
        walk = _Walk(self, again, escape)
        return walk.text(text, 0, cut), walk.count

    def judge(self, name: str) -> Name:
        """Say what a name says of its value, under these rules."""
        if self._names:
            found = self._names.get(fold(name))
            if found is not None:
                return found
        return judge(name)


class _Walk:
    """One pass over one value; counts what it replaces."""

    __slots__ = ("_escape", "again", "count", "of")

    def __init__(self, of: Redactor, again: bool, escape: Callable[[str], str] | None = None) -> None:
        self.of = of
        self.again = again
        self.count = 0
        self._escape = escape

    # Values

    def value(self, value: Any, depth: int, parent: str) -> Any:
        if isinstance(value, str):
            return self.text(value, 0)
        if isinstance(value, dict):
            return self.members(value, depth + 1, parent) if depth < MAX_DEPTH else "[NESTED]"
        if isinstance(value, list):
            return self.items(value, depth + 1, parent) if depth < MAX_DEPTH else "[NESTED]"
        return value

    def members(self, value: dict[str, Any], depth: int, parent: str) -> dict[str, Any]:
        pair = _pair(value, self.of) if 2 <= len(value) <= 12 else None
        blob = _blob(value)
        made: dict[str, Any] = {}
        for key, item in value.items():
            shown = self.text(key, 0)
            name = self.of.judge(_TOKEN_TEXT.sub("", shown) if "[REDACTED:" in shown else shown)
            if blob and key in blob:
                new: Any = _describe(item, value, self.of)
            elif name is not NOTHING:
                new = self.named(item, name, depth, key, parent)
            elif pair and fold(key) in _VALUE_ROLES:
                new = self.named(item, pair, depth, key, "")
            else:
                new = self.value(item, depth, key)
            while shown in made:
                shown += "'"
            made[shown] = new
        return made

    def items(self, value: list[Any], depth: int, parent: str) -> list[Any]:
        made: list[Any] = []
        field_list = fold(parent) in _FIELD_LISTS
        pending: Name | None = None
        user_flag = False
        first = value[0] if value else None
        command = isinstance(first, str) and first.rsplit("/", 1)[-1] in _PASSWORD_COMMANDS
        for index, item in enumerate(value):
            if (
                pending is not None
                and not isinstance(item, (dict, list))
                and not (isinstance(item, str) and _FLAG.match(item) and len(item) > 2)
            ):
                made.append(self.named(item, pending, depth, "", ""))
                pending = None
                continue
            pending = None
            if user_flag and isinstance(item, str) and ":" in item and not _TOKEN_TEXT.search(item):
                user, _, password = item.partition(":")
                made.append(f"{user}:{self.replace('password', password)}" if password else item)
                user_flag = False
                continue
            user_flag = False
            if (
                command
                and index
                and isinstance(item, str)
                and len(item) > 3
                and item[:2] == "-p"
                and "[REDACTED:" not in item
            ):
                made.append("-p" + self.replace("password", item[2:]))
                continue
            if isinstance(item, str) and 1 < len(item) <= 128:
                user_flag = item in _USER_FLAGS
                if command and item in ("-p", "-a", "-w", "-P") and index:
                    pending = Name("password", strong=True)
                elif not field_list and self.announces(item, len(value) == 2 and index == 0):
                    pending = self.of.judge(item)
            made.append(self.value(item, depth, parent))
        return made

    def announces(self, item: str, first_of_two: bool) -> bool:
        """Whether an element of a list makes a secret of the next one: a flag, a header's name, the name in a pair."""
        if not _PLAIN_NAME.match(item):
            return False
        flag = _FLAG.match(item) is not None
        if not (flag or first_of_two or _HEADER_NAME.match(item) or item.lower() in ("authorization", "cookie")):
            return False
        return self.of.judge(item).strong

    def named(self, value: Any, name: Name, depth: int, key: str, parent: str) -> Any:
        """Redact a value that stands under a name."""
        if value is None or value == "" or value == {} or value == []:
            return value
        if isinstance(value, str):
            return self.named_text(value, name, key)
        if isinstance(value, (dict, list)):
            if not name.strong:
                if isinstance(value, list):
                    return (
                        [
                            self.named(item, name, depth, key, "")
                            if isinstance(item, str)
                            else self.value(item, depth, key)
                            for item in value
                        ]
                        if depth < MAX_DEPTH
                        else "[NESTED]"
                    )
                return self.value(value, depth, key)
            if isinstance(value, dict) and parent == "properties" and _SCHEMA_WORDS.issuperset(value):
                return self.schema(value, name, depth)
            if isinstance(value, list) and all(
                item is None or (isinstance(item, str) and (not item.strip() or _TOKEN_TEXT.fullmatch(item)))
                for item in value
            ):
                return value
            return self.replace(name.kind, _canonical(value))
        if not name.strong or name.textual:
            return value
        return self.replace(name.kind, _canonical(value))

    def named_text(self, value: str, name: Name, key: str) -> str:
        if self.again and "\\u{" in value:
            plain = escapes.unescape(value)
            first = _Walk(self.of, False, _keep)
            new = first.named_text(plain, name, key)
            self.count += first.count
            return value if new == plain else escapes.escape(new)
        stripped = value.strip()
        if not stripped or _TOKEN_TEXT.fullmatch(stripped):
            return self.text(value, 0)
        if not name.strong:
            if looks_random(_bytes(stripped), name.hexadecimal, least=16):
                return self.replace(name.kind, value)
            return self.text(value, 0)
        if (name.kind == "credential" and value in _HARMLESS) or (value[:1] in "/~" and fold(key) in ("pwd", "oldpwd")):
            return self.text(value, 0)
        scheme = _SCHEME_TEXT.match(value)
        if scheme:
            rest = value[scheme.end() :]
            if _TOKEN_TEXT.fullmatch(rest):
                return value
            return scheme[0] + self.replace(scheme[0].strip().lower(), rest)
        return self.replace(name.kind, value)

    def schema(self, value: dict[str, Any], name: Name, depth: int) -> dict[str, Any]:
        """Redact only the values in a JSON Schema that describes a secret: what it says of its shape is no secret."""
        return {
            k: self.named(v, name, depth, k, "") if k in _SCHEMA_VALUES else self.value(v, depth, k)
            for k, v in value.items()
        }

    def replace(self, kind: str, value: str | bytes) -> str:
        raw = _bytes(value) if isinstance(value, str) else value
        self.count += 1
        if kind not in _OWN_KINDS:
            found = lexical.find(raw) if len(raw) <= 4096 else []
            if len(found) == 1 and (found[0].start, found[0].end) == (0, len(raw)):
                kind = found[0].kind
        return f"[REDACTED:{kind}:{self.of.fingerprint(raw)}]"

    # Texts

    def text(self, text: str, wrapped: int, cut: bool = False) -> str:
        """Redact a text until it stays as it is, then escape what cannot be seen."""
        size = len(text)
        if size < 5 or (size <= 16 and text.isalnum() and text.isascii()):
            return text if text.isascii() and text.isprintable() else self.escaped(text)
        # Stored text is read as it was before it was escaped, so that looking twice finds the same.
        plain = escapes.unescape(text) if self.again and not wrapped and "\\u{" in text else text
        shown = self.redacted(plain, wrapped, cut)
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
        return escapes.escape(text, again=self.again)

    def redacted(self, text: str, wrapped: int, cut: bool) -> str:
        """Redact a text until it stays as it is; what cannot be seen does not hide what can."""
        new = self.settled(text, wrapped, cut)
        if new.isascii():
            return new
        visible = escapes.visible(new)
        if len(visible) == len(new):
            return new
        found = self.settled(visible, wrapped, cut)
        return new if found == visible else found

    def settled(self, text: str, wrapped: int, cut: bool) -> str:
        raw = _bytes(text)
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
        return self.of._custom or raw[:1] in b'{["' or _hinted(raw)

    def once(self, raw: bytes, wrapped: int, cut: bool) -> bytes:
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
            raw = _PERCENT_RUN.sub(lambda match: self.percent(match, wrapped), raw)
        if b"\\u00" in raw:
            plain = _UNICODE_ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), raw)
            if plain != raw:
                new = self.spans(plain, self.found(plain, cut))
                raw = raw if new == plain else new
        if b"&" in raw and _ENTITY.search(raw):
            text = html.unescape(raw.decode("utf-8", "replace"))
            before = self.count
            new_text = self.redacted(text, wrapped + 1, cut)
            if new_text != text:
                return _bytes(new_text)
            self.count = before
        return self.base64(raw, wrapped)

    def found(self, raw: bytes, cut: bool) -> list[Found]:
        found = lexical.find(raw, cut=cut)
        rules = self.of.rules
        if self.of._custom:
            extra = list(found)
            for kind, pattern in rules._compiled:
                text = raw.decode("utf-8", "replace")
                for match in pattern.finditer(text):
                    begin = len(text[: match.start()].encode())
                    extra.append(Found(begin, begin + len(match.group().encode()), kind))
            for kind in rules.kinds:
                extra += pii.KINDS[kind](raw)
            if self.of._names:
                extra += _custom_names(raw, self.of)
            found = merge(raw, extra)
        return found

    def spans(self, raw: bytes, found: list[Found]) -> bytes:
        if not found:
            return raw
        parts, position = [], 0
        for one in found:
            parts += [
                raw[position : one.start],
                b"[REDACTED:%s:%s]" % (one.kind.encode(), self.of.fingerprint(raw[one.start : one.end]).encode()),
            ]
            position = one.end
            self.count += 1
        return b"".join([*parts, raw[position:]])

    def json_text(self, raw: bytes, inner: bytes, wrapped: int) -> bytes | None:
        """Redact a text that is JSON as JSON; None when it is not."""
        try:
            value = orjson.loads(inner)
        except orjson.JSONDecodeError:
            return None
        before = self.count
        try:
            if isinstance(value, str):
                if len(inner) < 7:
                    return None
                new: Any = self.text(value, wrapped + 1)
            else:
                inside = _Walk(self.of, self.again, _keep)
                new = inside.value(value, 0, "")
                self.count += inside.count
            # Only what was found is written anew; the text of its writer stays where nothing was.
            return raw if new == value and self.count == before else orjson.dumps(new)
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
            encoded = _bytes(new)
            if encoded == joined:
                made.append(block)
            else:
                others = [line for line in lines if not line.startswith(b"data:")]
                made.append(b"\n".join([*others, *(b"data: " + line for line in encoded.split(b"\n"))]))
        return b"\n\n".join(made)

    def percent(self, match: re.Match[bytes], wrapped: int) -> bytes:
        run = match[0]
        decoded = run
        for _ in range(3):
            plainer = unquote_to_bytes(decoded)
            if plainer == decoded:
                break
            decoded = plainer
            text = decoded.decode("utf-8", "replace")
            before = self.count
            new = self.redacted(text, wrapped + 1, False)
            if new != text:
                return _bytes(new)
            self.count = before
        return run

    def base64(self, raw: bytes, wrapped: int) -> bytes:
        parts, position = [], 0
        for start, end, decoded in wrapping.base64_runs(raw):
            if start < position or raw[max(0, start - 12) : start].startswith(b"[REDACTED:"):
                continue
            text = decoded.decode("utf-8", "replace")
            before = self.count
            if self.redacted(text, wrapped + 1, False) == text and not _bare_secret(decoded):
                continue
            self.count = before + 1
            parts += [raw[position:start], b"[REDACTED:base64:%s]" % self.of.fingerprint(raw[start:end]).encode()]
            position = end
        return b"".join([*parts, raw[position:]]) if parts else raw


_OWN_KINDS = frozenset(("text", "bearer", "basic"))
_PERCENT_RUN = re.compile(rb"[^\s\"'<>]{0,8192}?%[0-9A-Fa-f]{2}[^\s\"'<>]{0,8192}")
_ENTITY = re.compile(rb"&(?:quot|apos|lt|gt|amp|equals|colon|#[0-9]{2,4}|#x[0-9a-fA-F]{2,4});")
_UNICODE_ESCAPE = re.compile(rb"\\u00([2-7][0-9a-fA-F])")
_EVENT_STREAM = re.compile(rb"(?:(?:event|id|retry):[^\r\n]*\r?\n|:[^\r\n]*\r?\n){0,4}data:(?![a-z]{2,20}/)")
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_USER_PASSWORD = re.compile(rb"[A-Za-z0-9_.+@\-]{1,64}:(?=[^\s]*[0-9])(?=[^\s]*[A-Za-z])[^\s:/]{6,256}\Z")


def _keep(text: str) -> str:
    return text


_MIXED = mixed(2, 2, 2)


def _bare_secret(decoded: bytes) -> bool:
    """Whether what was wrapped is nothing but a secret: a word that only a generator writes, or user and password."""
    decoded = decoded.strip()
    if _USER_PASSWORD.match(decoded):
        return True
    return 20 <= len(decoded) <= 512 and b" " not in decoded and _MIXED(decoded) and looks_random(decoded, False, 20)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _canonical(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=lambda _: None).encode()


def _pair(value: dict[str, Any], of: Redactor) -> Name | None:
    """Say what the name in a name/value pair says, if the object is one."""
    name: Name | None = None
    has_value = False
    for key, item in value.items():
        if len(key) > 16:
            continue
        folded = fold(key)
        if folded in _NAME_ROLES and isinstance(item, str) and len(item) <= 256 and name is None:
            judged = of.judge(item)
            name = judged if judged is not NOTHING else name
        elif folded in _VALUE_ROLES:
            has_value = True
    return name if has_value else None


def _blob(value: dict[str, Any]) -> frozenset[str] | None:
    """Say which member of an object is the content of an image, a sound or a file."""
    if not ("mimeType" in value or "mime_type" in value or "media_type" in value):
        return None
    for key in ("data", "blob"):
        item = value.get(key)
        if isinstance(item, str) and len(item) > 128:
            return frozenset((key,))
    return None


def _describe(content: str, holder: dict[str, Any], of: Redactor) -> str:
    kind = holder.get("mimeType") or holder.get("mime_type") or holder.get("media_type")
    kind = kind if isinstance(kind, str) and re.fullmatch(r"[\w.+\-]{1,40}/[\w.+\-]{1,60}", kind) else "unknown"
    size = len(content) * 3 // 4 - content[-2:].count("=")
    return f"[BLOB:{kind}:{size}:{of.fingerprint(_bytes(content))}]"


def _custom_names(raw: bytes, of: Redactor) -> list[Found]:
    found = []
    for match in re.finditer(rb"[A-Za-z0-9_.\-]{2,80}", raw):
        name = of._names.get(fold(match[0].decode()))
        if name is not None:
            one = lexical.after_name(raw, match.start(), match.end(), name, False)
            if one is not None:
                found.append(one)
    return found
