"""The clients: what each is, which script drives it, and over which transports.

The drivers lie in `clients/`; `play.py` and `play.mjs` there say what a driver is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.interop import install
from tests.support import clients

DRIVERS = Path(__file__).resolve().parent / "clients"


@dataclass(frozen=True, slots=True)
class Client:
    """One client."""

    name: str
    #: the set it is installed in (none for what the system brings), and its package there
    installed: str
    package: str
    script: str
    transports: tuple[str, ...] = ("http",)
    #: `bridge`: it is a stdio server for another client; `command`: a process for each step
    how: str = "driver"
    #: whether it can call a tool, or only connect and list
    calls: bool = True
    #: walked in `make test` too
    short: bool = False


BOTH = ("http", "sse")
OFFICIAL = "@modelcontextprotocol"
CLIENTS = (
    Client("Python SDK 1.16", "mcp-1.16", "mcp", "mcp1.py", BOTH),
    Client("Python SDK 1.30", "mcp-1.30", "mcp", "mcp1.py", BOTH, short=True),
    Client("Python SDK 2", "mcp-2", "mcp", "mcp2.py", BOTH, short=True),
    Client("FastMCP 2", "fastmcp-2", "fastmcp", "fast.py", BOTH),
    Client("FastMCP 3", "fastmcp-3", "fastmcp", "fast.py", BOTH),
    Client("FastMCP 4", "fastmcp-4", "fastmcp", "fast.py", BOTH),
    Client("TypeScript SDK 1.12", "typescript-1.12", f"{OFFICIAL}/sdk", "typescript.mjs", BOTH),
    Client("TypeScript SDK 1", "typescript-1", f"{OFFICIAL}/sdk", "typescript.mjs", BOTH, short=True),
    Client("TypeScript SDK 2", "typescript-2", f"{OFFICIAL}/client", "typescript.mjs", BOTH),
    Client("LangChain (ToolNode)", "langchain", "langchain-mcp-adapters", "langchain_adapters.py"),
    Client("OpenAI Agents", "openai-agents", "openai-agents", "openai_agents.py"),
    Client("Pydantic AI", "pydantic-ai", "pydantic-ai-slim", "pydantic_agents.py"),
    Client("Vercel AI SDK", "ai-sdk", "@ai-sdk/mcp", "ai_sdk.mjs"),
    Client("mcp-use", "mcp-use", "mcp-use", "mcp_use_client.py"),
    Client("AutoGen", "autogen", "autogen-ext", "autogen.py"),
    Client("LlamaIndex", "llama-index", "llama-index-tools-mcp", "llama_index_tools.py"),
    Client("smolagents", "smolagents", "smolagents", "smol.py"),
    Client("CrewAI", "crewai", "crewai-tools", "crew.py"),
    Client("mcp-remote", "mcp-remote", "mcp-remote", "bridged.py", BOTH, how="bridge"),
    Client("mcp-proxy", "mcp-proxy", "mcp-proxy", "bridged.py", BOTH, how="bridge"),
    Client("supergateway", "supergateway", "supergateway", "bridged.py", BOTH, how="bridge"),
    Client("Inspector", "inspector", f"{OFFICIAL}/inspector", "commands.py", how="inspector"),
    Client("Claude Code", "claude-code", "@anthropic-ai/claude-code", "commands.py", how="claude", calls=False),
    Client("curl", "", "curl", "commands.py", how="curl", short=True),
)


def play(client: Client, url: str, transport: str, key: str | None, steps: list[dict[str, Any]], home: Path) -> Any:
    """Play steps with a client; `{"steps": [...]}`, and `failed` if it could not connect."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    home.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"HOME": str(home), "MCP_REMOTE_CONFIG_DIR": str(home), "DISABLE_AUTOUPDATER": "1", "CI": "1"}
    environment |= {
        "ANONYMIZED_TELEMETRY": "false",
        "MCP_USE_ANONYMIZED_TELEMETRY": "false",
        "OTEL_SDK_DISABLED": "true",
    }
    environment |= {"CREWAI_DISABLE_TELEMETRY": "true", "OPENAI_API_KEY": "none", "NO_COLOR": "1"}
    request = {"url": url, "transport": transport, "headers": headers, "steps": steps, "environment": environment}
    request |= _extras(client, url, transport, headers)
    try:
        done = subprocess.run(
            _command(client),
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=300 * clients.PATIENCE,
            env=environment,
            cwd=home,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return {"failed": f"no end after {error.timeout:.0f} s: {(error.stderr or b'')[-800:]!r}", "steps": []}
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"')]
    if not lines:
        return {"failed": f"said nothing (exit {done.returncode}): {done.stderr[-800:]}", "steps": []}
    return json.loads(lines[-1])


def there(client: Client) -> bool:
    """Whether it can be run here; only what the system itself brings can be missing."""
    return bool(client.installed) or shutil.which(client.package) is not None


def _command(client: Client) -> list[str]:
    script = DRIVERS / client.script
    if script.suffix == ".mjs":
        folder = install.node(client.installed)
        clients.beside(folder, DRIVERS / "play.mjs")
        return [str(clients.node()), str(clients.beside(folder, script))]
    if client.how == "driver":
        return [str(install.python(client.installed)), str(script)]
    return [str(install.python("mcp-1.30")) if client.how == "bridge" else sys.executable, str(script)]


def _extras(client: Client, url: str, transport: str, headers: dict[str, str]) -> dict[str, Any]:
    """How the bridges and the commands among them are started."""
    given = [part for name, value in headers.items() for part in ("--header", f"{name}: {value}")]
    if client.package == "mcp-remote":
        chosen = "sse-only" if transport == "sse" else "http-only"
        return {
            "bridge": [*install.entry("mcp-remote", "mcp-remote"), url, "--allow-http", "--transport", chosen, *given]
        }
    if client.package == "mcp-proxy":
        pairs = [part for name, value in headers.items() for part in ("--headers", name, value)]
        kind = "sse" if transport == "sse" else "streamablehttp"
        return {"bridge": [str(install.program("mcp-proxy", "mcp-proxy")), "--transport", kind, *pairs, url]}
    if client.package == "supergateway":
        flag = "--sse" if transport == "sse" else "--streamableHttp"
        return {"bridge": [*install.entry("supergateway", "supergateway"), flag, url, "--logLevel", "none", *given]}
    if client.how == "claude":  # a program for each platform, beside a package that only chooses one
        packages = install.node(client.installed) / "node_modules" / "@anthropic-ai"
        return {"kind": "claude", "command": [str(next(packages.glob("claude-code-*/claude")))]}
    if client.how == "inspector":
        return {"kind": client.how, "command": install.entry(client.installed, client.package)}
    return {"kind": client.how}
