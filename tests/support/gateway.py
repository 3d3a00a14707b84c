"""A running gateway for end-to-end tests: real processes, a state folder and an embedded database of its own.

with Gateway() as gateway:
    gateway.add_upstream("fake", fake.url)
    key = gateway.create_key("alice", role="admin")
    ...
    events = gateway.events(since, count=1)
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TextIO
from urllib.error import URLError
from urllib.request import urlopen

from tests.support import commands
from tests.support.clients import PATIENCE, free_port
from tests.support.wire import Client

ROOT = Path(__file__).resolve().parents[2]
# What a test's environment must not bring along: the instance under test is its own.
FOREIGN = ("DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE")
# Where the test run keeps a state folder as it is after a first start; settings that make a first start another one.
PREPARED = "SENTINEL_TEST_PREPARED"
OWN_START = re.compile(r".*(_KEY|_PEPPERS|DATABASE_URL)")

Event = dict[str, Any]

MARK = "--- what they printed ---"
SEVERAL = f"""
import io, json, sys
from django.core.management import call_command
printed = []
for line in json.load(sys.stdin):
    out = io.StringIO()
    call_command(*line, stdout=out)
    printed.append(out.getvalue())
print({MARK!r} + json.dumps(printed))
"""
# Each line asks for the events since a time. What is at hand is not stored first: who waits for an event looks again.
LOOKS = """
import io, json, sys
from django.core.management import call_command, get_commands, load_command_class
audit = load_command_class(get_commands()["audit"], "audit")
audit.at_hand = lambda: None
for since in sys.stdin:
    out = io.StringIO()
    call_command(audit, "tail", "-n", "100000", "--json", "--since", since.strip(), stdout=out)
    print(json.dumps(out.getvalue().splitlines()), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Key:
    """An API key as `keys create --json` told it."""

    id: str
    key: str
    name: str


class Gateway:
    """One instance of the gateway, as a context manager."""

    root = ROOT  # whose `manage.py` it is

    def __init__(self, *, server: str = "serve", workers: int = 2, demo: bool = False, **environment: str) -> None:
        """`server` is `serve`, `daphne` or `runserver`; keyword arguments in capitals are settings of the environment."""
        self.server = server
        self.workers = workers
        self.demo = demo
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.home = Path(tempfile.mkdtemp(prefix="sentinel-test-"))
        self.var = self.home / "var"
        self.log = self.home / "output.log"
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if name not in FOREIGN and not name.startswith(("SENTINEL_", "PYTEST_"))
        }
        self.environment |= {
            "SENTINEL_VAR": str(self.var),
            "SENTINEL_UPSTREAM_NETWORKS": "127.0.0.0/8,::1/128",
            "PYTHONUNBUFFERED": "1",
        } | environment
        self._may_be_copied = not demo and not any(map(OWN_START.fullmatch, environment))
        self.process: subprocess.Popen[bytes] | None = None
        self._looker: BaseProcess | None = None
        self._looks: TextIO | None = None

    # --- Life -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Gateway:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.stop()
        finally:
            if os.environ.get("SENTINEL_TEST_KEEP"):
                print(f"kept: {self.home}")
            else:
                shutil.rmtree(self.home, ignore_errors=True)

    def command(self) -> list[str]:
        """How the server is started."""
        if self.server == "daphne":
            place = ["-b", "127.0.0.1", "-p", str(self.port)]
            return [sys.executable, "-m", "daphne", *place, "sentinel.asgi:application"]
        if self.server == "runserver":
            return [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{self.port}"]
        workers = ["--workers", str(self.workers)]
        demo = ["--demo"] if self.demo else []
        return [sys.executable, "manage.py", "serve", "--host", "127.0.0.1", "--port", str(self.port), *workers, *demo]

    def start(self, timeout: float = 150 * PATIENCE) -> None:
        """Start the server and wait until it says that it is ready."""
        if PREPARED in os.environ and self._may_be_copied and not self.var.exists():
            _copy_prepared(Path(os.environ[PREPARED]), self.var)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command(), cwd=self.root, env=self.environment, stdout=output, stderr=subprocess.STDOUT
            )
        until = time.monotonic() + timeout
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"the gateway ended ({self.process.returncode}):\n{self.output()}")
            try:
                with urlopen(f"{self.url}/readyz", timeout=2) as answer:
                    if answer.status == 200:
                        return
            except (URLError, OSError):
                pass
            if time.monotonic() > until:
                raise RuntimeError(f"the gateway is not ready after {timeout:.0f} s:\n{self.output()}")
            time.sleep(0.05)

    def stop(self, timeout: float = 60) -> int | None:
        """Stop the server as a supervisor would, and wait for its end."""
        self._look_away()
        if self.process is None or self.process.poll() is not None:
            return None if self.process is None else self.process.returncode
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise RuntimeError(f"the gateway did not stop within {timeout:.0f} s:\n{self.output()}") from None

    def restart(self) -> None:
        """Stop and start, with the same state."""
        self.stop()
        self.start()

    def output(self) -> str:
        """What the processes have printed so far (its end)."""
        return self.log.read_text(errors="replace")[-6000:] if self.log.exists() else ""

    # --- Commands ---------------------------------------------------------------------------------------------------

    def manage(self, *arguments: str, check: bool = True, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command against this instance."""
        if self.root == ROOT:
            done = commands.run(list(arguments), self.environment, text=text, timeout=120 * PATIENCE)
        else:  # another version of the code
            done = subprocess.run(
                [sys.executable, "manage.py", *arguments],
                cwd=self.root,
                env=self.environment,
                input=text,
                capture_output=True,
                text=True,
                timeout=120 * PATIENCE,
                check=False,
            )
        if check and done.returncode:
            raise AssertionError(f"manage.py {' '.join(arguments)} exited {done.returncode}: {done.stderr[-3000:]}")
        return done

    def create_key(self, name: str, role: str | None = None, *, administrative: str | None = None, **more: str) -> Key:
        """Create an API key for a role (or for an administrative duty)."""
        whose = ["--administrative", administrative] if administrative else ["--role", role or "admin"]
        options = [part for option, value in more.items() for part in (f"--{option.replace('_', '-')}", value)]
        told = json.loads(self.manage("keys", "create", name, *whose, *options, "--json").stdout)
        return Key(told["id"], told["key"], name)

    def commands(self, *lines: list[str]) -> list[str]:
        """Run several commands in one process, since each process takes its time to begin; what each printed."""
        done = self.manage("shell", "-c", SEVERAL, text=json.dumps(lines))
        printed: list[str] = json.loads(done.stdout.rpartition(MARK)[2])
        return printed

    def revoke_key(self, key: Key) -> None:
        """Revoke an API key."""
        self.manage("keys", "revoke", key.id)

    def add_upstream(self, slug: str, url: str, *options: str) -> None:
        """Add an upstream."""
        self.manage("upstreams", "add", slug, "--url", url, *options)

    def apply_policy(self, text: str) -> None:
        """Make a YAML text the whole policy, and wait until the workers have it."""
        path = self.home / "policy.yaml"
        path.write_text(text)
        self.manage("policy", "apply", str(path))
        time.sleep(1.0)  # the promised bound for every worker

    # --- What stands in the log -------------------------------------------------------------------------------------

    @staticmethod
    def now() -> datetime:
        """A mark for `events`."""
        return datetime.now(UTC)

    def export(self) -> list[Event]:
        """Every event, oldest first, by `audit export`."""
        lines = self.manage("audit", "export", "--format", "ndjson").stdout.splitlines()
        return sorted((json.loads(line) for line in lines if line.strip()), key=lambda event: event["id"])

    def events(self, since: datetime, count: int | None = None, *, timeout: float = 40, **match: Any) -> list[Event]:
        """Events of requests that began after a mark, oldest first, waiting until there are `count` of them."""
        until = time.monotonic() + timeout
        if count is None:
            time.sleep(0.8)  # whatever has ended by now is stored
        while True:
            found = [
                event
                for event in self.look(since)
                if event["outcome"] != "changed"
                and datetime.fromisoformat(event["ts"]) >= since
                and all(event.get(name) == value for name, value in match.items())
            ]
            if count is None or len(found) >= count:
                return sorted(found, key=lambda event: event["id"])
            if time.monotonic() > until:
                raise AssertionError(f"{len(found)} events instead of {count}: {json.dumps(found, indent=1)[:6000]}")
            time.sleep(0.02)

    def look(self, since: datetime) -> list[Event]:
        """Events as `audit tail --json` prints them, by one process for all looks: each is over in milliseconds."""
        if self._looker is None or not self._looker.is_alive():
            self._look_away()
            ours, theirs = socket.socketpair()
            with theirs:
                line = ["shell", "-v", "0", "-c", LOOKS]
                self._looker = commands.start(line, self.environment, theirs, theirs, self.home / "looks.log")
            self._looks = ours.makefile("rw")
            ours.close()
        told = ""
        with contextlib.suppress(OSError):  # it ended: the database went away, say
            print(since.isoformat(), file=self._looks, flush=True)
            told = self._looks.readline()
        return [json.loads(line) for line in json.loads(told)] if told else []

    def _look_away(self) -> None:
        if self._looks is not None:
            with contextlib.suppress(OSError):
                self._looks.close()
        if self._looker is not None:
            self._looker.kill()
            self._looker.join(10)
        self._looks = self._looker = None

    def event(self, since: datetime, **match: Any) -> Event:
        """The one event since a mark."""
        found = self.events(since, 1, **match)
        assert len(found) == 1, json.dumps(found, indent=1)[:6000]
        return found[0]

    def client(self, key: Key | str | None, upstream: str = "fake", **options: Any) -> Client:
        """A client on the wire for an upstream."""
        return Client(f"{self.url}/mcp/{upstream}", key.key if isinstance(key, Key) else key, **options)


def _copy_prepared(place: Path, target: Path) -> None:
    """Begin with what a first start leaves: made once for all tests of a run, since it takes longer than most of them."""
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "done").exists():
            first = Gateway(workers=1)
            first._may_be_copied = False
            with first:
                first.stop()
                subprocess.run(["cp", "-a", str(first.var), str(place / "var")], check=True)
            (place / "done").touch()
    if not (place / "var" / "postgres" / "elsewhere").exists():  # such a database is no part of the folder
        subprocess.run(["cp", "-a", str(place / "var"), str(target)], check=True)


def is_contained(needle: bytes, folder: Path) -> list[Path]:
    """Files below a folder that contain these bytes."""
    found = []
    for path in folder.rglob("*"):
        try:
            if path.is_file() and not path.is_symlink() and needle in path.read_bytes():
                found.append(path)
        except OSError:
            continue
    return found
