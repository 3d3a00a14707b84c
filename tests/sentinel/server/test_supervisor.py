"""`manage.py serve`, started for real and killed for real."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from core.conf.settings import PROJECT
from tests.support import commands
from tests.support.clients import PATIENCE

pytestmark = pytest.mark.timeout(300 * PATIENCE)

READY = re.compile(r"MCP Sentinel ready on (http://\S+) \((\d+) workers?\)")
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith("SENTINEL_") and name not in ("DATABASE_URL", "REDIS_URL")
}
STRONG = {"SENTINEL_SECRET_KEY": "6f1c0a" * 4 + "b2d97e18", "SENTINEL_KEY_PEPPERS": "1:" + "8f14e45fceea167a" * 4}


class Serve:
    """A running `serve`."""

    def __init__(self, var: Path, *arguments: str, **environ: str) -> None:
        self.var = var
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "serve", "--port", "0", *arguments],
            cwd=PROJECT,
            env={**CLEAN, "SENTINEL_VAR": str(var), **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
        self.process.stdout.close()

    def wait_for(self, pattern: str, patience: float = 60 * PATIENCE) -> re.Match[str]:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            for line in list(self.lines):
                if match := re.search(pattern, line):
                    return match
            if self.process.poll() is not None and not self._reader.is_alive():
                break
            time.sleep(0.02)
        raise AssertionError(f"no line like {pattern!r} in {self.lines}")

    def ready(self) -> str:
        self.url = self.wait_for(READY.pattern)[1]
        return self.url

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(60 * PATIENCE)
        self._reader.join(30)
        return status

    def children(self, title: str = "") -> dict[int, str]:
        """Return pid and command line of the processes the supervisor has started."""
        return {
            pid: line for pid, (parent, line) in processes().items() if parent == self.process.pid and title in line
        }


def processes() -> dict[int, tuple[int, str]]:
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            stat = (place / "stat").read_text()
            line = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if stat.rpartition(")")[2].split()[0] != "Z":
            found[int(place.name)] = (int(stat.rpartition(")")[2].split()[1]), line)
    return found


def postgres_of(var: Path) -> int | None:
    return next((pid for pid, (_, line) in processes().items() if f"-D {var}/postgres/data" in line), None)


def until(condition: object, patience: float = 60 * PATIENCE) -> bool:
    assert callable(condition)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def get(url: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def manage(var: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return commands.run(
        list(arguments), {**CLEAN, "SENTINEL_VAR": str(var), **environ}, text=None, timeout=120 * PATIENCE
    )


@pytest.fixture(scope="module")
def prepared() -> Iterator[Path]:
    """A state folder with a migrated database, to be copied: migrating takes longer than starting."""
    home = Path(tempfile.mkdtemp(prefix="sentinel-serve-"))
    done = manage(home / "var", "migrate", "--verbosity", "0")
    assert done.returncode == 0, done.stderr
    yield home / "var"
    shutil.rmtree(home)


@pytest.fixture
def var(prepared: Path, tmp_path: Path) -> Path:
    subprocess.run(["cp", "-a", str(prepared), str(tmp_path / "var")], check=True)
    return tmp_path / "var"


@pytest.fixture(scope="module")
def running(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    var = tmp_path_factory.mktemp("running") / "var"
    subprocess.run(["cp", "-a", str(prepared), str(var)], check=True)
    running = Serve(var, "--workers", "2")
    running.ready()
    yield running
    running.stop()


@pytest.fixture
def serve(running: Serve) -> Iterator[Serve]:
    """One that runs. A test may wound it as long as it heals: the next one finds it whole, and with nothing said."""
    running.lines.clear()
    yield running
    for title, count in {" drain ": 1, " upstreamhost ": 1, "worker": 2}.items():
        assert until(lambda title=title, count=count: len(running.children(title)) == count), title
    assert until(lambda: get(f"{running.url}/readyz")[0] == 200)


def one_line(done: subprocess.CompletedProcess[str] | Serve, *words: str) -> None:
    lines = done.lines if isinstance(done, Serve) else (done.stderr + done.stdout).splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("manage.py: ")
    for word in words:
        assert word in lines[0]


def test_from_nothing_to_ready_and_back_to_nothing(tmp_path: Path) -> None:
    var = tmp_path / "var"
    running = Serve(var, "--workers", "2")
    url = running.ready()
    assert [line for line in running.lines if "Warning" not in line] == [f"MCP Sentinel ready on {url} (2 workers)"]
    assert get(f"{url}/livez")[0] == 200
    assert get(f"{url}/readyz") == (200, b'{"status": "ready"}')
    assert get(f"{url}/livez", Host="evil.example")[0] == 200
    status, exposition = get(f"{url}/metrics")
    assert status == 200 and b"sentinel_worker_up 2" in exposition and b"sentinel_database_up 1" in exposition
    children = running.children()
    assert len(running.children(" drain ")) == 1 and len(running.children("worker")) == 2
    assert all("manage.py" in line for line in children.values()), children
    postgres = postgres_of(var)
    assert postgres is not None
    for place in (var, *var.rglob("*")):
        if "postgres" not in place.parts:
            assert place.lstat().st_mode & 0o077 == 0, place
    assert (var / "postgres").stat().st_mode & 0o777 == 0o700
    assert running.stop() == 0
    assert not any(pid in processes() for pid in (*children, postgres))
    assert len(running.lines) <= 2, running.lines


def test_ctrl_c_stops_it(var: Path) -> None:
    running = Serve(var, "--workers", "1")
    running.ready()
    assert running.lines[-1].endswith("(1 worker)")
    children = running.children()
    assert running.stop(signal.SIGINT) == 0
    assert not any(pid in processes() for pid in children)


def test_a_second_instance_on_the_same_folder_is_refused(serve: Serve) -> None:
    second = Serve(serve.var)
    assert second.process.wait(60) == 1
    second.stop()
    one_line(second, "SENTINEL_VAR", str(serve.process.pid), serve.url)
    assert get(f"{serve.url}/readyz")[0] == 200


def test_a_port_in_use_is_one_line(var: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = manage(var, "serve", "--port", str(port))
    assert done.returncode == 1
    one_line(done, str(port), "in use")


def test_a_worker_that_dies_is_replaced(serve: Serve) -> None:
    workers = serve.children("worker")
    assert len(workers) == 2
    victim = next(iter(workers))
    os.kill(victim, signal.SIGKILL)
    answered = 0
    for _ in range(20):
        answered += get(f"{serve.url}/livez")[0] == 200
    assert answered == 20  # the other worker takes what comes meanwhile
    assert until(lambda: len(serve.children("worker")) == 2 and victim not in serve.children("worker"))
    serve.wait_for(r"worker \d ended \(signal SIGKILL\)")


@pytest.mark.parametrize("name", ["drain", "upstreamhost"])
def test_a_helper_that_dies_is_replaced(serve: Serve, name: str) -> None:
    (helper,) = serve.children(f" {name} ")
    os.kill(helper, signal.SIGKILL)
    assert until(lambda: len(serve.children(f" {name} ")) == 1 and helper not in serve.children())


def test_postgres_that_dies_is_started_again(serve: Serve) -> None:
    pid = postgres_of(serve.var)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: postgres_of(serve.var) not in (None, pid))
    assert until(lambda: b"sentinel_database_up 1" in get(f"{serve.url}/metrics")[1])
    assert get(f"{serve.url}/readyz")[0] == 200


def test_a_postgres_that_cannot_come_back_ends_nothing(var: Path) -> None:
    serve = Serve(var, "--workers", "2")  # its own: tries that failed are further and further apart
    serve.ready()
    pid = postgres_of(serve.var)
    assert pid is not None
    control = serve.var / "postgres" / "data" / "global" / "pg_control"
    away = control.with_name("pg_control.away")
    control.rename(away)  # as a damaged disk would have it: the server refuses to start
    os.kill(pid, signal.SIGKILL)
    serve.wait_for("next try in")
    victim = next(iter(serve.children("worker")))
    os.kill(victim, signal.SIGKILL)
    assert until(lambda: len(serve.children("worker")) == 2 and victim not in serve.children("worker"))
    assert get(f"{serve.url}/livez")[0] == 200
    away.rename(control)
    assert until(lambda: postgres_of(serve.var) is not None, patience=120 * PATIENCE)
    # A try that takes too long is given up, and the next one comes half a minute later.
    assert until(lambda: b"sentinel_database_up 1" in get(f"{serve.url}/metrics")[1], patience=60 * PATIENCE)
    serve.stop()


def test_children_end_with_a_supervisor_that_is_killed(var: Path) -> None:
    serve = Serve(var, "--workers", "2")
    serve.ready()
    children = serve.children()
    serve.process.kill()
    serve.stop()
    assert until(lambda: not any(pid in processes() for pid in children))
    assert until(lambda: postgres_of(serve.var) is None)  # the last of those who used it has stopped it


def test_a_database_that_outlived_everything_is_taken_over(var: Path) -> None:
    first = Serve(var, "--workers", "2")
    first.ready()
    postgres = postgres_of(var)
    first.process.send_signal(signal.SIGSTOP)
    for pid in (*first.children(), first.process.pid):
        os.kill(pid, signal.SIGKILL)
    first.stop()
    assert postgres is not None and postgres_of(var) == postgres
    second = Serve(var, "--workers", "1")
    second.ready()
    assert postgres_of(var) == postgres
    assert second.stop() == 0
    assert postgres_of(var) is None


def test_a_command_beside_it_uses_its_database(serve: Serve) -> None:
    pid = postgres_of(serve.var)
    done = manage(
        serve.var,
        "shell",
        "-c",
        "from django.contrib.auth import get_user_model as m; print('users', m().objects.count())",
    )
    assert "users 0" in done.stdout, done.stderr
    assert postgres_of(serve.var) == pid


def test_beyond_loopback_secrets_must_be_given(var: Path) -> None:
    done = manage(var, "serve", "--host", "0.0.0.0", "--port", "0")
    assert done.returncode == 1
    one_line(done, "SENTINEL_SECRET_KEY")
    done = manage(var, "serve", "--host", "0.0.0.0", "--port", "0", SENTINEL_SECRET_KEY=STRONG["SENTINEL_SECRET_KEY"])
    one_line(done, "SENTINEL_KEY_PEPPERS")
    done = manage(var, "serve", "--host", "0.0.0.0", "--port", "0", **{**STRONG, "SENTINEL_SECRET_KEY": "secret"})
    one_line(done, "SENTINEL_SECRET_KEY")
    running = Serve(var, "--host", "0.0.0.0", "--workers", "1", **STRONG)
    assert get(f"{running.ready()}/livez")[0] == 200
    assert running.stop() == 0


def test_a_journal_that_cannot_be_written_is_one_line(var: Path) -> None:
    shutil.rmtree(var / "journal", ignore_errors=True)
    (var / "journal").touch()
    done = manage(var, "serve", "--port", "0")
    assert done.returncode == 1
    one_line(done, "journal")


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = manage(tmp_path / "file" / "var", "serve")
    assert done.returncode == 1
    one_line(done, "SENTINEL_VAR")


def test_bad_values_are_one_line(var: Path) -> None:
    one_line(manage(var, "serve", SENTINEL_PORT="http"), "SENTINEL_PORT")
    one_line(manage(var, "check", DATABASE_URL="mysql://x/y"), "DATABASE_URL")
    one_line(manage(var, "serve", "--workers", "0"), "--workers")


@pytest.fixture
def own_database() -> Iterator[str]:
    """The URL of an empty database on a server that is not embedded in the instance."""
    url = os.environ["DATABASE_URL"]
    name = f"serve_{os.getpid()}_{time.monotonic_ns()}"
    with psycopg.connect(url, dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield (
            re.sub(r"/[^/?]+(\?|$)", rf"/{name}\1", url, count=1)
            if "@/" not in url
            else re.sub(r"@/\w+", f"@/{name}", url)
        )
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_database_of_ones_own(tmp_path: Path, own_database: str) -> None:
    var = tmp_path / "var"
    done = manage(var, "serve", "--port", "0", DATABASE_URL=own_database)
    one_line(done, "SENTINEL_SECRET_KEY")
    done = manage(var, "keys", "create", "lost", "--role", "user", DATABASE_URL=own_database)
    assert done.returncode == 1 and "mcps_live" not in done.stdout  # it would open nothing
    one_line(done, "SENTINEL_SECRET_KEY")
    environ = {**STRONG, "DATABASE_URL": own_database}
    for arguments in (("serve", "--port", "0"), ("createsuperuser", "--no-input")):
        done = manage(var, *arguments, **environ)
        assert done.returncode == 1
        one_line(done, "python manage.py migrate")
    assert manage(var, "serve", "--help", **environ).returncode == 0
    done = manage(var, "migrate", "--verbosity", "0", **environ)
    assert done.returncode == 0, done.stderr
    running = Serve(var, "--workers", "1", **environ)
    assert get(f"{running.ready()}/readyz")[0] == 200
    assert any("SENTINEL_OWNER_DATABASE_URL" in line for line in running.lines)
    assert not (var / "postgres").exists()
    assert running.stop() == 0


def test_a_database_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    done = manage(tmp_path / "var", "serve", "--port", "0", DATABASE_URL="postgresql://x@/x?host=/nowhere", **STRONG)
    assert done.returncode == 1
    one_line(done, "database")


def test_what_needs_no_database_starts_none(tmp_path: Path) -> None:
    for arguments in (("help",), ("check",), ("makemigrations", "--check", "--dry-run"), ("serve", "--help")):
        done = manage(tmp_path / "var", *arguments)
        assert done.returncode == 0, done.stderr
        assert not (tmp_path / "var" / "postgres").exists()


def test_the_demonstration_prints_what_works(var: Path) -> None:
    running = Serve(var, "--demo", "--workers", "1")
    running.ready()
    running.wait_for("Stop with Ctrl-C")
    text = "\n".join(running.lines)
    password = re.search(r"one-time password\s+(\S+)", text)
    assert password
    keys = dict(re.findall(r"^\s+(admin|user|readonly)\s+(mcps_\S+)$", text, re.MULTILINE))
    assert len(keys) == 3
    curl = re.search(r"curl .*\\\n.*\\\n.*$", text, re.MULTILINE)
    assert curl
    done = subprocess.run(["/bin/sh", "-c", curl[0]], capture_output=True, text=True, timeout=30, check=False)
    assert "hello" in json.dumps(json.loads(done.stdout)["result"]), done
    done = manage(var, "upstreams", "check", "demo")  # beside it, a command reaches what it may reach
    assert done.returncode == 0, done
    assert running.stop() == 0
    for place in var.rglob("*"):
        if place.is_file() and "postgres" not in place.parts:
            content = place.read_bytes()
            assert not any(key.encode() in content for key in (*keys.values(), password[1])), place
    again = Serve(var, "--demo", "--workers", "1")
    again.ready()
    again.wait_for("Stop with Ctrl-C")
    text = "\n".join(again.lines)
    assert all(key in text for key in keys.values())
    assert password[1] not in text
    assert again.stop() == 0
