"""One more running gateway: with upstreams that are commands, and upstreams that speak HTTP+SSE."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import clients
from tests.support.fixtures import EVERYTHING, Everything
from tests.support.gateway import Gateway, Key
from tests.support.upstream import FakeUpstream

PLAIN = Path(__file__).resolve().parents[1] / "proxy" / "stdio_server.py"


@dataclass
class Pipes:
    """The gateway, a key that may do everything, and a real server behind each transport.

    Its upstreams: `pipe` and `pipe-each` (a plain script, shared and one for each session), `stdio` and `stdio-each` (the
    everything server as a command), `sse` (the same over HTTP+SSE), `http` (over Streamable HTTP) and `silent` (a fake).
    """

    gateway: Gateway
    key: Key
    fake: FakeUpstream

    def client(self, upstream: str, **options):
        """A client on the wire."""
        return self.gateway.client(self.key, upstream, **options)


@pytest.fixture(scope="session")
def pipes() -> Iterator[Pipes]:
    """The gateway with upstreams over every transport."""
    plain = shlex.join([sys.executable, str(PLAIN)])
    real = shlex.join([str(clients.python()), str(EVERYTHING), "--transport", "stdio"])
    settings = {"SENTINEL_CATALOGUE_REFRESH": "0", "SENTINEL_KEEPALIVE_INTERVAL": "1s", "SENTINEL_IDLE_TIMEOUT": "3s"}
    settings |= {"SENTINEL_MAX_STREAMS_PER_KEY": "1000"}
    with (
        Everything() as http,
        Everything("--transport", "sse") as sse,
        FakeUpstream() as fake,
        Gateway(**settings) as gateway,
    ):
        *_, made = gateway.commands(
            ["upstreams", "add", "pipe", "--command", plain],
            ["upstreams", "add", "pipe-each", "--command", plain, "--per-session"],
            ["upstreams", "add", "stdio", "--command", real],
            ["upstreams", "add", "stdio-each", "--command", real, "--per-session"],
            ["upstreams", "add", "sse", "--url", sse.url.replace("/mcp", "/sse"), "--transport", "sse"],
            ["upstreams", "add", "http", "--url", http.url],
            ["upstreams", "add", "silent", "--url", fake.url],
            ["keys", "create", "pipes", "--role", "admin", "--json"],
        )
        told = json.loads(made)
        time.sleep(1.0)  # what was added is known to every worker
        yield Pipes(gateway, Key(told["id"], told["key"], "pipes"), fake)


@pytest.fixture
def silent(pipes: Pipes) -> FakeUpstream:
    """The fake upstream of that gateway, with nothing scripted and nothing seen."""
    pipes.fake.forget()
    return pipes.fake
