"""The servers: what each is, how it is started on each of its transports, and what there is to ask of it.

All of them start without the internet. In commands, arguments and environments `{scratch}` is a folder to write to, `{repo}`
a Git repository in it, and `{port}` where to listen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.interop import install
from tests.support import clients

SAMPLES = Path(__file__).resolve().parent / "samples"

Target = tuple[str, dict[str, Any]]
#: what starts it, once it is installed
Command = Callable[[], list[str]]


@dataclass(frozen=True, slots=True, eq=False)
class Server:
    """One server."""

    name: str
    #: the set it is installed in, and its package there
    installed: str
    package: str
    #: its transports: `stdio`, `http`, `sse`
    transports: dict[str, Command]
    good: Target | None = None
    bad: Target | None = None
    completes: tuple[str, str] | None = None
    progress: Target | None = None
    slow: Target | None = None
    sampling: Target | None = None
    elicitation: Target | None = None
    roots: Target | None = None
    task: Target | None = None
    announces: Target | None = None
    #: whether it speaks the modern era over HTTP too
    modern: bool = False
    #: what it is started with, and where it listens
    environment: dict[str, str] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=lambda: {"http": "/mcp", "sse": "/sse"})
    #: the only steps to take, where not all can be taken here
    steps: frozenset[str] | None = None
    #: walked in `make test` too
    short: bool = False


LIST_ONLY = frozenset({"ping", "list", "unknown tool", "close"})


def _npm(installed: str, package: str, *arguments: str) -> Command:
    return lambda: [*install.entry(installed, package), *arguments]


def _pip(installed: str, command: str, *arguments: str) -> Command:
    return lambda: [str(install.program(installed, command)), *arguments]


def _everything(transport: str) -> Command:
    return _npm("node-servers", "@modelcontextprotocol/server-everything", transport)


def _sample(installed: str, transport: str) -> Command:
    arguments = ["--transport", transport, "--port", "{port}"]
    return lambda: [str(install.python(installed)), str(SAMPLES / "sample.py"), *arguments]


def _script(installed: str, transport: str) -> Command:
    def command() -> list[str]:
        script = clients.beside(install.node(installed), SAMPLES / "sample.mjs")
        return [str(clients.node()), str(script), transport, "{port}"]

    return command


def _python_sample(
    installed: str, package: str, *, modern: bool = False, short: bool = False, path: str = "/mcp"
) -> Server:
    return Server(
        f"a server of {package} {installed.rpartition('-')[2]}",
        installed,
        package,
        {transport: _sample(installed, transport) for transport in ("stdio", "http", "sse")},
        good=("echo", {"text": "grüß dich"}),
        bad=("fail", {}),
        completes=("greet", "name"),
        progress=("count", {"to": 3}),
        slow=("slow", {"seconds": 30}),
        sampling=("ask_model", {}),
        elicitation=("ask_person", {}),
        roots=("ask_roots", {}),
        announces=("announce", {}),
        modern=modern,
        paths={"http": path, "sse": "/sse"},
        short=short,
    )


def _node_sample(installed: str, package: str, *transports: str, modern: bool = False) -> Server:
    return Server(
        f"a server of the TypeScript SDK {installed.rpartition('-')[2]}",
        installed,
        package,
        {transport: _script(installed, transport) for transport in transports},
        good=("echo", {"text": "grüß dich"}),
        bad=("fail", {}),
        progress=("count", {"to": 3}),
        slow=("slow", {"seconds": 30}),
        sampling=None if modern else ("ask_model", {}),
        roots=None if modern else ("ask_roots", {}),
        announces=("announce", {}),
        modern=modern,
    )


OFFICIAL = "@modelcontextprotocol"
SERVERS = (
    Server(
        "everything",
        "node-servers",
        f"{OFFICIAL}/server-everything",
        {"stdio": _everything("stdio"), "http": _everything("streamableHttp"), "sse": _everything("sse")},
        good=("get-structured-content", {"location": "Chicago"}),
        bad=("get-sum", {"a": "one", "b": 2}),
        completes=("completable-prompt", "department"),
        progress=("trigger-long-running-operation", {"duration": 1, "steps": 4}),
        slow=("trigger-long-running-operation", {"duration": 30, "steps": 3}),
        sampling=("trigger-sampling-request", {"prompt": "hello", "maxTokens": 10}),
        elicitation=("trigger-elicitation-request", {}),
        roots=("get-roots-list", {}),
        task=("simulate-research-query", {"topic": "gateways"}),
        environment={"PORT": "{port}"},
        short=True,
    ),
    Server(
        "memory",
        "node-servers",
        f"{OFFICIAL}/server-memory",
        {"stdio": _npm("node-servers", f"{OFFICIAL}/server-memory")},
        good=("read_graph", {}),
        bad=("add_observations", {"observations": [{"entityName": "nobody", "contents": ["x"]}]}),
        environment={"MEMORY_FILE_PATH": "{scratch}/memory.jsonl"},
        short=True,
    ),
    Server(
        "filesystem",
        "node-servers",
        f"{OFFICIAL}/server-filesystem",
        {"stdio": _npm("node-servers", f"{OFFICIAL}/server-filesystem", "{scratch}/files")},
        good=("read_text_file", {"path": "{scratch}/files/a.txt"}),
        bad=("read_text_file", {"path": "/etc/hostname"}),
    ),
    Server(
        "sequential-thinking",
        "node-servers",
        f"{OFFICIAL}/server-sequential-thinking",
        {"stdio": _npm("node-servers", f"{OFFICIAL}/server-sequential-thinking")},
        good=(
            "sequentialthinking",
            {"thought": "first", "nextThoughtNeeded": False, "thoughtNumber": 1, "totalThoughts": 1},
        ),
        bad=("sequentialthinking", {"thought": 1}),
    ),
    Server(
        "playwright",
        "node-more",
        "@playwright/mcp",
        {
            "stdio": _npm("node-more", "@playwright/mcp"),
            "http": _npm(
                "node-more", "@playwright/mcp", "--host", "127.0.0.1", "--port", "{port}", "--allowed-hosts", "*"
            ),
        },
        steps=LIST_ONLY,
    ),
    Server(
        "context7",
        "node-more",
        "@upstash/context7-mcp",
        {
            "stdio": _npm("node-more", "@upstash/context7-mcp"),
            "http": _npm("node-more", "@upstash/context7-mcp", "--transport", "http", "--port", "{port}"),
        },
        steps=LIST_ONLY | {"resources", "prompts"},
    ),
    Server(
        "commands",
        "node-more",
        "mcp-server-commands",
        {"stdio": _npm("node-more", "mcp-server-commands")},
        good=("run_command", {"command": "echo hello"}),
        bad=("run_command", {"command": "false"}),
    ),
    Server(
        "chart",
        "node-more",
        "@antv/mcp-server-chart",
        {
            "stdio": _npm("node-more", "@antv/mcp-server-chart"),
            "http": _npm(
                "node-more", "@antv/mcp-server-chart", "-t", "streamable", "--host", "127.0.0.1", "--port", "{port}"
            ),
            "sse": _npm("node-more", "@antv/mcp-server-chart", "-t", "sse", "--host", "127.0.0.1", "--port", "{port}"),
        },
        bad=("generate_bar_chart", {"data": []}),
    ),
    Server(
        "chrome-devtools",
        "node-more",
        "chrome-devtools-mcp",
        {"stdio": _npm("node-more", "chrome-devtools-mcp", "--usageStatistics=false")},
        steps=LIST_ONLY | {"logging"},
    ),
    Server(
        "time",
        "servers",
        "mcp-server-time",
        {"stdio": _pip("servers", "mcp-server-time", "--local-timezone", "UTC")},
        good=("convert_time", {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}),
        bad=("convert_time", {"source_timezone": "Nowhere/Else", "time": "12:00", "target_timezone": "UTC"}),
        short=True,
    ),
    Server(
        "fetch",
        "servers",
        "mcp-server-fetch",
        {"stdio": _pip("servers", "mcp-server-fetch", "--ignore-robots-txt")},
        bad=("fetch", {"url": "http://127.0.0.1:9/"}),
    ),
    Server(
        "git",
        "servers",
        "mcp-server-git",
        {"stdio": _pip("servers", "mcp-server-git", "--repository", "{repo}")},
        good=("git_log", {"repo_path": "{repo}", "max_count": 1}),
        bad=("git_show", {"repo_path": "{repo}", "revision": "no-such-revision"}),
    ),
    Server(
        "sqlite",
        "sqlite",
        "mcp-server-sqlite",
        {"stdio": _pip("sqlite", "mcp-server-sqlite", "--db-path", "{scratch}/walk.db")},
        good=("read_query", {"query": "SELECT 1 + 1 AS two"}),
        bad=("read_query", {"query": "SELECT * FROM nowhere"}),
    ),
    Server(
        "aws-documentation",
        "aws",
        "awslabs.aws-documentation-mcp-server",
        {"stdio": _pip("aws", "awslabs.aws-documentation-mcp-server")},
        steps=LIST_ONLY | {"resources", "prompts"},
        environment={"FASTMCP_LOG_LEVEL": "ERROR"},
    ),
    Server(
        "calculator",
        "calculator",
        "mcp-server-calculator",
        {"stdio": _pip("calculator", "mcp-server-calculator")},
        good=("calculate", {"expression": "6 * 7"}),
        bad=("calculate", {"expression": "6 *"}),
    ),
    _python_sample("mcp-1.9", "mcp", path="/mcp/"),  # it redirects from the path without the slash
    _python_sample("mcp-1.16", "mcp"),
    _python_sample("mcp-1.30", "mcp"),
    _python_sample("mcp-2", "mcp", modern=True, short=True),
    _python_sample("fastmcp-2", "fastmcp"),
    _python_sample("fastmcp-3", "fastmcp"),
    _python_sample("fastmcp-4", "fastmcp", modern=True),
    _node_sample("typescript-1.12", f"{OFFICIAL}/sdk", "stdio", "http", "sse"),
    _node_sample("typescript-1", f"{OFFICIAL}/sdk", "stdio", "http", "sse"),
    _node_sample("typescript-2", f"{OFFICIAL}/server", "stdio", "http", modern=True),
)
