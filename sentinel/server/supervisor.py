"""`manage.py serve`: one supervisor for the embedded PostgreSQL, the drainer and N workers on one listening socket.

    supervisor   holds the instance's lock and the socket, starts and replaces children, stops them in order
      drain      journal -> PostgreSQL
      upstreams  the processes of command upstreams, shared by the workers
      worker 1…N uvicorn on the inherited socket
      demo       the demonstration's MCP server, with --demo

It is one thread around one wait: a signal, a child's end, or a worker's word that it is ready. Only what may take long, the
embedded PostgreSQL coming back, has a thread of its own: calls go on without it, and so must their supervision.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from core.conf import environ, settings
from core.conf.settings import PROJECT, Config, ConfigError
from proxy.upstreams.registry import HOST_VARIABLE
from proxy.upstreams.transports.stdio import descendants
from sentinel.postgres.server import EmbeddedPostgres, PostgresError
from sentinel.server import runtime
from sentinel.server.connections import raise_limit

BACKLOG = 2048
STEADY = 10.0  # a child that lived this long starts again without delay
FIRST_DELAY, MOST_DELAY = 0.1, 5.0
START_ATTEMPTS = 2  # how often a child may fail before the installation was ever ready
DRAIN_PATIENCE = 15.0
DATABASE_PATIENCE, MOST_DATABASE_DELAY = 10.0, 30.0  # of one try to bring PostgreSQL back, and between two; seconds
FEW_DESCRIPTORS = 4096


@dataclass
class ChildProcess:
    """One process that is to run, and the one that runs now."""

    name: str
    command: Callable[[ChildProcess], list[str]]
    ready: bool = False
    process: subprocess.Popen[bytes] | None = None
    pipe: int | None = None
    started: float = 0.0
    delay: float = FIRST_DELAY
    again: float = field(default=0.0)
    failures: int = 0

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None


class Supervisor:
    """Runs one installation until it is told to stop."""

    def __init__(
        self, config: Config, *, host: str, port: int, workers: int, database: EmbeddedPostgres | None
    ) -> None:
        self.config = config
        self.host, self.port = host, port
        self.workers = workers
        self.database = database
        self.children: list[ChildProcess] = []
        self.extra: list[ChildProcess] = []
        self.announce: Callable[[str], None] = lambda address: None
        self._selector = selectors.DefaultSelector()
        self._stop = 0
        self._ready = False
        self._mending: threading.Thread | None = None
        self._database_delay = FIRST_DELAY
        self._database_again = 0.0

    # Before anything runs

    def claim(self) -> None:
        """Take the state folder for this instance alone."""
        self._lock = runtime.claim(self.config)

    def bind(self) -> None:
        host = self.host.strip("[]")
        try:
            found = socket.getaddrinfo(host or None, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, kind, protocol, _, address = sorted(found, key=lambda item: item[0] != socket.AF_INET)[0]
            self.socket = socket.socket(family, kind, protocol)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
            self.socket.bind(address)
            self.socket.listen(BACKLOG)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {self.host} port {self.port}: {(error.strerror or str(error)).lower()}."
            ) from None
        self.socket.setblocking(False)
        self.port = self.socket.getsockname()[1]

    @property
    def address(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        return self.config.public_url or f"http://{host}:{self.port}"

    # While it runs

    def run(self) -> int:
        """Start everything, keep it running, stop it in order; return the exit status."""
        self._listen_to_signals()
        descendants.adopt()
        if raise_limit() < FEW_DESCRIPTORS:
            self._say(
                f"only {raise_limit()} files may be open at once (ulimit -n), which bounds connections; raise it."
            )
        self.children = [ChildProcess("drain", lambda child: ["drain", "--parent", str(os.getpid())], ready=True)]
        self.children += [
            ChildProcess("upstreams", lambda child: ["upstreamhost", "--parent", str(os.getpid())], ready=True)
        ]
        self.children += [ChildProcess(f"worker {slot}", self._worker(slot)) for slot in range(1, self.workers + 1)]
        self.children += self.extra
        try:
            for child in self.children:
                self._spawn(child)
            status = self._watch()
        finally:
            self._shut_down()
        return status

    def _worker(self, slot: int) -> Callable[[ChildProcess], list[str]]:
        def command(child: ChildProcess) -> list[str]:
            return [
                "worker", "--fd", str(self.socket.fileno()), "--slot", str(slot),
                "--ready-fd", str(child.pipe), "--parent", str(os.getpid()),
            ]  # fmt: skip

        return command

    def _spawn(self, child: ChildProcess) -> None:
        passed: list[int] = []
        reading = None
        if child.name.startswith("worker"):
            reading, child.pipe = os.pipe()
            child.ready = False
            passed = [self.socket.fileno(), child.pipe]
        command = child.command(child)
        variables = dict(os.environ)  # of another's program (the demonstration's server): without secrets
        if not command[0].startswith("/"):
            command = [sys.executable, str(PROJECT / "manage.py"), *command]
            variables = environ.whole()
        child.started = time.monotonic()
        child.process = subprocess.Popen(  # noqa: S603 - our own commands
            command,
            pass_fds=passed,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=PROJECT,
            # Processes and older sessions of upstreams live in a child of their own, so that any worker can use them.
            env={**variables, HOST_VARIABLE: "1"},
        )
        if reading is not None and child.pipe is not None:
            os.close(child.pipe)
            self._selector.register(reading, selectors.EVENT_READ, child)

    def _watch(self) -> int:
        while not self._stop:
            for key, _ in self._selector.select(self._patience()):
                if key.data is None:
                    self._drain_wakeups()
                else:
                    self._told(key.fd, key.data)
            status = self._tend()
            if status is not None:
                return status
        return 0

    def _patience(self) -> float:
        """How long nothing needs to be looked at."""
        waits = [child.again - time.monotonic() for child in self.children if not child.alive]
        return max(0.0, min([1.0, *waits]))

    def _told(self, descriptor: int, child: ChildProcess) -> None:
        word = os.read(descriptor, 16)
        self._selector.unregister(descriptor)
        os.close(descriptor)
        if word:
            child.ready = True
            child.failures = 0
            if not self._ready and all(other.ready for other in self.children if other.name.startswith("worker")):
                self._ready = True
                demo = settings.DEMO_MARK if self.config.demo else ""
                runtime.note_holder(self._lock, f"process {os.getpid()}, {self.address}{demo}")
                self.announce(self.address)

    def _tend(self) -> int | None:
        """Replace what ended; give up when it cannot even begin."""
        now = time.monotonic()
        for child in self.children:
            if child.alive:
                continue
            if child.process is not None:
                status = child.process.wait()
                child.process = None
                child.failures += 1
                steady = now - child.started > STEADY
                child.delay = FIRST_DELAY if steady else min(MOST_DELAY, child.delay * 2)
                child.again = now + (0 if steady else child.delay)
                if not self._ready and child.failures >= START_ATTEMPTS:
                    self._say(f"{child.name} cannot start (exit status {status}); its last words stand above.")
                    return 1
                self._say(f"{child.name} ended ({_how(status)}) and is started again.")
                if child.name == "upstreams":
                    descendants.end()  # its commands ended with it, what they started did not
            elif now >= child.again:
                self._spawn(child)
        if self.database is not None:
            self._tend_database(self.database, now)
        return None

    def _tend_database(self, database: EmbeddedPostgres, now: float) -> None:
        if self._mending is not None and self._mending.is_alive():
            return
        if database.running_pid() is not None:
            self._database_delay = FIRST_DELAY
        elif now >= self._database_again:
            self._say("the embedded PostgreSQL ended and is started again.")
            self._mending = threading.Thread(target=self._mend, args=(database,), name="database", daemon=True)
            self._mending.start()

    def _mend(self, database: EmbeddedPostgres) -> None:
        try:
            database.ensure(DATABASE_PATIENCE)
        except (PostgresError, OSError) as error:
            self._database_delay = min(MOST_DATABASE_DELAY, self._database_delay * 4)
            self._database_again = time.monotonic() + self._database_delay
            self._say(f"{error} Calls go on and are recorded in the journal; next try in {self._database_delay:.1f} s.")

    # The end

    def _shut_down(self) -> None:
        """Stop accepting, let workers finish, let the drainer drain what they wrote; each within its bound."""
        self.socket.close()
        workers = [child for child in self.children if child.name.startswith("worker")]
        self._end(workers, self.config.stop_seconds + self.config.graceful_timeout + 10)
        self._end([child for child in self.children if child not in workers and child.name != "drain"], 5)
        descendants.end()
        self._end([child for child in self.children if child.name == "drain"], DRAIN_PATIENCE)
        if self.database is not None:
            self.database.give_up()
            self.database.release()
        os.ftruncate(self._lock, 0)
        os.close(self._lock)

    def _end(self, children: list[ChildProcess], patience: float) -> None:
        running = [child.process for child in children if child.process is not None and child.process.poll() is None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + patience
        for process in running:
            while process.poll() is None and time.monotonic() < deadline and self._stop < 3:
                time.sleep(0.01)
            if process.poll() is None:
                process.kill()
                process.wait()

    # Signals

    def _listen_to_signals(self) -> None:
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._asked_to_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _asked_to_stop(self, *_: object) -> None:
        self._stop += 1

    def _drain_wakeups(self) -> None:
        try:
            while self._wake_read.recv(4096):
                pass
        except BlockingIOError:
            pass

    def _say(self, text: str) -> None:
        sys.stderr.write(f"MCP Sentinel: {text}\n")
        sys.stderr.flush()


def default_workers() -> int:
    """One worker per core this process may use, 2 at least, 8 at most."""
    return max(2, min(8, len(os.sched_getaffinity(0))))


def _how(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"
