from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from audit.reasons import answering
from proxy.mcp.definitions import Definition, canonical, digest
from proxy.upstreams.registry import UpstreamRegistry, build_transport
from proxy.upstreams.specs import UpstreamSpec, Way
from proxy.upstreams.transports.base import Unreachable, UpstreamRequest
from proxy.upstreams.transports.http.http_sse import HttpSseTransport
from proxy.upstreams.transports.http.streamable_http import StreamableHttpTransport
from proxy.upstreams.transports.stdio.transport import StdioTransport
from tests.proxy.upstream import LOOPBACK, Peer, upstream

CONFIG = SimpleNamespace(
    upstream_networks=LOOPBACK,
    connect_timeout=1.0,
    first_byte_timeout=2.0,
    idle_timeout=2.0,
    max_answer_bytes=1 << 20,
    data_key=b"k" * 32,
    var="/tmp",
)
POST = UpstreamRequest(b"POST", [], b"{}")


def registry_of(*specs: UpstreamSpec) -> tuple[UpstreamRegistry, SimpleNamespace]:
    source = SimpleNamespace(extras={"upstreams": {spec.slug: spec for spec in specs}})
    return UpstreamRegistry(source, CONFIG, hosted=False), source


def spec(slug="a", **way) -> UpstreamSpec:
    return UpstreamSpec(slug=slug, way=Way(**{"transport": "streamable-http", "url": "http://127.0.0.1:9/mcp", **way}))


def test_nothing_is_known_before_the_first_load():
    registry = UpstreamRegistry(SimpleNamespace(extras={}), CONFIG, hosted=False)
    assert registry.spec("a") is None
    assert registry.specs() == {}


async def test_a_transport_is_made_once_and_kept_while_the_way_is_the_same():
    registry, source = registry_of(spec())
    first = registry.transport("a")
    assert registry.transport("a") is first
    same = UpstreamSpec(slug="a", way=spec().way, era="legacy", catalogue_policy="quarantine")
    source.extras["upstreams"] = {"a": same}
    assert registry.transport("a") is first
    source.extras["upstreams"] = {"a": spec(url="http://127.0.0.1:9/other")}
    assert registry.transport("a") is not first
    source.extras["upstreams"] = {}
    assert registry.spec("a") is None
    with pytest.raises(Unreachable):
        registry.transport("a")
    await registry.close()


async def test_a_replaced_transport_lets_its_calls_end():
    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.3)
        await peer.answer(b"late")

    async with upstream(script) as server:
        registry, source = registry_of(spec(url=server.url()))
        running = asyncio.create_task(registry.transport("a").send(POST))
        await asyncio.sleep(0.05)
        source.extras["upstreams"] = {}
        assert registry.spec("a") is None
        response = await running
        assert await response.body(100) == b"late"
        await registry.close()


def test_a_disabled_upstream_is_as_good_as_none():
    registry, _ = registry_of(UpstreamSpec(slug="a", way=spec().way, enabled=False))
    assert registry.spec("a") is None
    assert "a" in registry.specs()


@pytest.mark.parametrize(
    ("way", "kind"),
    [({}, StreamableHttpTransport), ({"transport": "sse"}, HttpSseTransport), ({"transport": "stdio", "url": "", "argv": ("cat",)}, StdioTransport)],
)  # fmt: skip
async def test_each_way_has_its_transport(way, kind):
    transport = build_transport(spec(**way), CONFIG)
    assert isinstance(transport, kind)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (UpstreamSpec(slug="a", way=spec().way, problem="The environment variable X is not set."), "X is not set"), (spec(url="nonsense"), "scheme"),
        (spec(url="https://127.0.0.1/", ca_pem="x"), "CA"), (spec(headers=((b"a", b"x\r\ny"),)), "line break"),
    ],
)  # fmt: skip
async def test_what_cannot_be_used_fails_its_calls_with_the_cause(made, words):
    registry, _ = registry_of(made)
    with pytest.raises(Unreachable) as caught:
        await registry.transport("a").send(POST)
    assert words in caught.value.detail
    assert words not in caught.value.message
    assert answering(caught.value.reason).status == 502
    await registry.close()


def test_no_secret_shows():
    shown = repr(
        spec(headers=((b"authorization", b"s3cret"),), environment=(("A", "s3cret"),), client_key_pem="s3cret")
    )
    assert "s3cret" not in shown


def test_listed_items_are_judged_by_what_they_say_now():
    tool = {"name": "t", "description": "d"}
    mark = digest(canonical(tool))
    known = {
        ("tool", "t"): Definition("tool", "t", mark, mark, "pinned"),
        ("template", "x://{a}"): Definition("template", "x://{a}", "h", "", "quarantined"),
    }
    strict = UpstreamSpec(slug="a", way=spec().way, catalogue_policy="quarantine", catalogued=True, definitions=known)
    loose = UpstreamSpec(slug="a", way=spec().way, catalogued=True, definitions=known)
    assert not strict.blocked("tool", "t", tool)
    for other in ({"name": "t", "description": "D"}, {**tool, "x": 1}, {"name": "t"}):
        assert strict.blocked("tool", "t", other)
        assert not loose.blocked("tool", "t", other)
        assert loose.differs("tool", "t", other)
    assert strict.blocked("tool", "unknown", {"name": "unknown"})
    assert not loose.blocked("tool", "unknown", {"name": "unknown"})
    assert strict.blocked("resource", "x://{a}")
    assert loose.definition("resource", "x://{a}").blocked
