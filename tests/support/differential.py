"""Mutated requests through a running gateway, to servers on other readers: executed = authorised = audited.

`python -m tests.support.differential [--requests 100000] [--behind-nginx]`. Each request (its headers, charset, coding, query and body are
varied, in both eras: see `mutants`) goes to one of the servers of `readers` in turn, under a role that allows a few things.
Afterwards three lists must agree, request by request (told apart by their trace): what each server says it executed, what
the role allows, and what stands in the log.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import posixpath
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any
from unicodedata import normalize
from urllib.parse import unquote

from audit.redaction.escapes import unescape
from tests.support import readers
from tests.support.gateway import ROOT, Gateway
from tests.support.mutants import Mutant, mutant
from tests.support.nginx import ENVIRONMENT, NAME, Proxy

#: method -> the names the role may have
MAY = {
    "tools/call": {"public.echo", "x", "pay"},
    "resources/read": {"file:///a"},
    "prompts/get": {"pé", "p"},
    "completion/complete": {"p"},
}
POLICY = """
roles: {mutant: {allow: ["public.echo", "x", "resource:file:///a", "resource:file:///public/*", "prompt:pé", "prompt:p"]}}
rules: [{name: small, effect: allow, roles: [mutant], tool: pay, when: [{argument: to.cost, le: 100}]}]
"""
#: the most that `pay` may be called with, however a server reads names
MOST = 100
OPEN = re.compile(
    r"|initialize|ping|server/discover|logging/setLevel|(?:tools|prompts|resources|resources/templates|tasks)/list"
    r"|notifications/(?:initialized|cancelled|progress|roots/list_changed)"
)


class Sender:
    """Sends requests over a connection of its own, made anew when it was closed."""

    def __init__(self, way: Gateway | Proxy, key: str, told: Counter[int]) -> None:
        self._way, self._key, self._told = way, key, told
        self._host, self._tls = (NAME, way.context()) if isinstance(way, Proxy) else ("127.0.0.1", None)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def all(self, work: Iterator[tuple[int, Mutant, str]]) -> None:
        """Take requests, one after the other."""
        for number, one, upstream in work:
            await self.one(number, one, upstream)
        await self._leave()

    async def one(self, number: int, one: Mutant, upstream: str) -> None:
        """Send one request and read its answer whole."""
        if self._writer is None or self._writer.is_closing():
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._way.port, ssl=self._tls)
        assert self._reader is not None
        self._writer.write(self._head(number, one, upstream) + one.body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        self._told[int(answer[9:12])] += 1
        if length := re.search(rb"content-length: (\d+)", answer):
            await self._reader.readexactly(int(length[1]))
        elif b"transfer-encoding: chunked" in answer:
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                await self._reader.readexactly(size + 2)
            await self._reader.readexactly(2)
        elif not answer.startswith(b"http/1.1 202"):
            raise AssertionError(f"no whole answer: {answer!r}")
        if b"connection: close" in answer:
            await self._leave()

    def _head(self, number: int, one: Mutant, upstream: str) -> bytes:
        lines = [
            b"POST /mcp/%b%b HTTP/1.1" % (upstream.encode(), one.query),
            b"Host: " + self._host.encode(),
            b"Authorization: Bearer " + self._key.encode(),
            b"traceparent: 00-%032x-00000000000000ff-01" % number,
            b"Content-Length: %d" % len(one.body),
            *(name + b": " + value for name, value in one.headers),
        ]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    async def _leave(self) -> None:
        if self._writer is not None:
            self._writer.close()
            with suppress(OSError):
                await self._writer.wait_closed()
            self._writer = None


async def send(way: Gateway | Proxy, key: str, requests: list[Mutant], names: list[str], at_once: int) -> Counter[int]:
    """Send all requests; how often each status came."""
    told: Counter[int] = Counter()
    work = iter([(n + 1, one, names[n % len(names)]) for n, one in enumerate(requests)])
    await asyncio.gather(*(Sender(way, key, told).all(work) for _ in range(at_once)))
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


def may(method: str, target: Any, arguments: Any) -> bool:
    """Whether the role may, whatever a server makes of a URI's path and of names of arguments."""
    if method == "resources/read" and isinstance(target, str) and target.startswith("file:///public/"):
        path = unquote(unquote(target.removeprefix("file://"))).replace("\\", "/")
        ways = (path, path.replace(";", ""))
        return all(posixpath.normpath(re.split("[?#;]", way)[0]).startswith("/public/") for way in ways)
    if method == "tools/call" and target == "pay":
        costs = [cost for place in folded(arguments, "to") for cost in folded(place, "cost")]
        return bool(costs) and all(isinstance(cost, int | float) and cost <= MOST for cost in costs)
    return target in MAY.get(method, ())


def folded(value: Any, name: str) -> list[Any]:
    """Every member that some reader takes for the one of this name."""
    members = value.items() if isinstance(value, dict) else ()
    plain = str.maketrans("", "", "\u200b\0_-")
    return [member for key, member in members if normalize("NFKC", key).translate(plain).casefold() == name]


def differences(requests: list[Mutant], seen: dict[str, list[Any]], events: dict[int, Any]) -> list[str]:
    """Where what was executed, what is allowed and what stands in the log do not agree; nothing when they do."""
    problems = []
    ran = set()
    for upstream, entries in seen.items():
        for trace, method, name, uri, arguments, ref, *told in entries:
            number = int(trace, 16)
            about = f"{number} on {upstream}: {requests[number - 1]}"
            if number in ran:
                problems.append(f"executed twice: {about}")
            ran.add(number)
            method = method or ""  # a client's answer to a question of the server: open, and executes nothing
            # authorised, as the server itself read it
            target = {"resources/read": uri, "completion/complete": (ref or {}).get("name")}.get(method, name)
            if not may(method, target, arguments) and not OPEN.fullmatch(method):
                problems.append(f"executed though not allowed ({method} {target}): {about}")
            for header, value in told[0].items() if told else ():
                if value != {"MCP_METHOD": method, "MCP_NAME": target}.get(header, value) or not header.startswith(
                    "MCP_"
                ):
                    problems.append(f"a header says {header} {value}: {about}")
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
        if event["outcome"] == "allowed" and number not in ran and not _turned_down(event):
            problems.append(f"in the log as allowed, never executed: {number} {requests[number - 1]} {event}")
        if (event["count"] or 1) > 1 and event["outcome"] not in ("invalid", "denied"):
            problems.append(f"counted, though it is no refusal: {event}")
    return problems


def _turned_down(event: Any) -> bool:
    """Whether a server of an SDK, which notes calls alone, made something else of a request, or an error."""
    if event["upstream"] in readers.PLAIN:
        return False
    answer = event["response_json"]
    return event["method"] not in MAY or event["status_code"] >= 400 or (isinstance(answer, dict) and "error" in answer)


def run(
    count: int,
    at_once: int = 24,
    seed: int = 20260728,
    behind_nginx: bool = False,
    names: tuple[str, ...] = readers.ALL,
) -> tuple[dict[str, Any], list[str]]:
    """Send so many requests; gives figures, and what did not agree."""
    rng = random.Random(seed)
    requests = [mutant(rng, names[n % len(names)] in readers.MODERN and rng.random() < 0.5) for n in range(count)]
    environment = ENVIRONMENT if behind_nginx else {}
    with (
        readers.servers(names) as ports,
        Gateway(SENTINEL_CATALOGUE_REFRESH="0", **environment) as gateway,
        tempfile.TemporaryDirectory() as folder,
        Proxy(Path(folder), gateway.port) if behind_nginx else nullcontext(gateway) as way,
    ):
        added = [["upstreams", "add", name, "--url", f"http://127.0.0.1:{port}/mcp"] for name, port in ports.items()]
        policy = Path(folder) / "policy.yaml"
        policy.write_text(POLICY, encoding="utf-8")
        *_, made = gateway.commands(
            *added, ["policy", "apply", str(policy)], ["keys", "create", "mutant", "--role", "mutant", "--json"]
        )
        time.sleep(1.2)
        begun = time.monotonic()
        statuses = asyncio.run(send(way, json.loads(made)["key"], requests, list(ports), at_once))
        seconds = time.monotonic() - begun
        events, told = stored(gateway, count)
        seen = {name: readers.executed(port) for name, port in ports.items()}
    outcomes: Counter[str] = Counter()
    for event in events.values():
        outcomes[event["outcome"]] += event["count"] or 1
    figures = {
        "requests": count,
        "seconds": round(seconds),
        "statuses": dict(statuses),
        "executed": {name: len(entries) for name, entries in seen.items()},
        "requests in the log": told,
        "outcomes": dict(outcomes),
    }
    problems = differences(requests, seen, events)
    return figures, problems if told == count else [*problems, f"the log stands for {told} of {count} requests"]


def main() -> int:
    """Run, print the figures and what did not agree."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.differential", description=(__doc__ or "").strip())
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--at-once", type=int, default=24)
    parser.add_argument("--seed", type=int, default=20260728)
    parser.add_argument("--behind-nginx", action="store_true", help="through nginx, with the configuration of deploy/")
    options = parser.parse_args()
    figures, problems = run(options.requests, options.at_once, options.seed, options.behind_nginx)
    print(json.dumps(figures))
    for problem in problems[:20]:
        print(problem)
    print(f"{len(problems)} differences")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
