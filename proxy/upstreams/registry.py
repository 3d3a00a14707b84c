"""One worker's transports to its upstreams: made when first used, replaced when the way to an upstream changes.

The old transport takes no new calls and closes once its running ones have ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine, Mapping
from math import inf
from pathlib import Path
from typing import Any, Protocol

from django.conf import settings

from core.conf.settings import Config
from core.ledger import Ledger
from proxy.upstreams.egress import BadUrl, Egress, parse_url
from proxy.upstreams.specs import UpstreamSpec, Way, load, spec_of
from proxy.upstreams.transports.base import (
    PATIENCE,
    Transport,
    TransportLimits,
    Unreachable,
    UpstreamError,
    UpstreamRequest,
    UpstreamResponse,
)
from proxy.upstreams.transports.guard import Guard
from proxy.upstreams.transports.hosted import HostedTransport, pool
from proxy.upstreams.transports.http.http_sse import HttpSseTransport
from proxy.upstreams.transports.http.streamable_http import StreamableHttpTransport
from proxy.upstreams.transports.http.tls import BadCertificate, client_context
from proxy.upstreams.transports.stdio.child import CommandLine
from proxy.upstreams.transports.stdio.transport import StdioTransport

__all__ = ["UpstreamRegistry", "UpstreamSpec", "Way", "build_transport", "host_folder", "ledger_of", "load", "spec_of"]

log = logging.getLogger("sentinel.proxy")

#: how long running calls of a replaced transport may go on
REPLACE_GRACE = 300.0
#: set in the environment of workers beside which a host process runs
HOST_VARIABLE = "SENTINEL_UPSTREAM_HOST"
#: a difference in an upstream's lists is told to the host at most this often
TELL_SECONDS = 10.0


class UnusableUpstream:
    """Stands where a transport cannot be made: every call fails with the cause."""

    def __init__(self, cause: str) -> None:
        self._cause = cause

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        raise Unreachable("The upstream is not configured right.", detail=self._cause)

    async def close(self, grace: float = 0.0) -> None:
        """Do nothing."""


def host_folder(config: Config) -> Path:
    """Give the folder of the socket on which the host process serves transports that all workers share."""
    return config.var / "run"


def limits_of(way: Way, config: Config) -> TransportLimits:
    """Give the limits of a way: its own, or the installation's."""
    return TransportLimits(
        connect=way.connect_timeout or config.connect_timeout,
        first_byte=way.first_byte_timeout
        or way.idle_timeout
        or config.first_byte_timeout
        or max(config.idle_timeout, PATIENCE),
        idle=way.idle_timeout or config.idle_timeout,
        answer_bytes=way.max_answer_bytes or config.max_answer_bytes,
    )


def ledger_of(config: Config) -> Ledger:
    """Give what counts the bytes that wait in one process, as configured."""
    return Ledger(config.buffer_bytes, max(config.buffer_bytes_per_key, config.max_answer_bytes))


def build_transport(
    spec: UpstreamSpec, config: Config | None = None, *, hosted: bool = False, ledger: Ledger | None = None
) -> Transport:
    """Make the transport of a spec, without its guard; `hosted` has what is shared live in the host process."""
    config = config or settings.SENTINEL
    way = spec.way
    if spec.problem:
        return UnusableUpstream(spec.problem)
    limits = limits_of(way, config)
    if hosted and way.transport in ("stdio", "sse"):
        return HostedTransport(spec.slug, spec.mark, host_folder(config), limits)
    if way.transport == "stdio":
        command = CommandLine(way.argv, dict(way.environment), way.directory, way.memory_bytes, state=str(config.var))
        return StdioTransport(command, mode=way.process_mode, limits=limits, ledger=ledger)
    try:
        origin = parse_url(way.url)
        context = client_context(way.ca_pem, way.client_cert_pem, way.client_key_pem) if origin.secure else None
        pool = StreamableHttpTransport(
            origin,
            Egress(config.upstream_networks, only=way.networks),
            headers=list(way.headers),
            context=context,
            limits=limits,
        )
    except (BadUrl, BadCertificate, ValueError) as error:
        return UnusableUpstream(str(error))
    return HttpSseTransport(pool, ledger=ledger) if way.transport == "sse" else pool


class Source(Protocol):
    """What holds the loaded specs: the policy snapshot's holder."""

    extras: dict[str, Any]


class UpstreamRegistry:
    """One worker's upstreams and their transports."""

    def __init__(
        self, source: Source, config: Config | None = None, *, hosted: bool | None = None, ledger: Ledger | None = None
    ) -> None:
        self._source = source
        self._config: Config = config or settings.SENTINEL
        #: whether a host process runs beside the workers (`serve` says so in their environment)
        self._hosted = HOST_VARIABLE in os.environ if hosted is None else hosted
        #: bytes that wait in this process, by the key on whose behalf
        self.ledger = ledger or Ledger(256 * 1024 * 1024)
        self._seen: Mapping[str, UpstreamSpec] = {}
        self._transports: dict[str, tuple[Way, Guard]] = {}
        self._leaving: set[Transport] = set()
        self._background: set[asyncio.Task[None]] = set()
        self._told: dict[str, float] = {}

    def specs(self) -> Mapping[str, UpstreamSpec]:
        """Give all upstreams, disabled ones included."""
        specs: Mapping[str, UpstreamSpec] = self._source.extras.get("upstreams") or {}
        return specs

    def spec(self, slug: str) -> UpstreamSpec | None:
        specs = self.specs()
        if specs is not self._seen:
            self.reconcile()
        spec = specs.get(slug)
        return spec if spec is not None and spec.enabled else None

    def transport(self, slug: str) -> Guard:
        """Give an upstream's guarded transport; raises Unreachable when there is no such upstream any more."""
        spec = self.spec(slug)
        if spec is None:
            raise Unreachable("The upstream was removed or disabled.")
        kept = self._transports.get(slug)
        if kept is not None:
            return kept[1]
        inner = build_transport(spec, self._config, hosted=self._hosted, ledger=self.ledger)
        guard = Guard(inner, max_concurrent=spec.way.max_concurrent)
        self._transports[slug] = (spec.way, guard)
        return guard

    def guards(self) -> dict[str, Guard]:
        """Give the guards of the upstreams that this worker has used."""
        return {slug: guard for slug, (_, guard) in self._transports.items()}

    def lists_changed(self, slug: str) -> None:
        """Have the catalogue of an upstream read again, which says itself that what it offers has changed."""
        spec = self.spec(slug)
        if spec is not None and self.watched(spec):
            self._differs(slug)

    def watched(self, spec: UpstreamSpec) -> bool:
        """Tell whether a difference between an upstream's lists and its catalogue matters to anybody."""
        return spec.catalogued or self._config.catalogue_refresh > 0

    def stderr(self, slug: str) -> list[str]:
        """Give what a stdio upstream last wrote to its standard error, as this process saw it."""
        kept = self._transports.get(slug)
        inner = kept[1].inner if kept is not None else None
        return inner.stderr() if isinstance(inner, StdioTransport) else []

    def reconcile(self) -> None:
        """Replace the transports whose upstream is gone, disabled or reached in another way now."""
        specs = self._seen = self.specs()
        for slug, (way, guard) in list(self._transports.items()):
            spec = specs.get(slug)
            if spec is not None and spec.enabled and spec.way == way:
                continue
            log.info("upstream changed: its connections are replaced", extra={"upstream": slug})
            del self._transports[slug]
            self._leave(guard)

    async def close(self, grace: float = 0.0) -> None:
        """Close every transport."""
        for task in list(self._background):
            task.cancel()
        every = [guard for _, guard in self._transports.values()] + list(self._leaving)
        self._transports.clear()
        self._leaving.clear()
        await asyncio.gather(*(each.close(grace) for each in every), *self._background, return_exceptions=True)

    def _leave(self, transport: Transport) -> None:
        async def leave() -> None:
            await transport.close(REPLACE_GRACE)
            self._leaving.discard(transport)

        self._leaving.add(transport)
        self._later(leave())

    def _differs(self, slug: str) -> None:
        now = asyncio.get_running_loop().time()
        if self._hosted and now - self._told.get(slug, -inf) > TELL_SECONDS:
            self._told[slug] = now
            self._later(self._tell_host(slug))

    async def _tell_host(self, slug: str) -> None:
        transport = pool(host_folder(self._config))
        try:
            response = await transport.send(UpstreamRequest(b"POST"), b"/refresh/" + slug.encode())
            response.abort()
        except UpstreamError as error:
            log.warning("a catalogue that has changed cannot be read again now", extra={"cause": error.detail})
        finally:
            await transport.close()

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
