"""Whether what opened a stream still stands: a stream that goes on for minutes must end with the session that it came from."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from django.db import connection
from django.http import HttpRequest

from core import registry

__all__ = ["Standing", "of_request", "session"]

EVERY = 3.0  # seconds


def session(session_key: str, permissions: Sequence[str]) -> bool:
    """Tell whether a session is still good for these permissions."""
    try:
        return bool(session_key) and registry.session_stands(session_key, permissions)
    finally:
        if not connection.in_atomic_block:
            connection.close()  # who listens for hours holds no connection between two looks


def of_request(request: HttpRequest, permissions: Sequence[str]) -> Standing:
    """Return the standing of whoever sends a request from a session."""
    session_key = request.session.session_key or ""
    return Standing(lambda: session(session_key, permissions))


class Standing:
    """Asks at most every few seconds."""

    def __init__(self, ask: Callable[[], bool]) -> None:
        self._ask, self._next, self._stands = ask, time.monotonic() + EVERY, True

    def __call__(self) -> bool:
        """Tell whether it still stands; what has ended stays ended."""
        now = time.monotonic()
        if self._stands and now >= self._next:
            self._next = now + EVERY
            self._stands = self._ask()
        return self._stands
