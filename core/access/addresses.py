"""Who is on the other end: the one reader of addresses, for the gateway, the admin, the API and log-in throttling (pure).

An IPv4 address inside IPv6 (`::ffff:10.0.0.5`, as a socket on `[::]` tells it) is that IPv4 address everywhere: two readers
of one request that disagree on this let a key that is bound to a network pass from anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

__all__ = ["Address", "Network", "client_address", "parse_address", "within"]


@lru_cache(maxsize=4096)
def parse_address(text: str) -> Address | None:
    """An address without port, brackets or zone; None when it is not one."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].split("]", 1)[0]
    elif text.count(":") == 1:
        text = text.split(":", 1)[0]
    try:
        address = ip_address(text.split("%", 1)[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks if network.version == address.version)


@lru_cache(maxsize=4096)
def _written(text: str) -> str:
    return str(parse_address(text) or "")


def client_address(peer: str | None, forwarded_for: Sequence[bytes | str], trusted: Sequence[Network]) -> str:
    """The right-most address that is not one of our own proxies; "" when there is none (a unix socket).

    `forwarded_for` holds the values of X-Forwarded-For in the order in which they came.
    """
    if not trusted:
        return _written(peer) if peer else ""
    address = parse_address(peer) if peer else None
    if address is None:
        return ""
    if not within(address, trusted):
        return str(address)
    values = [value.decode("latin-1") if isinstance(value, bytes) else value for value in forwarded_for]
    for hop in reversed([hop for value in values for hop in value.split(",")]):
        candidate = parse_address(hop)
        if candidate is None:
            break
        address = candidate
        if not within(address, trusted):
            break
    return str(address)
