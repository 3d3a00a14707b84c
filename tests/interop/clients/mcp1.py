"""The Python SDK 1.x, over Streamable HTTP and over HTTP+SSE."""

from contextlib import asynccontextmanager

from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamablehttp_client
from play import main, text


@asynccontextmanager
async def opened(request):
    connect = sse_client if request["transport"] == "sse" else streamablehttp_client
    async with connect(request["url"], headers=request["headers"]) as (read, write, *_):
        async with ClientSession(read, write) as session:
            await session.initialize()

            async def listed():
                return [tool.name for tool in (await session.list_tools()).tools]

            async def called(name, arguments):
                progress = []

                async def on_progress(done, total, message):
                    progress.append(done)

                result = await session.call_tool(name, arguments, progress_callback=on_progress)
                return text(result) + (f" {progress}" if progress else "")

            yield listed, called


main(opened)
