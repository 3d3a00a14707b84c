"""Which addresses an upstream may have.

A host is resolved once, every address it has is judged, and the connection goes to a judged address, never to a name:
what the name means a moment later (DNS rebinding) cannot matter. What is not a public unicast address is refused unless
SENTINEL_UPSTREAM_NETWORKS names a network that holds it, and so are the IPv6 forms that carry an IPv4 address inside.
"""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from core.access.addresses import Network
from proxy.upstreams.transports.base import EgressRefused, Unreachable

Address = IPv4Address | IPv6Address

#: What each refused network is, for the sentence that refuses it. Written out (IANA's special-purpose registries and
#: the clouds' metadata addresses), because ipaddress.is_global differs between Python versions.
REFUSED: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), what)
    for network, what in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "cloud metadata"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "IETF protocol assignments"),
        ("192.0.2.0/24", "documentation"),
        ("192.31.196.0/24", "AS112"),
        ("192.52.193.0/24", "AMT"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "AS112"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::ffff:0:0/96", "IPv4-mapped"),
        ("::ffff:0:0:0/96", "IPv4-translated"),
        ("::/96", "IPv4-compatible"),
        ("64:ff9b::/96", "NAT64"),
        ("64:ff9b:1::/48", "local NAT64"),
        ("100::/64", "discard-only"),
        ("100:0:0:1::/64", "dummy prefix"),
        ("2001::/32", "Teredo"),
        ("2001::/23", "IETF protocol assignments"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("2620:4f:8000::/48", "AS112"),
        ("3fff::/20", "documentation"),
        ("5f00::/16", "segment routing"),
        ("fc00::/7", "unique local"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)
_UNICAST_V6 = ip_network("2000::/3")

#: Ports of services that are no HTTP servers and could misread a request: mail, databases, queues, shells.
NOT_HTTP_PORTS = frozenset(
    int(port)
    for port in (
        "21 22 23 25 53 110 119 139 143 389 445 465 514 587 636 989 990 993 995 1433 1521 2049 3306 3389 5060 5061 5432 "
        "5672 6379 6667 9042 11211 27017"
    ).split()
)
_HOST_NAME = re.compile(
    r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\.?"
)
_NUMBER_LIKE = re.compile(r"(0x[0-9a-f]*|[0-9]+)\.?\Z")
SETTING = "SENTINEL_UPSTREAM_NETWORKS"


class BadUrl(ValueError):
    """A URL that cannot be an upstream's, with the reason as its text."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a URL points: what is connected to, and what is written into the request."""

    scheme: str
    host: str
    port: int
    #: path and query, as the request line has them
    target: str

    @property
    def secure(self) -> bool:
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


def parse_url(url: str) -> Origin:
    """Read an upstream's URL strictly; raises BadUrl with a sentence that says what to mend."""
    if not url or len(url) > 2000:
        raise BadUrl("The URL is empty or longer than 2,000 characters.")
    if any(not 0x21 <= ord(char) <= 0x7E for char in url) or any(char in url for char in '\\"<>^`{|}'):
        raise BadUrl(
            "The URL has spaces, control characters, backslashes or characters outside ASCII (write IDNs as xn--)."
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadUrl(f"The URL cannot be read: {error}.") from None
    scheme = parts.scheme.lower()
    if scheme not in ("http", "https"):
        raise BadUrl(f"The URL's scheme is {scheme or 'missing'}; it must be http or https.")
    if "@" in parts.netloc:
        raise BadUrl("The URL holds a user name or password; use --header for credentials.")
    if "#" in url:
        raise BadUrl("The URL has a fragment (#).")
    if port == 0 or parts.netloc.endswith(":"):
        raise BadUrl("The URL's port must be between 1 and 65535.")
    host = (parts.hostname or "").lower()
    _check_host(host, bracketed=parts.netloc.startswith("["))
    port = port or (443 if scheme == "https" else 80)
    if port in NOT_HTTP_PORTS:
        raise BadUrl(f"Port {port} belongs to a service that does not speak HTTP.")
    target = parts.path or "/"
    if parts.query or url.endswith("?"):
        target += "?" + parts.query
    return Origin(scheme, host, port, target)


def _check_host(host: str, *, bracketed: bool) -> None:
    if not host:
        raise BadUrl("The URL names no host.")
    if bracketed:
        try:
            IPv6Address(host)
        except ValueError:
            raise BadUrl("The URL's host is not an IPv6 address.") from None
        if "%" in host:
            raise BadUrl("The URL's address has a zone.")
        return
    if _NUMBER_LIKE.match(host.rstrip(".").rpartition(".")[2]):
        # what inet_aton would take as an address (0x7f.1, 2130706433, 127.1) must be written out
        try:
            IPv4Address(host)
        except ValueError:
            raise BadUrl("The URL's host is an oddly written address; write four decimal numbers.") from None
        return
    if not _HOST_NAME.fullmatch(host):
        raise BadUrl("The URL's host is not a host name.")


def judge(address: Address, allowed: Iterable[Network] = (), only: Sequence[Network] = ()) -> str:
    """Say why an address may not be an upstream's, "" when it may."""
    if only and not any(address in network for network in only):
        return "outside the networks given for this upstream"
    if any(address in network for network in allowed):
        return ""
    for network, what in REFUSED:
        if address in network:
            return what
    if address.version == 6 and address not in _UNICAST_V6:
        return "not global unicast"
    return ""


def may_be_plain(address: Address, allowed: Iterable[Network]) -> bool:
    """Tell whether http without TLS may be spoken to an address: only inside networks that the operator named."""
    return any(address in network for network in allowed)


def explain_refusal(host: str, address: str, why: str) -> str:
    """Word a refusal for the person who sets the upstream up."""
    shown = address if address == host else f"{host} ({address})"
    network = f"{address}/{128 if ':' in address else 32}"
    return f"{shown} is {why}: upstreams may not live there unless {SETTING} names its network, such as {network}."


Resolver = Callable[..., list[Any]]


class Egress:
    """Resolves and judges hosts; answers are kept for a few seconds, look-ups of one host are shared."""

    def __init__(
        self,
        allowed: Sequence[Network] = (),
        *,
        only: Sequence[Network] = (),
        keep: float = 5.0,
        resolver: Resolver = socket.getaddrinfo,
    ) -> None:
        self.allowed = tuple(allowed)
        self.only = tuple(only)
        self._keep = keep
        self._resolver = resolver
        self._kept: dict[str, tuple[float, list[Address]]] = {}
        self._running: dict[str, asyncio.Future[list[Address]]] = {}

    async def addresses(self, origin: Origin) -> list[Address]:
        """Give the judged addresses of a URL's host; raises EgressRefused, or Unreachable when it has none."""
        found = await self._lookup(origin.host)
        for address in found:
            if why := judge(address, self.allowed, self.only):
                detail = explain_refusal(origin.host, str(address), why)
                raise EgressRefused("The upstream's address is not one this gateway may connect to.", detail=detail)
            if not origin.secure and not may_be_plain(address, self.allowed):
                raise EgressRefused(
                    "The upstream's address may only be reached over https.",
                    detail=f"{origin.host} ({address}) is outside {SETTING}: http without TLS is refused, use https.",
                )
        return found

    async def _lookup(self, host: str) -> list[Address]:
        try:
            return [ip_address(host)]
        except ValueError:
            pass
        loop = asyncio.get_running_loop()
        kept = self._kept.get(host)
        if kept and kept[0] > loop.time():
            return kept[1]
        running = self._running.get(host)
        if running is None:
            running = self._running[host] = loop.create_future()
            # a thread of its own, daemonic: a resolver that hangs must hold up neither other look-ups nor the exit
            threading.Thread(target=self._resolve, args=(host, loop, running), name="resolve", daemon=True).start()
        try:
            found = await asyncio.shield(running)
        except OSError as error:
            raise Unreachable(
                "The upstream's host name cannot be resolved.", detail=f"DNS: {host}: {error.strerror or error}"
            ) from None
        if not found:
            raise Unreachable("The upstream's host name has no address.", detail=f"DNS: {host}: no address")
        return found

    def _resolve(self, host: str, loop: asyncio.AbstractEventLoop, future: asyncio.Future[list[Address]]) -> None:
        found: list[Address] = []
        failure: OSError | None = None
        try:
            for _, _, _, _, sockaddr in self._resolver(host, None, type=socket.SOCK_STREAM):
                text = str(sockaddr[0])
                address = ip_address(text.partition("%")[0]) if "%" not in text else IPv6Address("fe80::")
                if address not in found:
                    found.append(address)
        except OSError as error:
            failure = error
        except (UnicodeError, ValueError) as error:
            failure = OSError(str(error))

        def settle() -> None:
            self._running.pop(host, None)
            if failure is None:
                if len(self._kept) > 256:
                    self._kept.clear()
                self._kept[host] = (loop.time() + self._keep, found)
            if not future.done():
                if failure is not None:
                    future.set_exception(failure)
                    future.exception()  # nobody may be waiting any more
                else:
                    future.set_result(found)

        try:
            loop.call_soon_threadsafe(settle)
        except RuntimeError:  # the loop is closed: nobody waits
            return
