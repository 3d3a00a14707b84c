"""Streams end with what gave them: a secret, a role, an upstream, a rule. What is still given goes on, judged by what holds now."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import pytest

from tests.support.gateway import Gateway, Key
from tests.support.upstream import FakeUpstream, sse
from tests.support.wire import Client, Stream

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("streams")]

SSE = {"Accept": "text/event-stream"}
BEGUN = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "begun"}}
#: what is promised for a stream whose key is revoked holds for everything else that ends one; a test's machine is busy
SECONDS = 15.0
ROLES = ("rotated", "narrowed", "kept", "denied", "stranded", "moved")


@dataclass
class Place:
    """A gateway with two upstreams, and a role of its own for each key."""

    gateway: Gateway
    fake: FakeUpstream
    keys: dict[str, Key]
    roles: dict[str, str]

    def change(self, role: str, rules: str) -> None:
        """Change what one role may do."""
        self.roles[role] = rules
        self.gateway.apply_policy("roles:\n" + "".join(f"  {name}: {{{what}}}\n" for name, what in self.roles.items()))


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with FakeUpstream() as fake, Gateway(workers=2, SENTINEL_CATALOGUE_REFRESH="0") as gateway:
        roles = dict.fromkeys(ROLES, "allow: ['*']")
        policy = gateway.home / "policy.yaml"
        policy.write_text("roles:\n" + "".join(f"  {name}: {{{what}}}\n" for name, what in roles.items()))
        _, _, _, *made = gateway.commands(
            ["upstreams", "add", "fake", "--url", fake.url],
            ["upstreams", "add", "other", "--url", fake.url],
            ["policy", "apply", str(policy)],
            *(["keys", "create", name, "--role", name, "--json"] for name in ROLES),
        )
        told = dict(zip(ROLES, map(json.loads, made), strict=True))
        time.sleep(1.0)
        fake.script(sse([BEGUN], hold=300), verb="GET")
        fake.script(sse([BEGUN], hold=300, answer={"content": []}), method="tools/call")
        yield Place(gateway, fake, {name: Key(one["id"], one["key"], name) for name, one in told.items()}, roles)


def opened(place: Place, name: str, upstream: str = "fake") -> list[Stream]:
    """A listening stream, one of the older transport, and a call that is answered as a stream."""
    gateway, key = place.gateway, place.keys[name]
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
        stream._socket.settimeout(SECONDS)
        while stream.read():
            assert time.monotonic() < until, stream.received[-300:]
        stream.close()


def is_open(stream: Stream) -> bool:
    """Whether it has not ended; comments may have come."""
    while select.select([stream._socket], [], [], 0)[0]:
        if not stream.read():
            return False
    return True


def reasons(place: Place, since: datetime, name: str, count: int) -> list[str]:
    found = place.gateway.events(since, count, key_name=name, outcome="cancelled")
    assert all(event["status_code"] and event["details"]["stream"]["ended"] == event["reason"] for event in found), (
        found
    )
    return [event["reason"] for event in found]


def test_a_rotated_secret_ends_its_streams_when_its_overlap_is_over(place: Place) -> None:
    gateway, key = place.gateway, place.keys["rotated"]
    since = gateway.now()
    streams = opened(place, "rotated")
    told = json.loads(gateway.manage("keys", "rotate", key.id, "--overlap", "8s", "--json").stdout)
    time.sleep(1.0)
    with gateway.client(told["key"]).initialize().ask("", verb="GET", headers=SSE, stream=True) as fresh:
        fresh.until(b"begun", timeout=20)
        ends(streams)
        assert is_open(fresh)  # the same key by its new secret
    assert reasons(place, since, "rotated", 3)[:3] == ["revoked_during_stream"] * 3


def test_a_narrowed_role_ends_what_it_gives_no_more(place: Place) -> None:
    since = place.gateway.now()
    streams, kept = opened(place, "narrowed"), opened(place, "kept")
    place.change("narrowed", "allow: ['@other/*']")
    ends(streams[1:2])
    assert all(map(is_open, kept))
    assert reasons(place, since, "narrowed", 1) == ["denied_during_stream"]
    for stream in [*streams, *kept]:
        stream.close()


def test_a_call_that_is_denied_meanwhile_ends_and_a_listening_stream_goes_on(place: Place) -> None:
    since = place.gateway.now()
    listening, calling, older = opened(place, "denied")
    place.change("denied", "allow: ['*'], deny: ['public.*']")
    ends([calling])
    assert is_open(listening) and is_open(older)
    assert reasons(place, since, "denied", 1) == ["denied_during_stream"]
    listening.close()
    older.close()


def test_an_upstream_that_is_disabled_ends_its_streams(place: Place) -> None:
    since = place.gateway.now()
    streams, kept = opened(place, "stranded", "other"), opened(place, "stranded", "fake")
    place.gateway.manage("upstreams", "disable", "other")
    ends(streams)
    assert all(map(is_open, kept))
    assert reasons(place, since, "stranded", 3) == ["upstream_changed"] * 3
    for stream in kept:
        stream.close()


def test_what_a_list_shows_on_an_open_stream_follows_the_role_of_now(place: Place) -> None:
    """A stream that goes on is its key's as that is now, not as it was when it was opened."""
    tools = {"tools": [{"name": n, "inputSchema": {"type": "object"}} for n in ("public.echo", "delete_customer")]}
    place.fake.script(sse([BEGUN], hold=30, answer=tools), method="tools/list")
    client = place.gateway.client(place.keys["moved"]).initialize()
    with client.ask("tools/list", stream=True) as stream:
        stream.until(b"begun", timeout=20)
        place.change("moved", "allow: ['public.*']")
        assert b'"result"' not in stream.received
        stream._socket.settimeout(60)
        stream.until(b'"result"', timeout=60)
        assert b"public.echo" in stream.received and b"delete_customer" not in stream.received
