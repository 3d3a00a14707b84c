"""What end-to-end tests share: one running gateway with its upstreams and a key for each default role."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from tests.support import clients
from tests.support.gateway import Gateway, Key
from tests.support.upstream import FakeUpstream

EVERYTHING = Path(__file__).resolve().parent / "everything.py"


class Everything:
    """The everything server in its own environment, as a context manager."""

    def __init__(self, *options: str) -> None:
        self.port = clients.free_port()
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self.options = options

    def __enter__(self) -> Everything:
        command = [str(clients.python()), str(EVERYTHING), "--port", str(self.port), *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(1200):
            try:
                self.seen()
                return self
            except (URLError, OSError):
                time.sleep(0.05)
        self.process.kill()
        raise RuntimeError("the everything server did not start")

    def __exit__(self, *exc: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)

    def seen(self, forget: bool = False) -> dict:
        """What reached it: `{"requests": [...], "cancelled": N}`."""
        target = Request(f"http://127.0.0.1:{self.port}/_seen", method="DELETE" if forget else "GET")
        with urlopen(target, timeout=5) as answer:
            return json.load(answer)


@dataclass
class Stage:
    """A gateway with everything around it."""

    gateway: Gateway
    fake: FakeUpstream
    keys: dict[str, Key]

    def client(self, role: str | None = "admin", **options):
        """A client on the wire with the key of a role."""
        return self.gateway.client(self.keys[role] if role else None, **options)


# The default roles as the first migration makes them, and some more for single tests. Keys for all of them exist.
POLICY = """\
roles:
  admin:    {allow: ["*"]}
  user:     {allow: ["public.echo", "list_*"]}
  readonly: {allow: ["list_customers"]}
  pager:    {allow: ["*"], deny: ["page_1_*"]}
  getter:   {allow: ["get_customer"]}
  spender:  {allow: []}
rules:
  - {name: small sums, effect: allow, roles: [spender], tool: pay, when: [{argument: amount, lt: 100}]}
rate_limits:
  per_tool:
    overrides:
      limited: {requests: 2, window_seconds: 3}
"""
ROLES = ("admin", "user", "readonly", "pager", "getter", "spender")
# Times short enough for tests of what happens when they are over; and an upstream sees only what clients send.
SETTINGS = {"SENTINEL_FIRST_BYTE_TIMEOUT": "3", "SENTINEL_MAX_ANSWER_BYTES": "16MiB", "SENTINEL_CATALOGUE_REFRESH": "0"}


def stage(server: str = "serve", **options: str) -> Iterator[Stage]:
    """A gateway with the fake upstream `fake` and keys for the roles."""
    with FakeUpstream() as fake, Gateway(server=server, **SETTINGS | options) as gateway:
        policy = gateway.home / "policy.yaml"
        policy.write_text(POLICY)
        _, _, *printed = gateway.commands(
            ["upstreams", "add", "fake", "--url", fake.url],
            ["policy", "apply", str(policy)],
            *(["keys", "create", f"{role}-key", "--role", role, "--json"] for role in ROLES),
        )
        told = dict(zip(ROLES, map(json.loads, printed), strict=True))
        keys = {role: Key(value["id"], value["key"], f"{role}-key") for role, value in told.items()}
        time.sleep(1.0)  # what was added is known to every worker
        yield Stage(gateway, fake, keys)
