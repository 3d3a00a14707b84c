"""MCP servers on other readers than the gateway's, each noting what it executes: plain ones on the parsers of three languages, one
that takes every header at its word, and servers of the official SDKs in several versions."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from tests.support import clients

PARSERS = Path(__file__).resolve().parent / "parsers"
PLAIN = ("python", "node", "go")  # these note every message, the others what one may be forbidden
CREDULOUS = "credulous"
OFFICIAL = {
    "python-1": clients.MCP1,
    "python-2": clients.MCP2,
    "typescript-old": "old",
    "typescript-1": "raw",
    "typescript-1-express": "express",
    "typescript-2": "v2",
}
ALL = (*PLAIN, CREDULOUS, *OFFICIAL)
#: what the others of them make of 2026-07-28 is an error, since they are older
MODERN = frozenset((*PLAIN, CREDULOUS, "python-2", "typescript-old", "typescript-2"))


def command(name: str) -> list[str]:
    """How a server is started; its port is to follow."""
    if name == "go":
        return [str(clients.go_server())]
    if name == "node":
        return [str(clients.node()), str(PARSERS / "server.mjs")]
    if name.startswith("typescript"):
        folder = clients.node_modules("servers", clients.SERVERS)
        return [str(clients.node()), str(clients.beside(folder, PARSERS / "official.mjs")), OFFICIAL[name]]
    if name in OFFICIAL:
        return [str(clients.python(OFFICIAL[name])), str(PARSERS / "official.py")]
    return [sys.executable, str(PARSERS / "server.py"), *(["--credulous"] if name == CREDULOUS else [])]


@contextmanager
def servers(names: Iterable[str] = ALL) -> Iterator[dict[str, int]]:
    """Run servers: name -> port."""
    commands = {name: command(name) for name in names}
    ports = {name: clients.free_port() for name in commands}
    running = [subprocess.Popen([*command, str(ports[name])]) for name, command in commands.items()]
    try:
        for port in ports.values():
            until = time.monotonic() + 60 * clients.PATIENCE
            while True:
                try:
                    executed(port)
                    break
                except (URLError, OSError):
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.05)
        yield ports
    finally:
        for process in running:
            process.kill()
            process.wait()


def executed(port: int) -> list[Any]:
    """What a server has executed: trace, method, name, uri, arguments, ref; then what its headers said, where it tells."""
    with urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
        found: list[Any] = json.load(answer)
    return found
