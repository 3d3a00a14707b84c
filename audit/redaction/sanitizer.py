"""The one way by which a payload, a name or an address becomes something that is kept.

    sanitizer = Sanitizer(key)
    payload = sanitizer.payload(raw=body)          # redacted, escaped, bounded, counted, digested
    name = sanitizer.text(tool_name, 512)          # redacted, escaped, bounded

Total: any bytes and any object have an answer, in bounded time and memory, and none raises. `quick` gives that of a payload
which costs next to nothing; the others are better sanitised off the event loop.
"""

from __future__ import annotations

import hmac
import json
import math
import re
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import orjson

from audit.redaction import escapes, json_digits, truncation
from audit.redaction.blobs import blob_in, described
from audit.redaction.redactor import Redactor
from audit.redaction.rules import RedactionRuleSet

__all__ = ("MISSING", "Payload", "Sanitizer", "current", "install")

MISSING: Final = object()
LEVELS: Final = ("none", "digest", "request", "full")
# Text longer than this is pruned to what can show before it is walked.
_PRUNE_ABOVE: Final = 12 * 1024
_HEAD_WINDOW: Final = 9 * 1024
_TAIL_WINDOW: Final = 3 * 1024
# A body that is no JSON keeps its beginning.
_LEXICAL_BYTES: Final = 512
_LEXICAL_WINDOW: Final = 2_048
_STRICT_FALLBACK_BYTES: Final = 1 << 20
_MAX_NODES: Final = 20_000
_SHORT_TEXT: Final = 64
# How far a name is read beyond what is kept of it, so that a secret that the cut goes through is known for one.
_MARGIN: Final = 512
# Up to the first a payload of few texts is quick whatever is in them (each is looked at for itself, however short), up to the
# second when there is nothing in it to redact.
_ALWAYS_QUICK: Final = 1024
_FEW_QUOTES: Final = 48
_QUICK: Final = 16 * 1024
_KNOWN_DOCUMENT: Final = 1024
_KNOWN_DOCUMENTS: Final = 4096


class Payload(NamedTuple):
    """What is kept of a request's or a response's content; made by a `Sanitizer` only."""

    json: str | None
    size: int
    digest: str
    truncated: bool = False
    redactions: int = 0

    @property
    def value(self) -> Any:
        """The kept JSON, parsed."""
        return None if self.json is None else json_digits.loads(self.json)


EMPTY: Final = Payload(None, 0, "")


class Sanitizer:
    """Redacts, escapes, bounds, counts and digests, under one key and one set of rules."""

    def __init__(self, key: bytes, rules: RedactionRuleSet | None = None) -> None:
        self.redactor = Redactor(key, rules)
        # Copied for each digest: the key's own blocks are hashed once.
        self._hmac = hmac.new(hmac.digest(key, b"digest", "sha256"), digestmod="sha256")
        # Short texts and documents in which nothing was found: names and decisions repeat in every event.
        self.clean: set[str] = {""}
        self._clean_documents: set[bytes] = set()

    def digest(self, data: bytes) -> str:
        """Keyed digest of the whole of a payload, in hex: a bare one would let short secrets be guessed."""
        keyed = self._hmac.copy()
        keyed.update(data)
        return keyed.hexdigest()

    def fingerprint(self, value: Any) -> str:
        """The 8 hex that stand in the place of a redacted value."""
        return self.redactor.fingerprint(_fingerprinted(value))

    def text(self, value: Any, limit: int = 512, *, again: bool = False) -> str:
        """Redact, escape and bound (in UTF-8 bytes) a name, an address or an error text."""
        text: str = value if type(value) is str else "" if value is None else _as_text(value)
        if text in self.clean and limit >= _SHORT_TEXT:
            return text
        if len(text) <= 16 <= limit and text.isdecimal() and text.isascii() and not self.redactor.more:
            return text  # a request's number: not worth remembering, and nothing so short is a secret by itself
        try:
            kept, redactions = self._text(text, limit, again)
        except Exception:  # noqa: BLE001 - no text may erase its event
            return f"[UNREADABLE:{self.fingerprint(text)}]"
        if not again and not redactions and kept == text and len(text) <= _SHORT_TEXT and text.isascii():
            if len(self.clean) >= 8_192:
                self.clean.clear()
                self.clean.add("")
            self.clean.add(text)
        return kept

    def _text(self, text: str, limit: int, again: bool) -> tuple[str, int]:
        # What a cut left is read without what says that it was cut.
        marked = _MARK.search(text) if again else None
        if marked is not None:
            text = text[: marked.start()]
        cut = len(text) > limit + _MARGIN
        window = text[: limit + _MARGIN] if cut else text
        escape = (lambda line: escapes.escape(line, again=True)) if again else escapes.escape_line
        kept, redactions = self.redactor.text(window, cut=cut, again=again, escape=escape)
        if cut or len(kept.encode("utf-8", "replace")) > limit - (len(marked[0].encode()) if marked else 0):
            # How long it was and which it was, so that two long names are not taken for one.
            mark = f"[…{len(text)}:{self.fingerprint(text)}]" if marked is None else marked[0]
            room = limit - len(mark.encode())
            return self._settled(kept, lambda kept: truncation.head_of_text(kept, room)) + mark, redactions
        return kept if marked is None else kept + marked[0], redactions

    def payload(
        self,
        value: Any = MISSING,
        raw: bytes | None = None,
        level: str = "full",
        content_type: str = "",
        side: str = "request",
    ) -> Payload:
        """Make what is kept of a payload: of its bytes as they came (`raw`), or of a value.

        A value beside bytes is what a strict JSON parser made of them: it saves parsing them again.
        `level`: `full` keeps both sides, `request` only requests, `digest` and `none` neither. What is not kept is still
        counted and digested.
        """
        try:
            keep = level == "full" or _keeps(level, side)
            if raw is not None:
                return self._raw(bytes(raw), keep, content_type, value)
            return EMPTY if value is MISSING else self._value(value, keep)
        except Exception:  # noqa: BLE001 - no payload may erase its event
            data = bytes(raw) if raw is not None else b""
            stub = {"_unreadable": True, "_bytes": len(data)}
            return Payload(orjson.dumps(stub).decode(), len(data), self.digest(data), True, 0)

    def quick(
        self, value: Any, raw: bytes, level: str = "full", *, side: str = "request", compact: bytes = b""
    ) -> Payload | None:
        """Give what `payload` would, if that costs next to nothing; else None.

        `compact` is the same JSON without white space, where a strict reader wrote it again to the letter.
        """
        if compact and len(compact) <= truncation.MAX_BYTES and (level == "full" or _keeps(level, side)):
            if not self.redactor.suspicious(compact):
                return Payload(compact.decode(), len(raw), self.digest(raw))
        if len(raw) <= _ALWAYS_QUICK and raw.count(b'"') <= _FEW_QUOTES:
            return self.payload(value, raw, level, side=side)
        if len(raw) > _QUICK:
            return None
        if not _keeps(level, side):
            return Payload(None, len(raw), self.digest(raw))
        try:
            text = _text_of(value) or orjson.dumps(orjson.loads(raw))
        except (ValueError, TypeError, RecursionError):
            return None
        if json_digits.same(raw, text) and len(text) <= truncation.MAX_BYTES and not self.redactor.suspicious(text):
            return Payload(text.decode(), len(raw), self.digest(raw))
        return None

    def document(self, value: Any, alike: Any = MISSING) -> str:
        """Sanitise small JSON of the gateway's own making (a decision, details), as text.

        `alike` is the same without numbers that differ each time: when it is known to be clean, so is the whole.
        """
        known = self._clean_documents
        try:
            text = orjson.dumps(value)
            key = text if alike is MISSING else b"~" + orjson.dumps(alike)  # never mistaken for a document itself
            if key in known:
                return text.decode()
            clean = len(text) <= truncation.MAX_BYTES and not self.redactor.suspicious(text)
        except (TypeError, ValueError, RecursionError):
            return self.payload(value).json or "{}"
        if clean:
            kept = text.decode()
        else:
            payload = self.payload(value)
            kept = payload.json or "{}"
            # What is looked at closely and found to be nothing is clean as well: "invalid_credential" has a name that asks for it.
            if payload.redactions or payload.truncated or kept != text.decode():
                return kept
        if len(key) <= _KNOWN_DOCUMENT:
            if len(known) >= _KNOWN_DOCUMENTS:
                known.clear()
            known.add(key)
        return kept

    def _raw(self, raw: bytes, keep: bool, content_type: str, value: Any = MISSING) -> Payload:
        size, digest = len(raw), self.digest(raw)
        if not keep or not raw:
            return Payload(None, size, digest)
        text = _text_of(value)
        try:
            if not text:
                value = orjson.loads(raw)
                text = orjson.dumps(value)
        except (ValueError, TypeError, RecursionError):
            return self._odd(raw, size, digest, content_type)
        if raw != text and not json_digits.same(raw, text):
            if size <= _STRICT_FALLBACK_BYTES:
                return self._odd(raw, size, digest, content_type)
            return self._kept(value, len(text), size, digest, doubtful=True)
        if len(text) <= truncation.MAX_BYTES and not self.redactor.suspicious(text):
            return Payload(text.decode(), size, digest)
        return self._kept(value, len(text), size, digest)

    def _odd(self, raw: bytes, size: int, digest: str, content_type: str) -> Payload:
        """Keep what is no JSON that orjson takes: JSON of a looser sort, an event stream, or bytes."""
        if size <= _STRICT_FALLBACK_BYTES:
            try:
                value = _plain(json_digits.exact(raw))
                return self._kept(value, size, size, digest)
            except (ValueError, RecursionError, UnicodeDecodeError):
                pass
        if "event-stream" in content_type or raw.startswith((b"data:", b"event:", b"id:", b": ", b"retry:")):
            data = _event_data(raw)
            if data:
                return self._kept(data if len(data) > 1 else data[0], size, size, digest)
        return self._lexical(raw, size, digest)

    def _lexical(self, raw: bytes, size: int, digest: str) -> Payload:
        """Keep the beginning of bytes that nobody can parse, with all masked that follows a sensitive name."""
        if sum(c < 9 or 13 < c < 32 for c in raw[:_LEXICAL_BYTES]) > 16 or (raw[:2] in (b"\xff\xfe", b"\xfe\xff")):
            kept: dict[str, Any] = {"_not_json": True, "_bytes": size, "_binary": True}
            return Payload(orjson.dumps(kept).decode(), size, digest, True, 0)
        window = raw[:_LEXICAL_WINDOW].decode("utf-8", "surrogateescape")
        text, redactions = self.redactor.text(window, cut=True)
        text, more = self._within_strings(text)
        redactions += more
        head = self._settled(text, lambda text: truncation.head_of_text(text, _LEXICAL_BYTES))
        kept = {"_not_json": True, "_bytes": size, "_text": head}
        return Payload(orjson.dumps(kept).decode(), size, digest, size > _LEXICAL_BYTES or head != text, redactions)

    def _within_strings(self, text: str) -> tuple[str, int]:
        """Look into the strings of JSON that was cut off: columns and form parts show only without their escapes."""
        count = 0

        def read(match: re.Match[str]) -> str:
            nonlocal count
            if "\\" not in match[1]:
                return match[0]
            plain = _ESCAPE.sub(lambda escape: _ESCAPED[escape[0]], match[1])
            kept, found = self.redactor.text(plain, cut=not match[2], again=True)
            count += found
            return f'"{orjson.dumps(kept).decode()[1:-1]}{match[2]}' if found else match[0]

        return _STRING.sub(read, text), count

    def _value(self, value: Any, keep: bool) -> Payload:
        try:
            text = orjson.dumps(value)
            if b"null" in text:
                # orjson writes NaN as null; only a walk can tell.
                value = _plain(value)
                text = _dumps(value)
        except (TypeError, ValueError, RecursionError):
            value = _plain(value)
            text = _dumps(value)
        size, digest = len(text), self.digest(text)
        if not keep:
            return Payload(None, size, digest)
        if len(text) <= truncation.MAX_BYTES and not self.redactor.suspicious(text):
            return Payload(text.decode(), size, digest)
        try:
            value = json_digits.loads(text)
        except ValueError:
            value = _plain(value)
        return self._kept(value, len(text), size, digest)

    def _kept(
        self, value: Any, length: int, size: int, digest: str, *, again: bool = False, doubtful: bool = False
    ) -> Payload:
        """Redact and bound a plain value; `doubtful`: its floats may stand for other digits, and say so."""
        whole, dropped = value, False
        if length > _PRUNE_ABOVE:
            whole, dropped = truncation.prune(value, _HEAD_WINDOW, describe=self._describe)
        if doubtful:
            whole = json_digits.marked(whole)
        front, count = self.redactor.value(whole, again=again)
        text = _dumps(front)
        if not dropped and len(text) <= truncation.MAX_BYTES:
            return Payload(text.decode(), size, digest, False, count)
        head = tail = text.decode()
        if dropped:
            end, _ = truncation.prune(value, _TAIL_WINDOW, from_end=True, describe=self._describe)
            back, more = self.redactor.value(json_digits.marked(end) if doubtful else end, again=again)
            tail = _dumps(back).decode()
            count += more
        # The pieces are no longer JSON: they are made such that reading them as text finds nothing more in them.
        head = self._settled(truncation.head_of_text(head, 2 * truncation.HEAD_BYTES), truncation.head_within)
        tail = self._settled(tail[-4 * truncation.TAIL_BYTES :], truncation.tail_within)
        return Payload(truncation.head_and_tail(head, tail, size, digest), size, digest, True, count)

    def _settled(self, text: str, fit: Callable[[str], str]) -> str:
        """Make a text fit and redact what the cut itself made look like a secret, until neither changes it."""
        text = self._again(text)
        for _ in range(4):
            fitted = fit(text)
            text = self._again(fitted)
            if text == fitted:
                return text
        return ""

    def _describe(self, value: dict[str, Any]) -> dict[str, Any]:
        key = blob_in(value)
        return value if key is None else {**value, key: described(value[key], value, self.redactor.fingerprint)}

    def _again(self, text: str) -> str:
        return self.redactor.text(text, again=True)[0]

    def as_json(self, value: Any) -> str | None:
        """Write a value that was sanitised before as compact JSON."""
        return None if value is None else _dumps(_plain(value)).decode("utf-8", "replace")

    def restored(self, text: str | None) -> str | None:
        """Take kept JSON back from where it was stored; looked through again, since storage may be older than the rules."""
        if text is None:
            return None
        try:
            raw = text.encode()
            value = json_digits.loads(raw)
            if len(raw) <= truncation.MAX_BYTES and not self.redactor.suspicious(json_digits.dumps(value)):
                return text
            return self._kept(value, len(raw), 0, "", again=True).json
        except Exception:  # noqa: BLE001 - no stored payload may erase its event
            return self.payload(raw=text.encode("utf-8", "replace")).json


# How long a text was that did not fit, and which.
_MARK = re.compile(r"\[…[0-9]{1,12}:[0-9a-f]{8}\]\Z")
_ESCAPED: Final = {'\\"': '"', "\\n": "\n", "\\r": "\r", "\\t": "\t", "\\/": "/", "\\\\": "\\"}
_ESCAPE = re.compile(r'\\["nrt/\\]')
# A string of JSON, the last of which may have no end.
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)("|\\?\Z)', re.DOTALL)


def _keeps(level: str, side: str) -> bool:
    return level == "full" or (level == "request" and side == "request") or level not in LEVELS


def _fingerprinted(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    return _dumps(_plain(value))


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("utf-8", "surrogateescape")
    if isinstance(value, (bool, float)) or value.__class__.__module__ in (
        "uuid",
        "ipaddress",
        "datetime",
        "decimal",
        "pathlib",
    ):
        return str(value)
    if isinstance(value, int):
        return str(value) if value.bit_length() < 256 else f"[NUMBER:{value.bit_length()} bits]"
    return _dumps(_plain(value)).decode()


def _plain(value: Any) -> Any:
    """Copy any object into plain JSON: bounded, without ever calling code of the object's own."""
    return _Plain().copy(value, 0)


class _Plain:
    def __init__(self) -> None:
        self.left = _MAX_NODES

    def copy(self, value: Any, depth: int) -> Any:
        self.left -= 1
        kind = type(value)
        if kind is str:
            return value
        if value is None or kind is bool or kind is json_digits.Digits:
            return value
        if kind is int:
            return (
                value
                if -(1 << 63) <= value < (1 << 64)
                else json_digits.Digits(str(value))
                if value.bit_length() < 330
                else f"[NUMBER:{value.bit_length()} bits]"
            )
        if kind is float:
            return value if math.isfinite(value) else str(value)
        if isinstance(value, dict):
            if depth > 140:
                return "[NESTED]"
            return self.mapping(value, depth)
        if isinstance(value, (list, tuple, set, frozenset)):
            if depth > 140:
                return "[NESTED]"
            made = []
            for item in value:
                if self.left <= 0:
                    made.append("[MORE]")
                    break
                made.append(self.copy(item, depth + 1))
            return made
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value[: 1 << 16]).decode("utf-8", "surrogateescape")
        if kind.__module__ in ("uuid", "ipaddress", "datetime", "decimal", "pathlib"):
            return str(value)
        if isinstance(value, bool) or isinstance(value, int):
            return self.copy(int(value), depth)
        if isinstance(value, float):
            return self.copy(float(value), depth)
        return f"[OBJECT:{kind.__name__[:60]}]"

    def mapping(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, item in value.items():
            if self.left <= 0:
                made["[MORE]"] = True
                break
            made[key if type(key) is str else _as_text(key)] = self.copy(item, depth + 1)
        return made


def _text_of(value: Any) -> bytes:
    """Write a value that was parsed before as orjson would have it; b"" when it would have it otherwise."""
    if value is MISSING:
        return b""
    try:
        text = orjson.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return b""  # numbers or texts that orjson does not read
    return b"" if b"null" in text else text  # which may have been NaN, and that is no JSON


def _dumps(value: Any) -> bytes:
    try:
        return json_digits.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_default).encode(
            "utf-8", "backslashreplace"
        )


def _default(value: Any) -> Any:
    return f"[OBJECT:{type(value).__name__[:60]}]"


def _event_data(raw: bytes) -> list[Any]:
    """Read the data of an event stream: each event's joined lines, parsed where they are JSON."""
    events: list[Any] = []
    for block in re.split(rb"\r?\n\r?\n", raw[: 1 << 20]):
        data = [line[5:].removeprefix(b" ") for line in block.splitlines() if line.startswith(b"data:")]
        if not data:
            continue
        joined = b"\n".join(data)
        try:
            events.append(_plain(json_digits.exact(joined)))
        except (ValueError, RecursionError):
            events.append(joined.decode("utf-8", "surrogateescape"))
        if len(events) >= 1_000:
            break
    return events


_lock = threading.Lock()
_current: Sanitizer | None = None


def current() -> Sanitizer:
    """Give this process's sanitizer, made from the settings when it is first asked for."""
    return _current if _current is not None else _first()


def _first() -> Sanitizer:
    from django.conf import settings

    with _lock:
        return _current if _current is not None else install(settings.SENTINEL.redaction_key)


def install(key: bytes, rules: RedactionRuleSet | None = None) -> Sanitizer:
    """Make a sanitizer the process's own; called again when administrators change what is redacted."""
    global _current
    _current = Sanitizer(key, rules)
    return _current
