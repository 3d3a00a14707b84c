"""The upstreams as the gateway's workers know them: immutable specs read from the database, one transport for each.

`load` rides on the thread that keeps the policy snapshot, so a change made anywhere reaches every worker within a
second; the registry then replaces the transports whose way to the upstream has changed and closes the old ones once
their running calls have ended. An upstream that cannot be used as configured (a variable that is not set, a certificate
that cannot be read) is known all the same: its calls fail with that cause.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from types import MappingProxyType
from typing import Any, Protocol

import orjson
import psycopg
from django.conf import settings
from psycopg.rows import dict_row

from proxy import vault
from proxy.definitions import Definition, canonical, digest
from proxy.egress import BadUrl, Egress, parse_url
from proxy.transports.base import Transport, Unreachable, UpstreamRequest, UpstreamResponse
from proxy.transports.child import Command
from proxy.transports.guard import Guard
from proxy.transports.http_sse import HttpSseTransport
from proxy.transports.stdio import StdioTransport
from proxy.transports.streamable_http import Limits, StreamableHttpTransport
from proxy.transports.tls import BadCertificate, client_context

log = logging.getLogger("sentinel.proxy")

Network = IPv4Network | IPv6Network
#: how long running calls of a replaced transport may go on
REPLACE_GRACE = 300.0
_NONE: Mapping[tuple[str, str], Definition] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Way:
    """All that decides how an upstream is reached: when it changes, a new transport takes over."""

    transport: str
    url: str = ""
    argv: tuple[str, ...] = ()
    directory: str = ""
    process_mode: str = "shared"
    memory_bytes: int = 0
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    headers: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)
    ca_pem: str = field(default="", repr=False)
    client_cert_pem: str = field(default="", repr=False)
    client_key_pem: str = field(default="", repr=False)
    networks: tuple[Network, ...] = ()
    connect_timeout: float | None = None
    first_byte_timeout: float | None = None
    idle_timeout: float | None = None
    max_concurrent: int = 512
    max_answer_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class UpstreamSpec:
    """One upstream."""

    slug: str
    way: Way
    id: int = 0
    name: str = ""
    enabled: bool = True
    refusals: str = ""
    audit_level: str = ""
    catalogue_policy: str = "allow"
    #: legacy, modern, dual, or "" when it is not known
    era: str = ""
    era_checked_at: float = 0.0
    #: why it cannot be used as configured, "" when it can
    problem: str = ""
    #: whether its lists were ever read
    catalogued: bool = False
    definitions: Mapping[tuple[str, str], Definition] = field(default_factory=lambda: _NONE, repr=False)

    @property
    def transport(self) -> str:
        """Give the kind of transport: streamable-http, sse or stdio."""
        return self.way.transport

    @property
    def url(self) -> str:
        """Give the URL, "" for a command."""
        return self.way.url

    def definition(self, kind: str, name: str) -> Definition | None:
        """Find what is known of a tool, prompt or resource; one that was never listed is unknown.

        Where definitions need approval, a tool or prompt that was never listed is as good as not approved.
        """
        known = self.definitions.get((kind, name))
        if known is None and kind == "resource":
            known = self.definitions.get(("template", name))
        if known is None and self.catalogue_policy == "quarantine" and kind in ("tool", "prompt"):
            return Definition(kind, name, "", "", "quarantined")
        return known

    def blocked(self, kind: str, name: str, item: Any = None) -> bool:
        """Tell whether a definition may not be used; a listed item is judged by what it says now."""
        known = self.definition(kind, name)
        if known is not None and known.blocked:
            return True
        if item is None or self.catalogue_policy != "quarantine":
            return False
        return known is not None and hash_of(item) != known.pinned_hash

    def differs(self, kind: str, name: str, item: Any) -> bool:
        """Tell whether a listed item is not what the catalogue has: time to read it again."""
        known = self.definition(kind, name)
        return known is None or hash_of(item) != known.hash


def hash_of(item: Any) -> str:
    """Hash a definition; "" for one that cannot be written in canonical form."""
    try:
        return digest(canonical(item))
    except (ValueError, RecursionError):
        return ""


_UPSTREAMS = """
SELECT u.id, u.slug, u.name, u.transport, u.url, u.command, u.working_directory, u.environment, u.process_mode,
       u.memory_limit_mb, u.headers, u.ca_pem, u.client_cert_pem, u.client_key, u.networks, u.connect_timeout,
       u.first_byte_timeout, u.idle_timeout, u.max_concurrent, u.max_answer_bytes, u.refusals, u.audit_level,
       u.catalogue_policy, u.enabled, coalesce(s.era, '') AS era, extract(epoch FROM s.era_checked_at) AS era_checked_at,
       s.catalogue_at IS NOT NULL AS catalogued
FROM proxy_upstream u LEFT JOIN proxy_upstreamstatus s ON s.upstream_id = u.id
"""
_ITEMS = """
SELECT upstream_id, kind, name, hash, pinned_hash, status, CASE WHEN kind = 'tool' THEN definition ELSE '' END AS definition
FROM proxy_catalogueitem
"""


def load(connection: psycopg.Connection[Any], data_key: bytes = b"") -> dict[str, UpstreamSpec]:
    """Read all upstreams and what is known of their definitions."""
    key = data_key or settings.SENTINEL.data_key
    definitions: dict[int, dict[tuple[str, str], Definition]] = {}
    with connection.cursor(row_factory=dict_row) as cursor:
        for row in cursor.execute(_ITEMS):
            item = Definition(
                row["kind"],
                row["name"],
                row["hash"],
                row["pinned_hash"],
                row["status"],
                _annotations(row["definition"]),
            )
            definitions.setdefault(row["upstream_id"], {})[item.kind, item.name] = item
        return {row["slug"]: spec_of(row, key, definitions.get(row["id"], {})) for row in cursor.execute(_UPSTREAMS)}


def spec_of(
    row: Mapping[str, Any], data_key: bytes, definitions: Mapping[tuple[str, str], Definition] = _NONE
) -> UpstreamSpec:
    """Make a spec of a stored row; what cannot be resolved becomes its problem."""
    problem = ""
    headers: list[tuple[bytes, bytes]] = []
    environment: list[tuple[str, str]] = []
    client_key = ""
    argv: tuple[str, ...] = ()
    try:
        for name, stored in _json(row["headers"]).items():
            value = vault.reveal(data_key, f"header:{name.lower()}", stored)
            headers.append((name.lower().encode(), value.encode("latin-1")))
        for name, stored in _json(row["environment"]).items():
            environment.append((name, vault.reveal(data_key, f"environment:{name}", stored)))
        if row["client_key"]:
            client_key = vault.reveal(data_key, "client-key", row["client_key"])
        argv = tuple(shlex.split(row["command"]))
    except (vault.VaultError, ValueError) as error:
        problem = str(error)
    way = Way(
        transport=row["transport"],
        url=row["url"],
        argv=argv,
        directory=row["working_directory"],
        process_mode=row["process_mode"],
        memory_bytes=(row["memory_limit_mb"] or 0) << 20,
        environment=tuple(environment),
        headers=tuple(headers),
        ca_pem=row["ca_pem"],
        client_cert_pem=row["client_cert_pem"],
        client_key_pem=client_key,
        networks=tuple(ip_network(network) for network in _json(row["networks"])),
        connect_timeout=row["connect_timeout"],
        first_byte_timeout=row["first_byte_timeout"],
        idle_timeout=row["idle_timeout"],
        max_concurrent=row["max_concurrent"],
        max_answer_bytes=row["max_answer_bytes"],
    )
    return UpstreamSpec(
        slug=row["slug"],
        way=way,
        id=row["id"],
        name=row["name"] or row["slug"],
        enabled=row["enabled"],
        refusals=row["refusals"],
        audit_level=row["audit_level"],
        catalogue_policy=row["catalogue_policy"],
        era=row["era"],
        era_checked_at=float(row["era_checked_at"] or 0.0),
        problem=problem,
        catalogued=bool(row["catalogued"]),
        definitions=MappingProxyType(dict(definitions)),
    )


def _json(value: Any) -> Any:
    # some connections (Django's) hand JSON out as text
    return orjson.loads(value) if isinstance(value, str) else value


def _annotations(definition: str) -> dict[str, Any]:
    try:
        found = orjson.loads(definition).get("annotations") if definition else None
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


class Unusable:
    """Stands where a transport cannot be made: every call fails with the cause."""

    def __init__(self, cause: str) -> None:
        self._cause = cause

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Fail."""
        raise Unreachable("The upstream is not configured right.", detail=self._cause)

    async def close(self, grace: float = 0.0) -> None:
        """Do nothing."""


def build_transport(spec: UpstreamSpec, config: Any = None) -> Transport:
    """Make the transport of a spec, without its guard."""
    config = config or settings.SENTINEL
    way = spec.way
    if spec.problem:
        return Unusable(spec.problem)
    limits = Limits(
        connect=way.connect_timeout or config.connect_timeout,
        first_byte=way.first_byte_timeout or config.first_byte_timeout,
        idle=way.idle_timeout or config.idle_timeout,
        answer_seconds=way.idle_timeout or config.idle_timeout,
        answer_bytes=way.max_answer_bytes or config.max_answer_bytes,
    )
    if way.transport == "stdio":
        command = Command(way.argv, dict(way.environment), way.directory, way.memory_bytes)
        return StdioTransport(command, mode=way.process_mode, limits=limits)
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
        return Unusable(str(error))
    return HttpSseTransport(pool) if way.transport == "sse" else pool


class Source(Protocol):
    """What holds the loaded specs: the policy snapshot's holder."""

    extras: dict[str, Any]


class UpstreamRegistry:
    """One worker's upstreams and their transports."""

    def __init__(self, source: Source, config: Any = None) -> None:
        self._source = source
        self._config = config
        self._seen: Mapping[str, UpstreamSpec] = {}
        self._transports: dict[str, tuple[Way, Guard]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        #: called with a slug when a list shows that its catalogue is out of date
        self.on_difference: Callable[[str], None] | None = None

    def specs(self) -> Mapping[str, UpstreamSpec]:
        """Give all upstreams, disabled ones included."""
        specs: Mapping[str, UpstreamSpec] = self._source.extras.get("upstreams") or {}
        return specs

    def spec(self, slug: str) -> UpstreamSpec | None:
        """Find an enabled upstream."""
        specs = self.specs()
        if specs is not self._seen:
            self._changed(specs)
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
        guard = Guard(build_transport(spec, self._config), max_concurrent=spec.way.max_concurrent)
        self._transports[slug] = (spec.way, guard)
        return guard

    def sse(self, slug: str) -> HttpSseTransport | None:
        """Give the HTTP+SSE transport of an upstream that speaks it, to be passed through; None otherwise."""
        inner = self.transport(slug).inner
        return inner if isinstance(inner, HttpSseTransport) else None

    def blocked(self, slug: str, kind: str, name: str, item: Any = None) -> bool:
        """Tell whether a definition may not be used, and note when a listed one is not what the catalogue has."""
        spec = self.spec(slug)
        if spec is None:
            return False
        if item is not None and self.on_difference is not None and spec.catalogued and spec.differs(kind, name, item):
            self.on_difference(slug)
        return spec.blocked(kind, name, item)

    def stderr(self, slug: str) -> list[str]:
        """Give what a stdio upstream last wrote to its standard error, as this worker saw it."""
        kept = self._transports.get(slug)
        inner = kept[1].inner if kept is not None else None
        return inner.stderr() if isinstance(inner, StdioTransport) else []

    async def close(self, grace: float = 0.0) -> None:
        """Close every transport."""
        guards = [guard for _, guard in self._transports.values()]
        self._transports.clear()
        for task in list(self._closing):
            task.cancel()
        await asyncio.gather(*(guard.close(grace) for guard in guards), *self._closing, return_exceptions=True)

    def _changed(self, specs: Mapping[str, UpstreamSpec]) -> None:
        self._seen = specs
        for slug, (way, guard) in list(self._transports.items()):
            spec = specs.get(slug)
            if spec is not None and spec.enabled and spec.way == way:
                continue
            del self._transports[slug]
            log.info("upstream changed: its connections are replaced", extra={"upstream": slug})
            task = asyncio.get_running_loop().create_task(guard.close(REPLACE_GRACE))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
