"""crewai-tools' adapter."""

import asyncio
from contextlib import asynccontextmanager

from crewai_tools import MCPServerAdapter
from play import main


@asynccontextmanager
async def opened(request):
    parameters = {"url": request["url"], "headers": request["headers"], "transport": "streamable-http"}
    adapter = await asyncio.to_thread(MCPServerAdapter, parameters, connect_timeout=60)
    try:
        tools = {tool.name: tool for tool in adapter.tools}

        async def listed():
            return list(tools)

        async def called(name, arguments):
            return str(await asyncio.to_thread(lambda: tools[name].run(**arguments)))

        yield listed, called
    finally:
        await asyncio.to_thread(adapter.stop)


main(opened)
