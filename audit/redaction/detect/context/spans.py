"""Places of secrets put in order (pure): those that overlap made one, replacements that stand left alone."""

from __future__ import annotations

from audit.redaction.detect.heuristics import TOKEN
from audit.redaction.detect.matching import SecretPlace

__all__ = ("merge",)


def merge(text: bytes, found: list[SecretPlace]) -> list[SecretPlace]:
    """Make one of those that overlap, the more telling kind kept; leave replacements that stand here alone."""
    if not found:
        return found
    standing = [match.span() for match in TOKEN.finditer(text)] if b"[REDACTED:" in text else []
    merged: list[SecretPlace] = []
    for one in sorted(found, key=lambda f: (f.start, -f.end)):
        if one.end <= one.start:
            continue
        if merged and one.start < merged[-1].end:
            last = merged[-1]
            kind = last.kind if last.kind not in _VAGUE or one.kind in _VAGUE else one.kind
            merged[-1] = SecretPlace(last.start, max(last.end, one.end), kind)
        else:
            merged.append(one)
    return _spare(text, merged, standing) if standing else merged


def _spare(text: bytes, found: list[SecretPlace], standing: list[tuple[int, int]]) -> list[SecretPlace]:
    """Leave replacements that stand in the text alone; one that would be cut in two is taken in whole."""
    kept = []
    first = 0
    for one in found:
        start, end = one.start, one.end
        while first < len(standing) and standing[first][1] <= start:
            first += 1
        last = first
        while last < len(standing) and standing[last][0] < end:
            last += 1
        if last > first:
            if last == first + 1 and standing[first][0] <= start and end <= standing[first][1]:
                continue
            start, end = min(start, standing[first][0]), max(end, standing[last - 1][1])
            if TOKEN.sub(b"", text[start:end]).strip(b" ,;:&=") == b"":
                continue
        kept.append(SecretPlace(start, end, one.kind))
    return kept


_VAGUE = frozenset(
    (
        "password",
        "secret",
        "token",
        "key",
        "credential",
        "authorization",
        "cookie",
        "session",
        "bearer",
        "cut",
        "code",
        "signature",
    )
)
