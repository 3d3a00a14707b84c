"""Legacy session ids (and ids of stream events) that speak for themselves: sealed for one key and one upstream.

What a client holds is the upstream's own session id, wrapped and signed. Any worker can open it, nothing has to be
stored, it survives a restart, and with another key or upstream it opens to nothing: the same 404 as an unknown one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re

_MAC_BYTES = 18
_FORM = re.compile(r"[A-Za-z0-9_-]{1,2048}\.[A-Za-z0-9_-]{24}\Z")
_VISIBLE_ASCII = re.compile(rb"[\x21-\x7e]{1,1024}\Z")


class SessionSealer:
    """Seals an upstream's session id (or message endpoint) for the key that opened it."""

    __slots__ = ("_key",)

    def __init__(self, secret: str) -> None:
        self._key = hashlib.sha256(b"mcp-sentinel/session/1\0" + secret.encode()).digest()

    def _mac(self, purpose: str, key_id: str, upstream: str, value: bytes) -> str:
        message = "\0".join((purpose, key_id, upstream)).encode() + b"\0" + value
        return _b64(hmac.digest(self._key, message, "sha256")[:_MAC_BYTES])

    def seal(self, value: bytes, *, key_id: str, upstream: str, purpose: str = "session") -> str | None:
        """The id to hand to the client; None when the upstream's is not visible ASCII of a sane length."""
        if not _VISIBLE_ASCII.match(value):
            return None
        return self.wrap(value, key_id=key_id, upstream=upstream, purpose=purpose)

    def wrap(self, value: bytes, *, key_id: str, upstream: str, purpose: str) -> str:
        """Seal any bytes; `open` gives them back to the same key, upstream and purpose alone."""
        return f"{_b64(value)}.{self._mac(purpose, key_id, upstream, value)}"

    def open(self, presented: str, *, key_id: str, upstream: str, purpose: str = "session") -> bytes | None:
        """The upstream's own value, or None for an id that is unknown, altered, or another key's."""
        if not _FORM.match(presented):
            return None
        wrapped, _, mac = presented.partition(".")
        try:
            value = base64.urlsafe_b64decode(wrapped + "=" * (-len(wrapped) % 4))
        except (binascii.Error, ValueError):
            return None
        if not hmac.compare_digest(mac, self._mac(purpose, key_id, upstream, value)):
            return None
        return value

    def claimed(self, presented: bytes) -> bytes:
        """What an id says it wraps, whether or not that is true: to name it in an event, and for nothing else."""
        if not _FORM.match(presented.decode("latin-1")):
            return presented
        wrapped = presented.partition(b".")[0]
        try:
            return base64.urlsafe_b64decode(wrapped + b"=" * (-len(wrapped) % 4)) or presented
        except (binascii.Error, ValueError):
            return presented

    def reference(self, value: bytes) -> str:
        """What an event keeps of a session: enough to group by, nothing to present."""
        return hmac.digest(self._key, b"reference\0" + value, "sha256").hex()[:16]


def _b64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode("ascii")
