from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from django.conf import settings
from django.test import RequestFactory

from core.access.actors import client_ip
from core.access.addresses import client_address
from sentinel.server.health import may_scrape

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.9", [b"6.6.6.6"], "203.0.113.9"),
        ("10.0.0.1", [b"198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", [b"6.6.6.6, 198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", [b"6.6.6.6", b"198.51.100.7, 10.1.1.1"], "198.51.100.7"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [b"garbage"], "10.0.0.1"),
        ("10.0.0.1", [b"198.51.100.7:4711"], "198.51.100.7"),
        ("fd00::1", [b"[2001:db8::5]:99"], "2001:db8::5"),
        ("::ffff:10.0.0.1", [b"198.51.100.7"], "198.51.100.7"),
        (None, [b"198.51.100.7"], ""),
        ("", [], ""),
    ],
)
def test_only_our_own_proxies_are_believed(peer, forwarded, address):
    assert client_address(peer, forwarded, PROXIES) == address


def test_without_proxies_nothing_is_believed():
    assert client_address("10.0.0.1", [b"6.6.6.6"], ()) == "10.0.0.1"


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("::ffff:10.0.0.5", "198.51.100.7", "198.51.100.7"),
        ("::FFFF:10.0.0.5", "198.51.100.7, 10.1.1.1", "198.51.100.7"),
        ("::ffff:203.0.113.9", "10.0.0.7", "203.0.113.9"),
        ("10.0.0.5", "::ffff:198.51.100.7", "198.51.100.7"),
        ("10.0.0.5", "::ffff:10.0.0.9", "10.0.0.9"),
        ("10.0.0.5", "198.51.100.7:4711", "198.51.100.7"),
        ("10.0.0.5", "[2001:db8::5]:99", "2001:db8::5"),
        ("10.0.0.5", "198.51.100.7, unknown", "10.0.0.5"),
        ("10.0.0.5", "", "10.0.0.5"),
        ("fd00::1%eth0", "198.51.100.7", "198.51.100.7"),
        ("", "198.51.100.7", ""),
    ],
)
def test_the_admin_and_the_gateway_read_one_address(
    monkeypatch: pytest.MonkeyPatch, peer: str, forwarded: str, address: str
) -> None:
    monkeypatch.setattr(settings, "SENTINEL", replace(settings.SENTINEL, trusted_proxies=PROXIES))
    headers: dict[str, Any] = {"HTTP_X_FORWARDED_FOR": forwarded} if forwarded else {}
    request = RequestFactory().get("/", REMOTE_ADDR=peer, **headers)
    assert client_ip(request) == address
    assert client_address(peer, [forwarded.encode()] if forwarded else [], PROXIES) == address


def test_metrics_are_for_this_machine_in_both_spellings() -> None:
    assert may_scrape([], "::ffff:127.0.0.1", "", ())
    assert not may_scrape([], "::ffff:203.0.113.9", "", ())
    assert not may_scrape([], "::ffff:10.0.0.5", "", PROXIES)
