"""pydantic-ai with a model that calls one tool: what the model is told."""

from contextlib import asynccontextmanager

from play import main
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel

try:
    from pydantic_ai.mcp import MCPServerStreamableHTTP

    def toolset(request):
        return MCPServerStreamableHTTP(request["url"], headers=request["headers"])

except ImportError:
    from pydantic_ai.mcp import MCPToolset

    def toolset(request):
        return MCPToolset(request["url"], headers=request["headers"])


@asynccontextmanager
async def opened(request):
    tools = toolset(request)
    async with tools:

        async def listed():
            names = []

            def note(messages, info):
                names.extend(tool.name for tool in info.function_tools)
                return ModelResponse([TextPart("done")])

            await Agent(FunctionModel(note), toolsets=[tools]).run("go")
            return names

        async def called(name, arguments):
            told = []

            def call(messages, info):
                for part in messages[-1].parts:
                    if part.part_kind in ("tool-return", "retry-prompt") and messages[-1].kind == "request":
                        kind = "error result: " if part.part_kind == "retry-prompt" else ""
                        told.append(f"{kind}{part.content}")
                        return ModelResponse([TextPart("done")])
                return ModelResponse([ToolCallPart(name, arguments)])

            await Agent(FunctionModel(call), toolsets=[tools]).run("go")
            return told[-1]

        yield listed, called


main(opened)
