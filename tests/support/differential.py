"""Mutated bodies through a running gateway, to servers on other parsers: executed = authorised = audited.

`python -m tests.support.differential [--bodies 100000] [--behind-nginx]`. Each body goes to one of three servers in turn, on Python's, Node's
and Go's parser, under a role that allows five things by name. Afterwards three lists must agree, request by request
(told apart by their trace): what each server says it executed, what the role allows, and what stands in the log.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from audit.escapes import unescape
from tests.support import clients
from tests.support.gateway import ROOT, Gateway
from tests.support.mutants import mutated
from tests.support.nginx import ENVIRONMENT, NAME, Proxy

PARSERS = Path(__file__).resolve().parent / "parsers"
#: method -> the names the role may have
MAY = {
    "tools/call": {"public.echo", "x"},
    "resources/read": {"file:///a"},
    "prompts/get": {"pé", "p"},
    "completion/complete": {"p"},
}
POLICY = 'roles: {mutant: {allow: ["public.echo", "x", "resource:file:///a", "prompt:pé", "prompt:p"]}}'
OPEN = re.compile(r"|initialize|ping|server/discover|.*/list|notifications/.*")


@contextmanager
def servers() -> Iterator[dict[str, int]]:
    """The three servers: name -> port."""
    commands = {
        "python": [sys.executable, str(PARSERS / "server.py")],
        "node": [str(clients.node()), str(PARSERS / "server.mjs")],
        "go": [str(clients.go_server())],
    }
    ports = {name: clients.free_port() for name in commands}
    running = [subprocess.Popen([*command, str(ports[name])]) for name, command in commands.items()]
    try:
        for port in ports.values():
            until = time.monotonic() + 60
            while True:
                try:
                    executed(port)
                    break
                except (URLError, OSError):
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.05)
        yield ports
    finally:
        for process in running:
            process.kill()
            process.wait()


def executed(port: int) -> list[Any]:
    """What a server has executed: trace, method, name, uri, arguments, ref."""
    with urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
        found: list[Any] = json.load(answer)
    return found


async def one_by_one(
    way: Gateway | Proxy, key: str, work: Iterator[tuple[int, bytes, str]], told: Counter[int]
) -> None:
    """Take bodies and send them, over one connection as long as it lasts."""
    reader = writer = None
    host, tls = (NAME, way.context()) if isinstance(way, Proxy) else ("127.0.0.1", None)
    for number, body, upstream in work:
        head = (
            f"POST /mcp/{upstream} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
            f"traceparent: 00-{number:032x}-00000000000000ff-01\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        if writer is None or writer.is_closing():
            reader, writer = await asyncio.open_connection("127.0.0.1", way.port, ssl=tls)
        assert reader is not None
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        told[int(answer[9:12])] += 1
        length = re.search(rb"content-length: (\d+)", answer)
        if length is None and not answer.startswith(b"http/1.1 202"):
            raise AssertionError(f"no whole answer: {answer!r}")
        if length is not None:
            await reader.readexactly(int(length[1]))
        if b"connection: close" in answer:
            await left(writer)
    if writer is not None:
        await left(writer)


async def left(writer: asyncio.StreamWriter) -> None:
    """Close a connection, whatever its other side thinks of it."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def send(way: Gateway | Proxy, key: str, bodies: list[bytes], names: list[str], at_once: int) -> Counter[int]:
    """Send all bodies; how often each status came."""
    told: Counter[int] = Counter()
    work = iter([(n + 1, body, names[n % len(names)]) for n, body in enumerate(bodies)])
    await asyncio.gather(*(one_by_one(way, key, work, told) for _ in range(at_once)))
    return told


def stored(gateway: Gateway, requests: int) -> tuple[dict[int, Any], int]:
    """The events by the number in their trace, and for how many requests they stand (refusals in number are counted)."""
    until = time.monotonic() + 300
    while True:
        command = [sys.executable, "manage.py", "audit", "export", "--format", "ndjson"]
        found: dict[int, Any] = {}
        total = 0
        with subprocess.Popen(command, cwd=ROOT, env=gateway.environment, stdout=subprocess.PIPE) as export:
            assert export.stdout is not None
            for line in export.stdout:
                event = json.loads(line)
                if event["outcome"] == "changed":
                    continue
                total += event["count"] or 1
                if event["trace_id"]:
                    number = int(event["trace_id"], 16)
                    if number in found:
                        raise AssertionError(f"two events of request {number}")
                    found[number] = event
        if total >= requests or time.monotonic() > until:
            return found, total
        time.sleep(2)


def alike(value: Any) -> Any:
    """A value as every parser has it: numbers as doubles, lone surrogates replaced."""
    if isinstance(value, dict):
        return {alike(name): alike(member) for name, member in value.items()}
    if isinstance(value, list):
        return [alike(member) for member in value]
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value)
    return value if isinstance(value, bool) or value is None else float(value)


def readable(value: Any) -> Any:
    """A value of the log with its escapes undone: what cannot be seen is escaped there."""
    if isinstance(value, dict):
        return {unescape(name): readable(member) for name, member in value.items()}
    if isinstance(value, list):
        return [readable(member) for member in value]
    return unescape(value) if isinstance(value, str) else value


def differences(bodies: list[bytes], seen: dict[str, list[Any]], events: dict[int, Any]) -> list[str]:
    """Where what was executed, what is allowed and what stands in the log do not agree; nothing when they do."""
    problems = []
    ran = {}
    for upstream, entries in seen.items():
        for trace, method, name, uri, arguments, ref in entries:
            number = int(trace, 16)
            about = f"{number} on {upstream}: {bodies[number - 1]!r}"
            if number in ran:
                problems.append(f"executed twice: {about}")
            ran[number] = method
            method = method or ""  # a client's answer to a question of the server: open, and executes nothing
            # authorised, as the server itself read it
            target = {"resources/read": uri, "completion/complete": (ref or {}).get("name")}.get(method, name)
            if target not in MAY.get(method, ()) and not OPEN.fullmatch(method):
                problems.append(f"executed though not allowed ({method} {target}): {about}")
            # audited, as the server itself read it
            event = events.get(number)
            if event is None or event["outcome"] not in ("allowed", "upstream_error"):
                problems.append(f"executed, not in the log as such ({event and event['outcome']}): {about}")
                continue
            if event["method"] != method or (method in MAY and event["tool_name"] != target):
                problems.append(f"the log names {event['method']} {event['tool_name']}, not {method} {target}: {about}")
            logged = ((event["request_json"] or {}).get("params") or {}).get("arguments")
            if method == "tools/call" and not event["redactions"] and alike(readable(logged)) != alike(arguments):
                problems.append(f"the log has other arguments ({logged}, not {arguments}): {about}")
    for number, event in events.items():
        if event["outcome"] == "allowed" and number not in ran:
            problems.append(f"in the log as allowed, never executed: {number} {bodies[number - 1]!r}")
        if (event["count"] or 1) > 1 and event["outcome"] not in ("invalid", "denied"):
            problems.append(f"counted, though it is no refusal: {event}")
    return problems


def run(
    count: int, at_once: int = 24, seed: int = 20260728, behind_nginx: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """Send so many bodies; gives figures, and what did not agree."""
    rng = random.Random(seed)
    bodies = [mutated(rng) for _ in range(count)]
    environment = ENVIRONMENT if behind_nginx else {}
    with (
        servers() as ports,
        Gateway(SENTINEL_CATALOGUE_REFRESH="0", **environment) as gateway,
        tempfile.TemporaryDirectory() as folder,
        Proxy(Path(folder), gateway.port) if behind_nginx else nullcontext(gateway) as way,
    ):
        for name, port in ports.items():
            gateway.add_upstream(name, f"http://127.0.0.1:{port}/mcp")
        gateway.apply_policy(POLICY)
        key = gateway.create_key("mutant", "mutant").key
        time.sleep(1)
        begun = time.monotonic()
        statuses = asyncio.run(send(way, key, bodies, list(ports), at_once))
        seconds = time.monotonic() - begun
        events, told = stored(gateway, count)
        seen = {name: executed(port) for name, port in ports.items()}
    outcomes: Counter[str] = Counter()
    for event in events.values():
        outcomes[event["outcome"]] += event["count"] or 1
    figures = {
        "bodies": count,
        "seconds": round(seconds),
        "statuses": dict(statuses),
        "executed": {name: len(entries) for name, entries in seen.items()},
        "requests in the log": told,
        "outcomes": dict(outcomes),
    }
    problems = differences(bodies, seen, events)
    return figures, problems if told == count else [*problems, f"the log stands for {told} of {count} requests"]


def main() -> int:
    """Run, print the figures and what did not agree."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.differential", description=(__doc__ or "").strip())
    parser.add_argument("--bodies", type=int, default=100_000)
    parser.add_argument("--at-once", type=int, default=24)
    parser.add_argument("--seed", type=int, default=20260728)
    parser.add_argument("--behind-nginx", action="store_true", help="through nginx, with the configuration of deploy/")
    options = parser.parse_args()
    figures, problems = run(options.bodies, options.at_once, options.seed, options.behind_nginx)
    print(json.dumps(figures))
    for problem in problems[:20]:
        print(problem)
    print(f"{len(problems)} differences")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
