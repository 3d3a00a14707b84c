"""`python -m tests.support.walked SLUG FILE`: which of our files one `tools/call` visits, in the order in which it first does.

Run with a gateway's environment, so that it is one more process of that installation. The key comes on standard input; the
files, and the status of the answer, are written to FILE as JSON. Files that the warm-up alone visits are not among them.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OURS = tuple(f"{ROOT}/{package}/" for package in ("core", "audit", "policies", "proxy", "sentinel"))
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {"text": "hello"}}}


def main() -> None:
    """Make two calls, and follow the second."""
    from sentinel.asgi import application

    slug, key = sys.argv[1], sys.stdin.read().strip()
    visited: dict[str, None] = {}

    own: set[asyncio.Task[Any] | None] = {None}  # what the loop calls without a task is the connections'

    def follow(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(OURS) and asyncio.current_task() in own:
            visited.setdefault(frame.f_code.co_filename.removeprefix(f"{ROOT}/"))

    async def ask() -> int:
        body = json.dumps(CALL).encode()
        told: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]
        answered: list[dict[str, Any]] = []
        done = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if told:
                return told.pop()
            await done.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            answered.append(message)

        headers = {
            "host": "127.0.0.1",
            "authorization": f"Bearer {key}",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2025-06-18",
        }
        scope = {
            "type": "http",
            "method": "POST",
            "path": f"/mcp/{slug}",
            "raw_path": f"/mcp/{slug}".encode(),
            "query_string": b"",
            "client": ("127.0.0.1", 1),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        await application(scope, receive, send)
        done.set()
        return int(answered[0]["status"])

    async def both() -> int:
        await ask()
        await asyncio.sleep(0.5)
        own.add(asyncio.current_task())  # and not those that mind streams or metrics beside it
        sys.setprofile(follow)
        status = await ask()
        sys.setprofile(None)
        from sentinel.server import runtime

        await runtime.stop_gateway()
        return status

    status = asyncio.run(both())
    Path(sys.argv[2]).write_text(json.dumps({"status": status, "visited": list(visited)}))


if __name__ == "__main__":
    main()
