"""How many requests a key or a person may make, counted in the memory that the workers of a machine share."""

from __future__ import annotations

import logging
import threading
from hashlib import blake2b
from typing import Any

from django.conf import settings
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from policies.limiter.shared import Locked, SharedTable
from policies.limiter.table import Window

log = logging.getLogger("sentinel.api")

MINUTE = 60_000_000_000
_mutex = threading.Lock()
_table: SharedTable | None = None


def table() -> SharedTable:
    """Return this process's window on the shared memory."""
    global _table
    with _mutex:
        if _table is None:
            _table = SharedTable(settings.SENTINEL.var / "limiter")
        return _table


class PerCaller(BaseThrottle):
    """At most SENTINEL_API_RATE requests in any minute, for each key and each person."""

    def __init__(self) -> None:
        self.retry = 0.0

    def allow_request(self, request: Request, view: Any) -> bool:
        """Count the request, and say in headers how many are left."""
        rate: int = settings.SENTINEL.api_rate
        key = getattr(request.user, "key", None)
        caller = f"api key {key.id}" if key is not None else f"api user {request.user.pk}"
        window = Window(blake2b(caller.encode(), digest_size=16).digest(), rate, MINUTE)
        try:
            verdict, now = table().decide_now([window])
        except (Locked, OSError) as error:
            log.warning("the API's limits cannot be checked: %s", error)
            return True
        if verdict.which < 0:
            return True
        self.retry = max(0, verdict.free_at - now) / 1e9
        request.rate_headers = {  # type: ignore[attr-defined]
            "RateLimit-Limit": str(rate),
            "RateLimit-Remaining": str(verdict.remaining if verdict.allowed else 0),
            "RateLimit-Reset": str(0 if verdict.allowed else int(-(-self.retry // 1))),
        }
        return verdict.allowed

    def wait(self) -> float:
        """Return in how many seconds there is room."""
        return max(1.0, self.retry)
