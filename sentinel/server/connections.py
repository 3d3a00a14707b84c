"""How many connections one source may have open: descriptors are few, and a connection costs a stranger nothing.

When a source is at its bound, its oldest connection on which nothing is asked gives way to its newest; when all are busy,
one that is still sending its body does, and else the newest is closed. Nobody else's is touched. Connections of trusted
proxies carry the requests of many, so they are bounded in all only; what a proxy lets through is the proxy's to bound.
"""

from __future__ import annotations

import logging
import resource
from collections.abc import Iterable, Sequence
from typing import Protocol

from audit.journal.flood import source_of
from core.access.addresses import Network, parse_address, within
from core.ledger import Ledger

log = logging.getLogger("sentinel.http")

#: descriptors that are asked for; more would only make children that close all they might have inherited slow
WANTED = 65536
#: descriptors that are no client's: journal, database, limits, code
RESERVED = 256
LEAST = 64


def raise_limit() -> int:
    """Raise this process's limit of open files as far as it may be (up to WANTED), and give what it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(hard, WANTED)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return WANTED if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


class CountedConnection(Protocol):
    """What is counted."""

    @property
    def busy(self) -> bool:
        """Tell whether a request on it waits for its answer."""

    @property
    def sending(self) -> bool:
        """Tell whether a request on it has not arrived as a whole."""

    def give_way(self) -> None:
        """Close it at once."""


class Connections:
    """The open connections of one worker."""

    def __init__(self, most: int, most_each: int, proxies: Sequence[Network] = ()) -> None:
        self._shares = Ledger(most, most_each)
        self._proxies = tuple(proxies)
        #: by source, the oldest first
        self._open: dict[str, dict[CountedConnection, None]] = {}

    @classmethod
    def fitting(cls, most: int, most_each: int, proxies: Iterable[Network], descriptors: int) -> Connections:
        """So many, but no more than there are descriptors for: each call may need one to its upstream too."""
        return cls(min(most, max((descriptors - RESERVED) // 2, LEAST)), most_each, tuple(proxies))

    @property
    def total(self) -> int:
        return self._shares.total

    def source(self, peer: str) -> str:
        """Name whose connection it is; "" for nobody's own: a trusted proxy's, or a unix socket's."""
        address = parse_address(peer) if peer else None
        if address is None or within(address, self._proxies):
            return ""
        return source_of(address)

    def admit(self, connection: CountedConnection, source: str) -> bool:
        """Count a new connection, for which an older one of the same source may have to go; False when there is no room."""
        room = self._shares.room(source) if source else self.total < self._shares.most
        if not room:
            log.warning(
                "a client has as many connections open as it may have: its oldest idle one, or its newest, is closed",
                extra={"source": source or "a trusted proxy", "open": self._shares.of(source), "in_all": self.total},
            )
            older = self._dispensable(source)
            if older is None:
                return False
            self.forget(older, source)
            older.give_way()
        self._shares.add(source)
        self._open.setdefault(source, {})[connection] = None
        return True

    def forget(self, connection: CountedConnection, source: str) -> None:
        """Count a connection no more; safe any number of times."""
        known = self._open.get(source)
        if known is None or connection not in known:
            return
        del known[connection]
        if not known:
            del self._open[source]
        self._shares.give(source)

    def _dispensable(self, source: str) -> CountedConnection | None:
        known = self._open.get(source, {})
        return next((c for c in known if not c.busy), None) or next((c for c in known if c.sending), None)
