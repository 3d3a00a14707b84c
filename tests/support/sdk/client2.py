"""Plays steps with the Python SDK 2.x: a request on standard input, one JSON line on standard output."""

import asyncio
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

warnings.simplefilter("ignore")
MODES = {"legacy": "legacy", "modern": "2026-07-28", "auto": "auto"}


def plain(value: Any) -> Any:
    return value.model_dump(mode="json", by_alias=True, exclude_none=True) if hasattr(value, "model_dump") else value


async def elicited(context: Any, params: Any) -> Any:
    return types.ElicitResult(action="accept", content={"name": "Ada", "username": "ada", "email": "ada@example.com"})


async def sampled(context: Any, params: Any) -> Any:
    content = types.TextContent(text="sampled by the client")
    return types.CreateMessageResult(role="assistant", content=content, model="none")


async def roots(context: Any) -> Any:
    return types.ListRootsResult.model_validate({"roots": [{"uri": "file:///tmp/root"}]})


async def waited(file: str) -> None:
    Path(file + ".reached").touch()
    while not Path(file).exists():
        await asyncio.sleep(0.05)


async def step(client: Client, do: dict[str, Any]) -> Any:
    progress: list[Any] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        progress.append(done)

    match do["do"]:
        case "list_tools":
            return plain(await client.list_tools(cursor=do.get("cursor")))
        case "call":
            result = await client.call_tool(
                do["name"], do.get("arguments"), do.get("timeout"), on_progress if do.get("progress") else None
            )
            return plain(result) | ({"progress": progress} if do.get("progress") else {})
        case "list_prompts":
            return plain(await client.list_prompts())
        case "prompt":
            return plain(await client.get_prompt(do["name"], do.get("arguments")))
        case "list_resources":
            return plain(await client.list_resources())
        case "read":
            return plain(await client.read_resource(do["uri"]))
        case "ping":
            return plain(await client.send_ping())
        case "listen":
            async with client.listen(tools_list_changed=True) as events:
                await client.call_tool("test_trigger_tool_change", {})
                async with asyncio.timeout(5):
                    async for event in events:
                        return {"event": type(event).__name__}
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
        timeout = httpx2.Timeout(30, read=60)
        async with httpx2.AsyncClient(headers=request["headers"], timeout=timeout, trust_env=False) as http:
            transport = streamable_http_client(request["url"], http_client=http)
            client = Client(
                transport,
                mode=MODES[request["era"]],
                elicitation_callback=elicited,
                sampling_callback=sampled,
                list_roots_callback=roots,
                cache=None,
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
