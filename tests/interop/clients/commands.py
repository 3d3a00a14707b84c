"""Clients that are commands, a process for each step: curl, the Inspector's command line, Claude Code."""

import json
import subprocess
from contextlib import asynccontextmanager

from play import main


def run(words, request):
    done = subprocess.run(words, capture_output=True, text=True, timeout=50, env=request["environment"], check=False)
    return done.returncode, done.stdout, done.stderr


def headers(request, flag, form="{}: {}"):
    return [part for name, value in request["headers"].items() for part in (flag, form.format(name, value))]


def curl(request):
    """Streamable HTTP by hand, without a session where none is asked for."""
    session = []

    def post(method, params, number=1):
        message = {"jsonrpc": "2.0", "method": method, "params": params} | ({"id": number} if number else {})
        fixed = ["-H", "Content-Type: application/json", "-H", "Accept: application/json, text/event-stream"]
        flags = ["-sS", "-i", "--max-time", "40", *fixed, *headers(request, "-H"), *session, "-d", json.dumps(message)]
        code, out, err = run(["curl", *flags, request["url"]], request)
        if code:
            raise RuntimeError(err.strip())
        head, _, body = out.replace("\r\n", "\n").partition("\n\n")
        for line in head.splitlines():
            if line.lower().startswith("mcp-session-id:"):
                session[:] = ["-H", line]
        lines = [line.removeprefix("data:") for line in body.splitlines() if line.startswith("data:")] or [body]
        messages = [json.loads(line) for line in lines if line.strip()]
        return head.split()[1], next((m for m in messages if m.get("id") == number), {})

    client = {"name": "curl", "version": "1"}
    post("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client})
    post("notifications/initialized", {}, None)

    def listed():
        return [tool["name"] for tool in post("tools/list", {}, 2)[1]["result"]["tools"]]

    def called(name, arguments):
        status, answer = post("tools/call", {"name": name, "arguments": arguments}, 3)
        if "error" in answer:
            return f"HTTP {status}, error {answer['error']['code']}: {answer['error']['message']}"
        result = answer["result"]
        words = " ".join(block["text"] for block in result["content"])
        return f"error result: {words}" if result.get("isError") else words

    return listed, called


def inspector(request):
    """The Inspector's command line."""

    def ask(*words):
        flags = ["--transport", "http", *headers(request, "--header"), *words]
        code, out, err = run([*request["command"], "--cli", request["url"], *flags], request)
        if code and not out.strip():
            raise RuntimeError(" ".join((err or out).split())[:600])
        return json.loads(out[out.index("{") :])

    def called(name, arguments):
        given = [part for n, v in arguments.items() for part in ("--tool-arg", f"{n}={v}")]
        result = ask("--method", "tools/call", "--tool-name", name, *given)
        words = " ".join(block.get("text", "") for block in result.get("content", [])) or json.dumps(result)
        return f"error result: {words}" if result.get("isError") else words

    return lambda: [tool["name"] for tool in ask("--method", "tools/list")["tools"]], called


def claude(request):
    """Claude Code: the servers that it knows, with its check of their health."""
    add = [*request["command"], "mcp", "add", "--transport", "http", "walk", request["url"]]
    code, out, err = run([*add, *headers(request, "--header")], request)
    if code and "already exists" not in out + err:
        raise RuntimeError((out + err).strip()[:300])

    def listed():
        _, out, err = run([*request["command"], "mcp", "list"], request)
        lines = [line for line in (out + err).splitlines() if line.startswith("walk")]
        return [" ".join(lines).rpartition(" - ")[2]]

    return listed, None


@asynccontextmanager
async def opened(request):
    listed, called = {"curl": curl, "inspector": inspector, "claude": claude}[request["kind"]](request)

    async def list_them():
        return listed()

    async def call_one(name, arguments):
        return called(name, arguments)

    yield list_them, call_one


main(opened)
