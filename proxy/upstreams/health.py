"""How upstreams stand by what calls see of them, beside what checks see: a check lists tools, and runs none.

Each worker notes for each upstream when a call was last answered and when one last failed by the upstream's fault, in memory.
Only a change is written down, now and then: an upstream that calls begin to fail, or that answers again. Workers hear what is
written with their snapshot, so that whichever has seen more lately says so.

What was asked counts by what it takes: an upstream whose calls fail is not well because it lists its tools.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import psycopg

from core.db import connect
from proxy.mcp.message import Message
from proxy.upstreams.specs import UpstreamSpec

log = logging.getLogger("sentinel.proxy")

#: what runs something of an upstream's own
WORK = frozenset(("tools/call", "prompts/get", "resources/read"))
#: what is the upstream's fault, and not its caller's or the call's
FAULTS = frozenset(
    ("upstream_unreachable", "upstream_broken", "upstream_redirect", "upstream_error", "egress_refused")
)  # fmt: skip
_WRITE = """
UPDATE proxy_upstreamstatus SET calls_ok = %s, calls_at = to_timestamp(%s), calls_method = %s, calls_reason = %s
WHERE upstream_id = %s AND calls_ok IS DISTINCT FROM %s AND (calls_at IS NULL OR calls_at < to_timestamp(%s))
"""
_BEGIN = "INSERT INTO proxy_upstreamstatus (upstream_id, era, versions, server_info, steps) VALUES (%s, '', '[]', '{}', '[]') ON CONFLICT DO NOTHING"


class FinishedCall(Protocol):
    """A call as far as it says how its upstream stands."""

    slug: str
    spec: UpstreamSpec | None
    message: Message | None
    outcome: str
    reason: str

    @property
    def intended(self) -> bool:
        """Whether it was let through to the upstream."""


class HealthChange(NamedTuple):
    """An upstream that stands otherwise than is written."""

    upstream: int
    ok: bool
    at: float
    method: str = ""
    reason: str = ""


class _Seen:
    __slots__ = ("failed_at", "good_at", "method", "reason", "worked_at")

    def __init__(self) -> None:
        self.worked_at = self.good_at = self.failed_at = 0.0
        self.method = self.reason = ""


class UpstreamHealth:
    """What one worker's calls have seen."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def observe_call(self, call: FinishedCall) -> None:
        """Note how a call ended, for the upstream it was for."""
        message = call.message
        if not call.intended or call.spec is None or message is None or message.kind != "request":
            return
        allowed = call.outcome == "allowed"
        if not allowed and call.reason not in FAULTS:
            return
        seen = self._seen.get(call.slug)
        if seen is None:
            seen = self._seen[call.slug] = _Seen()
        if not allowed:
            seen.failed_at, seen.method, seen.reason = time.time(), message.method, call.reason
        elif message.method in WORK:
            seen.worked_at = seen.good_at = time.time()
        else:
            seen.good_at = time.time()

    def changes(self, specs: Mapping[str, UpstreamSpec]) -> list[HealthChange]:
        """Say which upstreams stand otherwise than their specs have it."""
        found = []
        for slug, seen in list(self._seen.items()):
            spec = specs.get(slug)
            if spec is None:
                del self._seen[slug]
                continue
            well = seen.worked_at if seen.method in WORK else seen.good_at
            if seen.failed_at > max(well, spec.calls_at) and not spec.failing:
                found.append(HealthChange(spec.id, False, seen.failed_at, seen.method, seen.reason))
            elif spec.failing:
                well = seen.worked_at if spec.failing in WORK else seen.good_at
                if well > spec.calls_at:
                    found.append(HealthChange(spec.id, True, well))
        return found


def write(dsn: str, changes: list[HealthChange]) -> None:
    """Write down how upstreams stand; what cannot be written now is found again later."""
    try:
        with connect(dsn, "mcp-sentinel health", seconds=2) as connection, connection.transaction():
            for change in changes:
                connection.execute(_BEGIN, [change.upstream])
                connection.execute(
                    _WRITE,
                    [change.ok, change.at, change.method, change.reason, change.upstream, change.ok, change.at],
                )
    except psycopg.Error as error:
        log.info("how upstreams stand cannot be written now: %s", " ".join(str(error).split()))
