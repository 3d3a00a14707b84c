"""An MCP server with one of everything, written with the real SDK (mcp 2.x), for conformance and end-to-end tests.

It is run as a script inside an environment of its own (see `clients.py`), never imported by the gateway or its tests:
`python tests/support/everything.py --port N` (`--transport sse` for the older transport, `--transport stdio` for none). The names of its tools, prompts and resources are the ones the official
conformance suite asks for; the customer tools and `whoami` are ours. `GET /_seen` tells what reached it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import mcp_types as types
import uvicorn
from mcp.server.caching import CacheHint
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.sse import SseServerTransport
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http import EventMessage, EventStore
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, PromptsListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPError
from starlette.middleware.gzip import GZipMiddleware

warnings.simplefilter("ignore")  # the SDK marks what 2026-07-28 deprecates; here all of it is on purpose

NAME = "everything"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4z8DwHwAFAAH/iZk9HQAAAABJRU5ErkJggg=="
SILENCE = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA="
ANY = {"type": "object", "properties": {}}

Handler = Callable[[Any, Any], Awaitable[dict[str, Any]]]
TOOLS: dict[str, tuple[dict[str, Any], Handler]] = {}
bus = InMemorySubscriptionBus()


def tool(name: str, schema: dict[str, Any] | None = None, **more: Any) -> Callable[[Handler], Handler]:
    """Register a tool: its handler takes (context, params) and gives a result as it stands on the wire."""

    def register(handler: Handler) -> Handler:
        entry = {"name": name, "description": (handler.__doc__ or name).strip(), "inputSchema": schema or ANY} | more
        TOOLS[name] = (entry, handler)
        return handler

    return register


def strings(*names: str) -> dict[str, Any]:
    """A schema of required strings."""
    return {"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": list(names)}


def content(*blocks: Any, **more: Any) -> dict[str, Any]:
    """A tool's result; a string stands for a block of text."""
    return {"content": [{"type": "text", "text": b} if isinstance(b, str) else b for b in blocks]} | more


IMAGE = {"type": "image", "data": PIXEL, "mimeType": "image/png"}
AUDIO = {"type": "audio", "data": SILENCE, "mimeType": "audio/wav"}


def embedded(uri: str, text: str, mime: str = "text/plain") -> dict[str, Any]:
    """A block with a resource inside."""
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime, "text": text}}


# --- Tools with plain answers -----------------------------------------------------------------------------------------


@tool("test_simple_text")
async def simple_text(ctx: Any, params: Any) -> dict[str, Any]:
    """Answers with a text."""
    return content("This is a simple text response for testing.")


@tool("test_image_content")
async def image_content(ctx: Any, params: Any) -> dict[str, Any]:
    """Answers with an image."""
    return content(IMAGE)


@tool("test_audio_content")
async def audio_content(ctx: Any, params: Any) -> dict[str, Any]:
    """Answers with a sound."""
    return content(AUDIO)


@tool("test_embedded_resource")
async def embedded_resource(ctx: Any, params: Any) -> dict[str, Any]:
    """Answers with a resource."""
    return content(embedded("test://embedded-resource", "This is an embedded resource content."))


@tool("test_multiple_content_types")
async def multiple(ctx: Any, params: Any) -> dict[str, Any]:
    """Answers with three kinds of content."""
    resource = embedded("test://mixed-content-resource", '{"test":"data","value":123}', "application/json")
    return content("Multiple content types test:", IMAGE, resource)


@tool("test_error_handling")
async def error_handling(ctx: Any, params: Any) -> dict[str, Any]:
    """Always fails."""
    return content("This tool intentionally returns an error for testing", isError=True)


SCHEMA_2020 = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


@tool("json_schema_2020_12_tool", SCHEMA_2020)
async def schema_tool(ctx: Any, params: Any) -> dict[str, Any]:
    """Has a schema with the odd keywords."""
    return content("ok")


HEADERS = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "priority": {"type": "integer", "x-mcp-header": "Priority"},
        "verbose": {"type": "boolean", "x-mcp-header": "Verbose"},
        "query": {"type": "string"},
    },
}


@tool("test_headers", HEADERS)
async def header_tool(ctx: Any, params: Any) -> dict[str, Any]:
    """Wants its arguments mirrored in headers."""
    return content(json.dumps(params.arguments or {}))


# --- Tools that talk while they work ----------------------------------------------------------------------------------


@tool("test_tool_with_logging")
async def with_logging(ctx: Any, params: Any) -> dict[str, Any]:
    """Logs three times."""
    for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.session.send_log_message(level="info", data=line, related_request_id=ctx.request_id)
        await asyncio.sleep(0.05)
    return content("Tool with logging executed successfully")


@tool("test_logging_tool")
async def logging_tool(ctx: Any, params: Any) -> dict[str, Any]:
    """Logs once, for those who asked."""
    await ctx.session.send_log_message(level="info", data="for those who asked", related_request_id=ctx.request_id)
    return content("logged")


@tool("test_tool_with_progress")
async def with_progress(ctx: Any, params: Any) -> dict[str, Any]:
    """Reports progress three times."""
    for done in (0, 50, 100):
        await ctx.session.report_progress(done, 100, f"{done} of 100")
        await asyncio.sleep(0.05)
    return content("Tool with progress executed successfully")


@tool("test_reconnection")
async def reconnection(ctx: Any, params: Any) -> dict[str, Any]:
    """Closes its stream half-way, so that the client comes back for the answer."""
    if ctx.close_sse_stream is not None:
        await ctx.close_sse_stream()
    await asyncio.sleep(0.15)
    return content("Reconnection test completed")


@tool("test_sampling", strings("prompt"))
async def sampling(ctx: Any, params: Any) -> dict[str, Any]:
    """Asks the client's model."""
    message = types.SamplingMessage(role="user", content=types.TextContent(text=params.arguments["prompt"]))
    answer = await ctx.session.create_message([message], max_tokens=100, related_request_id=ctx.request_id)
    return content(f"LLM response: {getattr(answer.content, 'text', '')}")


async def ask_user(ctx: Any, message: str, properties: dict[str, Any], required: list[str]) -> str:
    """Elicit, and tell what came of it."""
    schema = {"type": "object", "properties": properties, "required": required}
    answer = await ctx.session.elicit_form(message, schema, ctx.request_id)
    return f"action={answer.action}, content={json.dumps(answer.content or {})}"


@tool("test_elicitation", strings("message"))
async def elicitation(ctx: Any, params: Any) -> dict[str, Any]:
    """Asks the user for a name and an address."""
    text = {"type": "string", "description": "User's response"}
    told = await ask_user(ctx, params.arguments["message"], {"username": text, "email": text}, ["username", "email"])
    return content(f"User response: {told}")


@tool("test_elicitation_sep1034_defaults")
async def elicitation_defaults(ctx: Any, params: Any) -> dict[str, Any]:
    """Asks with a default for every kind of value."""
    properties = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    }
    return content(f"Elicitation completed: {await ask_user(ctx, 'Who are you?', properties, [])}")


@tool("test_elicitation_sep1330_enums")
async def elicitation_enums(ctx: Any, params: Any) -> dict[str, Any]:
    """Asks with every kind of choice."""
    plain = ["option1", "option2", "option3"]
    titled = [{"const": f"value{n}", "title": f"Choice {n}"} for n in (1, 2, 3)]
    properties = {
        "untitledSingle": {"type": "string", "enum": plain},
        "titledSingle": {"type": "string", "oneOf": titled},
        "legacyEnum": {"type": "string", "enum": plain, "enumNames": ["One", "Two", "Three"]},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": plain}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled}},
    }
    return content(f"Elicitation completed: {await ask_user(ctx, 'Choose', properties, [])}")


talking: list[asyncio.Task[None]] = []


@tool("test_trigger_tool_change")
async def trigger_tool_change(ctx: Any, params: Any) -> dict[str, Any]:
    """Says that the tools changed."""
    await bus.publish(ToolsListChanged())
    return content("said")


@tool("test_trigger_prompt_change")
async def trigger_prompt_change(ctx: Any, params: Any) -> dict[str, Any]:
    """Says that the prompts changed."""
    await bus.publish(PromptsListChanged())
    return content("said")


@tool("test_unsolicited")
async def unsolicited(ctx: Any, params: Any) -> dict[str, Any]:
    """Says something that belongs to no request, once it has answered."""

    async def say() -> None:
        await asyncio.sleep(0.3)
        await ctx.session.send_tool_list_changed()
        await ctx.session.send_log_message(level="info", data="unsolicited")

    talking.append(asyncio.get_running_loop().create_task(say()))
    return content("said later")


# --- Results that ask back (2026-07-28) -------------------------------------------------------------------------------


def question(message: str, field: str, kind: str = "string") -> dict[str, Any]:
    """An elicitation to be answered with the next round."""
    schema = {"type": "object", "properties": {field: {"type": kind}}, "required": [field]}
    return {"method": "elicitation/create", "params": {"mode": "form", "message": message, "requestedSchema": schema}}


def sample(text: str, limit: int) -> dict[str, Any]:
    """A sampling request to be answered with the next round."""
    message = {"role": "user", "content": {"type": "text", "text": text}}
    return {"method": "sampling/createMessage", "params": {"messages": [message], "maxTokens": limit}}


ROOTS = {"method": "roots/list", "params": {}}


def ask(requests: dict[str, Any], state: str | None = None) -> dict[str, Any]:
    """A result that wants more input."""
    more = {} if state is None else {"requestState": state}
    return {"resultType": "input_required", "inputRequests": requests} | more


def replies(params: Any) -> dict[str, Any]:
    """The client's answers to an earlier round, as they stood on the wire."""
    given = params.input_responses or {}
    return {k: v if isinstance(v, dict) else v.model_dump(mode="json", by_alias=True) for k, v in given.items()}


def elicited(params: Any, key: str, field: str) -> Any:
    """The field of an accepted elicitation, or None."""
    reply = replies(params).get(key)
    if not isinstance(reply, dict) or reply.get("action") != "accept" or not isinstance(reply.get("content"), dict):
        return None
    return reply["content"].get(field)


@tool("test_input_required_result_elicitation")
async def mrtr_elicitation(ctx: Any, params: Any) -> dict[str, Any]:
    """Asks for a name, then greets."""
    name = elicited(params, "user_name", "name")
    return content(f"Hello, {name}!") if name else ask({"user_name": question("What is your name?", "name")})


@tool("test_input_required_result_sampling")
async def mrtr_sampling(ctx: Any, params: Any) -> dict[str, Any]:
    """Asks the model, then repeats its answer."""
    reply = replies(params).get("capital_question")
    if not reply:
        return ask({"capital_question": sample("What is the capital of France?", 100)})
    return content(f"The model says: {json.dumps(reply.get('content'))}")


@tool("test_input_required_result_list_roots")
async def mrtr_roots(ctx: Any, params: Any) -> dict[str, Any]:
    """Asks for the roots, then repeats them."""
    reply = replies(params).get("client_roots")
    if not reply:
        return ask({"client_roots": ROOTS})
    return content("Roots: " + ", ".join(root["uri"] for root in reply.get("roots", [])))


@tool("test_input_required_result_request_state")
@tool("test_input_required_result_tampered_state")
async def mrtr_state(ctx: Any, params: Any) -> dict[str, Any]:
    """Asks to confirm, and wants its state back."""
    if params.request_state != "confirm" or elicited(params, "confirm", "ok") is None:
        return ask({"confirm": question("Please confirm", "ok", "boolean")}, "confirm")
    return content("state-ok")


@tool("test_input_required_result_multiple_inputs")
async def mrtr_multiple(ctx: Any, params: Any) -> dict[str, Any]:
    """Asks for three things at once."""
    wanted = {
        "user_name": question("What is your name?", "name"),
        "greeting": sample("Generate a greeting", 50),
        "client_roots": ROOTS,
    }
    if params.request_state is None or set(wanted) - set(replies(params)):
        return ask(wanted, "three")
    return content("All three arrived")


@tool("test_input_required_result_multi_round")
async def mrtr_rounds(ctx: Any, params: Any) -> dict[str, Any]:
    """Asks twice, one after the other."""
    if params.request_state == "round-1" and elicited(params, "step1", "name"):
        return ask({"step2": question("Step 2: What is your favorite color?", "color")}, "round-2")
    if params.request_state == "round-2" and elicited(params, "step2", "color"):
        return content("Both rounds done")
    return ask({"step1": question("Step 1: What is your name?", "name")}, "round-1")


@tool("test_input_required_result_capabilities")
async def mrtr_capabilities(ctx: Any, params: Any) -> dict[str, Any]:
    """Asks only for what the client says it can do."""
    able = ctx.session.client_capabilities
    wanted = {}
    if able is not None and able.sampling is not None:
        wanted["sample"] = sample("Say something", 50)
    if able is not None and able.elicitation is not None:
        wanted["user_name"] = question("What is your name?", "name")
    return content("done") if not wanted or replies(params) else ask(wanted)


@tool("test_streaming_elicitation")
async def streaming_elicitation(ctx: Any, params: Any) -> dict[str, Any]:
    """Reports progress, then asks."""
    await ctx.session.report_progress(1, 2)
    return content("thank you") if replies(params) else ask({"user_name": question("What is your name?", "name")})


@tool("test_missing_capability")
async def missing_capability(ctx: Any, params: Any) -> dict[str, Any]:
    """Needs a client that samples."""
    able = ctx.session.client_capabilities
    if able is None or able.sampling is None:
        data = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(types.jsonrpc.MISSING_REQUIRED_CLIENT_CAPABILITY, "This tool needs sampling", data)
    return content("able")


# --- Ours -------------------------------------------------------------------------------------------------------------


@tool("list_customers", annotations={"readOnlyHint": True})
async def list_customers(ctx: Any, params: Any) -> dict[str, Any]:
    """Lists the customers."""
    return content(json.dumps([{"id": "1", "name": "Ada Byron"}, {"id": "2", "name": "Blaise Pascal"}]))


@tool("get_customer", strings("customer_id"), annotations={"readOnlyHint": True})
async def get_customer(ctx: Any, params: Any) -> dict[str, Any]:
    """Reads one customer."""
    return content(json.dumps({"id": params.arguments["customer_id"], "name": "Ada Byron"}))


@tool("delete_customer", strings("customer_id"), annotations={"destructiveHint": True})
async def delete_customer(ctx: Any, params: Any) -> dict[str, Any]:
    """Deletes one customer."""
    return content(f"deleted {params.arguments['customer_id']}")


@tool("public.echo", strings("text"))
async def echo(ctx: Any, params: Any) -> dict[str, Any]:
    """Says it back."""
    return content(params.arguments["text"])


@tool("whoami")
async def whoami(ctx: Any, params: Any) -> dict[str, Any]:
    """Tells the headers that came with the call."""
    return content(json.dumps(dict(ctx.request.headers)))


@tool("slow", {"type": "object", "properties": {"seconds": {"type": "number"}}})
async def slow(ctx: Any, params: Any) -> dict[str, Any]:
    """Takes its time, reporting progress at once."""
    await ctx.session.report_progress(0, 1, "started")
    try:
        await asyncio.sleep(float((params.arguments or {}).get("seconds", 30)))
    except asyncio.CancelledError:
        SEEN["cancelled"] += 1
        raise
    return content("slow and done")


# --- Resources, prompts and the rest ----------------------------------------------------------------------------------

RESOURCES = {
    "test://static-text": {"mimeType": "text/plain", "text": "This is the content of the static text resource."},
    "test://static-binary": {"mimeType": "image/png", "blob": PIXEL},
    "test://watched-resource": {"mimeType": "text/plain", "text": "Watched resource content"},
}
PROMPTS = {
    "test_simple_prompt": (),
    "test_prompt_with_arguments": ("arg1", "arg2"),
    "test_prompt_with_embedded_resource": ("resourceUri",),
    "test_prompt_with_image": (),
    "test_input_required_result_prompt": (),
}


async def list_tools(ctx: Any, params: Any) -> Any:
    return types.ListToolsResult.model_validate({"tools": [entry for entry, _ in TOOLS.values()]})


async def call_tool(ctx: Any, params: Any) -> Any:
    if params.name not in TOOLS:
        raise MCPError(types.jsonrpc.INVALID_PARAMS, f"Unknown tool: {params.name}")
    result = await TOOLS[params.name][1](ctx, params)
    if result.get("resultType") == "input_required":
        return types.InputRequiredResult.model_validate(result)
    return types.CallToolResult.model_validate(result)


async def list_resources(ctx: Any, params: Any) -> Any:
    items = [
        {"uri": uri, "name": uri.split("://")[1], "description": f"The resource {uri}", "mimeType": body["mimeType"]}
        for uri, body in RESOURCES.items()
    ]
    return types.ListResourcesResult.model_validate({"resources": items})


async def list_templates(ctx: Any, params: Any) -> Any:
    item = {"uriTemplate": "test://template/{id}/data", "name": "template", "mimeType": "application/json"}
    return types.ListResourceTemplatesResult.model_validate({"resourceTemplates": [item]})


async def read_resource(ctx: Any, params: Any) -> Any:
    uri = str(params.uri)
    if uri in RESOURCES:
        body = RESOURCES[uri]
    elif uri.startswith("test://template/") and uri.endswith("/data"):
        number = uri.removeprefix("test://template/").removesuffix("/data")
        text = json.dumps({"id": number, "templateTest": True, "data": f"Data for ID: {number}"})
        body = {"mimeType": "application/json", "text": text}
    else:
        code = types.jsonrpc.INVALID_PARAMS if ctx.protocol_version >= "2026-07-28" else -32002
        raise MCPError(code, "Resource not found", {"uri": uri})
    return types.ReadResourceResult.model_validate({"contents": [{"uri": uri} | body]})


async def list_prompts(ctx: Any, params: Any) -> Any:
    items = [
        {"name": n, "description": f"The prompt {n}", "arguments": [{"name": a, "required": True} for a in arguments]}
        for n, arguments in PROMPTS.items()
    ]
    return types.ListPromptsResult.model_validate({"prompts": items})


async def get_prompt(ctx: Any, params: Any) -> Any:
    given = params.arguments or {}
    blocks: list[Any]
    if params.name == "test_simple_prompt":
        blocks = ["This is a simple prompt for testing."]
    elif params.name == "test_prompt_with_arguments":
        blocks = [f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'"]
    elif params.name == "test_prompt_with_embedded_resource":
        blocks = [embedded(given["resourceUri"], "Embedded resource content for testing.")]
        blocks.append("Please process the embedded resource above.")
    elif params.name == "test_prompt_with_image":
        blocks = [IMAGE, "Please analyze the image above."]
    elif params.name == "test_input_required_result_prompt":
        context = elicited(params, "user_context", "context")
        if not context:
            wanted = ask({"user_context": question("What context should the prompt use?", "context")})
            return types.InputRequiredResult.model_validate(wanted)
        blocks = [f"Use this context: {context}"]
    else:
        raise MCPError(types.jsonrpc.INVALID_PARAMS, f"Unknown prompt: {params.name}")
    messages = [{"role": "user", "content": block} for block in content(*blocks)["content"]]
    return types.GetPromptResult.model_validate({"messages": messages})


async def complete(ctx: Any, params: Any) -> Any:
    values = [word for word in ("paris", "park", "party") if word.startswith(params.argument.value)]
    return types.CompleteResult.model_validate({"completion": {"values": values, "total": len(values)}})


async def nothing(ctx: Any, params: Any) -> Any:
    return types.EmptyResult()


class Memory(EventStore):
    """Events of streams, kept so that a client can come back for what it missed."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    async def store_event(self, stream_id: str, message: Any) -> str:
        """Keep one event; its id is its place."""
        self.events.append((stream_id, message))
        return str(len(self.events) - 1)

    async def replay_events_after(self, last_event_id: str, send_callback: Any) -> str | None:
        """Send what came after an event on its stream."""
        if not last_event_id.isdigit() or int(last_event_id) >= len(self.events):
            return None
        stream = self.events[int(last_event_id)][0]
        for place in range(int(last_event_id) + 1, len(self.events)):
            owner, message = self.events[place]
            if owner == stream and message is not None:
                await send_callback(EventMessage(message, str(place)))
        return stream


# --- What reached it, and the server ----------------------------------------------------------------------------------

SEEN: dict[str, Any] = {"requests": [], "cancelled": 0}


def watching(app: Any) -> Any:
    """Wrap an ASGI application: note every request, and answer `GET /_seen` (`DELETE` forgets)."""

    async def watch(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        if scope["path"] == "/_seen":
            if scope["method"] == "DELETE":
                SEEN.update(requests=[], cancelled=0)
            body = json.dumps(SEEN).encode()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            return await send({"type": "http.response.body", "body": body})
        entry: dict[str, Any] = {
            "verb": scope["method"],
            "headers": [[k.decode("latin-1"), v.decode("latin-1")] for k, v in scope["headers"]],
            "query": scope["query_string"].decode("latin-1"),
            "body": "",
        }
        SEEN["requests"].append(entry)

        async def noting() -> Any:
            message = await receive()
            entry["body"] += message.get("body", b"").decode("utf-8", "replace")
            return message

        return await app(scope, noting, send)

    return watch


def everything() -> Any:
    """The whole server, whatever the transport."""
    public = CacheHint(ttl_ms=60_000, scope="public")
    cacheable = ("server/discover", "tools/list", "prompts/list", "resources/list", "resources/templates/list")
    server = Server(
        NAME,
        version="1.0.0",
        cache_hints=dict.fromkeys((*cacheable, "resources/read"), public),
        get_tool_input_schema=lambda name: TOOLS[name][0]["inputSchema"] if name in TOOLS else None,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_completion=complete,
        on_set_logging_level=nothing,
        on_subscribe_resource=nothing,
        on_unsubscribe_resource=nothing,
        on_subscriptions_listen=ListenHandler(bus),
    )
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=NAME))
    return server


def application(stateless: bool = False, json_response: bool = False) -> Any:
    """The server as one ASGI application, at /mcp."""
    return watching(
        everything().streamable_http_app(
            stateless_http=stateless,
            json_response=json_response,
            event_store=None if stateless else Memory(),
            retry_interval=None if stateless else 100,
        )
    )


def older() -> Any:
    """The server as one ASGI application that speaks HTTP+SSE, at /sse."""
    server = everything()
    transport = SseServerTransport("/messages/")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        if scope["path"].startswith("/messages/"):
            return await transport.handle_post_message(scope, receive, send)
        async with transport.connect_sse(scope, receive, send) as (read, write):
            await server.run(read, write, server.create_initialization_options())

    return watching(app)


def compressed(app: Any) -> Any:
    """Wrap an ASGI application: Starlette's own middleware compresses all it says, whatever the client asks for."""
    middleware = GZipMiddleware(app, minimum_size=0, exclude_content_types=())

    async def insisting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] != "/_seen":
            scope["headers"] = [each for each in scope["headers"] if each[0] != b"accept-encoding"]
            scope["headers"].append((b"accept-encoding", b"gzip"))
        await middleware(scope, receive, send)

    return insisting


async def on_pipes() -> None:
    """Serve whoever holds standard input and output."""
    server = everything()
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--transport", choices=("streamable-http", "sse", "stdio"), default="streamable-http")
    parser.add_argument("--stateless", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--compressed", action="store_true")
    options = parser.parse_args()
    if options.transport == "stdio":
        return asyncio.run(on_pipes())
    app = older() if options.transport == "sse" else application(options.stateless, options.json)
    if options.compressed:
        app = compressed(app)
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="error", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
