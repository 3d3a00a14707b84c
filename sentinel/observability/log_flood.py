"""Lines that somebody outside can cause are bounded in number: the first of a kind are written, the rest are counted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

PER_KIND = 20
PER_LOGGER = 100
WINDOW_SECONDS = 10.0
MOST_KINDS = 1000


@dataclass(slots=True)
class _Window:
    began: float
    written: int = 0
    left_out: int = 0


class Bounded(logging.Filter):
    """At most so many lines of one kind, and of one logger, in each window; what was left out is told by a line of its own.

    A kind is a logger's message before its values are filled in. Where a library fills them in first, each line is a kind
    of its own, and the bound of its logger holds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, later: bool = True) -> None:
        super().__init__()
        self._clock = clock
        self._later = later
        self._mutex = threading.Lock()
        self._windows: dict[tuple[str, ...], _Window] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if hasattr(record, "left_out"):
            return True
        text = record.msg.get("event", "") if isinstance(record.msg, dict) else record.msg
        logger, kind = (record.name,), (record.name, record.levelname, str(text)[:200])
        with self._mutex:
            now = self._clock()
            counted = [(self._window(logger, now), PER_LOGGER), (self._window(kind, now), PER_KIND)]
            full = next((window for window, most in counted if window.written >= most), None)
            if full is None:
                for window, _ in counted:
                    window.written += 1
                return True
            full.left_out += 1
            if full.left_out == 1 and self._later:
                timer = threading.Timer(WINDOW_SECONDS, self._tell, (logger if full is counted[0][0] else kind, full))
                timer.daemon = True
                timer.start()
            return False

    def _window(self, key: tuple[str, ...], now: float) -> _Window:
        found = self._windows.get(key)
        if found is None or now - found.began >= WINDOW_SECONDS:
            if len(self._windows) >= MOST_KINDS:
                self._windows = {k: w for k, w in self._windows.items() if now - w.began < WINDOW_SECONDS}
                if len(self._windows) >= MOST_KINDS:  # one flood of kinds: the bound of its logger is what counts
                    self._windows = {k: w for k, w in self._windows.items() if len(k) == 1}
            found = self._windows[key] = _Window(now)
        return found

    def _tell(self, key: tuple[str, ...], window: _Window) -> None:
        about = {"left_out": window.left_out, "kind": key[-1] if len(key) > 1 else ""}
        logging.getLogger(key[0]).warning("lines were left out of this log", extra=about)
