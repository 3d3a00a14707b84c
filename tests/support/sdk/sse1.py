"""A client that knows only HTTP+SSE (mcp 1.x): the address and the key are arguments, what it saw is printed as JSON."""

import asyncio
import json
import sys

from mcp import ClientSession
from mcp.client.sse import sse_client


async def main(url: str, key: str) -> None:
    async with (
        sse_client(url, headers={"Authorization": f"Bearer {key}"}) as (read, write),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        tools = await session.list_tools()
        echo = await session.call_tool("public.echo", {"text": "grüß dich"})
        refused = await session.call_tool("test_simple_text", {})
        denied = refused.content[0].text if refused.isError else None
        print(json.dumps({"tools": [t.name for t in tools.tools], "echo": echo.content[0].text, "denied": denied}))


asyncio.run(asyncio.wait_for(main(sys.argv[1], sys.argv[2]), 60))
