"""`make demo`: what an agent can do to a careless MCP server, and what it can do once the gateway stands in front.

Everything happens in a temporary folder and on free ports; nothing is asked, and nothing is left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parent.parent
POLICY = """\
roles:
  admin:    {allow: ["*"]}
  user:     {allow: ["public.echo", "list_*"]}
  readonly: {allow: ["list_customers"]}
rate_limits:
  per_api_key: {requests: 120, window_seconds: 60}
  per_tool:
    overrides: {public.echo: {requests: 3, window_seconds: 60}}
"""

COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ
BOLD, DIM, RED, GREEN, YELLOW, BLUE = "1", "2", "31", "32", "33", "36"
COLOURS = {200: GREEN, 401: RED, 403: RED, 429: YELLOW}


def paint(text: str, *styles: str) -> str:
    """Text in colour, where there are colours."""
    return f"\033[{';'.join(styles)}m{text}\033[0m" if COLOUR and styles else text


def title(text: str) -> None:
    """Print a heading."""
    print(f"\n{paint('━━ ', DIM)}{paint(text, BOLD)}{paint(' ' + '━' * max(4, 90 - len(text)), DIM)}", flush=True)


def say(text: str) -> None:
    """Print a line of explanation."""
    print(f"   {paint(text, DIM)}", flush=True)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def call(url: str, tool: str, arguments: dict[str, Any], key: str | None = None) -> tuple[int, dict[str, Any]]:
    """Call a tool: the HTTP status and the JSON-RPC answer."""
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    request = Request(url, json.dumps(message).encode(), headers)
    try:
        with urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except HTTPError as refusal:
        return refusal.code, json.load(refusal)


def show(who: str, tool: str, arguments: dict[str, Any], outcome: tuple[int, dict[str, Any]], wanted: int) -> None:
    """Print one call and what came of it; a surprise ends the demonstration."""
    status, answer = outcome
    called = f"{tool}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})"
    told = answer["error"]["message"] if "error" in answer else answer["result"]["content"][0]["text"]
    if len(told) > 96:
        told = told[:95] + "…"
    badge = paint(f" {status} ", BOLD, COLOURS.get(status, BLUE))
    print(f"   {badge} {paint(who.ljust(14), BLUE)} {called}\n         {paint(told, DIM)}", flush=True)
    if status != wanted:
        raise SystemExit(f"expected {wanted}, got {status}: {answer}")


class Demo:
    """The careless server, the gateway, and a folder for both."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.processes: list[subprocess.Popen[bytes]] = []
        self.environment = {
            n: v for n, v in os.environ.items() if not n.startswith("SENTINEL_") and n != "DATABASE_URL"
        }
        self.environment |= {"SENTINEL_VAR": str(home / "var"), "SENTINEL_UPSTREAM_NETWORKS": "127.0.0.0/8"}
        self.server = f"http://127.0.0.1:{free_port()}/mcp"
        self.gateway = f"http://127.0.0.1:{free_port()}"

    def start(self, *command: str, log: str) -> None:
        """Start a process that is stopped at the end."""
        with (self.home / log).open("wb") as output:
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, *command], cwd=ROOT, env=self.environment, stdout=output, stderr=output
                )
            )

    def ready(self, url: str, log: str) -> None:
        """Wait until an address answers."""
        until = time.monotonic() + 90
        while time.monotonic() < until:
            if self.processes[-1].poll() is not None:
                break
            try:
                with urlopen(url, timeout=2):
                    return
            except HTTPError as answer:
                if answer.code < 500:
                    return
            except (URLError, OSError):
                pass
            time.sleep(0.05)
        raise SystemExit(f"{url} does not answer:\n{(self.home / log).read_text(errors='replace')[-3000:]}")

    def manage(self, *arguments: str) -> str:
        """Run a command of the gateway."""
        print(f"   {paint('$', DIM)} python manage.py {' '.join(arguments)}", flush=True)
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.stderr.strip() or f"exit code {done.returncode}")
        return done.stdout

    def stop(self) -> None:
        """Stop what was started, the gateway first."""
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in reversed(self.processes):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def before(demo: Demo) -> None:
    """Anyone deletes a customer, and nobody will ever know."""
    title("Before: an MCP server on its own")
    demo.start("demo/server.py", "--port", demo.server.split(":")[2].split("/")[0], log="server.log")
    demo.ready(demo.server, "server.log")
    customer = {"customer_id": "3"}
    show("anyone", "delete_customer", customer, call(demo.server, "delete_customer", customer), 200)
    say("No key, no question, no limit, no trace.")


def prepare(demo: Demo) -> dict[str, str]:
    """Start the gateway and set it up with its own commands."""
    title("The same server behind MCP Sentinel")
    port = demo.gateway.rpartition(":")[2]
    print(f"   {paint('$', DIM)} python manage.py serve --port {port} &", flush=True)
    begun = time.monotonic()
    demo.start("manage.py", "serve", "--port", port, "--workers", "1", log="gateway.log")
    demo.ready(f"{demo.gateway}/readyz", "gateway.log")
    say(f"ready after {time.monotonic() - begun:.1f} s, with a PostgreSQL of its own, in a folder of its own")
    policy = demo.home / "policy.yaml"
    policy.write_text(POLICY)
    demo.manage("upstreams", "add", "crm", "--url", demo.server)
    demo.manage("policy", "apply", str(policy))
    keys = {role: json.loads(demo.manage("keys", "create", role, "--role", role, "--json"))["key"] for role in ROLES}
    time.sleep(1)  # a change reaches every worker within a second
    return keys


ROLES = ("readonly", "user", "admin")


def after(demo: Demo, keys: dict[str, str]) -> None:
    """The same calls, each with an answer that says why."""
    title("After: every call is authenticated, decided, limited and recorded")
    url = f"{demo.gateway}/mcp/crm"
    customer = {"customer_id": "2"}
    show("no key", "delete_customer", customer, call(url, "delete_customer", customer), 401)
    show("readonly key", "list_customers", {}, call(url, "list_customers", {}, keys["readonly"]), 200)
    show("readonly key", "delete_customer", customer, call(url, "delete_customer", customer, keys["readonly"]), 403)
    for turn in (1, 2, 3, 4):
        arguments = {"text": f"hello {turn}"}
        outcome = call(url, "public.echo", arguments, keys["user"])
        show("user key", "public.echo", arguments, outcome, 200 if turn < 4 else 429)
    show("admin key", "delete_customer", customer, call(url, "delete_customer", customer, keys["admin"]), 200)


def prove(demo: Demo) -> None:
    """Read the log."""
    title("The proof: one audit event for each of these calls")
    until = time.monotonic() + 20
    text = demo.manage("audit", "export", "--format", "ndjson")
    while True:
        events = [event for line in text.splitlines() if (event := json.loads(line))["outcome"] != "changed"]
        if len(events) >= 8 or time.monotonic() > until:
            break
        time.sleep(0.2)
        with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet):
            text = demo.manage("audit", "export", "--format", "ndjson")
    events.sort(key=lambda event: event["id"])
    row = "   {:<12}  {:<9} {:<16} {:<16} {:>3}  {:<20} {}"
    print(paint(row.format("time", "key", "tool", "outcome", "", "reason", "event"), DIM))
    for event in events:
        line = row.format(
            event["ts"][11:23],
            event["key_name"] or "-",
            event["tool_name"] or "-",
            event["outcome"],
            event["status_code"],
            event["reason"],
            event["id"],
        )
        print(paint(line, COLOURS.get(event["status_code"], BLUE)))
    outcomes = [(event["status_code"], event["tool_name"]) for event in events]
    wanted = [401, 200, 403, 200, 200, 200, 429, 200]
    if [status for status, _ in outcomes] != wanted:
        raise SystemExit(f"expected events {wanted}, found {outcomes}")
    say("The first deletion, made before the gateway stood there, is in no log at all.")
    print(f"   {demo.manage('audit', 'verify').strip().splitlines()[-1]}")


def main() -> int:
    """Play the demonstration."""
    begun = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="sentinel-demo-"))
    demo = Demo(home)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        before(demo)
        after(demo, prepare(demo))
        prove(demo)
        print(
            f"\n   {paint('Done', BOLD, GREEN)} in {time.monotonic() - begun:.0f} s. Start your own: {paint('make run', BOLD)}\n"
        )
        return 0
    except KeyboardInterrupt:
        return 130
    finally:
        demo.stop()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
