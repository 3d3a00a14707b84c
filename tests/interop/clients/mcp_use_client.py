"""mcp-use."""

from contextlib import asynccontextmanager

from mcp_use import MCPClient
from play import main, text


@asynccontextmanager
async def opened(request):
    server = {"url": request["url"], "headers": request["headers"]}
    client = MCPClient.from_dict({"mcpServers": {"walk": server}})
    session = await client.create_session("walk")
    try:

        async def listed():
            return [tool.name for tool in await session.list_tools()]

        async def called(name, arguments):
            return text(await session.call_tool(name, arguments))

        yield listed, called
    finally:
        await client.close_all_sessions()


main(opened)
