"""The embedded server, started and killed for real."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from core.conf.settings import PROJECT
from sentinel.postgres import server as postgres
from sentinel.postgres.server import OWNER, SERVING, SUPERUSER, EmbeddedPostgres, PostgresError

ROOT = os.geteuid() == 0
USER = """
import sys, time
from pathlib import Path
from sentinel.postgres.server import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), "0badcafe")
server.ensure()
print(server.running_pid(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    made = make(tmp_path / "var")
    yield made
    made.release()


def make(var: Path, **options: tuple[str, ...]) -> EmbeddedPostgres:
    var.mkdir(mode=0o700, parents=True, exist_ok=True)
    return EmbeddedPostgres(var, "0badcafe", **options)


def another(var: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", USER, str(var)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT
    )


def told_pid(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def dismiss(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.close()
    process.wait(30)
    process.stdout.close()


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def gone(pid: int, patience: float = 10) -> bool:
    deadline = time.monotonic() + patience
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def test_it_starts_is_private_and_stops(server: EmbeddedPostgres) -> None:
    begun = time.monotonic()
    server.ensure()
    cold = time.monotonic() - begun
    pid = server.running_pid()
    assert pid is not None and cold < 30
    with psycopg.connect(server.conninfo(OWNER)) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        connection.execute("CREATE EXTENSION pg_trgm")
        connection.execute("CREATE TABLE owned (n int)")
    with psycopg.connect(server.conninfo(SERVING)) as connection:
        roles = connection.execute(
            "SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
        assert roles == (False, False, False)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT * FROM owned")
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(server.conninfo(SERVING, password="wrong")).close()
    assert server.home.stat().st_mode & 0o777 == 0o700
    assert server.data.stat().st_mode & 0o777 == 0o700
    assert server.socket_folder.stat().st_mode & 0o777 == 0o700
    for place in (*server.home.iterdir(), *(server.var / "secrets").iterdir()):
        assert place.is_dir() or place.stat().st_mode & 0o077 == 0, place
    server.release()
    assert gone(pid)


def test_a_warm_start_keeps_the_data(server: EmbeddedPostgres) -> None:
    server.ensure()
    with psycopg.connect(server.conninfo(OWNER)) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
    server.release()
    assert server.running_pid() is None
    begun = time.monotonic()
    server.ensure()
    assert time.monotonic() - begun < 10
    with psycopg.connect(server.conninfo(OWNER)) as connection:
        assert connection.execute("SELECT n FROM kept").fetchone() == (42,)


@pytest.mark.skipif(not ROOT, reason="only root must become somebody else")
def test_root_runs_it_as_somebody_else(server: EmbeddedPostgres) -> None:
    server.ensure()
    pid = server.running_pid()
    status = Path(f"/proc/{pid}/status").read_text()
    uid = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1]
    assert int(uid) == postgres._unprivileged()[0] != 0
    assert "NoNewPrivs:\t1" in status


@pytest.mark.skipif(not ROOT, reason="only root must become somebody else")
@pytest.mark.parametrize("mode", ["uid", "mount", "userns", "copy"])
def test_each_way_works(tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "SYSTEM_COPY", tmp_path / "lib")
    if mode in ("uid", "copy"):  # the ways that need every folder above to let others pass
        for parent in (tmp_path, *tmp_path.parents[:-2]):
            parent.chmod(parent.stat().st_mode | 0o011)
    if mode == "uid" and not postgres._open_way(tmp_path, *postgres.binaries().trees):
        modes: tuple[str, ...] = ("uid", "mount")  # the programs lie below a closed folder: the next way is taken
    else:
        modes = (mode,)
    server = make(tmp_path / "var", modes=modes)
    if mode == "uid":
        server.var.chmod(0o711)
    try:
        server.ensure()
        with psycopg.connect(server.conninfo(SERVING)) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert (server.home / "mode").read_text() == modes[-1]
        assert bool(server.notices) == (mode == "copy")
    finally:
        server.release()
    again = make(tmp_path / "var", modes=modes)
    again.ensure()
    again.release()


@pytest.mark.skipif(not ROOT, reason="only root can see into a 0700 folder of somebody else")
def test_a_clone_below_a_closed_home_works(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    server = make(home / "clone" / "var")
    server.ensure()
    assert (server.home / "mode").read_text() in ("mount", "userns")
    server.release()


def test_a_path_too_long_for_a_socket_gets_a_short_folder(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / ("long" * 25) / "var", f"{os.getpid():08x}")
    server.var.mkdir(mode=0o700, parents=True)
    server.ensure()
    try:
        folder = server.socket_folder
        assert folder.parent == Path("/tmp")
        assert folder.stat().st_mode & 0o777 == 0o700
        with psycopg.connect(server.conninfo(SERVING)) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        server.release()
    assert not folder.exists()


@pytest.mark.skipif(not ROOT, reason="needs another user")
def test_a_short_folder_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / ("long" * 25) / "var", f"{os.getpid() + 1:08x}")
    server.var.mkdir(mode=0o700, parents=True)
    folder = server.socket_folder
    folder.mkdir()
    try:
        stranger = next(
            entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid not in (0, postgres._unprivileged()[0])
        )
        os.chown(folder, stranger, -1)
        with pytest.raises(PostgresError, match="somebody else"):
            server.ensure()
    finally:
        server.release()
        folder.rmdir()


def test_the_last_of_those_who_use_it_stops_it(server: EmbeddedPostgres) -> None:
    first = another(server.var)
    pid = told_pid(first)
    server.ensure()
    assert server.running_pid() == pid
    dismiss(first)
    assert alive(pid) and server.running_pid() == pid
    second = another(server.var)
    assert told_pid(second) == pid
    server.release()
    assert alive(pid)
    dismiss(second)
    assert gone(pid)


def test_many_at_once_share_one(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir(mode=0o700)
    users = [another(tmp_path / "var") for _ in range(5)]
    pids = {told_pid(process) for process in users}
    assert len(pids) == 1
    for process in users:
        dismiss(process)
    assert gone(pids.pop())


def test_one_that_outlived_its_starter_is_taken_over(server: EmbeddedPostgres) -> None:
    starter = another(server.var)
    pid = told_pid(starter)
    starter.kill()
    dismiss(starter)
    assert alive(pid)
    server.ensure()
    assert server.running_pid() == pid
    server.release()
    assert gone(pid)


def test_it_comes_back_after_a_kill(server: EmbeddedPostgres) -> None:
    server.ensure()
    pid = server.running_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert gone(pid)
    server.ensure()
    assert server.running_pid() not in (None, pid)
    with psycopg.connect(server.conninfo(SERVING)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_pid_file_that_names_some_other_process_is_stale(server: EmbeddedPostgres) -> None:
    server.ensure()
    pid = server.running_pid()
    assert pid is not None
    content = (server.data / "postmaster.pid").read_text()
    os.kill(pid, signal.SIGKILL)
    assert gone(pid)
    stale = server.data / "postmaster.pid"
    stale.write_text(content.replace(str(pid), str(os.getpid()), 1))
    assert server.running_pid() is None
    server.ensure()
    assert server.running_pid() not in (None, pid, os.getpid())


def test_data_of_another_version_is_one_line(server: EmbeddedPostgres) -> None:
    server.ensure()
    server.release()
    (server.data / "PG_VERSION").write_text("15\n")
    with pytest.raises(PostgresError) as caught:
        server.ensure()
    assert "PostgreSQL 15" in str(caught.value) and "\n" not in str(caught.value)


def test_no_secret_gets_into_its_log(server: EmbeddedPostgres) -> None:
    server.ensure()
    with psycopg.connect(server.conninfo(OWNER)) as connection:
        connection.execute("CREATE TABLE t (v text UNIQUE)")
        connection.execute("INSERT INTO t VALUES ('canary-1')")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("INSERT INTO t VALUES ('canary-1')")
    logged = (server.root / "log").read_text()
    assert "canary-1" not in logged
    for role in (SUPERUSER, OWNER, SERVING):
        assert server.password(role) not in logged
