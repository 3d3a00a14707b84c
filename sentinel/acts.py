"""What the admin refuses leaves events too, but a flood of refusals must not become a flood of rows."""

from __future__ import annotations

import time


class Flood:
    """Bounds how many events a flood of refusals may write: beyond a rate they are only counted.

    The next event that is written says how many were not.
    """

    def __init__(self, per_second: int) -> None:
        self._rate = per_second
        self._second = 0
        self._used = 0
        self._dropped = 0

    def admit(self) -> int | None:
        """Return how many were dropped before this one, or None when this one is dropped too."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._used = second, 0
        if self._used >= self._rate:
            self._dropped += 1
            return None
        self._used += 1
        dropped, self._dropped = self._dropped, 0
        return dropped
