"""Who the caller is says `core.access.addresses` alone: two readers that disagree let a key that is bound to a network pass from anywhere."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from django.http import HttpRequest
from django.test import RequestFactory

from core.access.actors import client_ip
from core.access.addresses import client_address, parse_address
from core.conf.parsers import networks
from sentinel.server.connections import Connections

ROOT = Path(__file__).parents[2]
#: what tells an address -> who may look at it: whoever hands it to the one reader, and health, which only asks whether it is there
MAY = {
    r"x-forwarded-for|HTTP_X_FORWARDED_FOR|x-real-ip|HTTP_X_REAL_IP|HTTP_FORWARDED": {
        "core/access/actors.py", "proxy/pipeline.py", "sentinel/server/health.py",
    },
    r"""REMOTE_ADDR|peername|scope(\[|\.get\()["']client["']""": {
        "core/access/actors.py", "proxy/pipeline.py", "sentinel/server/health.py",
    },
    r"ipv4_mapped": {"core/access/addresses.py"},
}  # fmt: skip


@pytest.mark.parametrize("told", MAY)
def test_nobody_else_looks(told: str) -> None:
    found = set()
    for package in ("core", "audit", "policies", "proxy", "sentinel"):
        for path in (ROOT / package).rglob("*.py"):
            code = re.sub(r'"""(?s:.)*?"""|#.*', "", path.read_text(encoding="utf-8"))
            if path != ROOT / "core/conf/settings.py" and re.search(told, code, re.IGNORECASE):
                found.add(str(path.relative_to(ROOT)))
    assert found == MAY[told]


TRUSTED = networks("10.0.0.0/8,::1/128")
CASES = [
    ("::ffff:10.0.0.5", ["203.0.113.9"], "203.0.113.9"),
    ("::FFFF:10.0.0.5", ["::ffff:203.0.113.9"], "203.0.113.9"),
    ("[::ffff:10.0.0.5]:443", ["198.51.100.1, 203.0.113.9:4711, 10.1.1.1"], "203.0.113.9"),
    ("::1", ["2001:DB8::0:9%eth0"], "2001:db8::9"),
    ("203.0.113.7", ["10.0.0.1"], "203.0.113.7"),
    ("10.0.0.5", ["203.0.113.9, unknown"], "10.0.0.5"),
    ("10.0.0.5", [], "10.0.0.5"),
    ("", ["203.0.113.9"], ""),
]


@pytest.mark.parametrize(("peer", "forwarded", "caller"), CASES)
def test_every_door_sees_the_same_caller(peer: str, forwarded: list[str], caller: str, settings: Any) -> None:
    settings.SENTINEL = cast(Any, SimpleNamespace(trusted_proxies=TRUSTED))
    request: HttpRequest = RequestFactory().get("/", REMOTE_ADDR=peer)
    if forwarded:
        request.META["HTTP_X_FORWARDED_FOR"] = ",".join(forwarded)
    assert client_ip(request) == caller
    assert client_address(peer, [value.encode() for value in forwarded], TRUSTED) == caller
    # How many connections somebody has open is counted for the peer; a proxy's are nobody's own in this form either.
    address = parse_address(peer)
    own = address is not None and not str(address).startswith(("10.", "::1"))
    assert bool(Connections(10, 10, TRUSTED).source(peer)) is own
