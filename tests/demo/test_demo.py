"""The demonstration: its server works with real clients in both eras, and the whole play ends well in time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest

from tests.support import clients
from tests.support.clients import ROOT, Kind

PAIRS = [(kind, era) for kind in clients.KINDS for era in kind.eras]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    port = clients.free_port()
    process = subprocess.Popen([sys.executable, "demo/server.py", "--port", str(port)], cwd=ROOT)
    try:
        for _ in range(200):
            try:
                urlopen(f"http://127.0.0.1:{port}/mcp", timeout=1)
            except HTTPError:
                break
            except (URLError, OSError):
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("kind", "era"), PAIRS, ids=[f"{kind.name}-{era}" for kind, era in PAIRS])
def test_real_clients_can_use_the_careless_server(url: str, kind: Kind, era: str) -> None:
    steps = [
        {"do": "list_tools"},
        {"do": "call", "name": "get_customer", "arguments": {"customer_id": "1"}},
        {"do": "call", "name": "public.echo", "arguments": {"text": "hello"}},
        {"do": "call", "name": "get_customer", "arguments": {"customer_id": "none"}},
        {"do": "call", "name": "nothing"},
    ]
    outcome = clients.run(kind, url, steps, era=era)
    assert outcome["version"] == ("2025-11-25" if era == "legacy" else "2026-07-28")
    tools, customer, echo, missing, unknown = outcome["steps"]
    names = [tool["name"] for tool in tools["ok"]["tools"]]
    assert names == ["list_customers", "get_customer", "delete_customer", "public.echo"]
    assert "Ada Byron" in customer["ok"]["content"][0]["text"]
    assert echo["ok"]["content"][0]["text"] == "hello"
    assert missing["ok"]["isError"] is True
    assert "error" in unknown


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_demonstration_ends_well() -> None:
    begun = time.monotonic()
    environment = {n: v for n, v in os.environ.items() if n not in ("DATABASE_URL", "DJANGO_SETTINGS_MODULE")}
    done = subprocess.run(
        [sys.executable, "demo/run.py"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - begun < 180
    for told in (" 401 ", " 403 ", " 429 ", " 200 ", "deleted for good"):
        assert told in done.stdout
