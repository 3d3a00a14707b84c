"""One small server for every Python SDK: `mcp` 1.x and 2.x and `fastmcp` 2, 3 and 4, whichever is installed.

`python sample.py --transport stdio|http|sse [--port N]`; it is run in environments of their own, never imported.
"""

import argparse
import asyncio
import warnings

warnings.simplefilter("ignore")

try:
    from fastmcp import Context, FastMCP

    FLAVOUR = "fastmcp"
except ImportError:
    try:
        from mcp.server.mcpserver import Context
        from mcp.server.mcpserver import MCPServer as FastMCP

        FLAVOUR = "mcp 2"
    except ImportError:
        from mcp.server.fastmcp import Context, FastMCP

        FLAVOUR = "mcp 1"

try:
    import mcp_types as types
except ImportError:
    from mcp import types

parser = argparse.ArgumentParser()
parser.add_argument("--transport", choices=("stdio", "http", "sse"), default="stdio")
parser.add_argument("--port", type=int, default=0)
options = parser.parse_args()

server = FastMCP("sample", **({"host": "127.0.0.1", "port": options.port} if FLAVOUR == "mcp 1" else {}))


@server.tool()
def echo(text: str) -> str:
    """Says it back."""
    return text


@server.tool()
def fail() -> str:
    """Fails in its own way."""
    raise ValueError("this tool always fails")


@server.tool()
def secret(level: int) -> str:
    """The policy of the clients' walk allows small levels."""
    return f"the secret of level {level}"


@server.tool()
def limited() -> str:
    """What the policy of the clients' walk limits."""
    return "still within the limit"


@server.tool()
async def count(to: int, ctx: Context) -> str:
    """Counts, reporting progress and a line of log at each step."""
    for number in range(1, to + 1):
        await ctx.report_progress(number, to)
        await ctx.info(f"counted {number}")
        await asyncio.sleep(0.05)  # some clients drop what comes together with the answer
    return f"counted to {to}"


@server.tool()
async def slow(seconds: float) -> str:
    """Takes its time."""
    await asyncio.sleep(seconds)
    return "slow and done"


@server.tool()
async def ask_model(ctx: Context) -> str:
    """Asks the client's model."""
    message = types.SamplingMessage(role="user", content=types.TextContent(type="text", text="Say something"))
    related = {} if options.transport == "stdio" or FLAVOUR == "fastmcp" else {"related_request_id": ctx.request_id}
    result = await ctx.session.create_message([message], max_tokens=10, **related)
    return f"The model said: {result.content.text}"


@server.tool()
async def ask_person(ctx: Context) -> str:
    """Asks the client's user."""
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    related = {} if options.transport == "stdio" else {"related_request_id": ctx.request_id}
    result = await ctx.session.elicit("What is your name?", schema, **related)
    return f"{result.action}: {result.content}"


@server.tool()
async def ask_roots(ctx: Context) -> str:
    """Asks for the client's roots."""
    result = await ctx.session.list_roots()
    return ", ".join(str(root.uri) for root in result.roots)


@server.tool()
async def announce(ctx: Context) -> str:
    """Says that its list of tools has changed."""
    await ctx.session.send_tool_list_changed()
    return "announced"


@server.resource("test://hello", mime_type="text/plain")
def hello() -> str:
    """A greeting."""
    return "hello"


@server.resource("test://hello/{name}", mime_type="text/plain")
def hello_to(name: str) -> str:
    """A greeting for somebody."""
    return f"hello {name}"


@server.prompt()
def greet(name: str) -> str:
    """Asks for a greeting."""
    return f"Greet {name}"


if hasattr(server, "completion"):  # neither `fastmcp` nor `mcp` before 1.10 has it

    @server.completion()
    async def complete(ref, argument, context):
        """Completes names."""
        return types.Completion(values=[name for name in ("Ada", "Alan") if name.startswith(argument.value)])


if options.transport == "stdio":
    server.run("stdio")
elif FLAVOUR == "mcp 1":
    server.run("sse" if options.transport == "sse" else "streamable-http")
else:
    name = {"sse": "sse", "http": "http" if FLAVOUR == "fastmcp" else "streamable-http"}[options.transport]
    server.run(name, host="127.0.0.1", port=options.port)
