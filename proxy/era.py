"""Which protocol era a request belongs to, and whether its headers and its body agree.

The modern era (2026-07-28) is stateless: every request carries its version in `params._meta` and mirrors method and name
in headers, so that intermediaries can route. The legacy era (2024-11-05 to 2025-11-25) has `initialize` and sessions. SDKs
tell the eras apart in different ways (by header, by body), so a request that would be modern for one of them and
legacy for another is refused here.

Order of the modern checks, as the conformance suite wants it: required `_meta` keys (-32602), header against body for
version, method and name (-32020), a version that is served (-32022), a method that still exists (404, -32601).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any, Final, Literal, NamedTuple

from policies.folding import varied
from proxy.message import CLIENT_CAPABILITIES, PROTOCOL_VERSION, Known, Message, Refused

__all__ = [
    "ASSUMED_VERSION",
    "LEGACY_VERSIONS",
    "MODERN_VERSIONS",
    "SUPPORTED_VERSIONS",
    "Era",
    "ParamHeader",
    "check_param_headers",
    "classify",
    "decode_header",
    "encode_header",
    "param_headers",
]

Headers = Sequence[tuple[bytes, bytes]]

MODERN_VERSIONS: Final = ("2026-07-28",)
LEGACY_VERSIONS: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
SUPPORTED_VERSIONS: Final = (*MODERN_VERSIONS, *LEGACY_VERSIONS)
ASSUMED_VERSION: Final = "2025-03-26"  # what a legacy request without a version header speaks

INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
HEADER_MISMATCH: Final = -32020
UNSUPPORTED_VERSION: Final = -32022

MAX_HEADER: Final = 8192  # bytes of one mirrored value, looked at before it is decoded

_VERSION, _METHOD, _NAME, _SESSION = b"mcp-protocol-version", b"mcp-method", b"mcp-name", b"mcp-session-id"
_ROUTING = frozenset({_VERSION, _METHOD, _NAME, _SESSION})
_PARAM: Final = b"mcp-param-"
_MCP = frozenset(bytes(letters) + b"-" for letters in product(b"mM", b"cC", b"pP"))

# Where a method's name stands in its params; Mcp-Name mirrors it.
_NAMED = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}

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
        """Whether this is the stateless protocol."""
        return self.name == "modern"


def decode_header(value: bytes) -> str | None:
    """A mirrored value as text: the base64 sentinel undone, anything else literally; None when it cannot be."""
    value = value.strip(b" \t")
    if len(value) > MAX_HEADER:
        return None
    if value.startswith(b"=?base64?") and value.endswith(b"?=") and len(value) >= 11:
        payload = value[9:-2]
        try:
            raw = base64.b64decode(payload, validate=True)
            # One spelling for each value: stray bits or odd padding would be read by some and refused by others.
            return raw.decode() if base64.b64encode(raw) == payload else None
        except (binascii.Error, UnicodeDecodeError):
            return None
    try:
        return value.decode("ascii")
    except UnicodeDecodeError:
        return None


def encode_header(value: str) -> bytes:
    """A value as a header can carry it: as it is, or in the base64 sentinel."""
    plain = re.fullmatch(r"[!-~]([ -~]*[!-~])?", value) is not None
    if plain and not (value.startswith("=?base64?") and value.endswith("?=")):
        return value.encode()
    return b"=?base64?" + base64.b64encode(value.encode("utf-8", "surrogatepass")) + b"?="


def _shown(value: object) -> str:
    """A value in an error's text: ASCII, and short."""
    return ascii(value if isinstance(value, str) else type(value).__name__)[:80]


def _mismatch(message: str, known: Known) -> Refused:
    return Refused(400, HEADER_MISMATCH, "header_mismatch", message, known=known)


def _unsupported(requested: str, known: Known, versions: tuple[str, ...] = SUPPORTED_VERSIONS) -> Refused:
    data = {"supported": list(versions), "requested": requested[:64]}
    return Refused(
        400, UNSUPPORTED_VERSION, "unsupported_version", "Unsupported protocol version.", known=known, data=data
    )


def _not_allowed(allow: bytes) -> Refused:
    return Refused(405, 405, "method_not_allowed", "This verb is not allowed here.", headers=((b"allow", allow),))


def _routing(headers: Iterable[tuple[bytes, bytes]], known: Known) -> dict[bytes, bytes]:
    """The routing headers, once each: first-copy and last-copy readers would disagree about a second one."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name[:4] in _MCP:
            key = name.lower()
            if key in _ROUTING or key.startswith(_PARAM):
                if key in found:
                    shown = key.decode("latin-1")[:64]
                    if key == _SESSION:
                        raise Refused(400, INVALID_REQUEST, "header_mismatch", f"{shown} was sent twice.", known=known)
                    raise _mismatch(f"{shown} was sent twice.", known)
                found[key] = value.strip(b" \t")
    return found


def classify(verb: str, headers: Headers, message: Message | None) -> Era:
    """The era of a request, or Refused with the code its revision wants. `message` is None for GET and DELETE."""
    known = message.known if message is not None else Known()
    sent = _routing(headers, known)
    raw = sent.get(_VERSION)
    version = raw.decode("latin-1") if raw is not None else None
    if verb != "POST" or message is None:
        if verb not in ("GET", "DELETE"):
            raise _not_allowed(b"GET, POST, DELETE")
        if version in MODERN_VERSIONS:
            raise _not_allowed(b"POST")
        if version is not None and version not in LEGACY_VERSIONS:
            raise _unsupported(version, known)
        return Era("legacy", version or "")
    enveloped = message.params is not None and PROTOCOL_VERSION in message.meta
    if enveloped or (version is not None and version not in LEGACY_VERSIONS):
        return _modern(sent, version, message, enveloped, known)
    _mirrors(sent, message, known, required=False)
    if message.method == "initialize":
        asked = (message.params or {}).get("protocolVersion")
        return Era("legacy", asked[:64] if isinstance(asked, str) else version or "")
    return Era("legacy", version or ASSUMED_VERSION)


def _modern(sent: dict[bytes, bytes], version: str | None, message: Message, enveloped: bool, known: Known) -> Era:
    if message.kind == "response":
        raise Refused(
            400,
            INVALID_REQUEST,
            "invalid_request",
            "A response cannot be posted in this protocol version.",
            known=known,
        )
    meta = message.meta
    if not enveloped and version not in MODERN_VERSIONS:
        raise _unsupported(version or "", known)  # nothing but the header says what this is: an old client, misled
    stated = meta.get(PROTOCOL_VERSION)
    if message.kind == "request":
        if missing := [key for key in (PROTOCOL_VERSION, CLIENT_CAPABILITIES) if key not in meta]:
            text = f"params._meta lacks {' and '.join(missing)}."
            raise Refused(400, INVALID_PARAMS, "invalid_params", text, known=known)
        if not isinstance(stated, str) or not isinstance(meta[CLIENT_CAPABILITIES], dict):
            text = "params._meta has a version that is not a string or capabilities that are not an object."
            raise Refused(400, INVALID_PARAMS, "invalid_params", text, known=known)
    if version is None:
        raise _mismatch("MCP-Protocol-Version is missing, but the body names a version.", known)
    if enveloped and stated != version:
        raise _mismatch(f"MCP-Protocol-Version says {_shown(version)}, the body says {_shown(stated)}.", known)
    _mirrors(sent, message, known, required=message.kind == "request")
    if version not in MODERN_VERSIONS:
        # What `server/discover` would name: a message with an envelope is of this era, whatever its version.
        raise _unsupported(version, known, MODERN_VERSIONS if enveloped else SUPPORTED_VERSIONS)
    if message.kind == "request" and message.method in _REMOVED:
        text = f"{message.method} does not exist in protocol version {version}; supported: {', '.join(SUPPORTED_VERSIONS)}."
        raise Refused(404, METHOD_NOT_FOUND, "method_not_found", text, known=known)
    return Era("modern", version)


def _mirrors(sent: dict[bytes, bytes], message: Message, known: Known, *, required: bool) -> None:
    """Mcp-Method and Mcp-Name against the body; a legacy request need not have them, but may not lie in them."""
    header = sent.get(_METHOD)
    if header is None:
        if required:
            raise _mismatch("Mcp-Method is missing.", known)
    elif header.decode("latin-1") != message.method:
        raise _mismatch(
            f"Mcp-Method says {_shown(header.decode('latin-1'))}, the body {_shown(message.method)}.", known
        )
    member = _NAMED.get(message.method)
    if member is None:
        return
    header = sent.get(_NAME)
    name = (message.params or {}).get(member)
    if header is None:
        if required and name is not None:
            raise _mismatch(f"Mcp-Name is missing; it mirrors {member}.", known)
        return
    if (said := decode_header(header)) is None:
        raise _mismatch("Mcp-Name cannot be decoded.", known)
    if said != name:
        raise _mismatch(f"Mcp-Name says {_shown(said)}, the body {_shown(name)}.", known)


# --- Mcp-Param-*: arguments mirrored in headers, as the tool's input schema asks ---------------------------------------


class ParamHeader(NamedTuple):
    """One argument that is mirrored: where it stands in the arguments, its header, and its type."""

    path: tuple[str, ...]
    header: bytes  # in lower case, prefix included
    type: str


_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_DATA = frozenset({"default", "examples", "const", "enum"})  # values, not schemas: what looks like one there is none


def param_headers(schema: object) -> tuple[ParamHeader, ...]:
    """The mirrored arguments of an input schema; none when any annotation is invalid, for then clients drop the tool.

    Valid is an annotation that names a header token, once, on a string, integer or boolean that is reached through
    `properties` alone.
    """
    found: dict[bytes, ParamHeader] = {}
    pending: list[tuple[tuple[str, ...] | None, object]] = [((), schema)]
    while pending:
        path, node = pending.pop()
        if isinstance(node, list):
            pending.extend((None, item) for item in node)
        if not isinstance(node, dict):
            continue
        if "x-mcp-header" in node:
            token, kind = node["x-mcp-header"], node.get("type")
            if not path or not isinstance(token, str) or _TOKEN.fullmatch(token) is None:
                return ()
            header = _PARAM + token.lower().encode()
            if kind not in ("string", "integer", "boolean") or header in found:
                return ()
            found[header] = ParamHeader(path, header, kind)
        for keyword, value in node.items():
            if keyword == "properties" and isinstance(value, dict):
                pending.extend(((*path, name) if path is not None else None, sub) for name, sub in value.items())
            elif keyword in ("patternProperties", "dependentSchemas", "$defs", "definitions") and isinstance(
                value, dict
            ):
                pending.extend((None, sub) for sub in value.values())
            elif keyword not in _DATA and isinstance(value, dict | list):
                pending.append((None, value))
    return tuple(found.values())


def check_param_headers(headers: Headers, message: Message, expected: Sequence[ParamHeader]) -> None:
    """Refuse a call whose `Mcp-Param-*` headers and arguments disagree; headers no argument asks for are ignored."""
    if not expected:
        return
    known = message.known
    sent = _routing(headers, known)
    for param in expected:
        name = param.header.decode()
        value: Any = message.params.get("arguments") if message.params is not None else None
        for step in param.path:
            if isinstance(value, dict) and varied(value, step):
                raise _mismatch(f"Another argument could be read as the one that {name} mirrors.", known)
            value = value.get(step) if isinstance(value, dict) else None
        raw = sent.get(param.header)
        if value is None or isinstance(value, dict | list):
            if raw is not None:
                raise _mismatch(f"{name} was sent, but the argument it mirrors was not.", known)
        elif raw is None:
            raise _mismatch(f"{name} is missing; it mirrors an argument.", known)
        elif (said := decode_header(raw)) is None:
            raise _mismatch(f"{name} cannot be decoded.", known)
        elif not _agrees(param.type, value, said):
            raise _mismatch(f"{name} and the argument it mirrors differ.", known)


def _agrees(kind: str, value: Any, said: str) -> bool:
    if isinstance(value, bool):
        return said == ("true" if value else "false")
    if kind == "integer" and isinstance(value, int | float) and value == int(value):
        number = re.fullmatch(r"(-?[0-9]{1,400})(?:\.0{1,400})?", said)
        return number is not None and int(number[1]) == int(value)
    return said == str(value)
