"""What a check tells and stores of an upstream: a server's words about itself are redacted as every other text is."""

from __future__ import annotations

from proxy.upstreams.catalogue import examine
from proxy.upstreams.egress import Egress, parse_url
from proxy.upstreams.transports.base import TransportLimits
from proxy.upstreams.transports.http.streamable_http import StreamableHttpTransport
from tests.proxy.upstream import LOOPBACK
from tests.support.upstream import FakeUpstream, error, result

SECRET = "ghp_0123456789abcdefghijABCDEFGHIJ012345"


async def test_a_server_that_says_what_it_was_sent_does_not_show_it() -> None:
    with FakeUpstream() as fake:
        said = {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": f"crm {SECRET}", "version": f"Authorization: Bearer {SECRET}"},
        }
        fake.script(error(-32601, "no"), method="server/discover")
        fake.script(result(said), method="initialize")
        transport = StreamableHttpTransport(
            parse_url(fake.url), Egress(LOOPBACK), limits=TransportLimits(first_byte=30, idle=30, connect=3)
        )
        try:
            report = await examine(transport, kind="streamable-http")
        finally:
            await transport.close()
    assert report.ok, report.cause
    assert "crm [REDACTED:" in report.steps[1].detail
    assert SECRET not in str([step.as_json() for step in report.steps])
