"""The clients' walk: what each does with an upstream directly, and through the gateway with a policy and a limit in force."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.interop import clients_table
from tests.interop.clients_table import Client
from tests.interop.compare import normal
from tests.interop.roads import NotStarted, World
from tests.interop.servers import SERVERS

#: `secret` is listed, since small levels are allowed; `limited` may be called twice
POLICY = """\
roles:
  admin: {allow: ["*"]}
  agent: {allow: ["echo", "fail", "count", "limited", "method:*"]}
rules:
  - {name: small levels, effect: allow, roles: [agent], tool: secret, when: [{argument: level, lt: 5}]}
rate_limits:
  per_tool:
    overrides:
      limited: {requests: 2, window_seconds: 600}
"""
LISTED = {"echo", "fail", "count", "secret", "limited"}


def _call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"do": "call", "name": name, "arguments": arguments}


#: what the same client does directly and through the gateway, and must see alike
ALIKE = (
    ("list", {"do": "list"}),
    ("call", _call("echo", text="grüß dich")),
    ("tool error", _call("fail")),
    ("progress", _call("count", to=3)),
    ("reconnect", {"do": "reconnect"}),
    ("call again", _call("echo", text="again")),
)
#: what only the gateway does; the session goes on after it
REFUSED = (
    ("allowed", _call("secret", level=1)),
    ("denied", _call("secret", level=9)),
    ("after it", _call("echo", text="after a denial")),
    ("limited once", _call("limited")),
    ("limited twice", _call("limited")),
    ("limited", _call("limited")),
    ("after that", _call("echo", text="after a limit")),
)


@dataclass(frozen=True, slots=True)
class Played:
    """What came of one client over one transport."""

    client: Client
    transport: str
    differences: dict[str, str]
    #: what the user or the model sees
    denied: str
    limited: str
    #: what no longer worked after a refusal
    broken: tuple[str, ...]


class Hall:
    """A server on two transports behind the gateway, with keys for the clients."""

    def __init__(self, world: World, ports: dict[str, int], slugs: dict[str, str], keys: dict[str, str]) -> None:
        self.world = world
        self.ports = ports
        self.slugs = slugs
        self.keys = keys

    def played(self, client: Client) -> Iterator[Played]:
        """Play a client directly and through the gateway, over each of its transports."""
        for transport in client.transports:
            path = {"http": "mcp", "sse": "sse"}[transport]
            home = self.world.scratch / "homes" / f"{len(list(self.world.scratch.glob('homes/*')))}"
            alike = [step for _, step in ALIKE] if client.calls else [ALIKE[0][1]]
            direct_url = f"http://127.0.0.1:{self.ports[transport]}/{path}"
            direct = clients_table.play(client, direct_url, transport, None, alike, home)
            steps = [*alike, *(step for _, step in REFUSED)] if client.calls else alike
            url = f"{self.world.gateway.url}/{path}/{self.slugs[transport]}"
            home = home.with_name(f"{home.name}-through")
            through = clients_table.play(client, url, transport, self.keys[f"{client.name} {transport}"], steps, home)
            yield _judged(client, transport, direct, through)


def _judged(client: Client, transport: str, direct: dict[str, Any], through: dict[str, Any]) -> Played:
    found: dict[str, str] = {}
    for name, outcome in (("direct", direct), ("connect", through)):
        if "failed" in outcome:
            found[name] = outcome["failed"][:300]
    names = [name for name, _ in ALIKE]
    for name, here, there in zip(names, direct["steps"], through["steps"], strict=False):
        if name == "list":
            # Tools that the role may never call are not listed; the others must be.
            here = {"ok": sorted(set(here["ok"]) & LISTED) if client.calls else here["ok"]} if "ok" in here else here
        if normal(here) != normal(there):
            found[name] = f"direct {_shown(here)}, through the gateway {_shown(there)}"
    after = dict(zip((name for name, _ in REFUSED), through["steps"][len(ALIKE) :], strict=False))
    broken = tuple(name for name in ("after it", "after that") if name in after and "ok" not in after[name])
    if client.calls and "failed" not in through and after.get("allowed", {}).get("ok") != "the secret of level 1":
        found["allowed"] = f"through the gateway {_shown(after.get('allowed', {}))}"
    return Played(client, transport, found, _shown(after.get("denied")), _shown(after.get("limited")), broken)


def _shown(step: dict[str, Any] | None) -> str:
    """What one step gave, as its user sees it."""
    if step is None:
        return "-"
    if "error" in step:
        return f"raises {step['error']}"[:600]
    value = step.get("ok")
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))[:600]


def played(world: World, clients: list[Client]) -> Iterator[Played]:
    """Play every client; without the server that they are played to, each is a row that says so."""
    if not clients:
        return
    try:
        with hall(world, clients) as around:
            for client in clients:
                yield from around.played(client)
    except NotStarted as error:
        for client in clients:
            for transport in client.transports:
                yield Played(client, transport, {"connect": str(error)}, "-", "-", ())


@contextmanager
def hall(world: World, clients: list[Client]) -> Iterator[Hall]:
    """Start the server, make it known, apply the policy, and make a key for each client and transport."""
    server = next(server for server in SERVERS if server.installed == "mcp-2")
    pairs = [f"{client.name} {transport}" for client in clients for transport in client.transports]
    with world.running(server, "http") as http, world.running(server, "sse") as sse:
        ports = {"http": http, "sse": sse}
        slugs = {name: world.known(server, name, port, mark="hall-")[False] for name, port in ports.items()}
        policy = world.gateway.home / "agents.yaml"
        policy.write_text(POLICY)
        lines = [["keys", "create", name, "--role", "agent", "--json"] for name in pairs]
        _, *printed = world.gateway.commands(["policy", "apply", str(policy)], *lines)
        keys = dict(zip(pairs, (json.loads(line)["key"] for line in printed), strict=True))
        yield Hall(world, ports, slugs, keys)
