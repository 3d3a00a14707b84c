"""openai-agents with a model that calls one tool: what the model is told."""

import json
from contextlib import asynccontextmanager

from agents import Agent, ModelResponse, RunConfig, Runner, Usage, set_tracing_disabled
from agents.mcp import MCPServerStreamableHttp
from agents.models.interface import Model
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText
from play import main

set_tracing_disabled(True)


class OneCall(Model):
    """Calls a tool, then ends with what it was told."""

    def __init__(self, name, arguments):
        self.name, self.arguments, self.told = name, arguments, None

    async def get_response(self, system_instructions, input, *rest, **more):
        if isinstance(input, list) and input[-1].get("type") == "function_call_output":
            self.told = input[-1]["output"]
            words = ResponseOutputText(annotations=[], text="done", type="output_text")
            item = ResponseOutputMessage(id="2", content=[words], role="assistant", status="completed", type="message")
        else:
            call = {"call_id": "1", "name": self.name, "arguments": json.dumps(self.arguments)}
            item = ResponseFunctionToolCall(type="function_call", **call)
        return ModelResponse(output=[item], usage=Usage(), response_id=None)

    def stream_response(self, *rest, **more):
        raise NotImplementedError


@asynccontextmanager
async def opened(request):
    parameters = {"url": request["url"], "headers": request["headers"], "timeout": 30}
    async with MCPServerStreamableHttp(parameters, client_session_timeout_seconds=60) as server:

        async def listed():
            return [tool.name for tool in await server.list_tools()]

        async def called(name, arguments):
            model = OneCall(name, arguments)
            agent = Agent("walker", model=model, mcp_servers=[server])
            await Runner.run(agent, "go", run_config=RunConfig(tracing_disabled=True))
            told = model.told
            if isinstance(told, list):
                told = " ".join(block.get("text", "") for block in told)
            return str(told)

        yield listed, called


main(opened)
