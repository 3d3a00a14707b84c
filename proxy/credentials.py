"""Which credential a request presents, and how one in the URL is kept from everything that could log it (pure)."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

QUERY_NAME = "api_key"
SCOPE_KEY = "sentinel.query_credentials"


@dataclass(frozen=True, slots=True)
class Presented:
    """One credential as it was presented; `via` is bearer, header, query or none."""

    via: str
    value: str = ""
    ambiguous: bool = False


NOTHING = Presented("none")


def take_query_credentials(scope: MutableMapping[str, Any]) -> None:
    """Move `api_key` out of the scope's query string; every spelling of the name is removed, one is accepted."""
    query: bytes = scope.get("query_string", b"")
    if not query:
        return
    text = query.decode("latin-1")
    kept: list[str] = []
    taken: list[str] = []
    for part in text.replace(";", "&").split("&"):
        name, _, value = part.partition("=")
        folded = unquote_plus(name).casefold().replace("-", "_").strip()
        if folded in {"api_key", "apikey"}:
            if name == QUERY_NAME:
                taken.append(unquote_plus(value))
        else:
            kept.append(part)
    if len(kept) == text.replace(";", "&").count("&") + 1:
        return
    scope["query_string"] = "&".join(kept).encode("latin-1")
    raw_path = scope.get("raw_path")
    if raw_path and b"?" in raw_path:
        scope["raw_path"] = raw_path.split(b"?", 1)[0]
    scope[SCOPE_KEY] = taken


def presented(headers: Iterable[tuple[bytes, bytes]], query: Iterable[str] = ()) -> Presented:
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
    found.extend(Presented("query", value) for value in query)
    if not found:
        return NOTHING
    if len(found) > 1:
        return Presented(found[0].via, ambiguous=True)
    return found[0]
