"""Which protocol era a request belongs to, and whether its headers and its body agree.

The modern era (2026-07-28) is stateless: every request carries its version in `params._meta` and mirrors method and name
in headers, so that intermediaries can route. The legacy era (2024-11-05 to 2025-11-25) has `initialize` and sessions. SDKs
tell the eras apart in different ways (by header, by body), so a request that would be modern for one of them and
legacy for another is refused here.

Order of the modern checks, as the conformance suite wants it: required `_meta` keys (-32602), header against body for
version, method and name (-32020), a version that is served (-32022), a method that still exists (404, -32601).
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from proxy.mcp.message import CLIENT_CAPABILITIES, PROTOCOL_VERSION, Message, Readable, Refused
from proxy.mcp.mirrors import SESSION, VERSION, Sent, check_names, mismatch, shown

__all__ = [
    "ASSUMED_VERSION",
    "LEGACY_VERSIONS",
    "MODERN_VERSIONS",
    "SUPPORTED_VERSIONS",
    "Era",
    "classify",
]

MODERN_VERSIONS: Final = ("2026-07-28",)
LEGACY_VERSIONS: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
SUPPORTED_VERSIONS: Final = (*MODERN_VERSIONS, *LEGACY_VERSIONS)
ASSUMED_VERSION: Final = "2025-03-26"  # what a legacy request without a version header speaks

# Requests of the legacy era that the modern one does not have.
_REMOVED = frozenset(
    {
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
        "tasks/list",
        "tasks/result",
    }
)


class Era(NamedTuple):
    """The era of one request and the version it speaks ("" where a GET or DELETE names none)."""

    name: Literal["legacy", "modern"]
    version: str

    @property
    def modern(self) -> bool:
        return self.name == "modern"


def _unsupported(requested: str, known: Readable, versions: tuple[str, ...] = SUPPORTED_VERSIONS) -> Refused:
    data = {"supported": list(versions), "requested": requested[:64]}
    return Refused("unsupported_version", "Unsupported protocol version.", known=known, data=data)


def _not_allowed(allow: bytes) -> Refused:
    return Refused("method_not_allowed", headers=((b"allow", allow),))


def classify(verb: str, sent: Sent, message: Message | None) -> Era:
    """The era of a request, or Refused with the code its revision wants. `message` is None for GET and DELETE.

    Each era has its own headers: those of the other are left over from a client's other life, and neither judged here nor
    passed on.
    """
    known = sent.known
    raw = sent.get(VERSION)
    version = raw.decode("latin-1") if raw is not None else None
    if verb != "POST" or message is None:
        if verb not in ("GET", "DELETE"):
            raise _not_allowed(b"GET, POST, DELETE")
        if version in MODERN_VERSIONS:
            raise _not_allowed(b"POST")
        if version is not None and version not in LEGACY_VERSIONS:
            raise _unsupported(version, known)
        sent.get(SESSION)  # once at most
        return Era("legacy", version or "")
    enveloped = message.params is not None and PROTOCOL_VERSION in message.meta
    if enveloped or (version is not None and version not in LEGACY_VERSIONS):
        return _modern(sent, version, message, enveloped, known)
    sent.get(SESSION)
    if message.method == "initialize":
        asked = (message.params or {}).get("protocolVersion")
        return Era("legacy", asked[:64] if isinstance(asked, str) else version or "")
    return Era("legacy", version or ASSUMED_VERSION)


def _modern(sent: Sent, version: str | None, message: Message, enveloped: bool, known: Readable) -> Era:
    if message.kind == "response":
        raise Refused("invalid_request", "A response cannot be posted in this protocol version.", known=known)
    meta = message.meta
    if not enveloped and version not in MODERN_VERSIONS:
        raise _unsupported(version or "", known)  # nothing but the header says what this is: an old client, misled
    stated = meta.get(PROTOCOL_VERSION)
    if message.kind == "request":
        if missing := [key for key in (PROTOCOL_VERSION, CLIENT_CAPABILITIES) if key not in meta]:
            text = f"params._meta lacks {' and '.join(missing)}."
            raise Refused("invalid_params", text, known=known)
        if not isinstance(stated, str) or not isinstance(meta[CLIENT_CAPABILITIES], dict):
            text = "params._meta has a version that is not a string or capabilities that are not an object."
            raise Refused("invalid_params", text, known=known)
    if version is None:
        raise mismatch("MCP-Protocol-Version is missing, but the body names a version.", known)
    if enveloped and stated != version:
        raise mismatch(f"MCP-Protocol-Version says {shown(version)}, the body says {shown(stated)}.", known)
    check_names(sent, message, known, required=message.kind == "request")
    if version not in MODERN_VERSIONS:
        # What `server/discover` would name: a message with an envelope is of this era, whatever its version.
        raise _unsupported(version, known, MODERN_VERSIONS if enveloped else SUPPORTED_VERSIONS)
    if message.kind == "request" and message.method in _REMOVED:
        text = f"{message.method} does not exist in protocol version {version}; supported: {', '.join(SUPPORTED_VERSIONS)}."
        raise Refused("method_not_found", text, known=known)
    return Era("modern", version)
