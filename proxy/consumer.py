"""The Channels consumer that agents talk to: HTTP in, bytes out.

It is an AsyncConsumer with a `__call__` of its own: the stock HTTP consumer joins bodies without bound, hops through a
thread for each message and never sees a client leave while it streams (docs/adr/0005 has the measurements).
"""

from __future__ import annotations

import re
from typing import Any

from channels.consumer import AsyncConsumer

from core.types import Receive, Scope, Send
from proxy.gateway import current
from proxy.http.exchange import Exchange
from proxy.pipeline import handle

_PATH = re.compile(r"/(mcp|sse|messages)(?:/([^/]*))?/?\Z")


def matches(path: str) -> bool:
    """Tell whether a path is the gateway's: /mcp, /sse or /messages, with or without what follows."""
    head = path.split("/", 2)[1] if path.startswith("/") else ""
    return head in {"mcp", "sse", "messages"}


class McpConsumer(AsyncConsumer):  # type: ignore[misc]  # channels has no types
    """Takes each HTTP request for an upstream through the pipeline."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        """Handle one request; no exception may cross into the server (one would disable Daphne's own clean-up)."""
        exchange = Exchange(scope, receive, send)
        path: str = scope["path"]
        match = _PATH.match(path)
        endpoint = match[1] if match else path.split("/", 2)[1]
        slug = (match[2] or "") if match else path.split("/", 2)[2]
        try:
            await handle(current(), exchange, endpoint=endpoint, slug=slug)
        finally:
            exchange.close()
