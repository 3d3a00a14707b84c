"""The one process of an installation that holds what all workers share of upstreams.

It runs the commands of stdio upstreams and the sessions of old HTTP+SSE ones, serves them to the workers on a unix
socket in the state folder (0700), and reads catalogues again when they are due or when a worker has seen a difference.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hmac
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import Any

import orjson
import psycopg
import uvicorn
from django.conf import settings
from django.db import close_old_connections

from core.conf.settings import Config
from core.db import connect
from core.ledger import Ledger
from core.types import Receive, Scope, Send
from policies.snapshot import loading
from proxy.upstreams import registry
from proxy.upstreams.transports.base import UpstreamError, UpstreamRequest, UpstreamResponse
from proxy.upstreams.transports.hosted import (
    ANSWER,
    ASIDE,
    CALLER,
    ERROR,
    FIRST_BYTE,
    IDLE,
    KEY,
    MARK,
    SOCKET,
    ending,
    host_key,
    socket_path,
    written,
)
from proxy.upstreams.transports.stdio import confine, descendants

log = logging.getLogger("sentinel.proxy")

POLL_SECONDS = 0.5
REFRESH_SECONDS = 30.0
#: calls that run when it is told to stop may end within this
GRACE_SECONDS = 2.0
#: a difference that workers saw is looked into at most this often
AGAIN_SECONDS = 10.0
_INNER = frozenset(
    (
        KEY,
        MARK,
        ASIDE,
        CALLER,
        FIRST_BYTE,
        IDLE,
        *b"host accept-encoding content-length transfer-encoding connection".split(),
    )
)
_OUTER = frozenset(b"content-length transfer-encoding connection keep-alive".split())


class Specs:
    """The upstreams as the database has them now."""

    def __init__(self, dsn: str) -> None:
        self.extras: dict[str, Any] = {"upstreams": {}}
        self._dsn = dsn
        self._revision = -1
        self._lock = threading.Lock()

    def reload(self) -> None:
        """Read the upstreams if they have changed; called in threads."""
        with self._lock, connect(self._dsn, "mcp-sentinel upstreams", seconds=5) as connection:
            revision = loading.revisions(connection).get("upstreams", 0)
            if revision != self._revision:
                self.extras["upstreams"] = registry.load(connection)
                self._revision = revision


class Host:
    """Serves transports to the workers."""

    def __init__(self, config: Config | None = None, ledger: Ledger | None = None) -> None:
        self._config: Config = config or settings.SENTINEL
        self.specs = Specs(self._config.dsn)
        self._problems: dict[str, str] = {}
        self.registry = registry.UpstreamRegistry(self.specs, self._config, hosted=False, ledger=ledger)
        #: upstreams in whose lists workers have seen a difference, and when each was last looked into for that
        self._due: set[str] = set()
        self._looked: dict[str, float] = {}
        self._refresh = asyncio.Event()
        self._key = host_key()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if not hmac.compare_digest(dict(scope["headers"]).get(KEY, b""), self._key):
            await _reply(send, 403, b"")
            return
        act, _, slug = scope["path"].strip("/").partition("/")
        body = await _body(receive)
        if body is None:
            return
        if act == "send":
            await self._send(scope, slug, body, receive, send)
        elif act == "stderr":
            await _reply(send, 200, orjson.dumps(self.registry.stderr(slug)))
        elif act == "refresh":
            self._due.add(slug)  # one that this process has not heard of yet included: a worker knows it
            self._refresh.set()
            await _reply(send, 202, b"")
        else:
            await _reply(send, 404, b"")

    async def tend(self) -> None:
        """Follow the database, and read catalogues when they are due; never ends by itself."""
        loop = asyncio.get_running_loop()
        refresher = loop.create_task(self._refresh_catalogues())
        told = ""
        try:
            while True:
                try:
                    await asyncio.to_thread(self.specs.reload)
                    self.registry.reconcile()
                    self._tell_problems()
                    told = ""
                except (psycopg.Error, OSError) as error:
                    if str(error) != told:  # once, however long a database is away
                        log.warning("upstreams cannot be read: %s", " ".join(str(error).split()))
                    told = str(error)
                descendants.reap()
                await asyncio.sleep(POLL_SECONDS)
        finally:
            refresher.cancel()

    def _tell_problems(self) -> None:
        """Say, once for each, which upstreams cannot be used as they are configured: nobody may have called them yet."""
        found = {slug: spec.problem for slug, spec in self.registry.specs().items() if spec.problem}
        for slug, problem in found.items():
            if self._problems.get(slug) != problem:
                log.warning("the upstream %s cannot be used: %s", slug, problem)
        self._problems = found

    async def _send(self, scope: Scope, slug: str, body: bytes, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        spec = self.registry.spec(slug)
        if spec is None or spec.mark.encode() != headers.get(MARK, b""):
            try:  # the worker has seen a change that was not seen here yet, or the other way round
                await asyncio.to_thread(self.specs.reload)
            except (psycopg.Error, OSError):
                log.warning("upstreams cannot be read")
        request = UpstreamRequest(
            scope["method"].encode(),
            [(name, value) for name, value in scope["headers"] if name not in _INNER],
            body,
            float(headers[FIRST_BYTE]) if FIRST_BYTE in headers else None,
            float(headers[IDLE]) if IDLE in headers else None,
            headers.get(CALLER, b"").decode("latin-1"),
            ASIDE in headers,
        )
        gone = asyncio.ensure_future(_gone(receive))
        call = asyncio.ensure_future(self._relay(slug, request, send))
        try:
            await asyncio.wait((gone, call), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not call.done():
                call.cancel()
            await asyncio.gather(gone, call, return_exceptions=True)

    async def _relay(self, slug: str, request: UpstreamRequest, send: Send) -> None:
        try:
            response = await self.registry.transport(slug).send(request)
        except UpstreamError as error:
            await _reply(send, 200, written(error), [(ERROR, type(error).__name__.encode())])
            return
        try:
            await _pass_on(response, send)
        finally:
            response.abort()

    async def _refresh_catalogues(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout(REFRESH_SECONDS):
                    await self._refresh.wait()
            except TimeoutError:
                pass
            self._refresh.clear()
            now = loop.time()
            wanted = [slug for slug in sorted(self._due) if now - self._looked.get(slug, -inf) > AGAIN_SECONDS]
            self._due.difference_update(wanted)
            self._looked |= dict.fromkeys(wanted, now)
            try:
                await asyncio.to_thread(_read_catalogues, wanted, self._config.catalogue_refresh)
            except Exception:
                log.exception("catalogues could not be read again; the next round tries anew")
                self._due.update(wanted)
                await asyncio.sleep(AGAIN_SECONDS)
            await asyncio.sleep(1.0)
            if self._due:  # seen again too soon after the last look
                loop.call_later(AGAIN_SECONDS, self._refresh.set)


def _read_catalogues(wanted: list[str], interval: float) -> None:
    from proxy.services import catalogue
    from proxy.services.errors import ServiceError

    close_old_connections()
    try:
        for slug in wanted:
            with contextlib.suppress(ServiceError):  # removed meanwhile
                catalogue.check_upstream(slug=slug)
        if interval:
            catalogue.refresh_due(older_than=interval)
    finally:
        close_old_connections()


async def _pass_on(response: UpstreamResponse, send: Send) -> None:
    headers = [(name, value) for name, value in response.headers if name not in _OUTER]
    await send({"type": "http.response.start", "status": response.status, "headers": [(ANSWER, b"1"), *headers]})
    last = b""
    try:
        while piece := await response.read():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    except UpstreamError as error:
        if not response.streaming:
            raise  # which cuts the connection
        last = ending(error)
    await send({"type": "http.response.body", "body": last})


async def _body(receive: Receive) -> bytes | None:
    pieces: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        pieces.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(pieces)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


async def _reply(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [(ANSWER, b"1"), length, *(headers or [])]})
    await send({"type": "http.response.body", "body": body})


def listen(folder: Path) -> tuple[socket.socket, int]:
    """Open the host's socket; gives it and the lock that keeps a second host out. Raises BlockingIOError."""
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = os.open(folder / "upstreams.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise
    (folder / SOCKET).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listener.bind(socket_path(folder))
    finally:
        os.umask(before)
    listener.listen(1024)
    listener.setblocking(False)
    return listener, lock


class _Server(uvicorn.Server):
    """uvicorn without its own handling of signals, which would end the process before it has tidied up."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


async def run(folder: Path, *, stopped: Callable[[], bool] = lambda: False) -> None:
    """Run the host until SIGTERM or SIGINT, or until `stopped` says so."""
    listener, lock = listen(folder)
    if not confine.landlock_version():
        log.warning("this kernel has no Landlock: commands of upstreams are held back less (see THREAT_MODEL.md)")
    host = Host(ledger=registry.ledger_of(settings.SENTINEL))
    server = _Server(
        uvicorn.Config(
            host, http="httptools", lifespan="off", log_config=None, access_log=False, server_header=False, date_header=False,
            timeout_keep_alive=120, timeout_graceful_shutdown=3,
        )
    )  # fmt: skip

    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)

    async def end() -> None:
        await asked.wait()
        await host.registry.close(GRACE_SECONDS)  # whoever still waits is answered, and only then the server ends
        server.should_exit = True

    async def watch() -> None:
        while not stopped():  # noqa: ASYNC110 - the end of another process is no event
            await asyncio.sleep(0.5)
        asked.set()

    beside = [asyncio.create_task(host.tend()), asyncio.create_task(watch()), asyncio.create_task(end())]
    try:
        await server.serve(sockets=[listener])
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await host.registry.close()
        (folder / SOCKET).unlink(missing_ok=True)
        os.close(lock)
