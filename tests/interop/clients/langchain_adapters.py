"""langchain-mcp-adapters under LangGraph's ToolNode: what the model is told."""

from contextlib import asynccontextmanager

from langchain_core.messages import AIMessage
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from play import main


@asynccontextmanager
async def opened(request):
    server = {"transport": "streamable_http", "url": request["url"], "headers": request["headers"]}
    async with MultiServerMCPClient({"walk": server}).session("walk") as session:

        async def listed():
            return [tool.name for tool in await load_mcp_tools(session)]

        async def called(name, arguments):
            graph = StateGraph(MessagesState)
            # A tool that is not listed is one that the model makes up; to see a refusal, it is called as if it were.
            graph.add_node("tools", ToolNode(await load_mcp_tools(session)))
            graph.add_edge(START, "tools")
            graph.add_edge("tools", END)
            call = {"name": name, "args": arguments, "id": "1", "type": "tool_call"}
            state = await graph.compile().ainvoke({"messages": [AIMessage("", tool_calls=[call])]})
            told = state["messages"][-1]
            words = told.content if isinstance(told.content, str) else " ".join(b.get("text", "") for b in told.content)
            return f"error result: {words}" if told.status == "error" else words

        yield listed, called


main(opened)
