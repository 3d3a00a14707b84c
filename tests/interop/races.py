"""Three clients connect while the process that all of them share is still starting, round after round.

Each must get the whole answer to `initialize`, the server's own, and a list of tools.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from tests.interop.peers import Silent, Streamable
from tests.interop.roads import World
from tests.interop.servers import SERVERS
from tests.interop.walk import CAPABILITIES

CLIENTS = 3
#: a server on Node: it takes long enough to start
SLOW = "memory"


def rounds(world: World, count: int) -> list[str]:
    """What went wrong in so many rounds; each begins with a process that does not run."""
    server = next(server for server in SERVERS if server.name == SLOW)
    wrong = []
    with ThreadPoolExecutor(CLIENTS) as pool:
        # A command that is new to the gateway is one that has not been started.
        slugs = [f"race-{number}" for number in range(count)]
        start = world.reached(server, "stdio", 0)
        world.gateway.commands(*(["upstreams", "add", slug, *start] for slug in slugs))
        time.sleep(1.0)
        for number, slug in enumerate(slugs):
            url = f"{world.gateway.url}/mcp/{slug}"
            for said in pool.map(lambda _, url=url: _connected(world, url), range(CLIENTS)):
                if said:
                    wrong.append(f"round {number + 1}: {said}")
        world.gateway.commands(*(["upstreams", "remove", slug] for slug in slugs))
    return wrong


def _connected(world: World, url: str) -> str:
    """Connect and list; what is wrong with what came."""
    peer = Streamable(url, {"Authorization": f"Bearer {world.key.key}"})
    client = {"name": "racer", "version": "1"}
    try:
        hello = {"protocolVersion": "2025-11-25", "capabilities": CAPABILITIES, "clientInfo": client}
        result = peer.ask("initialize", hello, 60).get("result", {})
        if "tools" not in result.get("capabilities", {}) or not result.get("serverInfo", {}).get("name"):
            return f"initialize gave {str(result)[:200]}"
        peer.notify("notifications/initialized")
        tools = peer.ask("tools/list", {}, 60).get("result", {}).get("tools", [])
        return "" if len(tools) > 5 else f"tools/list gave {len(tools)} tools"
    except Silent:
        return "no answer"
    finally:
        peer.close()
