"""A worker's way to a transport that lives in the installation's one host process (proxy.upstreams.host).

Processes and old-style streams have state that every worker must share: which process is a session's, which call a
cancellation means. So under `serve` they live in one process, and workers speak to it over a unix socket, through the
same pool and the same seam as to any upstream.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import orjson
from django.conf import settings

from proxy.upstreams.egress import Origin
from proxy.upstreams.transports import base
from proxy.upstreams.transports.base import (
    Broken,
    TransportLimits,
    Unreachable,
    UpstreamError,
    UpstreamRequest,
    UpstreamResponse,
)
from proxy.upstreams.transports.http.streamable_http import StreamableHttpTransport

SOCKET = "upstreams.sock"
ANSWER = b"x-upstream-answer"
ERROR = b"x-upstream-error"
MARK = b"x-upstream-mark"
KEY = b"x-upstream-host-key"
FIRST_BYTE = b"x-upstream-first-byte"
IDLE = b"x-upstream-idle"
CALLER = b"x-upstream-caller"
ASIDE = b"x-upstream-aside"
_ERRORS: dict[str, type[UpstreamError]] = {
    kind.__name__: kind
    for kind in (
        base.Unreachable, base.EgressRefused, base.TimedOut, base.Broken, base.Redirected, base.TooLarge, base.Busy, base.Unread,
        base.Cancelled,
    )
}  # fmt: skip
_folders: dict[str, int] = {}


def socket_path(folder: Path) -> str:
    """Give a path of the host's socket that is short enough for a socket, however deep the state folder lies."""
    plain = str(folder / SOCKET)
    if len(plain.encode()) < 100 or not os.path.isdir("/proc/self/fd"):
        return plain
    if plain not in _folders:
        _folders[plain] = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{_folders[plain]}/{SOCKET}"


def pool(folder: Path, limits: TransportLimits | None = None) -> StreamableHttpTransport:
    return StreamableHttpTransport(
        Origin("http", "upstreams", 80, "/"),
        None,
        headers=[(KEY, host_key())],
        limits=limits or TransportLimits(),
        unix=socket_path(folder),
    )


def host_key() -> bytes:
    """Give what workers show the host: a command that can open its socket has not got this, and speaks to no other's."""
    key: bytes = settings.SENTINEL.data_key
    return hashlib.blake2b(key[:64], digest_size=16, person=b"upstream-host").hexdigest().encode()


class HostedTransport:
    """One upstream's transport in the host process."""

    def __init__(self, slug: str, mark: str, folder: Path, limits: TransportLimits) -> None:
        # the host keeps the limits; here only the host itself can be too slow
        slack = replace(limits, connect=max(limits.connect, 5.0), first_byte=0, idle=0, keep_alive=60.0)
        self._pool = pool(folder, slack)
        self._target = b"/send/" + slug.encode()
        self._mark = mark.encode()

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send through the host; its errors are raised here as they were there."""
        headers = [*request.headers, (MARK, self._mark), (CALLER, request.caller.encode("latin-1"))]
        if request.first_byte_timeout is not None:
            headers.append((FIRST_BYTE, b"%g" % request.first_byte_timeout))
        if request.idle_timeout is not None:
            headers.append((IDLE, b"%g" % request.idle_timeout))
        if request.aside:
            headers.append((ASIDE, b"1"))
        response = await self._pool.send(UpstreamRequest(request.verb, headers, request.body), self._target)
        if not response.header(ANSWER):  # the host's server spoke for itself: it is being stopped
            response.abort()
            raise Broken("The gateway's process for this upstream was stopped.", detail=f"status {response.status}")
        if response.header(ERROR):
            raise error_from(response.header(ERROR), await response.body(1 << 20))
        return HostedStream(response) if response.streaming else response

    async def close(self, grace: float = 0.0) -> None:
        """Close the connections to the host; what lives there is the host's."""
        await self._pool.close(grace)


class HostedStream(UpstreamResponse):
    """A stream out of the host, which ends as it ended there: the host tells why in a last comment.

    No upstream can write one: what it says is put into `data:` lines, or judged before it gets here.
    """

    __slots__ = ("_exchange", "_fresh_line", "_kept")

    def __init__(self, exchange: UpstreamResponse) -> None:
        super().__init__(exchange.status, exchange.headers)
        self._exchange = exchange
        self._fresh_line = True
        self._kept = b""

    @property
    def waiting(self) -> int:
        """Give how many bytes have come and were not read yet."""
        return self._exchange.waiting

    async def read(self) -> bytes:
        """Give the next piece; raises what ended the stream in the host."""
        while not self._kept.endswith(b"\n\n"):
            piece = await self._exchange.read()
            if not piece:
                return b""
            data = self._kept + piece
            at = 0 if self._fresh_line and data.startswith(b":") else data.find(b"\n:") + 1 or len(data)
            before, self._kept = data[:at], data[at:]
            self._fresh_line = bool(self._kept) or before.endswith(b"\n")
            if before:
                return before
        kind, _, told = self._kept[1:].strip().partition(b" ")
        raise error_from(kind, told)

    def abort(self) -> None:
        self._exchange.abort()


def written(error: UpstreamError) -> bytes:
    """Write down an error of the host's for the worker, on one line."""
    names = ("message", "detail", "said", "executed", "retry_after")
    return orjson.dumps({name: getattr(error, name) for name in names})


def ending(error: UpstreamError) -> bytes:
    """Write the comment that ends a stream which broke off."""
    return b":%b %b\n\n" % (type(error).__name__.encode(), written(error))


def error_from(kind: bytes, told: bytes) -> UpstreamError:
    """Make an error of the host's here what it was there."""
    value = orjson.loads(told)
    error = _ERRORS.get(kind.decode("latin-1"), Unreachable)(value["message"], detail=value["detail"])
    error.said = value["said"]
    error.executed = value["executed"]
    error.retry_after = value["retry_after"]
    return error
