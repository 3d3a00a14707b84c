"""Headers in which a modern request mirrors its body: read once, held against the body, and written anew for the upstream.

`Mcp-Method`, `Mcp-Name` and `Mcp-Param-*` let intermediaries route without reading bodies. Whoever routes by them must see
what was decided on, so none is passed on as it came: what mirrors the body is written from the body, the rest (parameters that
no schema is known to ask for) from its decoded value. What cannot be decoded, and what two readers could take for
two headers, is refused.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import product
from typing import Any, Final, NamedTuple

from audit.reasons import INVALID_REQUEST
from core.types import Headers
from policies.engine.folding import varied
from proxy.mcp.message import Message, Readable, Refused

__all__ = [
    "ParamHeader",
    "Sent",
    "check_names",
    "decode_header",
    "encode_header",
    "mismatch",
    "param_headers",
    "protocol_headers",
    "shown",
]

MAX_HEADER: Final = 8192  # bytes of one mirrored value, looked at before it is decoded
MAX_PARAMS: Final = 64  # of the mirrored arguments of one request

VERSION, METHOD, NAME, SESSION = b"mcp-protocol-version", b"mcp-method", b"mcp-name", b"mcp-session-id"
_OWN = frozenset((VERSION, METHOD, NAME, SESSION))
PARAM: Final = b"mcp-param-"
# One name for all that a CGI-like server folds into one variable (HTTP_MCP_NAME).
_FOLD = bytes(c if c in b"0123456789abcdefghijklmnopqrstuvwxyz" else ord("-") for c in bytes(range(256)).lower())
_MCP = frozenset(bytes(letters) for letters in product(b"mM", b"cC", b"pP"))
_PARAM_NAME = re.compile(rb"mcp-param-[!#$%&'*+\-.^_`|~0-9a-z]+")

# Where a method's name stands in its params; Mcp-Name mirrors it.
_NAMED = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}


class Sent:
    """A request's protocol headers, each once: first-copy and last-copy readers would disagree about a second one.

    Names that a CGI-like server folds into one (`Mcp-Name`, `mcp_name`) are copies too. Which copies matter is the
    era's to say, so a second one is noted here and refused when its header is asked for.
    """

    __slots__ = ("_found", "get", "known", "mirrored")

    #: gives a header's value without the space around it, None when absent; Refused when it was sent twice
    get: Callable[[bytes], bytes | None]

    def __init__(self, headers: Iterable[tuple[bytes, bytes]], known: Readable) -> None:
        #: what a refusal carries on of the message
        self.known = known
        self._found: dict[bytes, bytes] = {}
        #: names of the mirrored arguments that were sent
        self.mirrored: list[bytes] = []
        twice: set[bytes] = set()
        folded: set[bytes] = set()
        for name, value in headers:
            if name[:3] in _MCP:
                plain = name if name in _OWN else name.translate(_FOLD)
                if plain in folded:
                    twice.add(plain)
                folded.add(plain)
                name = plain if plain == name else name.lower()
                self._found.setdefault(name, value.strip(b" \t"))
                if name[:10] == PARAM:
                    self.mirrored.append(name)
        self.get = partial(_once, self._found, twice, known) if twice else self._found.get

    def params(self) -> list[tuple[bytes, bytes]]:
        """Give the mirrored arguments, by name; Refused when one was sent twice, or there are too many."""
        names = self.mirrored
        if len(names) > MAX_PARAMS:
            raise mismatch(f"More than {MAX_PARAMS} Mcp-Param headers were sent.", self.known)
        return [(name, self.get(name) or b"") for name in names]


def _once(found: dict[bytes, bytes], twice: set[bytes], known: Readable, name: bytes) -> bytes | None:
    if name.translate(_FOLD) in twice:
        text = name.decode("latin-1")[:64]
        if name == SESSION:
            # That revision has no code of its own for it.
            raise Refused("header_mismatch", f"{text} was sent twice.", known=known, code=INVALID_REQUEST)
        raise mismatch(f"{text} was sent twice.", known)
    return found.get(name)


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


_PLAIN = re.compile(r"(?!=\?)[!-~]([ -~]*[!-~])?")


def encode_header(value: str) -> bytes:
    """A value as a header can carry it: as it is, or in the base64 sentinel (whatever looks like one is put in it too)."""
    if not value or _PLAIN.fullmatch(value) is not None:
        return value.encode()
    return b"=?base64?" + base64.b64encode(value.encode("utf-8", "surrogatepass")) + b"?="


def shown(value: object) -> str:
    """A value in an error's text: ASCII, and short."""
    return ascii(value if isinstance(value, str) else type(value).__name__)[:80]


def mismatch(message: str, known: Readable) -> Refused:
    """Refuse because a header and the body disagree."""
    return Refused("header_mismatch", message, known=known)


def check_names(sent: Sent, message: Message, known: Readable, *, required: bool) -> None:
    """Refuse a message whose Mcp-Method or Mcp-Name disagrees with it, or lacks where it is required."""
    header = sent.get(METHOD)
    if header is None:
        if required:
            raise mismatch("Mcp-Method is missing.", known)
    # As it is, without the sentinel: that is how servers compare it, so it can be of plain characters alone.
    elif not header.isascii() or header.decode() != message.method:
        raise mismatch(f"Mcp-Method says {shown(header.decode('latin-1'))}, the body {shown(message.method)}.", known)
    header = sent.get(NAME)
    member = _NAMED.get(message.method)
    if member is None:
        return
    name = (message.params or {}).get(member)
    if header is None:
        if required and name is not None:
            raise mismatch(f"Mcp-Name is missing; it mirrors {member}.", known)
        return
    if (said := decode_header(header)) is None:
        raise mismatch("Mcp-Name cannot be decoded.", known)
    if said != name:
        raise mismatch(f"Mcp-Name says {shown(said)}, the body {shown(name)}.", known)


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
            header = PARAM + token.lower().encode()
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


def protocol_headers(sent: Sent, message: Message, version: str, expected: Sequence[ParamHeader] = ()) -> Headers:
    """Write the protocol's own headers of a modern request anew; Refused where a mirrored argument disagrees."""
    known = sent.known
    written: Headers = [(VERSION, version.encode())]
    if sent.get(METHOD) is not None:
        written.append((METHOD, message.method.encode()))
    if (name := _name(sent, message, known)) is not None:
        written.append((NAME, encode_header(name)))
    if not expected and not sent.mirrored:
        return written
    params = dict(sent.params())
    for param in expected:
        text = _expected(param, message, params.pop(param.header, None), known)
        if text is not None:
            written.append((param.header, encode_header(text)))
    for header, raw in params.items():
        # Nobody here knows what it mirrors: passed on, as intermediaries must, but in one spelling.
        said = decode_header(raw)
        if said is None or _PARAM_NAME.fullmatch(header) is None:
            raise mismatch(f"{header.decode('latin-1')[:64]} cannot be decoded.", known)
        written.append((header, encode_header(said)))
    return written


def _name(sent: Sent, message: Message, known: Readable) -> str | None:
    """What Mcp-Name says: the body's word; a method's of an extension is its own; where nothing is named, nothing."""
    raw = sent.get(NAME)
    if raw is None:
        return None
    if (member := _NAMED.get(message.method)) is not None:
        found = (message.params or {}).get(member)
        return found if isinstance(found, str) else None
    if not any(target.kind == "method" and target.name == message.method for target in message.targets):
        return None
    if (said := decode_header(raw)) is None:
        raise mismatch("Mcp-Name cannot be decoded.", known)
    return said


def _expected(param: ParamHeader, message: Message, raw: bytes | None, known: Readable) -> str | None:
    """A mirrored argument as its header is to say it, by the body; Refused when the header says otherwise."""
    name = param.header.decode()
    value: Any = message.params.get("arguments") if message.params is not None else None
    for step in param.path:
        if isinstance(value, dict) and varied(value, step):
            raise mismatch(f"Another argument could be read as the one that {name} mirrors.", known)
        value = value.get(step) if isinstance(value, dict) else None
    if value is None or isinstance(value, dict | list):
        if raw is not None:
            raise mismatch(f"{name} was sent, but the argument it mirrors was not.", known)
        return None
    if raw is None:
        raise mismatch(f"{name} is missing; it mirrors an argument.", known)
    if (said := decode_header(raw)) is None:
        raise mismatch(f"{name} cannot be decoded.", known)
    if isinstance(value, bool):
        text = "true" if value else "false"
        agrees = said == text
    elif param.type == "integer" and isinstance(value, int | float) and float(value).is_integer():
        text = str(int(value))
        number = re.fullmatch(r"(-?[0-9]{1,400})(?:\.0{1,400})?", said)
        agrees = number is not None and int(number[1]) == int(value)
    else:
        text = str(value)
        agrees = said == text
    if not agrees:
        raise mismatch(f"{name} and the argument it mirrors differ.", known)
    return text
