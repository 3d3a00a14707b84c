"""Bodies for Django's own pages are bounded before anybody is known."""

from __future__ import annotations

from typing import Any

import pytest

from sentinel.asgi import _bounded

LIMIT = 4 * 1024 * 1024


async def drive(headers: list[tuple[bytes, bytes]], pieces: list[bytes]) -> tuple[list[str], list[int]]:
    sent: list[int] = []
    waiting = [{"type": "http.request", "body": p, "more_body": n < len(pieces)} for n, p in enumerate(pieces, 1)]

    async def receive() -> Any:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            sent.append(message["status"])

    bounded = _bounded({"headers": headers}, receive, send)
    return [(await bounded())["type"] for _ in pieces], sent


@pytest.mark.parametrize(
    ("headers", "pieces", "types", "statuses"),
    [
        ([(b"content-length", b"3")], [b"abc"], ["http.request"], []),
        ([], [b"abc", b"d"], ["http.request", "http.request"], []),
        ([(b"content-length", b"%d" % (LIMIT + 1))], [b"x", b"y"], ["http.disconnect", "http.disconnect"], [413]),
        ([], [b"x" * LIMIT, b"y", b"z"], ["http.request", "http.disconnect", "http.disconnect"], [413]),
    ],
    ids=["small", "chunked", "announced", "endless"],
)
async def test_what_is_too_large_is_refused_once(headers, pieces, types, statuses):
    assert await drive(headers, pieces) == (types, statuses)
