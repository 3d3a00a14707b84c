"""smolagents over mcpadapt."""

import asyncio
from contextlib import asynccontextmanager

from play import main
from smolagents import MCPClient


@asynccontextmanager
async def opened(request):
    parameters = {"url": request["url"], "headers": request["headers"], "transport": "streamable-http"}
    client = await asyncio.to_thread(MCPClient, parameters, structured_output=False)
    try:
        tools = {tool.name: tool for tool in client.get_tools()}

        async def listed():
            return list(tools)

        async def called(name, arguments):
            return str(await asyncio.to_thread(lambda: tools[name](**arguments)))

        yield listed, called
    finally:
        await asyncio.to_thread(client.disconnect)


main(opened)
