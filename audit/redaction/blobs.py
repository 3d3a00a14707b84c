"""Images, sounds and files in payloads, kept as type, size and digest (pure)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

__all__ = ("blob_in", "described")

_LEAST = 128
_TYPES = ("mimeType", "mime_type", "media_type")
_TYPE = re.compile(r"[\w.+\-]{1,40}/[\w.+\-]{1,60}")


def blob_in(value: dict[str, Any]) -> str | None:
    """Say which member of an object is the content of an image, a sound or a file."""
    if not any(name in value for name in _TYPES):
        return None
    for key in ("data", "blob"):
        item = value.get(key)
        if isinstance(item, str) and len(item) > _LEAST:
            return key
    return None


def described(content: str, holder: dict[str, Any], fingerprint: Callable[[bytes], str]) -> str:
    """Give what stands in the place of base64 content: its type, its size in bytes and its fingerprint."""
    kind = next((holder[name] for name in _TYPES if isinstance(holder.get(name), str)), "")
    kind = kind if _TYPE.fullmatch(kind) else "unknown"
    size = len(content) * 3 // 4 - content[-2:].count("=")
    return f"[BLOB:{kind}:{size}:{fingerprint(content.encode('utf-8', 'surrogatepass'))}]"
