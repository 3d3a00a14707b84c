"""Tasks with the Python SDK (mcp 1.x): `serve PORT` is a server whose tools may become tasks, `play URL KEY OTHER` its client.

The client also sends what clients send by themselves, asks for its tasks, answers what the task asks, and has the key OTHER
ask for one of them. What it saw is printed as JSON.
"""

import asyncio
import contextlib
import json
import sys

import anyio
from mcp import ClientSession, types
from mcp.client.streamable_http import streamablehttp_client
from mcp.shared.exceptions import McpError


def serve(port: int) -> None:
    import uvicorn
    from mcp.server.lowlevel import Server
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from starlette.applications import Starlette
    from starlette.routing import Mount

    server = Server("tasks")
    server.experimental.enable_tasks()

    @server.list_tools()
    async def listed() -> list[types.Tool]:
        more = types.ToolExecution(taskSupport="optional")
        return [types.Tool(name=n, inputSchema={"type": "object"}, execution=more) for n in ("get_customer", "forever")]

    @server.set_logging_level()
    async def level(wanted: types.LoggingLevel) -> None:
        return None

    @server.call_tool()
    async def call(name: str, arguments: dict) -> types.CallToolResult | types.CreateTaskResult:
        async def work(task) -> types.CallToolResult:
            if name == "forever":
                await anyio.sleep(60)
            schema = {"type": "object", "properties": {"sure": {"type": "boolean"}}}
            answer = await task.elicit(message="Sure?", requestedSchema=schema)
            return types.CallToolResult(content=[types.TextContent(type="text", text=answer.action)])

        return await server.request_context.experimental.run_task(work)

    manager = StreamableHTTPSessionManager(server)

    @contextlib.asynccontextmanager
    async def life(app):
        async with manager.run():
            yield

    app = Starlette(routes=[Mount("/mcp", app=manager.handle_request)], lifespan=life)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")


@contextlib.asynccontextmanager
async def connected(url: str, key: str):
    async def elicited(context, params) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"sure": True})

    async def roots(context) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[])

    async with (
        streamablehttp_client(url, headers={"Authorization": f"Bearer {key}"}) as (read, write, _),
        ClientSession(read, write, elicitation_callback=elicited, list_roots_callback=roots) as session,
    ):
        await session.initialize()
        yield session


async def play(url: str, key: str, other: str) -> None:
    seen: dict = {}
    async with connected(url, key) as session:
        await session.set_logging_level("debug")
        await session.send_roots_list_changed()
        await session.send_progress_notification("p", 0.5)
        seen["tools"] = [tool.name for tool in (await session.list_tools()).tools]
        features = session.experimental
        task = (await features.call_tool_as_task("get_customer", {}, ttl=60_000)).task.taskId
        seen["status"] = (await features.get_task(task)).status in ("working", "input_required")
        result = await features.get_task_result(task, types.CallToolResult)
        seen["result"] = result.content[0].text
        endless = (await features.call_tool_as_task("forever", {}, ttl=60_000)).task.taskId
        # From here on no new tasks: with a session's end that server takes none any more.
        async with connected(url, other) as stranger:
            try:
                await stranger.experimental.get_task_result(task, types.CallToolResult)
            except McpError as error:
                seen["stranger"] = error.error.code
            seen["strangers list"] = [t.taskId for t in (await stranger.experimental.list_tasks()).tasks]
        seen["list"] = {t.taskId for t in (await features.list_tasks()).tasks} == {task, endless}
        seen["cancelled"] = (await features.cancel_task(endless)).status
    print(json.dumps(seen))


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
else:
    asyncio.run(asyncio.wait_for(play(*sys.argv[2:]), 60))
