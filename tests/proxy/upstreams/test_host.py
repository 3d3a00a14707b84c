"""The host process, and workers on both sides of it: here two registries and a real `upstreamhost` process."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import psutil
import psycopg
import pytest
from django.conf import settings
from django.db import connection

from proxy.upstreams import vault
from proxy.upstreams.host import Host
from proxy.upstreams.registry import UpstreamRegistry, host_folder
from proxy.upstreams.specs import load
from proxy.upstreams.transports.base import Broken, Cancelled, Unreachable, UpstreamError, UpstreamRequest
from proxy.upstreams.transports.hosted import SOCKET, socket_path

pytestmark = pytest.mark.django_db
PROJECT = Path(__file__).parents[3]
SERVER = str(Path(__file__).parents[1] / "stdio_server.py")
COLUMNS = (
    "slug, name, description, transport, url, command, working_directory, environment, process_mode, headers, ca_pem, client_cert_pem, "
    "client_key, networks, max_concurrent, refusals, audit_level, catalogue_policy, enabled, created_at, updated_at"
)


class Source:
    def __init__(self, specs) -> None:
        self.extras = {"upstreams": specs}


def url() -> str:
    values = connection.get_connection_params()
    return (
        f"postgresql://{values['user']}:{quote(values.get('password') or '')}@/{values['dbname']}?host={values['host']}"
    )


@pytest.fixture
def committed(django_db_setup, django_db_blocker):
    """Two stdio upstreams that another process can see."""
    with django_db_blocker.unblock(), psycopg.connect(url(), autocommit=True) as plain:
        for slug, mode in (("shared", "shared"), ("each", "session")):
            command = f"{sys.executable} {SERVER}"
            reach = vault.reach_of(transport="stdio", url="", command=command, directory="")
            place = vault.Home(slug, reach).place("environment:TOKEN")
            sealed = json.dumps({"TOKEN": vault.seal(settings.SENTINEL.data_key, place, "s3cret")})
            values = (
                slug,
                "",
                "",
                "stdio",
                "",
                command,
                "",
                sealed,
                mode,
                "{}",
                "",
                "",
                "",
                "[]",
                100,
                "",
                "",
                "allow",
                True,
            )
            marks = ", ".join(["%s"] * len(values))
            plain.execute(f"INSERT INTO proxy_upstream ({COLUMNS}) VALUES ({marks}, now(), now())", values)
        try:
            yield plain
        finally:
            plain.execute("DELETE FROM proxy_catalogueitem")
            plain.execute("DELETE FROM proxy_upstreamstatus")
            plain.execute("DELETE FROM proxy_upstream")


@pytest.fixture
def host(committed, tmp_path):
    # a deep folder: the socket's own path would be too long for a socket
    var = tmp_path / ("deep" * 20) / ("er" * 20)
    var.mkdir(parents=True)
    environment = {
        **os.environ, "SENTINEL_VAR": str(var), "DATABASE_URL": url(), "SENTINEL_DATA_KEY": settings.SENTINEL.data_key.hex()
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "manage.py", "upstreamhost", "--parent", str(os.getpid())], cwd=PROJECT, env=environment
    )
    config = dataclasses.replace(settings.SENTINEL, var=var)
    deadline = time.monotonic() + 20
    while not (host_folder(config) / SOCKET).exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    try:
        yield process, config
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        assert process.wait(15) == 0
        assert not any(child.is_running() for child in children)
        assert not (host_folder(config) / SOCKET).exists()


def message(method="tools/call", identifier=1, **arguments) -> bytes:
    value = {"jsonrpc": "2.0", "method": method, "params": {"name": "x", "arguments": arguments}}
    return json.dumps(value | ({"id": identifier} if identifier is not None else {})).encode()


async def send(registry, slug, body, session=b"", verb=b"POST"):
    headers = [(b"mcp-session-id", session)] if session else []
    return await registry.transport(slug).send(UpstreamRequest(verb, headers, body))


async def ask(registry, slug, body, session=b""):
    return json.loads(await (await send(registry, slug, body, session)).body(1 << 24))


async def test_two_workers_share_processes_sessions_and_cancellations(host, committed):
    process, config = host
    assert len(str(host_folder(config) / SOCKET)) > 107
    specs = load(committed, config.data_key)
    one, two = (UpstreamRegistry(Source(specs), config, hosted=True) for _ in range(2))
    try:
        # one process for all workers
        pids = {(await ask(each, "shared", message()))["result"]["pid"] for each in (one, two, one, two)}
        assert len(pids) == 1
        assert (await ask(one, "shared", message()))["result"]["env"]["TOKEN"] == "s3cret"
        answers = await asyncio.gather(
            *(ask((one, two)[n % 2], "shared", message(identifier="same", echo=n)) for n in range(100))
        )
        assert [answer["result"]["echo"] for answer in answers] == list(range(100))

        # a session begun on one worker goes on at the other
        response = await send(one, "each", message("initialize"))
        session = dict(response.headers)[b"mcp-session-id"]
        await response.body(10000)
        assert (await ask(two, "each", message(), session))["id"] == 1
        assert (await send(two, "each", message(), b"unknown")).status == 404

        # a cancellation that lands on the other worker arrives
        running = asyncio.create_task(ask(one, "each", message(identifier=9, sleep=1), session))
        await asyncio.sleep(0.4)
        cancel = json.dumps(
            {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 9}}
        ).encode()
        assert (await send(two, "each", cancel, session)).status == 202
        received = (await ask(two, "each", message("x"), session))["result"]["received"]
        assert any("notifications/cancelled" in line for line in received)
        with pytest.raises(Cancelled):
            await running

        # streams come piece by piece and end with the client
        stream = await send(two, "each", b"", session, b"GET")
        assert (await ask(one, "each", message(changed=True), session))["result"]
        assert b"list_changed" in await asyncio.wait_for(stream.read(), 3)
        stream.abort()

        # errors are what they were
        with pytest.raises(Broken) as caught:
            await ask(one, "shared", message(die=True))
        assert "exit status 3" in caught.value.detail
        assert caught.value.executed

        # a client that goes away takes its exchange with it
        gone = asyncio.create_task(ask(one, "shared", message(sleep=5)))
        await asyncio.sleep(0.3)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)

        # kill -9 of the host: whoever waits gets an error, nothing of it is left
        children = psutil.Process(process.pid).children(recursive=True)
        waiting = [asyncio.create_task(ask(two, "shared", message(sleep=5))) for _ in range(10)]
        await asyncio.sleep(0.5)
        os.kill(process.pid, signal.SIGSTOP)
        os.kill(process.pid, signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 15)
        assert all(isinstance(result, UpstreamError) or "result" in result for result in results)
        await asyncio.to_thread(process.wait, 15)
        psutil.wait_procs(children, 5)
        assert not any(child.is_running() for child in children)
        with pytest.raises(Unreachable):
            await asyncio.wait_for(ask(one, "shared", message()), 15)
    finally:
        await one.close()
        await two.close()


async def test_a_second_host_is_refused_and_changes_arrive(host, committed):
    process, config = host
    environment = {**os.environ, "SENTINEL_VAR": str(config.var), "DATABASE_URL": url()}
    second = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "manage.py", "upstreamhost"],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert second.returncode == 1
    assert second.stderr.strip().endswith("another process already holds the upstreams of this SENTINEL_VAR.")
    source = Source(load(committed, config.data_key))
    registry = UpstreamRegistry(source, config, hosted=True)
    try:
        before = (await ask(registry, "shared", message()))["result"]["pid"]
        committed.execute("UPDATE proxy_upstream SET environment = '{}' WHERE slug = 'shared'")
        source.extras["upstreams"] = load(committed, config.data_key)
        answer = (await ask(registry, "shared", message()))["result"]  # before the host has polled
        assert answer["pid"] != before
        assert "TOKEN" not in answer["env"]
        committed.execute("UPDATE proxy_upstream SET enabled = false WHERE slug = 'shared'")
        source.extras["upstreams"] = load(committed, config.data_key)
        with pytest.raises(Unreachable):
            await ask(registry, "shared", message())
    finally:
        await registry.close()
    assert socket_path(Path("/tmp")) == f"/tmp/{SOCKET}"
    assert process.poll() is None


async def test_whoever_can_open_the_socket_without_the_key_is_told_nothing(host):
    """A command under the gateway's user could, where nothing but the file's owner closes it."""
    _, config = host
    for header in ("", "x-upstream-host-key: \r\n", f"x-upstream-host-key: {'0' * 32}\r\n"):
        for path in ("send/shared", "stderr/shared", "refresh/shared"):
            reader, writer = await asyncio.open_unix_connection(socket_path(host_folder(config)))
            writer.write(f"POST /{path} HTTP/1.1\r\nhost: a\r\n{header}content-length: 0\r\n\r\n".encode())
            assert (await reader.readline()).split()[1] == b"403"
            writer.close()
            await writer.wait_closed()


def test_what_cannot_be_used_is_said_once(caplog):
    told = Host.__new__(Host)
    told._problems = {}
    specs = {"old": SimpleNamespace(problem="the variable X is not permitted"), "fine": SimpleNamespace(problem="")}
    told.registry = SimpleNamespace(specs=lambda: specs)
    for _ in range(3):
        told._tell_problems()
    assert [record.getMessage() for record in caplog.records] == [
        "the upstream old cannot be used: the variable X is not permitted"
    ]
    specs["old"].problem = ""
    told._tell_problems()
    specs["old"].problem = "the variable X is not permitted"
    told._tell_problems()
    assert len(caplog.records) == 2
