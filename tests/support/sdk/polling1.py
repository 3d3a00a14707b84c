"""A server of the Python SDK 1.x whose one store holds everybody's events, and whose tool ends its stream half-way."""

import asyncio
import sys

from mcp.server.fastmcp import Context, FastMCP
from mcp.server.streamable_http import EventMessage, EventStore


class Memory(EventStore):
    def __init__(self):
        self.events = []

    async def store_event(self, stream_id, message):
        self.events.append((stream_id, message))
        return str(len(self.events) - 1)

    async def replay_events_after(self, last_event_id, send_callback):
        place = int(last_event_id)
        stream = self.events[place][0]
        for at, (owner, message) in enumerate(self.events[place + 1 :], place + 1):
            if owner == stream and message is not None:
                await send_callback(EventMessage(message, str(at)))
        return stream


server = FastMCP("polling", host="127.0.0.1", port=int(sys.argv[1]), event_store=Memory(), retry_interval=100)


@server.tool()
async def poll(seconds: float, ctx: Context) -> str:
    """End the stream, work on, and answer."""
    await ctx.close_sse_stream()
    await asyncio.sleep(seconds)
    return f"done after {seconds} s"


server.run(transport="streamable-http")
