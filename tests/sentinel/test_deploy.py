"""deploy/nginx.conf in front of a real gateway, with TLS; the systemd unit and its command, as far as they can be checked."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import yaml

from core.conf import settings as conf
from core.conf.settings import PROJECT
from sentinel.postgres.server import SUPERUSER, EmbeddedPostgres, binaries
from tests.support.clients import free_port
from tests.support.gateway import Gateway
from tests.support.nginx import ENVIRONMENT, Proxy
from tests.support.upstream import FakeUpstream


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Gateway, FakeUpstream]]:
    folder = tmp_path_factory.mktemp("nginx")
    with (
        FakeUpstream() as fake,
        Gateway(workers=1, **ENVIRONMENT) as gateway,
        Proxy(folder, gateway.port) as proxy,
    ):
        gateway.add_upstream("fake", fake.url)
        yield proxy, gateway, fake


def test_nginx_accepts_the_configuration(behind: tuple[Proxy, Gateway, FakeUpstream]) -> None:
    done = subprocess.run([*behind[0].program, "-t"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


def test_calls_pass_and_the_caller_is_who_nginx_says(behind: tuple[Proxy, Gateway, FakeUpstream]) -> None:
    proxy, gateway, _ = behind
    key = gateway.create_key("behind", role="admin")
    since = gateway.now()
    time.sleep(1.2)  # a key made elsewhere is known within a second
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}})
    status, _, answer = proxy.ask("POST", f"/mcp/fake?api_key={key.key}", body, **{"X-Forwarded-For": "203.0.113.9"})
    assert status == 200, answer
    event = gateway.event(since, method="tools/list")
    assert event["client_ip"] == "127.0.0.1"  # as nginx saw it, not as the client claimed
    assert key.key not in proxy.log.read_text()


class Logged(Proxy):
    """The same nginx, what it would write to standard error in a file; started whether or not a gateway answers."""

    def __init__(self, folder: Path, gateway: int) -> None:
        super().__init__(folder, gateway)
        self.errors = folder / "error.log"
        settings = folder / "nginx.conf"
        text = settings.read_text()
        assert "error_log stderr warn" in text
        settings.write_text(text.replace("error_log stderr warn", f"error_log {self.errors} info"))

    def __enter__(self) -> Logged:
        self.process = subprocess.Popen(self.program, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        return self

    def too_large(self, path: str) -> int:
        """Announce a body over the limit, and send none of it."""
        connection = self.connection()
        try:
            connection.putrequest("POST", path)
            connection.putheader("Content-Length", str(4 * 1024**2 + 1))
            connection.endheaders()
            return connection.getresponse().status
        finally:
            connection.close()


def test_a_key_in_the_query_is_in_no_log(tmp_path: Path) -> None:
    path = "/mcp/fake?api_key=mcps_live_KeyInTheQuery"
    with Logged(tmp_path, free_port()) as proxy:  # no gateway there
        assert proxy.ask("POST", path, "{}")[0] == 502
        assert proxy.too_large(path) == 413
        assert proxy.ask("POST", f"/mcp/{'x' * 9000}?api_key=mcps_live_KeyInTheQuery", "{}")[0] == 414
    written = {place.name: place.read_text() for place in tmp_path.rglob("*") if place.is_file()}
    assert {"access.log", "error.log"} <= written.keys()
    assert [name for name, text in written.items() if "KeyInTheQuery" in text] == []
    assert '"POST /mcp/fake" 502 ' in written["access.log"]  # what failed is seen there
    assert '"POST /mcp/fake" 413 ' in written["access.log"]


def test_the_log_in_is_secure(behind: tuple[Proxy, Gateway, FakeUpstream]) -> None:
    status, headers, _ = behind[0].ask("GET", "/admin/login/")
    assert status == 200
    assert "max-age" in headers["strict-transport-security"]
    assert "secure" in headers["set-cookie"].lower()
    assert behind[0].ask("GET", "/admin/login/", Host="evil.example")[0] in (400, 404)


def test_metrics_are_not_for_who_comes_through_the_proxy(behind: tuple[Proxy, Gateway, FakeUpstream]) -> None:
    assert behind[0].ask("GET", "/metrics")[0] == 403


def test_the_unit_is_sound(tmp_path: Path) -> None:
    unit = (PROJECT / "deploy" / "mcp-sentinel.service").read_text()
    assert "ExecStart=/opt/mcp-sentinel/.venv/bin/python manage.py serve" in unit
    if not shutil.which("systemd-analyze"):
        return  # a machine without systemd cannot judge its units
    place = tmp_path / "mcp-sentinel.service"
    place.write_text(unit.replace("/opt/mcp-sentinel/.venv/bin/python", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(place)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_command_runs_as_the_unit_does() -> None:
    unit = (PROJECT / "deploy" / "mcp-sentinel.service").read_text()
    command = PROJECT / "deploy" / "mcp-sentinel"
    text = command.read_text()
    assert subprocess.run(["sh", "-n", str(command)], check=False).returncode == 0
    for ours, theirs in (
        ("runuser -u sentinel -- .venv/bin/python manage.py", "User=sentinel"),
        (". /etc/mcp-sentinel.env", "EnvironmentFile=/etc/mcp-sentinel.env"),
        ("SENTINEL_VAR=/var/lib/mcp-sentinel", "Environment=SENTINEL_VAR=/var/lib/mcp-sentinel"),
        ("cd /opt/mcp-sentinel", "WorkingDirectory=/opt/mcp-sentinel"),
        ("umask 077", "UMask=0077"),
    ):
        assert ours in text and f"{theirs}\n" in unit


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL server as the image starts it: with its superuser and nothing else."""
    server = EmbeddedPostgres(tmp_path / "server", "00000000")
    server.var.mkdir(mode=0o700)
    server.ensure()
    with psycopg.connect(server.conninfo(SUPERUSER), dbname="postgres", autocommit=True) as connection:
        connection.execute("DROP DATABASE sentinel")
        connection.execute("DROP ROLE sentinel_owner, sentinel")
    yield server
    server.release()


def test_the_composed_gateway_serves_as_neither_superuser_nor_owner(server: EmbeddedPostgres, tmp_path: Path) -> None:
    composed = yaml.safe_load((PROJECT / "compose.yaml").read_text())["services"]
    database, gateway = composed["database"]["secrets"], composed["gateway"]["secrets"]
    script = PROJECT / "deploy" / "database.sh"
    assert "./deploy/database.sh:/docker-entrypoint-initdb.d/sentinel.sh:ro" in composed["database"]["volumes"]
    assert os.access(script, os.X_OK)
    assert "POSTGRES_PASSWORD" not in str(composed["gateway"])
    given = {"SENTINEL_OWNER_PASSWORD": "it's owner \\ $(x)", "SENTINEL_SERVING_PASSWORD": "serving"}
    assert given.keys() <= set(database) and {"DATABASE_URL", "SENTINEL_OWNER_DATABASE_URL"} <= set(gateway)
    subprocess.run(["sh", str(PROJECT / "deploy" / "secrets.sh")], cwd=tmp_path, check=True)

    at = server.parameters(SUPERUSER)
    psql = shutil.which("psql") or str(binaries().folder / "psql")
    environment = {
        "PATH": f"{Path(psql).parent}:{os.environ['PATH']}",
        "PGHOST": at["host"],
        "PGPASSWORD": at["password"],
    }
    subprocess.run(["sh", str(script)], env={**environment, "POSTGRES_USER": SUPERUSER, **given}, check=True)

    def url(name: str) -> str:
        told = (tmp_path / "secrets" / name).read_text()
        made = told.removeprefix("postgresql://").partition(":")[0]  # the role
        password = given["SENTINEL_SERVING_PASSWORD" if made == "sentinel" else "SENTINEL_OWNER_PASSWORD"]
        return f"postgresql://{made}:{quote(password, safe='')}@/sentinel?host={quote(at['host'], safe='')}"

    settings = {
        **os.environ, "SENTINEL_VAR": str(tmp_path / "var"), "DATABASE_URL": url("DATABASE_URL"),
        "SENTINEL_OWNER_DATABASE_URL": url("SENTINEL_OWNER_DATABASE_URL"),
    }  # fmt: skip
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "--verbosity", "0"], cwd=PROJECT, env=settings, check=True, timeout=120
    )
    with psycopg.connect(settings["DATABASE_URL"], autocommit=True) as serving:
        role = serving.execute(
            "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
        )
        assert role.fetchone() == (False,)
        serving.execute("SELECT count(*) FROM audit_auditevent")
        for forbidden in (
            "UPDATE audit_auditevent SET outcome = 'allowed'", "DELETE FROM audit_auditevent", "CREATE TABLE x (y int)",
            "ALTER TABLE audit_auditevent DISABLE TRIGGER ALL", "CREATE ROLE x",
        ):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                serving.execute(forbidden)


def test_the_file_of_secrets_goes_neither_into_git_nor_into_the_image() -> None:
    for name in (".gitignore", ".dockerignore"):
        assert {".env", ".env.*"} <= set((PROJECT / name).read_text().splitlines())
        assert {"secrets", "/secrets"} & set((PROJECT / name).read_text().splitlines())


def test_the_composed_services_name_what_there_is() -> None:
    composed = yaml.safe_load((PROJECT / "compose.yaml").read_text())
    services = composed["services"]
    known = {item.metadata["variable"] for item in conf.SETTINGS}
    gateway = services["gateway"]
    assert set(gateway["environment"]) | set(gateway["secrets"]) <= known
    for name, service in services.items():
        assert set(service["networks"]) <= set(composed["networks"]), name
        assert set(service.get("secrets", [])) <= set(composed["secrets"]), name
        assert "healthcheck" in service or "HEALTHCHECK" in (PROJECT / "Dockerfile").read_text()
    assert composed["networks"]["data"] == {"internal": True}
    assert [name for name, service in services.items() if "front" in service["networks"]] == ["gateway"]
    assert [name for name, service in services.items() if "ports" in service] == ["gateway"]
    assert gateway["build"]["target"] in stages()


def test_the_secrets_are_made_once_and_are_read_by_what_the_image_runs(tmp_path: Path) -> None:
    script = PROJECT / "deploy" / "secrets.sh"
    subprocess.run(["sh", str(script)], cwd=tmp_path, check=True)
    folder = tmp_path / "secrets"
    made = {place.name: place.read_text() for place in folder.iterdir()}
    named = yaml.safe_load((PROJECT / "compose.yaml").read_text())["secrets"]
    assert set(made) == set(named) and all(one["file"] == f"./secrets/{name}" for name, one in named.items())
    assert folder.stat().st_mode & 0o777 == 0o700
    again = subprocess.run(["sh", str(script)], cwd=tmp_path, check=False, capture_output=True)
    assert again.returncode and {place.name: place.read_text() for place in folder.iterdir()} == made

    (folder / "NOT_OURS").write_text("x")
    app = tmp_path / "app"  # what the image has, `manage.py` telling what it was given
    (app / "deploy").mkdir(parents=True)
    (app / ".venv" / "bin").mkdir(parents=True)
    (app / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (app / "manage.py").write_text("import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))")
    shutil.copy(PROJECT / "deploy" / "container", app / "deploy" / "container")
    command = tmp_path / "mcp-sentinel"
    command.symlink_to(app / "deploy" / "container")
    environment = {"PATH": os.environ["PATH"], "SECRETS_FOLDER": str(folder)}
    done = subprocess.run([command, "keys", "list"], env=environment, check=True, capture_output=True, text=True)
    arguments, found = json.loads(done.stdout)
    assert arguments == ["keys", "list"] and "NOT_OURS" not in found
    assert found["DATABASE_URL"] == made["DATABASE_URL"].strip()
    assert found["SENTINEL_KEY_PEPPERS"] == made["SENTINEL_KEY_PEPPERS"].strip()
    bare = subprocess.run([command, "serve"], env={"PATH": os.environ["PATH"], "SECRETS_FOLDER": "/nonexistent"}, check=True, capture_output=True, text=True)  # fmt: skip
    assert json.loads(bare.stdout)[0] == ["serve"]


def stages() -> dict[str, list[str]]:
    """Give the stages of the image, each with its lines."""
    found: dict[str, list[str]] = {}
    for line in (PROJECT / "Dockerfile").read_text().splitlines():
        if line.startswith("FROM "):
            lines = found[line.partition(" AS ")[2]] = [line]
        elif found and line and not line.startswith("#"):
            lines.append(line)
    return found


def test_both_images_serve_as_an_unprivileged_user() -> None:
    made = stages()
    assert list(made)[-1] == "full" and made["full"][0] == "FROM slim AS full"
    for name in ("slim", "full"):
        assert [line for line in made[name] if line.startswith("USER ")][-1] == "USER sentinel"
    for line in [line for lines in made.values() for line in lines]:
        if source := line.partition("--from=")[2].partition(" ")[0]:
            assert source in made, line
    assert "SENTINEL_VAR=/var/lib/mcp-sentinel" in str(made["slim"]) and "--home-dir /var/lib/mcp-sentinel" in str(
        made["slim"]
    )


def test_uv_comes_with_the_hashes_of_the_tests(tmp_path: Path) -> None:
    (line,) = [line for line in stages()["uv"] if line.startswith("RUN ")]
    shutil.copy(PROJECT / "requirements-dev.txt", tmp_path)
    subprocess.run(["sh", "-c", line.removeprefix("RUN ").partition(" && ")[0]], cwd=tmp_path, check=True)
    text = (tmp_path / "uv.txt").read_text()
    assert text.startswith("uv==") and text.count("==") == 1 and text.count("--hash=sha256:") > 3
