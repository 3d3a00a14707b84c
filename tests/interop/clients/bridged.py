"""A desktop client: it starts a bridge as its stdio server and speaks with that, as the Python SDK 1.x does."""

from contextlib import asynccontextmanager

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from play import main, text


@asynccontextmanager
async def opened(request):
    command, *arguments = request["bridge"]
    parameters = StdioServerParameters(command=command, args=arguments, env=request["environment"])
    async with stdio_client(parameters) as (read, write), ClientSession(read, write) as session:
        await session.initialize()

        async def listed():
            return [tool.name for tool in (await session.list_tools()).tools]

        async def called(name, arguments):
            return text(await session.call_tool(name, arguments))

        yield listed, called


main(opened)
