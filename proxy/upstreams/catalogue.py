"""Reading an upstream's tools, prompts and resources, and checking it step by step, through its own transport."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from audit.redaction import sanitizer
from proxy.mcp.definitions import LISTS, MAX_DEFINITION_BYTES, MAX_NAME_BYTES, canonical, digest, flags
from proxy.upstreams.client import TIMEOUT, Client, RpcError
from proxy.upstreams.probe import EraVerdict, probe
from proxy.upstreams.transports.base import Transport, UpstreamError
from proxy.upstreams.transports.http.http_sse import HttpSseTransport
from proxy.upstreams.transports.http.streamable_http import StreamableHttpTransport
from proxy.upstreams.transports.stdio.transport import StdioTransport

MAX_PAGES = 200
MAX_WORDS = 500  # bytes kept of what a server says of a request that it refused
MAX_ITEMS = 10_000
LAST_LINES = 10
MAX_SAID = 2000  # bytes of the last words that are shown to who checks
_CAPABILITY = {"tool": "tools", "prompt": "prompts", "resource": "resources", "template": "resources"}
_WORDS = {"tool": "tools", "prompt": "prompts", "resource": "resources", "template": "resource templates"}


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a check: what was tried, whether it went well, how long it took, and what was found or went wrong."""

    name: str
    ok: bool
    ms: float
    detail: str
    #: the upstream's own words, redacted, for who runs the check; never stored
    said: str = ""

    def as_json(self) -> dict[str, Any]:
        return {"step": self.name, "ok": self.ok, "ms": round(self.ms, 1), "detail": self.detail}


@dataclass(frozen=True, slots=True)
class FoundDefinitions:
    """One listed definition in canonical form."""

    kind: str
    name: str
    definition: str
    hash: str
    flags: tuple[str, ...]


@dataclass(slots=True)
class CheckReport:
    """What a check found."""

    steps: list[Step] = field(default_factory=list)
    verdict: EraVerdict = field(default_factory=lambda: EraVerdict(""))
    #: what was listed, of the kinds that could be listed; None when the lists could not be read
    found: list[FoundDefinitions] | None = None
    kinds: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Tell whether every step went well."""
        return bool(self.steps) and all(step.ok for step in self.steps)

    @property
    def cause(self) -> str:
        """Say what went wrong first, "" when nothing did."""
        return next((f"{step.name}: {step.detail}" for step in self.steps if not step.ok), "")


async def examine(transport: Transport, *, kind: str, patience: float = TIMEOUT) -> CheckReport:
    """Check an upstream: connect, discover or initialize, list. Stops at the first step that fails.

    `patience` is how long the first answer of a command may take: it may have to be fetched before it runs.
    """
    report = CheckReport()
    since = time.perf_counter()

    def step(name: str, ok: bool, detail: str, own_words: str = "") -> None:
        nonlocal since
        now = time.perf_counter()
        report.steps.append(Step(name, ok, (now - since) * 1000, detail, lines(own_words)))
        since = now

    if isinstance(transport, StreamableHttpTransport | HttpSseTransport | StdioTransport):
        try:
            await transport.connect()
        except UpstreamError as error:
            step("connect", False, said(error), error.said)
            return report
        step("connect", True, "the command was found" if kind == "stdio" else "connected")
    name = "initialize" if kind == "sse" else "discover or initialize"
    try:
        report.verdict = await probe(transport, kind=kind, patience=patience if kind == "stdio" else TIMEOUT)
    except UpstreamError as error:
        step(name, False, said(error), error.said or last_words(transport))
        return report
    client = report.verdict.client
    if client is None:
        step(name, False, clean(report.verdict.cause))
        return report
    server = client.server_info
    title = f"{server.get('name', 'a server without a name')} {server.get('version', '')}".strip()[:120]
    step(name, True, f"{clean(title)}, {report.verdict.era}, {', '.join(report.verdict.versions)}")
    try:
        report.found, report.kinds = await read_lists(client)
    except (UpstreamError, RpcError) as error:
        step("list", False, said(error))
        return report
    finally:
        await client.end()
    counts = [f"{sum(item.kind == kind for item in report.found)} {_WORDS[kind]}" for kind in report.kinds]
    step("list", True, ", ".join(counts) or "it offers no tools, prompts or resources")
    return report


def last_words(transport: Transport) -> str:
    """Give the last lines that a command wrote to its standard error."""
    return "\n".join(transport.stderr()[-LAST_LINES:]) if isinstance(transport, StdioTransport) else ""


def said(error: UpstreamError | RpcError) -> str:
    """Word a failure for the person who checks: they may know addresses, never credentials."""
    if isinstance(error, RpcError):
        return clean(str(error))
    return f"{error.message} ({error.detail})" if error.detail else error.message


def lines(words: str) -> str:
    """Redact a command's last words as one text, so that what spans lines is found, and keep them as lines."""
    return sanitizer.current().text(words, MAX_SAID).replace("\\u{A}", "\n")


def clean(text: str) -> str:
    """Redact what a server wrote, which may hold what it was sent."""
    return sanitizer.current().text(text, MAX_WORDS)


async def read_lists(client: Client) -> tuple[list[FoundDefinitions], tuple[str, ...]]:
    """Read every list that the server offers, following its pages within bounds."""
    found: list[FoundDefinitions] = []
    kinds: list[str] = []
    for kind, (method, member, naming) in LISTS.items():
        if _CAPABILITY[kind] not in client.capabilities:
            continue
        try:
            items = await _pages(client, method, member)
        except RpcError as error:
            if error.code in (-32601, -32602) or error.status == 404:
                continue  # it offers resources but no templates, for one
            raise
        kinds.append(kind)
        found += _definitions(kind, naming, items)
    return found, tuple(kinds)


async def _pages(client: Client, method: str, member: str) -> list[Any]:
    items: list[Any] = []
    cursor: Any = None
    seen: set[str] = set()
    for _ in range(MAX_PAGES):
        result = await client.ask(method, {"cursor": cursor} if cursor is not None else {})
        page = result.get(member)
        if not isinstance(page, list):
            raise RpcError(200, None, f"{method} gave no list of {member}")
        items += page
        cursor = result.get("nextCursor")
        if not isinstance(cursor, str) or cursor in seen:
            return items
        seen.add(cursor)
        if len(items) > MAX_ITEMS:
            break
    raise RpcError(200, None, f"{method} has no end: over {MAX_ITEMS} items or {MAX_PAGES} pages")


def _definitions(kind: str, naming: str, items: list[Any]) -> list[FoundDefinitions]:
    result: dict[str, FoundDefinitions] = {}
    for item in items:
        name = item.get(naming) if isinstance(item, dict) else None
        if not isinstance(name, str) or not storable(name):
            continue  # not kept: where definitions need approval it is refused like any that is not known
        try:
            text = canonical(item)
        except (ValueError, RecursionError):
            continue
        notes = flags(item)
        hash_ = digest(text)
        if len(text) > MAX_DEFINITION_BYTES:
            notes.append(f"/: a definition of {len(text)} bytes, kept in part")
            text = canonical({naming: name, "_kept_as_hash": hash_, "description": "too large to keep"})
        if name in result:
            notes.append(
                "/: listed twice with different definitions" if result[name].hash != hash_ else "/: listed twice"
            )
        result[name] = FoundDefinitions(kind, name, text, hash_, tuple(notes))
    return list(result.values())


def storable(name: str) -> bool:
    """Tell whether a name can be a catalogue's: not empty, bounded, no NUL and no half of a surrogate pair."""
    try:
        return bool(name) and "\0" not in name and len(name.encode()) <= MAX_NAME_BYTES
    except UnicodeEncodeError:
        return False
