"""The live view: new events as they come, as server-sent events, with the same filters as the list."""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

from asgiref.sync import sync_to_async
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import render
from django.template.loader import get_template
from django.utils import timezone

from audit.filters import Filters
from audit.models import Outcome
from audit.search import EventLine, newest
from core import registry
from core.access import sessions
from core.ids import uuid7, uuid7_floor

POLL_SECONDS = 0.7
QUIET_SECONDS = 15.0
# An event is stored when its call ends, so its place lies before events already shown: look back this far for late ones.
LATE = timedelta(seconds=120)
MOST = 200
REMEMBER = 5_000
CHECK_SECONDS = 3.0  # a log-out, a new password, a duty taken away end the view after so long at most


def page(request: HttpRequest) -> HttpResponse:
    if not request.user.has_perm("audit.view_auditevent"):
        raise PermissionDenied
    known = registry.suggestions()
    filters = Filters.read(request.GET)
    context = {
        **admin.site.each_context(request),
        "title": "Live",
        "filters": filters,
        "chips": filters.chips(dict(known.get("key", []))),
        "query": filters.query(),
        "outcomes": Outcome.choices,
        "problems": filters.problems,
    }
    return render(request, "admin/audit/live.html", context)


async def stream(request: HttpRequest) -> HttpResponseBase:
    """Send new events to a browser for as long as it listens, its session stands and its person may see them."""
    session_key: str = request.session.session_key or ""
    if not await _may(session_key):
        raise PermissionDenied
    filters = await sync_to_async(Filters.read)(request.GET)
    if filters.problems:
        return HttpResponse("\n".join(filters.problems), status=400, content_type="text/plain; charset=utf-8")
    content = _follow(session_key, filters, _since(request))
    response = StreamingHttpResponse(content, content_type="text/event-stream")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    return response


async def _may(session_key: str) -> bool:
    return bool(await sync_to_async(sessions.session)(session_key, ("audit.view_auditevent",)))


def _since(request: HttpRequest) -> UUID:
    try:
        return UUID(request.headers.get("Last-Event-ID", ""))
    except ValueError:
        return uuid7(time.time_ns() // 1000 - 2_000_000)


async def _follow(session_key: str, filters: Filters, since: UUID) -> AsyncIterator[bytes]:
    seen: OrderedDict[UUID, None] = OrderedDict()
    template = get_template("admin/audit/_row.html")
    floor = since
    zone = timezone.get_current_timezone()
    spoke = checked = time.monotonic()
    yield b"retry: 2000\n\n: following\n\n"
    while True:
        now = time.monotonic()
        try:
            if now - checked > CHECK_SECONDS:
                checked = now
                if not await _may(session_key):
                    yield b"event: ended\ndata: Your session has ended, or you may no longer see this.\n\n"
                    return
            rows = await sync_to_async(_fetch)(filters, floor)
        except DatabaseError:
            yield b"event: trouble\ndata: the database does not answer\n\n"
            await asyncio.sleep(2)
            continue
        fresh = [row for row in rows if row.id not in seen]
        for row in reversed(fresh):
            seen[row.id] = None
            with timezone.override(zone):
                html = template.render({"row": row})
            data = json.dumps({"id": str(row.id), "html": html})
            yield f"id: {row.id}\ndata: {data}\n\n".encode()
        while len(seen) > REMEMBER:
            seen.popitem(last=False)
        if fresh:
            spoke = now
        elif now - spoke > QUIET_SECONDS:
            spoke = now
            yield b": quiet\n\n"
        floor = max(since, uuid7_floor(datetime.now(UTC) - LATE))
        await asyncio.sleep(POLL_SECONDS)


def _fetch(filters: Filters, floor: UUID) -> list[EventLine]:
    try:
        return newest(filters, floor, MOST)
    finally:
        if not connection.in_atomic_block:
            connection.close()  # a viewer who listens for hours holds no connection between two looks
