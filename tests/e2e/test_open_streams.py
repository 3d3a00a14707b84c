"""Streams end with what gave them: a secret, a role, an upstream, a rule. What is still given goes on, judged by what holds now."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.gateway import Gateway, Key
from tests.support.upstream import FakeUpstream, sse
from tests.support.wire import Client, Stream

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("streams")]

SSE = {"Accept": "text/event-stream"}
BEGUN = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "begun"}}
#: what is promised for a stream whose key is revoked holds for everything else that ends one; a test's machine is busy
SECONDS = 15.0
WIDE = "roles:\n  wide: {allow: ['*']}\n  other: {allow: ['*']}\n"


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[Gateway, FakeUpstream]]:
    with FakeUpstream() as fake, Gateway(workers=2, SENTINEL_CATALOGUE_REFRESH="0") as gateway:
        gateway.commands(
            ["upstreams", "add", "fake", "--url", fake.url],
            ["upstreams", "add", "other", "--url", fake.url],
        )
        gateway.follow()
        yield gateway, fake


@pytest.fixture
def gateway(place: tuple[Gateway, FakeUpstream]) -> Gateway:
    gateway, fake = place
    fake.forget()
    fake.script(sse([BEGUN], hold=120), verb="GET")
    fake.script(sse([BEGUN], hold=120, answer={"content": []}), method="tools/call")
    gateway.apply_policy(WIDE)
    return gateway


def opened(gateway: Gateway, key: Key, upstream: str = "fake") -> list[Stream]:
    """A listening stream, one of the older transport, and a call that is answered as a stream."""
    client = gateway.client(key, upstream).initialize()
    older = Client(f"{gateway.url}/sse/{upstream}", key.key).ask("", verb="GET", headers=SSE, stream=True)
    found = [
        client.ask("", verb="GET", headers=SSE, stream=True),
        client.ask("tools/call", {"name": "public.echo"}, stream=True),
    ]
    for stream in found:
        stream.until(b"begun", timeout=20)
    older.until(b"endpoint", timeout=20)
    return [*found, older]


def ends(streams: list[Stream]) -> None:
    until = time.monotonic() + SECONDS
    for stream in streams:
        stream.connection.timeout = SECONDS
        while stream.read():
            assert time.monotonic() < until, stream.received[-300:]


def is_open(stream: Stream) -> bool:
    sock = stream.response.fp.raw._sock if stream.connection.sock is None else stream.connection.sock
    return not select.select([sock], [], [], 0)[0]


def reasons(gateway: Gateway, since, key: Key, count: int) -> list[str]:
    found = gateway.events(since, count, key_name=key.name, outcome="cancelled")
    assert all(event["status_code"] and event["details"]["stream"]["ended"] for event in found), found
    return [event["reason"] for event in found]


def test_a_rotated_secret_ends_its_streams_when_its_overlap_is_over(gateway: Gateway) -> None:
    key = gateway.create_key("rotated", role="wide")
    since = gateway.now()
    streams = opened(gateway, key)
    told = json.loads(gateway.manage("keys", "rotate", key.id, "--overlap", "4s", "--json").stdout)
    fresh = gateway.client(told["key"]).initialize().ask("", verb="GET", headers=SSE, stream=True)
    with ExitStack() as stack:
        stack.callback(fresh.close)
        fresh.until(b"begun", timeout=20)
        ends(streams)
        assert is_open(fresh)  # the same key by its new secret
    assert reasons(gateway, since, key, 3)[:3] == ["revoked_during_stream"] * 3


def test_a_narrowed_role_ends_what_it_gives_no_more(gateway: Gateway) -> None:
    key, other = gateway.create_key("narrowed", role="wide"), gateway.create_key("kept", role="other")
    since = gateway.now()
    streams, kept = opened(gateway, key), opened(gateway, other)
    gateway.apply_policy(WIDE.replace("wide: {allow: ['*']}", "wide: {allow: ['@other/*']}"))
    ends(streams)
    assert all(map(is_open, kept))
    for stream in kept:
        stream.close()
    assert reasons(gateway, since, key, 3) == ["denied_during_stream"] * 3


def test_a_call_that_is_denied_meanwhile_ends_and_a_listening_stream_goes_on(gateway: Gateway) -> None:
    key = gateway.create_key("denied", role="wide")
    since = gateway.now()
    listening, calling, older = opened(gateway, key)
    gateway.apply_policy(WIDE.replace("wide: {allow: ['*']}", "wide: {allow: ['*'], deny: ['public.*']}"))
    ends([calling])
    assert is_open(listening) and is_open(older)
    assert reasons(gateway, since, key, 1) == ["denied_during_stream"]
    listening.close()
    older.close()


def test_an_upstream_that_is_disabled_ends_its_streams(gateway: Gateway) -> None:
    key = gateway.create_key("stranded", role="wide")
    since = gateway.now()
    streams, kept = opened(gateway, key, "other"), opened(gateway, key, "fake")
    gateway.manage("upstreams", "disable", "other")
    try:
        ends(streams)
        assert all(map(is_open, kept))
        assert reasons(gateway, since, key, 3) == ["upstream_changed"] * 3
    finally:
        gateway.manage("upstreams", "enable", "other")
        for stream in kept:
            stream.close()


def test_what_a_list_shows_on_an_open_stream_follows_the_role_of_now(gateway: Gateway, place) -> None:
    """A stream that goes on is its key's as that is now, not as it was when it was opened."""
    _, fake = place
    tools = {"tools": [{"name": n, "inputSchema": {"type": "object"}} for n in ("public.echo", "delete_customer")]}
    fake.script(sse([BEGUN], hold=6, answer=tools), method="tools/list")
    key = gateway.create_key("moved", role="wide")
    client = gateway.client(key).initialize()
    with client.ask("tools/list", stream=True) as stream:
        stream.until(b"begun", timeout=20)
        gateway.apply_policy(WIDE.replace("wide: {allow: ['*']}", "wide: {allow: ['public.*']}"))
        stream.until(b'"result"', timeout=SECONDS)
        assert b"public.echo" in stream.received and b"delete_customer" not in stream.received
