"""What a running process of ours shares: the embedded server, and the call-backs of a stop."""

from __future__ import annotations

import threading
from collections.abc import Callable

from django.conf import settings

from sentinel.postgres import EmbeddedPostgres

_embedded: EmbeddedPostgres | None = None
_lock = threading.Lock()
_stopping: list[Callable[[], None]] = []


def embedded() -> EmbeddedPostgres:
    """Return this process's handle on the embedded server."""
    global _embedded
    with _lock:
        if _embedded is None:
            _embedded = EmbeddedPostgres(settings.SENTINEL.var, settings.SENTINEL.instance)
        return _embedded


def on_stop(callback: Callable[[], None]) -> None:
    """Have something called when this worker is asked to stop, before it waits for what is in flight: close streams here."""
    _stopping.append(callback)


def stopping() -> None:
    """Call what was registered; one that fails does not keep the others from being called."""
    import logging

    for callback in list(_stopping):
        try:
            callback()
        except Exception:  # a stop must go on
            logging.getLogger(__name__).exception("a call-back of the stop failed")
