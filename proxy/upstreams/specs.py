"""The upstreams as values: immutable specs read from the database, secrets resolved, definitions known.

`load` rides on the thread that keeps the policy snapshot, so a change made anywhere reaches every worker within a
second. An upstream that cannot be used as configured (a variable that is not set) is known all the same: its `problem`
says why.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from functools import lru_cache
from ipaddress import ip_network
from types import MappingProxyType
from typing import Any

import orjson
import psycopg
from django.conf import settings
from psycopg.rows import dict_row

from core.access.addresses import Network
from policies.engine.folding import fold
from policies.engine.glob import matcher
from proxy.mcp.definitions import Definition, canonical, digest
from proxy.mcp.mirrors import param_headers
from proxy.upstreams import vault

_NONE: Mapping[tuple[str, str], Definition] = MappingProxyType({})
_matcher = lru_cache(1024)(matcher)


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
    #: tools that call or describe another by name, and the argument that names it (policies.engine.dispatchers)
    dispatchers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    #: the longest silence of single tools: by name, then by pattern, the longest first
    tool_timeouts: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    #: legacy, modern, dual, or "" when it is not known
    era: str = ""
    era_checked_at: float = 0.0
    #: the method of the call by which it was last seen to fail, "" while calls are answered; and when that was found
    failing: str = ""
    calls_at: float = 0.0
    #: why it cannot be used as configured, "" when it can
    problem: str = ""
    #: whether its lists were ever read
    catalogued: bool = False
    #: a keyed mark of the way to it, by which two processes see whether they mean the same
    mark: str = field(default="", repr=False)
    definitions: Mapping[tuple[str, str], Definition] = field(default_factory=lambda: _NONE, repr=False)
    #: of an upstream with dispatchers, the names of its tools by what they fold to
    folded: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}), repr=False)

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

    def silence(self, tool: str) -> float | None:
        """Give how long a tool may be silent where it has a bound of its own: that of its name, else of the longest pattern."""
        own = self.tool_timeouts.get(tool)
        if own is not None:
            return own
        return next((seconds for pattern, seconds in self.tool_timeouts.items() if _matcher(pattern)(tool)), None)

    def tools_alike(self, name: str) -> tuple[str, ...]:
        """Give the listed tool of this name, or else those that a reader of a dispatcher's arguments could take it for."""
        return (name,) if ("tool", name) in self.definitions else self.folded.get(fold(name), ())

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
       u.first_byte_timeout, u.idle_timeout, u.tool_timeouts, u.max_concurrent, u.max_answer_bytes, u.refusals, u.audit_level,
       u.catalogue_policy, u.dispatchers, u.enabled, coalesce(s.era, '') AS era, extract(epoch FROM s.era_checked_at) AS era_checked_at,
       s.catalogue_at IS NOT NULL AS catalogued, CASE WHEN s.calls_ok = false THEN s.calls_method END AS failing,
       extract(epoch FROM s.calls_at) AS calls_at
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
            tool = _tool(row["definition"])
            annotations = tool.get("annotations")
            item = Definition(
                row["kind"],
                row["name"],
                row["hash"],
                row["pinned_hash"],
                row["status"],
                annotations if isinstance(annotations, dict) else {},
                param_headers(tool.get("inputSchema")),
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
    reach = vault.reach_of(
        transport=row["transport"], url=row["url"], command=row["command"], directory=row["working_directory"]
    )
    home, variables = vault.Home(row["slug"], reach), vault.Variables(settings.SENTINEL.upstream_env)
    try:
        for name, stored in _json(row["headers"]).items():
            value = vault.reveal(data_key, home, f"header:{name.lower()}", stored, variables)
            headers.append(_header(name, value))
        for name, stored in _json(row["environment"]).items():
            value = vault.reveal(data_key, home, f"environment:{name}", stored, variables)
            if "\0" in value:
                raise ValueError(f"The value of {name} has a NUL in it.")
            environment.append((name, value))
        if row["client_key"]:
            client_key = vault.reveal(data_key, home, "client-key", row["client_key"], variables)
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
        dispatchers=MappingProxyType(_json(row["dispatchers"])),
        tool_timeouts=MappingProxyType(_longest_first(_json(row["tool_timeouts"]))),
        era=row["era"],
        era_checked_at=float(row["era_checked_at"] or 0.0),
        failing=row.get("failing") or "",
        calls_at=float(row.get("calls_at") or 0.0),
        problem=problem,
        catalogued=bool(row["catalogued"]),
        mark=hashlib.blake2b(repr(astuple(way)).encode(), key=data_key[:32], digest_size=16).hexdigest(),
        definitions=MappingProxyType(dict(definitions)),
        folded=MappingProxyType(_folded(definitions) if _json(row["dispatchers"]) else {}),
    )


def _longest_first(timeouts: Mapping[str, float]) -> dict[str, float]:
    return {pattern: timeouts[pattern] for pattern in sorted(timeouts, key=lambda pattern: (-len(pattern), pattern))}


def _folded(definitions: Mapping[tuple[str, str], Definition]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for kind, name in definitions:
        if kind == "tool":
            found[fold(name)] = (*found.get(fold(name), ()), name)
    return found


def _header(name: str, value: str) -> tuple[bytes, bytes]:
    """Write a header; a value that HTTP does not allow is told by the header's name, never by a piece of itself."""
    try:
        raw = value.encode("latin-1")
    except UnicodeEncodeError:
        raw = b"\n"
    if any((byte < 0x20 and byte != 0x09) or byte == 0x7F for byte in raw):
        raise ValueError(f"The header {name} has a value that HTTP does not allow.")
    return name.lower().encode(), raw


def _json(value: Any) -> Any:
    # some connections (Django's) hand JSON out as text
    return orjson.loads(value) if isinstance(value, str) else value


def _tool(definition: str) -> dict[str, Any]:
    try:
        found = orjson.loads(definition) if definition else None
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
