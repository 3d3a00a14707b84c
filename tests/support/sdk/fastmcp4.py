"""Plays steps with the client of FastMCP 4: a request on standard input, one JSON line on standard output."""

import asyncio
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import fastmcp
import mcp_types as types
from fastmcp.client.transports import StreamableHttpTransport
from mcp.shared.exceptions import MCPError

warnings.simplefilter("ignore")
MODES = {"legacy": "legacy", "modern": "2026-07-28", "auto": "auto"}


def plain(value: Any) -> Any:
    return value.model_dump(mode="json", by_alias=True, exclude_none=True) if hasattr(value, "model_dump") else value


async def elicited(message: str, kind: Any, params: Any, context: Any) -> Any:
    return {"name": "Ada", "username": "ada", "email": "ada@example.com"}


async def sampled(messages: Any, params: Any, context: Any) -> Any:
    content = types.TextContent(text="sampled by the client")
    return types.CreateMessageResult(role="assistant", content=content, model="none")


async def waited(file: str) -> None:
    Path(file + ".reached").touch()
    while not Path(file).exists():
        await asyncio.sleep(0.05)


async def step(client: Any, do: dict[str, Any]) -> Any:
    progress: list[Any] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        progress.append(done)

    match do["do"]:
        case "list_tools":
            return plain(await client.list_tools_mcp(cursor=do.get("cursor")))
        case "call":
            result = await client.call_tool_mcp(
                do["name"],
                do.get("arguments") or {},
                on_progress if do.get("progress") else None,
                do.get("timeout"),
            )
            return plain(result) | ({"progress": progress} if do.get("progress") else {})
        case "list_prompts":
            return plain(await client.list_prompts_mcp())
        case "prompt":
            return plain(await client.get_prompt_mcp(do["name"], do.get("arguments")))
        case "list_resources":
            return plain(await client.list_resources_mcp())
        case "read":
            return plain(await client.read_resource_mcp(do["uri"]))
        case "ping":
            return {"ok": await client.ping()}
        case "wait":
            await waited(do["file"])
        case "sleep":
            await asyncio.sleep(do["seconds"])
    return {}


def told(error: BaseException) -> dict[str, Any]:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, MCPError):
        return {"code": error.code, "message": error.message, "data": plain(error.data)}
    return {"code": None, "message": f"{type(error).__name__}: {error}", "data": None}


async def main() -> dict[str, Any]:
    request = json.load(sys.stdin)
    outcome: dict[str, Any] = {"steps": []}
    try:
        client = fastmcp.Client(
            StreamableHttpTransport(request["url"], request["headers"]),
            mode=MODES[request["era"]],
            elicitation_handler=elicited,
            sampling_handler=sampled,
            roots=["file:///tmp/root"],
        )
        async with client:
            outcome["version"] = client.protocol_version
            for do in request["steps"]:
                try:
                    outcome["steps"].append({"ok": await step(client, do)})
                except Exception as error:  # noqa: BLE001 - what went wrong is the answer
                    outcome["steps"].append({"error": told(error)})
    except BaseException as error:  # noqa: BLE001 - what went wrong is the answer
        outcome["failed"] = told(error)
    return outcome


print(json.dumps(asyncio.run(main())))
