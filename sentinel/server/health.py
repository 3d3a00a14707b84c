"""Health: is the process alive, can it serve; and the metrics. None of it looks at the Host header or leaves an event."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from core.access.addresses import parse_address, within
from core.types import Headers, Scope, Send

PATHS = frozenset({"/livez", "/readyz", "/metrics"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """What readiness depends on. The database is not among it: the gateway serves without."""

    started: bool
    stopping: bool = False
    journal_usable: bool = False
    strict: bool = True
    snapshot_age: float | None = None
    snapshot_max_age: float = 300.0


def livez() -> tuple[int, dict[str, Any]]:
    return 200, {"status": "ok"}


def readyz(state: Readiness) -> tuple[int, dict[str, Any]]:
    """Tell whether calls are served, and if not, why."""
    problems = []
    if not state.started:
        problems.append("starting")
    elif state.stopping:
        problems.append("stopping")
    else:
        if state.strict and not state.journal_usable:
            problems.append("the journal cannot be written")
        if state.snapshot_age is None:
            problems.append("keys and policies have not been read yet")
        elif state.snapshot_age > state.snapshot_max_age:
            problems.append("keys and policies could not be confirmed for too long")
    warnings = [] if state.journal_usable or state.strict or not state.started else ["the journal cannot be written"]
    body: dict[str, Any] = {"status": "not ready" if problems else "ready"}
    if problems:
        body["problems"] = problems
    if warnings:
        body["warnings"] = warnings
    return (503 if problems else 200), body


def may_scrape(headers: list[tuple[bytes, bytes]], client: str, token: str, trusted: tuple[Any, ...]) -> bool:
    """Tell whether this client gets the metrics: by the token, or without one from this machine itself."""
    if token:
        given = [value for name, value in headers if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], b"Bearer " + token.encode())
    address = parse_address(client)
    if address is None:
        return False
    # A proxy on this machine speaks for somebody else.
    forwarded = any(name in (b"x-forwarded-for", b"forwarded", b"x-real-ip") for name, _ in headers)
    return address.is_loopback and not forwarded and not within(address, trusted)


async def respond(scope: Scope, send: Send, state: Callable[[], Readiness], scrape: Callable[[], bytes]) -> None:
    """Answer one of the three addresses: with what this process depends on, or all workers' metrics."""
    if scope["method"] not in ("GET", "HEAD"):
        return await _send(send, 405, b'{"error":"method not allowed"}', extra=[(b"allow", b"GET, HEAD")])
    if scope["path"] == "/livez":
        status, told = livez()
    elif scope["path"] == "/readyz":
        status, told = readyz(state())
    else:
        client = (scope.get("client") or ("", 0))[0]
        config = settings.SENTINEL
        if not may_scrape(scope["headers"], client, config.metrics_token, config.trusted_proxies):
            extra = [(b"www-authenticate", b"Bearer")] if config.metrics_token else []
            return await _send(send, 401 if config.metrics_token else 403, b'{"error":"not for you"}', extra=extra)
        body = await asyncio.to_thread(scrape)
        return await _send(send, 200, body, b"text/plain; version=0.0.4; charset=utf-8")
    return await _send(send, status, json.dumps(told).encode())


async def _send(send: Send, status: int, body: bytes, kind: bytes = b"application/json", extra: Any = ()) -> None:
    await answer(send, status, [(b"content-type", kind), (b"cache-control", b"no-store"), *extra], body)


async def answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
