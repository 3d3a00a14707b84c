"""A command of a stdio upstream that wants the gateway's secrets, on a running gateway (docs: THREAT_MODEL.md)."""

from __future__ import annotations

import json
import os
import shlex
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.gateway import Gateway, Key

pytestmark = pytest.mark.timeout(300)
SERVER = Path(__file__).resolve().parents[1] / "proxy" / "hostile_command.py"
TOKEN = "metrics-token-that-nobody-may-read-0123456789"
MEANT = "Bearer what-was-meant-for-upstreams"


@pytest.fixture(scope="module")
def gateway() -> Iterator[tuple[Gateway, Key]]:
    """A gateway with two such commands."""
    with Gateway(SENTINEL_METRICS_TOKEN=TOKEN, MCP_UPSTREAM_T=MEANT, SENTINEL_CATALOGUE_REFRESH="0") as running:
        command = shlex.join([sys.executable, str(SERVER)])
        *_, made = running.commands(
            ["upstreams", "add", "evil", "--command", command, "--env", "T=env:MCP_UPSTREAM_T"],
            ["upstreams", "add", "other", "--command", command],
            ["keys", "create", "k", "--role", "admin", "--json"],
        )
        told = json.loads(made)
        time.sleep(1.0)
        yield running, Key(told["id"], told["key"], "k")


def does(running: tuple[Gateway, Key], code: str, upstream: str = "evil") -> Any:
    """Have the command do something."""
    gateway, key = running
    answer = gateway.client(key, upstream).call("python", {"do": textwrap.dedent(code)}, timeout=60)
    return json.loads(answer.result["content"][0]["text"])


def own_processes(gateway: Gateway) -> list[psutil.Process]:
    """The gateway's own processes: supervisor, workers, drainer, host."""
    assert gateway.process is not None
    root = psutil.Process(gateway.process.pid)
    every = [root, *root.children(recursive=True)]
    return [process for process in every if "manage.py" in " ".join(process.cmdline())]


def test_neither_environments_nor_memory_of_the_gateway_can_be_read(gateway: Any) -> None:
    pids = [process.pid for process in own_processes(gateway[0])]
    assert len(pids) >= 4
    told = does(gateway, f"""
        import os
        found = {{}}
        for pid in {pids} + [os.getppid()]:
            for name in ("environ", "mem", "maps", "fd/0", "root/etc/hostname", "cwd/manage.py"):
                try:
                    open(f"/proc/{{pid}}/{{name}}", "rb").read(1)
                    found[f"{{pid}} {{name}}"] = "read"
                except OSError as error:
                    pass
    """)  # fmt: skip
    assert told == {}, told


def test_the_state_folder_shows_nothing_and_the_environment_is_its_own(gateway: Any) -> None:
    var = gateway[0].var
    key = (var / "secrets" / "key-pepper-1").read_text().strip()
    told = does(gateway, f"""
        import os, glob
        text = ""
        for place in glob.glob({str(var)!r} + "/**", recursive=True, include_hidden=True):
            try:
                text += open(place, "rb").read().decode("latin-1")
            except OSError:
                pass
        found = [{key!r} in text, len(text), os.environ.get("T"), [name for name in os.environ if "SENTINEL" in name]]
    """)  # fmt: skip
    assert told == [False, 0, MEANT, []]


def test_neither_the_database_nor_another_upstream_can_be_spoken_to(gateway: Any) -> None:
    var = gateway[0].var
    told = does(gateway, f"""
        import glob, os, socket
        found = []
        for place in [{str(var)!r} + "/postgres/run/.s.PGSQL.5432", {str(var)!r} + "/run/upstreams.sock",
                      *glob.glob("/tmp/mcp-sentinel-*/.s.PGSQL.5432"), *glob.glob({str(var)!r} + "/**/*.sock", recursive=True)]:
            try:
                one = socket.socket(socket.AF_UNIX)
                one.connect(place)
                if "PGSQL" not in place:
                    one.sendall(b"POST /send/other HTTP/1.1\\r\\nhost: a\\r\\ncontent-length: 0\\r\\n\\r\\n")
                    found.append(one.recv(100).decode())
            except OSError as error:
                pass
    """)  # fmt: skip
    assert not [line for line in told if "403" not in line], told


def test_the_processes_own_environments_hold_no_secret_any_more(gateway: Any) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can still look")
    for process in own_processes(gateway[0]):
        environment = Path(f"/proc/{process.pid}/environ").read_bytes()
        assert TOKEN.encode() not in environment, process.cmdline()
        assert b"SENTINEL_VAR=" in environment or "serve" in " ".join(process.cmdline())


def test_what_left_the_group_ends_with_disable(gateway: Any) -> None:
    escaped = does(gateway, """
        import os, signal, time
        read, write = os.pipe()
        if not os.fork():
            os.setsid()
            if not os.fork():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                os.write(write, str(os.getpid()).encode())
                for descriptor in range(3):
                    os.dup2(os.open("/dev/null", os.O_RDWR), descriptor)
                time.sleep(300)
            os._exit(0)
        found = int(os.read(read, 100))
    """, "other")  # fmt: skip
    assert psutil.pid_exists(escaped)
    survivor = does(gateway, "import os; found = os.getpid()")
    gateway[0].manage("upstreams", "disable", "other")
    until = time.monotonic() + 15
    while psutil.pid_exists(escaped):
        assert time.monotonic() < until, "it still runs"
        time.sleep(0.1)
    assert does(gateway, "import os; found = os.getpid()") == survivor
