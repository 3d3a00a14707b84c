"""autogen-ext's workbench: what the model is told."""

from contextlib import asynccontextmanager

from autogen_ext.tools.mcp import McpWorkbench, StreamableHttpServerParams
from play import main


@asynccontextmanager
async def opened(request):
    async with McpWorkbench(StreamableHttpServerParams(url=request["url"], headers=request["headers"])) as bench:

        async def listed():
            return [tool["name"] for tool in await bench.list_tools()]

        async def called(name, arguments):
            result = await bench.call_tool(name, arguments)
            return f"error result: {result.to_text()}" if result.is_error else result.to_text()

        yield listed, called


main(opened)
