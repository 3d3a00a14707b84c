"""The application that servers run: keys leave the URL first, then each path goes to the gateway or to Django.

The same object runs under `manage.py serve` (uvicorn), `runserver` and `daphne sentinel.asgi:application`. Servers
without lifespan events (Daphne) start the gateway with the first request.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import MutableMapping
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sentinel.settings")

from django.conf import settings
from django.core.asgi import get_asgi_application

django_application: Any = get_asgi_application()  # its types know only scopes and messages that are dicts

from core import processes  # noqa: E402
from core.api.problems import MEDIA_TYPE, Problem  # noqa: E402 - Django's settings and apps come first
from core.types import Receive, Scope, Send  # noqa: E402
from proxy.consumer import McpConsumer, matches  # noqa: E402
from proxy.http.credentials import take_query_credentials  # noqa: E402
from proxy.http.origins import host_allowed  # noqa: E402
from proxy.http.refusals import not_found  # noqa: E402
from sentinel.server import health, runtime  # noqa: E402

log = logging.getLogger("sentinel.http")

_consumer = McpConsumer.as_asgi()
processes.close()  # under Daphne nothing else has


class Application:
    """The outermost ASGI callable; what keeps the gateway from starting is raised to the server, and the next request tries again."""

    def __init__(self) -> None:
        self._starting: asyncio.Task[None] | None = None
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            take_query_credentials(scope)
            # Daphne lets any client set the root path with a header; this application has none.
            scope["root_path"] = ""
            path: str = scope["path"]
            if not self._started:
                await self._start()
            if matches(path):
                await _consumer(scope, receive, send)
            elif path in health.PATHS:
                await health.respond(scope, send, runtime.state, runtime.scrape)
            elif path.startswith("/.well-known/") or path == "/register":
                await _json_404(send)
            elif not _host_is_ours(scope):
                await _bad_host(send)
            else:
                await django_application(scope, _bounded(scope, receive, send), send)
        elif kind == "lifespan":
            await self._lifespan(receive, send)
        elif kind == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _start(self) -> None:
        """Start the gateway once, however many requests wait for it and however many of their clients leave."""
        if self._starting is None:
            self._starting = asyncio.ensure_future(runtime.start_gateway())
        starting = self._starting
        try:
            # Daphne cancels a request whose client has gone; what everyone waits for is not the request's to cancel.
            await asyncio.shield(starting)
        except Exception:
            if self._starting is starting:
                self._starting = None  # the next request tries again
            raise
        self._started = True

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self._start()
                except Exception as error:  # noqa: BLE001 - whatever it is, the server says it and ends
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await runtime.stop_gateway()
                await send({"type": "lifespan.shutdown.complete"})
                return


def _bounded(scope: Scope, receive: Receive, send: Send) -> Receive:
    """Bound the bodies that Django would write to disk before it knows who sends them: above the limit 413, and an end."""
    limit: int = settings.SENTINEL.max_body_bytes
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    size = int(length) if length.isdigit() and len(length) < 16 else 0
    refused = False

    async def bounded() -> MutableMapping[str, Any]:
        nonlocal size, refused
        if not refused:
            if length and size <= limit:
                return await receive()
            message = {"type": "http.request", "body": b""} if length else await receive()
            size += len(message.get("body", b""))
            if size <= limit:
                return message
            refused = True
            problem = Problem("too_large", f"A body has at most {limit} bytes.")
            await _refuse(send, problem, scope.get("path", ""))
        return {"type": "http.disconnect"}

    return bounded


def _host_is_ours(scope: Scope) -> bool:
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    return not hosts or host_allowed(hosts, settings.SENTINEL.allowed_hosts)


async def _refuse(send: Send, problem: Problem, path: str = "") -> None:
    headers = [(b"content-type", MEDIA_TYPE.encode())]
    await health.answer(send, problem.status, headers, json.dumps(problem.as_dict(path)).encode())


async def _bad_host(send: Send) -> None:
    """Refuse what is meant for another host before Django writes a page and a traceback about it."""
    from sentinel.server.http_protocol import refused  # where it serves; other servers have no use for it

    refused["bad_host"] += 1
    log.warning("a request for a host that is not this gateway's was refused")
    await _refuse(send, Problem("malformed", "The Host header does not name this gateway."))


async def _json_404(send: Send) -> None:
    """Static keys work in MCP clients only while OAuth discovery answers 404, in JSON and without authentication."""
    answer = not_found()
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})


application = Application()
