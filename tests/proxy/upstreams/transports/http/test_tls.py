from __future__ import annotations

import datetime
import ssl
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from proxy.upstreams.egress import Egress, parse_url
from proxy.upstreams.transports.base import Broken, TransportLimits, Unreachable, UpstreamRequest
from proxy.upstreams.transports.http.streamable_http import StreamableHttpTransport
from proxy.upstreams.transports.http.tls import BadCertificate, client_context
from tests.proxy.upstream import LOOPBACK, Peer, upstream


def pem(key) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


class Authority:
    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self.name, self.key, [], ca=True)
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def _sign(self, subject, key, names, *, ca=False):
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if ca:
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, *names) -> tuple[str, str]:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leaf")]), key, list(names))
        return certificate.public_bytes(serialization.Encoding.PEM).decode(), pem(key)


@pytest.fixture(scope="module")
def authority():
    return Authority("test authority")


def server_context(tmp_path, authority, *names, client_ca="") -> tuple[ssl.SSLContext, list[str | None]]:
    certificate, key = authority.issue(*names)
    (tmp_path / "chain.pem").write_text(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "chain.pem")
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=client_ca)
    seen: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: seen.append(name)
    return context, seen


def resolve_here(host, port, **_):
    return [(2, 1, 6, "", ("127.0.0.1", 0))]


def transport(server, context, host="upstream.example", **limits) -> StreamableHttpTransport:
    origin = parse_url(f"https://{host}:{server.port}/mcp")
    return StreamableHttpTransport(
        origin, Egress(LOOPBACK, resolver=resolve_here), context=context, limits=TransportLimits(**limits)
    )


async def call(transport) -> bytes:
    return await (await transport.send(UpstreamRequest(b"POST", [], b"{}"))).body(1000)


async def test_the_name_is_checked_and_sent_while_the_judged_address_is_connected_to(authority, tmp_path):
    context, seen = server_context(tmp_path, authority, x509.DNSName("upstream.example"))
    async with upstream(context=context) as server:
        pool = transport(server, client_context(authority.pem))
        assert [await call(pool) for _ in range(3)] == [b"{}"] * 3
        assert server.connections == 1
        assert seen == ["upstream.example"]
        assert server.requests[0][1]["host"] == f"upstream.example:{server.port}"
        await pool.close()


async def test_addresses_may_stand_in_certificates(authority, tmp_path):
    context, _ = server_context(tmp_path, authority, x509.IPAddress(ip_address("127.0.0.1")))
    async with upstream(context=context) as server:
        pool = transport(server, client_context(authority.pem), host="127.0.0.1")
        assert await call(pool) == b"{}"
        await pool.close()


async def test_another_authority_or_name_or_plain_http_is_refused(authority, tmp_path):
    context, _ = server_context(tmp_path, authority, x509.DNSName("upstream.example"))
    async with upstream(context=context) as server:
        for ca, host in (
            (Authority("other").pem, "upstream.example"),
            (authority.pem, "else.example"),
            ("", "upstream.example"),
        ):
            with pytest.raises(Unreachable, match="secure") as caught:
                await call(transport(server, client_context(ca), host=host))
            assert "TLS" in caught.value.detail
            assert (
                "verify failed" in caught.value.detail
                or "mismatch" in caught.value.detail.lower()
                or "certificate" in caught.value.detail
            )
        assert server.requests == []
    async with upstream() as plain:
        with pytest.raises(Unreachable):
            await call(transport(plain, client_context(authority.pem), connect=1))


async def test_client_certificates(authority, tmp_path):
    clients = Authority("clients")
    context, _ = server_context(tmp_path, authority, x509.DNSName("upstream.example"), client_ca=clients.pem)
    certificate, key = clients.issue(x509.DNSName("sentinel"))
    async with upstream(context=context) as server:
        pool = transport(server, client_context(authority.pem, certificate, key))
        assert await call(pool) == b"{}"
        await pool.close()
        with pytest.raises((Unreachable, Broken)):
            await call(transport(server, client_context(authority.pem)))
        assert len(server.requests) == 1


async def test_a_truncated_tls_stream_is_broken(authority, tmp_path):
    context, _ = server_context(tmp_path, authority, x509.DNSName("upstream.example"))

    async def cut(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort")
        peer.writer.transport.abort()

    async with upstream(cut, context=context) as server:
        with pytest.raises(Broken):
            await call(transport(server, client_context(authority.pem)))


def test_bad_certificates_are_named(authority):
    with pytest.raises(BadCertificate, match="CA"):
        client_context("-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----")
    with pytest.raises(BadCertificate, match="client certificate"):
        client_context("", authority.pem, "nonsense")
    with pytest.raises(BadCertificate, match="client certificate"):
        client_context("", authority.pem, pem(ec.generate_private_key(ec.SECP256R1())))
    encrypted = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"pw")
    )
    with pytest.raises(BadCertificate, match="client certificate"):
        client_context("", authority.pem, encrypted.decode())
