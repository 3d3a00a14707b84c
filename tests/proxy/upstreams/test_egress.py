from __future__ import annotations

import asyncio
import socket
import threading
import time
from ipaddress import ip_address, ip_network

import pytest

from audit.reasons import answering
from proxy.upstreams.egress import BadUrl, Egress, judge, parse_url
from proxy.upstreams.transports.base import EgressRefused, Unreachable

PRIVATE = ["127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.1",
           "169.254.169.254", "169.254.1.1", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192",
           "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "203.0.113.9",
           "::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "2002:7f00:1::", "2002:808:808::",
           "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "fec0::1", "fd00:ec2::254", "fc00::1", "fe80::1",
           "ff02::1", "2001::1", "2001:db8::1", "100::1", "3fff::1", "4000::1", "::ffff:0:7f00:1", "5f00::1"]  # fmt: skip
PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "172.15.0.1",
    "172.32.0.1",
    "100.63.255.255",
    "100.128.0.1",
    "2606:4700::1111",
    "2a00:1450::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_public_unicast_is_refused(address):
    assert judge(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address):
    assert judge(ip_address(address)) == ""


@pytest.mark.parametrize("address", PRIVATE)
def test_a_named_network_allows_its_addresses_and_no_other_form_of_them(address):
    named = ip_network(address)
    assert judge(ip_address(address), (named,)) == ""
    assert judge(ip_address("::ffff:127.0.0.1"), (ip_network("127.0.0.0/8"),))
    assert judge(ip_address("2002:7f00:1::"), (ip_network("127.0.0.0/8"),))


def test_an_upstreams_own_networks_only_narrow():
    ten = ip_network("10.0.0.0/8")
    assert judge(ip_address("10.1.1.1"), (), (ten,)) == "private"
    assert judge(ip_address("8.8.8.8"), (), (ten,)) == "outside the networks given for this upstream"
    assert judge(ip_address("10.1.1.1"), (ten,), (ten,)) == ""


@pytest.mark.parametrize(
    ("url", "authority", "target"),
    [
        ("http://example.com/mcp", "example.com", "/mcp"),
        ("HTTPS://Example.COM:443/mcp/?a=b&c", "example.com", "/mcp/?a=b&c"),
        ("https://example.com", "example.com", "/"),
        ("http://[2606:4700::1111]:8080/x", "[2606:4700::1111]:8080", "/x"),
        ("http://127.0.0.1:9000/mcp", "127.0.0.1:9000", "/mcp"),
        ("http://my_service.internal.:8000/%7E", "my_service.internal.:8000", "/%7E"),
    ],
)
def test_good_urls(url, authority, target):
    origin = parse_url(url)
    assert (origin.authority, origin.target) == (authority, target)


@pytest.mark.parametrize(
    "url",
    ["", "example.com", "//example.com", "file:///etc/passwd", "gopher://x/", "ftp://x/", "http://", "http:///x", "http://:80/",
     "http://ok@127.0.0.1/", "http://ok:pw@h/", "http://@h/", "http://h#f", "http://h/#", "http://h:0/", "http://h:/", "http://h:99999/",
     "http://h:x/", "http://h:5432/", "http://h:6379/", "http://h:25/", "http://h /", "http://h\t/", "http://h/\r\nX: y", "http://h\\@e/",
     "http://h/a b", "http://h/\x00", "http://exämple.com/", "http://127。0。0。1/", "http://2130706433/", "http://0x7f000001/",
     "http://0x7f.1/", "http://017700000001/", "http://127.1/", "http://127.0.0.01/", "http://127.0.0.1.:80/", "http://0177.0.0.1/",
     "http://[::1%25lo]/", "http://[::1/", "http://[1.2.3.4]/", "http://a..b/", "http://-a/", "http://.a/", "http://a-/", "http://h*/",
     "http://" + "a" * 64 + "/", "http://h/" + "x" * 2000, "javascript:alert(1)", "http://1.2.3.4.5/", "http://h%41/"],
)  # fmt: skip
def test_bad_urls_are_refused_with_a_sentence(url):
    with pytest.raises(BadUrl, match=r"^(The URL|Port)\b.*\.$"):
        parse_url(url)


def resolver(*addresses: str, delay: float = 0.0, calls: list[str] | None = None):
    def resolve(host, port, **_):
        if calls is not None:
            calls.append(host)
        time.sleep(delay)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]

    return resolve


async def test_one_bad_address_among_good_ones_refuses_the_host():
    egress = Egress(resolver=resolver("8.8.8.8", "127.0.0.1"))
    with pytest.raises(EgressRefused) as caught:
        await egress.addresses(parse_url("https://rebind.example/"))
    assert "SENTINEL_UPSTREAM_NETWORKS" in caught.value.detail
    assert "127.0.0.1/32" in caught.value.detail
    assert "127.0.0.1" not in caught.value.message
    assert answering(caught.value.reason).status == 502
    assert not caught.value.executed


async def test_plain_http_needs_a_named_network():
    with pytest.raises(EgressRefused, match="https"):
        await Egress(resolver=resolver("8.8.8.8")).addresses(parse_url("http://a.example/"))
    egress = Egress((ip_network("8.8.8.0/24"),), resolver=resolver("8.8.8.8"))
    assert await egress.addresses(parse_url("http://a.example/")) == [ip_address("8.8.8.8")]


async def test_look_ups_are_shared_and_kept_a_while():
    calls: list[str] = []
    egress = Egress(keep=0.2, resolver=resolver("8.8.8.8", delay=0.05, calls=calls))
    origin = parse_url("https://a.example/")
    await asyncio.gather(*(egress.addresses(origin) for _ in range(20)))
    await egress.addresses(origin)
    assert len(calls) == 1
    await asyncio.sleep(0.25)
    await egress.addresses(origin)
    assert len(calls) == 2


async def test_a_hung_resolver_holds_nothing_up():
    egress = Egress(resolver=resolver("8.8.8.8", delay=0.5))
    before = threading.active_count()
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await egress.addresses(parse_url("https://a.example/"))
    assert time.monotonic() - started < 0.4
    await asyncio.sleep(0.6)
    assert threading.active_count() <= before


async def test_an_unknown_host_is_unreachable():
    with pytest.raises(Unreachable, match="cannot be resolved") as caught:
        await Egress(resolver=resolver()).addresses(parse_url("https://nowhere.example/"))
    assert "DNS" in caught.value.detail


async def test_scoped_addresses_count_as_link_local():
    with pytest.raises(EgressRefused):
        await Egress(resolver=resolver("fe80::1%eth0")).addresses(parse_url("https://a.example/"))
