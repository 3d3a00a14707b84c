"""TLS towards upstreams: the system's or an own certificate authority, and client certificates."""

from __future__ import annotations

import os
import ssl
import tempfile
from typing import IO


class BadCertificate(ValueError):
    """Certificates or keys that cannot be used, with the reason as its text."""


def client_context(ca_pem: str = "", cert_pem: str = "", key_pem: str = "") -> ssl.SSLContext:
    """Build the context for an upstream; given authorities replace the system's."""
    try:
        context = ssl.create_default_context(cadata=ca_pem or None)
    except (ssl.SSLError, ValueError) as error:
        raise BadCertificate(f"The CA certificates cannot be read: {error}.") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if cert_pem:
        _load_chain(context, cert_pem, key_pem)
    return context


def _load_chain(context: ssl.SSLContext, cert_pem: str, key_pem: str) -> None:
    # ssl reads chains from files only; where the system has files in memory the key never touches a disk
    if hasattr(os, "memfd_create"):
        file: IO[bytes] = os.fdopen(os.memfd_create("chain"), "w+b")
    else:
        file = tempfile.TemporaryFile()  # unlinked from the start
    with file:
        file.write(cert_pem.encode() + b"\n" + key_pem.encode())
        file.flush()
        try:
            # an empty password keeps OpenSSL from asking the terminal for one
            context.load_cert_chain(f"/dev/fd/{file.fileno()}", password="")
        except (ssl.SSLError, OSError, ValueError) as error:
            raise BadCertificate(f"The client certificate and its key cannot be used: {error}.") from None
