"""A server of the official Python SDK, 1.x or 2.x: it notes what it executes, by the caller's trace, and tells it at GET /.

It runs in an environment of the SDK's own (see `tests/support/clients.py`): `python official.py PORT`.
"""

import json
import logging
import sys
from importlib.metadata import version
from typing import Any

import uvicorn
from mcp.server.lowlevel import Server

SEEN: list[Any] = []
METHODS = {
    "tools/call": "CallTool",
    "resources/read": "ReadResource",
    "prompts/get": "GetPrompt",
    "completion/complete": "Complete",
}
RESULTS: dict[str, dict[str, Any]] = {
    "tools/call": {"content": []},
    "resources/read": {"contents": []},
    "prompts/get": {"messages": []},
    "completion/complete": {"completion": {"values": []}},
}


def note(request: Any, method: str, params: Any) -> None:
    """Note one execution, as the SDK read it."""
    read = params.model_dump(mode="json", by_alias=True)
    trace = (request.headers.get("traceparent") or "").split("-")[1]
    SEEN.append([trace, method, *(read.get(name) for name in ("name", "uri", "arguments", "ref"))])


def first() -> Any:
    """The server of mcp 1.x, as an ASGI application."""
    from mcp import types
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    server: Any = Server("official")

    def handler(method: str, kind: str) -> Any:
        async def handle(asked: Any) -> Any:
            note(server.request_context.request, method, asked.params)
            return types.ServerResult(getattr(types, f"{kind}Result").model_validate(RESULTS[method]))

        return handle

    for method, kind in METHODS.items():
        server.request_handlers[getattr(types, f"{kind}Request")] = handler(method, kind)
    manager = StreamableHTTPSessionManager(server, json_response=True, stateless=True)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            async with manager.run():
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await manager.handle_request(scope, receive, send)

    return app


def second() -> Any:
    """The server of mcp 2.x, as an ASGI application."""
    import mcp_types as types

    def handler(method: str, kind: str) -> Any:
        async def handle(ctx: Any, params: Any) -> Any:
            note(ctx.request, method, params)
            return getattr(types, f"{kind}Result").model_validate(RESULTS[method])

        return handle

    names = {
        "tools/call": "call_tool",
        "resources/read": "read_resource",
        "prompts/get": "get_prompt",
        "completion/complete": "completion",
    }
    handlers = {f"on_{names[method]}": handler(method, kind) for method, kind in METHODS.items()}
    return Server("official", **handlers).streamable_http_app(stateless_http=True, json_response=True)


def telling(app: Any) -> Any:
    """Answer GET / with what was executed."""

    async def tell(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/":
            return await app(scope, receive, send)
        body = json.dumps(SEEN).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    return tell


if __name__ == "__main__":
    logging.disable()
    application = first() if version("mcp").startswith("1.") else second()
    uvicorn.run(
        telling(application), host="127.0.0.1", port=int(sys.argv[1]), log_level="error", timeout_graceful_shutdown=1
    )
