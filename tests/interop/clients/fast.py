"""The client of FastMCP 2, 3 and 4."""

from contextlib import asynccontextmanager

from fastmcp import Client
from fastmcp.client.transports import SSETransport, StreamableHttpTransport
from play import main, text


@asynccontextmanager
async def opened(request):
    kind = SSETransport if request["transport"] == "sse" else StreamableHttpTransport
    async with Client(kind(request["url"], headers=request["headers"])) as client:

        async def listed():
            return [tool.name for tool in await client.list_tools()]

        async def called(name, arguments):
            progress = []

            async def on_progress(done, total, message):
                progress.append(done)

            result = await client.call_tool(name, arguments, progress_handler=on_progress)
            return text(result) + (f" {progress}" if progress else "")

        yield listed, called


main(opened)
