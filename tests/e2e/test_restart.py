"""Real clients over a restart of the gateway: their session goes on."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Pipes
from tests.support import clients
from tests.support.clients import Kind

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("pipes")]

PAIRS = [(kind, "legacy", "http") for kind in clients.KINDS]
PAIRS += [(clients.PYTHON2, "modern", "http"), (clients.PYTHON2, "legacy", "stdio")]


def test_a_session_goes_on_after_a_restart_of_the_gateway(pipes: Pipes, tmp_path: Path) -> None:
    """All clients over one restart: each calls before it and after it, on the same session."""
    since = pipes.gateway.now()
    outcomes: dict[str, Any] = {}

    def play(name: str, kind: Kind, era: str, upstream: str, file: Path) -> None:
        steps: list[clients.Step] = [
            {"do": "call", "name": "public.echo", "arguments": {"text": f"before {name}"}},
            {"do": "wait", "file": str(file)},
            {"do": "call", "name": "public.echo", "arguments": {"text": f"after {name}"}},
            {"do": "list_tools"},
        ]
        headers = {"Authorization": f"Bearer {pipes.key.key}"}
        url = f"{pipes.gateway.url}/mcp/{upstream}"
        outcomes[name] = clients.run(kind, url, steps, era=era, headers=headers, timeout=240)

    threads = []
    files = []
    for kind, era, upstream in PAIRS:
        name = f"{kind.name}-{era}-{upstream}"
        file = tmp_path / name
        files.append(file)
        threads.append(threading.Thread(target=play, args=(name, kind, era, upstream, file)))
    for thread in threads:
        thread.start()
    until = time.monotonic() + 120
    while any(not Path(f"{file}.reached").exists() for file in files):
        assert time.monotonic() < until and any(thread.is_alive() for thread in threads), outcomes
        time.sleep(0.05)
    pipes.gateway.restart()
    for file in files:
        file.touch()
    for thread in threads:
        thread.join()
    assert len(outcomes) == len(PAIRS)
    for name, outcome in outcomes.items():
        before, waited, after, tools = outcome["steps"]
        assert before["ok"]["content"][0]["text"] == f"before {name}", (name, outcome)
        assert "ok" in waited, (name, waited)
        assert after["ok"]["content"][0]["text"] == f"after {name}", (name, outcome)
        assert len(tools["ok"]["tools"]) > 5, (name, outcome)
    calls = [event for event in pipes.gateway.events(since) if event["method"] == "tools/call"]
    assert len(calls) == 2 * len(PAIRS)
    assert {event["outcome"] for event in calls} == {"allowed"}
    begun = [event for event in pipes.gateway.events(since) if event["method"] == "initialize"]
    assert len(begun) == len([1 for _, era, _ in PAIRS if era == "legacy"])  # nobody began anew


def test_sessions_that_lived_in_the_gateway_are_told_to_begin_anew(pipes: Pipes) -> None:
    """A process for each session, and the stream to an older server, end with the gateway: 404, which means initialize."""
    clients_before = [pipes.client(upstream).initialize() for upstream in ("pipe-each", "sse")]
    assert [client.ask("ping").status for client in clients_before] == [200, 200]
    pipes.gateway.restart()
    for client in clients_before:
        answer = client.ask("ping", rpc_id="after")
        assert (answer.status, answer.json["id"]) == (404, "after"), answer.body
        assert client.initialize().ask("ping").status == 200
