"""deploy/nginx.conf in front of a real gateway, with TLS; the systemd unit, as far as it can be checked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentinel.conf import PROJECT
from tests.support.gateway import Gateway
from tests.support.nginx import ENVIRONMENT, Proxy
from tests.support.upstream import FakeUpstream


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Gateway, FakeUpstream]]:
    folder = tmp_path_factory.mktemp("nginx")
    with (
        FakeUpstream() as fake,
        Gateway(workers=1, **ENVIRONMENT) as gateway,
        Proxy(folder, gateway.port) as proxy,
    ):
        gateway.add_upstream("fake", fake.url)
        yield proxy, gateway, fake


def test_nginx_accepts_the_configuration(behind: tuple[Proxy, Gateway, FakeUpstream]) -> None:
    done = subprocess.run([*behind[0].program, "-t"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


def test_calls_pass_and_the_caller_is_who_nginx_says(behind: tuple[Proxy, Gateway, FakeUpstream]) -> None:
    proxy, gateway, _ = behind
    key = gateway.create_key("behind", role="admin")
    since = gateway.now()
    time.sleep(1.2)  # a key made elsewhere is known within a second
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}})
    status, _, answer = proxy.ask("POST", f"/mcp/fake?api_key={key.key}", body, **{"X-Forwarded-For": "203.0.113.9"})
    assert status == 200, answer
    event = gateway.event(since, method="tools/list")
    assert event["client_ip"] == "127.0.0.1"  # as nginx saw it, not as the client claimed
    assert key.key not in proxy.log.read_text()


def test_the_log_in_is_secure(behind: tuple[Proxy, Gateway, FakeUpstream]) -> None:
    status, headers, _ = behind[0].ask("GET", "/admin/login/")
    assert status == 200
    assert "max-age" in headers["strict-transport-security"]
    assert "secure" in headers["set-cookie"].lower()
    assert behind[0].ask("GET", "/admin/login/", Host="evil.example")[0] in (400, 404)


def test_metrics_are_not_for_who_comes_through_the_proxy(behind: tuple[Proxy, Gateway, FakeUpstream]) -> None:
    assert behind[0].ask("GET", "/metrics")[0] == 403


def test_the_unit_is_sound(tmp_path: Path) -> None:
    unit = (PROJECT / "deploy" / "mcp-sentinel.service").read_text()
    assert "ExecStart=/opt/mcp-sentinel/.venv/bin/python manage.py serve" in unit
    if not shutil.which("systemd-analyze"):
        return  # a machine without systemd cannot judge its units
    place = tmp_path / "mcp-sentinel.service"
    place.write_text(unit.replace("/opt/mcp-sentinel/.venv/bin/python", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(place)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
