"""Which eras an upstream speaks: asked with `server/discover`, judged as the specification's table says, never guessed.

A verdict holds for a while only: a stale modern one fails loudly, a stale legacy one would succeed silently for ever. No
verdict comes from 401, 403, 5xx, a time-out or a failed connection: those say nothing about the era.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from proxy.upstreams.client import MODERN, TIMEOUT, Client, RpcError
from proxy.upstreams.transports.base import Broken, TimedOut, Transport, UpstreamError

LEGACY_VERDICT_SECONDS = 24 * 3600.0
MODERN_VERDICT_SECONDS = 7 * 24 * 3600.0
_MODERN_CODES = frozenset((-32020, -32021, -32022))
_FIRST_MODERN = "2026"


@dataclass(frozen=True, slots=True)
class EraVerdict:
    """What a probe found; `era` is "" when it found nothing that can be relied on."""

    era: str
    cause: str = ""
    versions: tuple[str, ...] = ()
    server_info: dict[str, Any] = field(default_factory=dict)
    client: Client | None = None


def expired(era: str, age: float) -> bool:
    """Tell whether a verdict of this age no longer counts."""
    return not era or age > (LEGACY_VERDICT_SECONDS if era == "legacy" else MODERN_VERDICT_SECONDS)


def judge(error: RpcError) -> str:
    """Say what a refused `server/discover` means: "modern", "legacy", or "" for nothing."""
    if error.status in (401, 403, 408, 421, 429) or error.status >= 500:
        return ""
    if error.code in _MODERN_CODES:
        return "modern"
    return "legacy"


async def probe(transport: Transport, *, kind: str = "streamable-http", patience: float = TIMEOUT) -> EraVerdict:
    """Find an upstream's eras; the verdict's client is ready to ask in the newest one. Raises UpstreamError.

    `patience` is how long the first answer may take, in seconds.
    """
    first = ""
    said = ""
    client = Client(transport, patience=patience)
    if kind != "sse":  # that transport is older than the modern era
        try:
            await client.discover()
            first = "modern" if any(version >= _FIRST_MODERN for version in client.versions) else "legacy"
        except RpcError as error:
            said = str(error)
            first = judge(error)
            if not first:
                return EraVerdict("", f"server/discover: {said}")
            if first == "modern":
                data = error.data if isinstance(error.data, dict) else {}
                supported = data.get("supported")
                versions = tuple(str(item) for item in supported) if isinstance(supported, list) else ()
                if MODERN not in versions:
                    return EraVerdict("modern", f"it speaks none of our versions: {said}", versions)
        except (TimedOut, Broken) as error:
            if kind != "stdio":
                raise
            # Older commands say nothing to what they do not know, or end: they are asked again as what they are.
            said = error.message
    legacy = Client(transport)
    try:
        await legacy.initialize()
    except RpcError as error:
        if first == "modern":
            return EraVerdict("modern", "", tuple(client.versions), client.server_info, client)
        if error.status in (401, 403) or error.status >= 500:
            return EraVerdict("", f"initialize: {error}")
        return EraVerdict(
            "",
            f"neither server/discover ({said or 'not asked'}) nor initialize ({error}) was understood: is the path right?",
        )
    except UpstreamError:
        if first == "modern":
            return EraVerdict("modern", "", tuple(client.versions), client.server_info, client)
        raise
    if first == "modern":
        await legacy.end()
        return EraVerdict(
            "dual", "", (*client.versions, *legacy.versions), client.server_info or legacy.server_info, client
        )
    return EraVerdict("legacy", "", tuple(legacy.versions), legacy.server_info, legacy)
