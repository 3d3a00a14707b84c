"""The roads to a server: directly, and through the gateway on each way that its transports allow."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tests.interop import compare, known
from tests.interop.peers import Older, Peer, Pipes, Streamable
from tests.interop.servers import Server, Target
from tests.interop.walk import BROKEN, Steps, walk
from tests.support import clients
from tests.support.gateway import Gateway, Key


@dataclass(frozen=True, slots=True)
class Road:
    """One way to a server: the transport behind the gateway, the endpoint in front of it."""

    name: str
    transport: str
    front: str = "mcp"
    per_session: bool = False
    modern: bool = False


ROADS = (
    Road("stdio", "stdio"),
    Road("stdio, a process each", "stdio", per_session=True),
    Road("stdio by /sse", "stdio", "sse"),
    Road("HTTP", "http"),
    Road("HTTP, modern", "http", modern=True),
    Road("HTTP by /sse", "http", "sse"),
    Road("SSE", "sse"),
    Road("SSE by /sse", "sse", "sse"),
)


@dataclass(frozen=True, slots=True)
class Walked:
    """What came of one server on one road."""

    server: Server
    road: Road
    direct: Steps
    through: Steps
    differences: dict[str, str]


class NotStarted(Exception):
    """A server does not listen; the text says so, and what it printed."""


def taken(server: Server) -> list[Road]:
    """The roads that a server's transports allow."""
    return [road for road in ROADS if road.transport in server.transports and (server.modern or not road.modern)]


class World:
    """A gateway, a key that may do everything, and a folder for servers to work in."""

    def __init__(self, gateway: Gateway, key: Key) -> None:
        self.gateway = gateway
        self.key = key
        self.scratch = gateway.home / "scratch"
        self._prepare()

    def _prepare(self) -> None:
        (self.scratch / "files").mkdir(parents=True)
        (self.scratch / "files" / "a.txt").write_text("hello\n")
        git = ["git", "-C", str(self.scratch), "-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
        subprocess.run([*git, "init", "--quiet", "repo"], check=True)
        git[2] = str(self.scratch / "repo")
        (self.scratch / "repo" / "a.txt").write_text("hello\n")
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "--quiet", "-m", "first"], check=True)
        # An upstream's command may run under another user than whoever prepares its files.
        subprocess.run(["chmod", "-R", "a+rwX", str(self.scratch)], check=True)

    def filled(self, text: str, port: int) -> str:
        """A text with its places filled in."""
        places = {"{scratch}": str(self.scratch), "{repo}": str(self.scratch / "repo"), "{port}": str(port)}
        for place, value in places.items():
            text = text.replace(place, value)
        return text

    def command(self, server: Server, transport: str, port: int) -> list[str]:
        """What starts a server."""
        return [self.filled(word, port) for word in server.transports[transport]()]

    def environment(self, server: Server, port: int) -> dict[str, str]:
        """What a server is started with."""
        return {name: self.filled(value, port) for name, value in server.environment.items()}

    def log(self, server: Server, transport: str) -> Path:
        """Where goes what a server prints for people."""
        return self.scratch / f"{_slug(server, transport)}.log"

    @contextmanager
    def running(self, server: Server, transport: str) -> Iterator[int]:
        """A server that listens; nothing for one that is a command."""
        port = clients.free_port()
        if transport == "stdio":
            yield port
            return
        path = self.log(server, transport)
        with path.open("wb") as log:
            process = subprocess.Popen(
                self.command(server, transport, port),
                env=os.environ | self.environment(server, port),
                cwd=self.scratch,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            if not _listens(port, process):
                raise NotStarted(f"the server did not start{_printed(path)}")
            yield port
        finally:
            _end(process)

    def targets(self, server: Server) -> Server:
        """A server whose calls name the folders that there are."""

        def there(target: Target | None) -> Target | None:
            if target is None:
                return None
            return target[0], {n: self.filled(v, 0) if isinstance(v, str) else v for n, v in target[1].items()}

        return replace(server, good=there(server.good), bad=there(server.bad))

    def directly(self, server: Server, transport: str, port: int, modern: bool = False) -> Steps:
        """Walk a server without the gateway."""
        return _walked(lambda: self._direct_peer(server, transport, port, modern), self.targets(server), modern)

    def _direct_peer(self, server: Server, transport: str, port: int, modern: bool) -> Peer:
        if transport == "stdio":
            with self.log(server, transport).open("wb") as log:
                return Pipes(self.command(server, transport, 0), self.environment(server, 0), str(self.scratch), log)
        url = f"http://127.0.0.1:{port}{server.paths[transport]}"
        return Older(url, {}) if transport == "sse" else Streamable(url, {}, modern)

    def known(self, server: Server, transport: str, port: int, mark: str = "") -> dict[bool, str]:
        """Make a server known to the gateway; its names there, for one shared process and for one each."""
        slug = f"{mark}{_slug(server, transport)}"
        names = {False: slug} | ({True: f"{slug}-each"} if transport == "stdio" else {})
        added = ["upstreams", "add"]
        lines = [[*added, name, *self.reached(server, transport, port)] for name in names.values()]
        self.gateway.commands(*(line + (["--per-session"] if n else []) for n, line in enumerate(lines)))
        time.sleep(1.0)
        return names

    def reached(self, server: Server, transport: str, port: int) -> list[str]:
        """How the gateway is told to reach a server."""
        if transport != "stdio":
            url = f"http://127.0.0.1:{port}{server.paths[transport]}"
            return ["--url", url, "--transport", {"http": "streamable-http", "sse": "sse"}[transport]]
        start = ["--command", shlex.join(self.command(server, transport, 0)), "--cwd", str(self.scratch)]
        for name, value in self.environment(server, 0).items():
            start += ["--env", f"{name}={value}"]
        return start

    def through(self, server: Server, road: Road, names: dict[bool, str]) -> Steps:
        """Walk a server through the gateway."""
        url = f"{self.gateway.url}/{road.front}/{names[road.per_session]}"
        headers = {"Authorization": f"Bearer {self.key.key}"}
        opened = Older if road.front == "sse" else lambda u, h: Streamable(u, h, road.modern)
        return _walked(lambda: opened(url, headers), self.targets(server), road.modern)

    def walked(self, server: Server, roads: list[Road] | None = None) -> Iterator[Walked]:
        """Walk a server directly and on its roads through the gateway, and compare."""
        roads = taken(server) if roads is None else roads
        for transport in dict.fromkeys(road.transport for road in roads):
            mine = [road for road in roads if road.transport == transport]
            try:
                with self.running(server, transport) as port:
                    yield from self._compared(server, transport, port, mine)
            except NotStarted as error:
                for road in mine:
                    yield Walked(server, road, {}, {}, {"initialize": str(error)})

    def _compared(self, server: Server, transport: str, port: int, roads: list[Road]) -> Iterator[Walked]:
        names = self.known(server, transport, port)
        directly: dict[bool, Steps] = {}
        for road in roads:
            if road.modern not in directly:
                directly[road.modern] = self.directly(server, transport, port, road.modern)
            direct = directly[road.modern]
            through = self.through(server, road, names)
            found = compare.differences(direct, through)
            if any(not known.why(server.name, road.name, name) for name in found):
                # What differs from itself is no difference that the gateway makes.
                again = self.directly(server, transport, port, road.modern)
                for name in compare.differences(direct, again):
                    found.pop(name, None)
            # Silence is no answer that the gateway could have kept.
            for name in compare.silent(direct):
                found[name] = f"no answer even directly{_printed(self.log(server, transport))}"
            yield Walked(server, road, direct, through, found)
        self.gateway.commands(*(["upstreams", "remove", name] for name in names.values()))


def _walked(opened: Callable[[], Peer], server: Server, modern: bool) -> Steps:
    try:
        peer = opened()
    except (*BROKEN, ValueError) as error:
        return {"initialize": {"answer": f"no answer: {type(error).__name__}"}}
    try:
        return walk(peer, server, modern)
    finally:
        with suppress(*BROKEN):  # a server that has ended cannot be told goodbye
            peer.close()


def _slug(server: Server, transport: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in f"{server.name}-{transport}".lower())


def _printed(log: Path) -> str:
    """The end of what a server printed, to follow what is said of it."""
    text = log.read_text(errors="replace").strip()
    return f"; it printed: {text[-1000:]}" if text else "; it printed nothing"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server and what it started; it may have ended by itself."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
            return


def _listens(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Wait until a server listens; whether it ever did."""
    until = time.monotonic() + 60 * clients.PATIENCE
    while process.poll() is None and time.monotonic() < until:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.05)
    return False


@contextmanager
def world(**settings: str) -> Iterator[World]:
    """A gateway for walks."""
    with Gateway(SENTINEL_CATALOGUE_REFRESH="0", **settings) as gateway:
        yield World(gateway, gateway.create_key("walker", "admin"))
