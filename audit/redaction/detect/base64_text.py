"""Text wrapped in base64 (pure): ASCII leaves a pattern in it that random bytes do not."""

from __future__ import annotations

import re
from collections.abc import Iterator

from audit.redaction.detect.automata import compile_bytes
from audit.redaction.detect.randomness import decode_base64

__all__ = ("BASE64_OF_TEXT", "base64_runs")

BASE64_OF_TEXT = r"(?:[I-Za-f][C-HS-Xi-nyz0-3][ABEFIJMNQRUVYZcdghklopstwx014589][A-Za-z0-9+/_\-]){4}"
_BASE64_OF_TEXT = compile_bytes(BASE64_OF_TEXT)
_BASE64_RUN = re.compile(rb"[A-Za-z0-9+/_\-]{16,65536}={0,2}")
_BASE64_BEFORE = re.compile(rb"[A-Za-z0-9+/_\-]{0,65536}\Z")


def base64_runs(text: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield runs of base64 whose beginning decodes to ASCII text, decoded."""
    position, size = 0, len(text)
    while position < size:
        match = _BASE64_OF_TEXT.search(text, position)
        if match is None:
            return
        before = _BASE64_BEFORE.search(text, max(position, match.start() - 65536), match.start())
        start = before.start() if before else match.start()
        run = _BASE64_RUN.match(text, start)
        if run is None:
            position = match.end()
            continue
        for begin in (start, match.start()) if match.start() != start else (start,):
            decoded = decode_base64(text[begin : run.end()])
            if decoded is not None and _is_text(decoded):
                yield begin, run.end(), decoded
                break
        position = run.end()


def _is_text(decoded: bytes) -> bool:
    sample = decoded[:4096]
    return sum(32 <= c < 127 or c in (9, 10, 13) for c in sample) >= len(sample) * 0.9 and len(sample) >= 8
