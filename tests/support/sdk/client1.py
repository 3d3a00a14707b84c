"""Plays steps with the Python SDK 1.x: a request on standard input, one JSON line on standard output.

An address below /sse is spoken to by the older transport.
"""

import asyncio
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import mcp.types as types
from mcp import ClientSession, McpError
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamablehttp_client


def plain(value: Any) -> Any:
    return value.model_dump(mode="json", by_alias=True, exclude_none=True) if hasattr(value, "model_dump") else value


async def elicited(context: Any, params: Any) -> Any:
    return types.ElicitResult(action="accept", content={"name": "Ada", "username": "ada", "email": "ada@example.com"})


async def sampled(context: Any, params: Any) -> Any:
    content = types.TextContent(type="text", text="sampled by the client")
    return types.CreateMessageResult(role="assistant", content=content, model="none")


async def waited(file: str) -> None:
    Path(file + ".reached").touch()
    while not Path(file).exists():
        await asyncio.sleep(0.05)


async def step(session: ClientSession, do: dict[str, Any]) -> Any:
    progress: list[Any] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        progress.append(done)

    match do["do"]:
        case "list_tools":
            return plain(await session.list_tools(do.get("cursor")))
        case "call":
            timeout = timedelta(seconds=do["timeout"]) if do.get("timeout") else None
            callback = on_progress if do.get("progress") else None
            result = await session.call_tool(do["name"], do.get("arguments"), timeout, callback)
            return plain(result) | ({"progress": progress} if do.get("progress") else {})
        case "list_prompts":
            return plain(await session.list_prompts())
        case "prompt":
            return plain(await session.get_prompt(do["name"], do.get("arguments")))
        case "list_resources":
            return plain(await session.list_resources())
        case "read":
            return plain(await session.read_resource(do["uri"]))
        case "ping":
            return plain(await session.send_ping())
        case "wait":
            await waited(do["file"])
        case "sleep":
            await asyncio.sleep(do["seconds"])
    return {}


def told(error: BaseException) -> dict[str, Any]:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, McpError):
        return {"code": error.error.code, "message": error.error.message, "data": error.error.data}
    return {"code": None, "message": f"{type(error).__name__}: {error}", "data": None}


async def main() -> dict[str, Any]:
    request = json.load(sys.stdin)
    outcome: dict[str, Any] = {"steps": []}
    opened = sse_client if "/sse/" in request["url"] else streamablehttp_client
    try:
        async with (
            opened(request["url"], request["headers"]) as (read, write, *_),
            ClientSession(read, write, sampling_callback=sampled, elicitation_callback=elicited) as session,
        ):
            outcome["version"] = (await session.initialize()).protocolVersion
            for do in request["steps"]:
                try:
                    async with asyncio.timeout(
                        300 if do["do"] == "wait" else 20
                    ):  # a 4xx to a call leaves this SDK waiting for ever
                        outcome["steps"].append({"ok": await step(session, do)})
                except Exception as error:  # noqa: BLE001 - what went wrong is the answer
                    outcome["steps"].append({"error": told(error)})
    except BaseException as error:  # noqa: BLE001 - what went wrong is the answer
        outcome["failed"] = told(error)
    return outcome


print(json.dumps(asyncio.run(main())))
