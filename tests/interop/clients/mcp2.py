"""The Python SDK 2.x."""

from contextlib import asynccontextmanager

import httpx2
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from play import main, text


@asynccontextmanager
async def opened(request):
    async with httpx2.AsyncClient(headers=request["headers"], timeout=60) as http:
        if request["transport"] == "sse":
            transport = sse_client(request["url"], headers=request["headers"])
        else:
            transport = streamable_http_client(request["url"], http_client=http)
        async with Client(transport, cache=None) as client:

            async def listed():
                return [tool.name for tool in (await client.list_tools()).tools]

            async def called(name, arguments):
                progress = []

                async def on_progress(done, total, message):
                    progress.append(done)

                result = await client.call_tool(name, arguments, progress_callback=on_progress)
                return text(result) + (f" {progress}" if progress else "")

            yield listed, called


main(opened)
