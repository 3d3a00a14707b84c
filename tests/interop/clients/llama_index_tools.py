"""llama-index-tools-mcp."""

from contextlib import asynccontextmanager

from llama_index.tools.mcp import BasicMCPClient, McpToolSpec
from play import main, text


@asynccontextmanager
async def opened(request):
    client = BasicMCPClient(request["url"], headers=request["headers"])

    async def listed():
        return [tool.metadata.name for tool in await McpToolSpec(client).to_tool_list_async()]

    async def called(name, arguments):
        return text(await client.call_tool(name, arguments))

    yield listed, called


main(opened)
