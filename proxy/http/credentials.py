"""Which credential a request presents, and how one in the URL is kept from everything that could log it (pure)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

QUERY_NAME = "api_key"
SCOPE_KEY = "sentinel.query_credentials"
#: where a request is a caller's to the gateway; elsewhere `key` is a filter
_GATEWAY = ("/mcp", "/sse", "/messages")
#: names under which people send credentials, folded; only one of them, in one spelling, is read
_EVERYWHERE = frozenset({"apikey", "xapikey"})
_OF_CALLERS = _EVERYWHERE | frozenset(
    "key token accesstoken auth authorization authtoken apitoken bearer bearertoken idtoken refreshtoken jwt secret apisecret "
    "clientsecret password passwd pwd credential credentials".split()
)
_PIECES = re.compile(r"[\[\].]+")
_DROPPED = re.compile(r"[-_\s\0]+")


@dataclass(frozen=True, slots=True)
class Presented:
    """One credential as it was presented; `via` is bearer, header, query or none."""

    via: str
    value: str = ""
    ambiguous: bool = False
    #: in the address, in a way that is not read
    misplaced: bool = False


NOTHING = Presented("none")


def take_query_credentials(scope: MutableMapping[str, Any]) -> None:
    """Move `api_key` out of the scope's query string, and leave None for whatever else looks like a credential there."""
    query: bytes = scope.get("query_string", b"")
    if not query:
        return
    path: str = scope.get("path", "")
    names = _OF_CALLERS if any(path == top or path.startswith(top + "/") for top in _GATEWAY) else _EVERYWHERE
    kept: list[str] = []
    taken: list[str | None] = []
    for part in query.decode("latin-1").split("&"):
        name, _, value = part.partition("=")
        if name == QUERY_NAME and ";" not in value:
            taken.append(unquote_plus(value))
        elif any(_names_a_credential(piece.partition("=")[0], names) for piece in part.split(";")):
            taken.append(None)  # its value is nobody's to see
        else:
            kept.append(part)
    if not taken:
        return
    scope["query_string"] = "&".join(kept).encode("latin-1")
    raw_path = scope.get("raw_path")
    if raw_path and b"?" in raw_path:
        scope["raw_path"] = raw_path.split(b"?", 1)[0]
    scope[SCOPE_KEY] = taken


def _names_a_credential(name: str, names: frozenset[str]) -> bool:
    """Tell whether a parameter's name, however it is escaped, cased, joined or nested, is that of a credential."""
    for _ in range(3):
        name = unquote_plus(name)
    folded = unicodedata.normalize("NFKC", name).casefold()
    return any(_DROPPED.sub("", piece) in names for piece in _PIECES.split(folded))


def presented(headers: Iterable[tuple[bytes, bytes]], query: Iterable[str | None] = ()) -> Presented:
    """Read the one credential of a request; more than one, however equal, is ambiguous."""
    found: list[Presented] = []
    for name, raw in headers:
        if name == b"authorization":
            value = raw.decode("latin-1").strip()
            scheme, _, rest = value.partition(" ")
            # Another scheme, or none, is a credential all the same: presented, and not valid.
            found.append(Presented("bearer", rest.strip() if scheme.lower() == "bearer" else ""))
        elif name == b"x-api-key":
            found.append(Presented("header", raw.decode("latin-1").strip()))
    found.extend(Presented("query", value or "", misplaced=value is None) for value in query)
    if not found:
        return NOTHING
    if len(found) > 1:
        return Presented(found[0].via, ambiguous=True)
    return found[0]
