"""What a running process of ours shares: the embedded server, the drainer beside it, metrics, call-backs of a stop."""

from __future__ import annotations

import asyncio
import atexit
import fcntl
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.conf import settings

from core.conf import settings as conf
from core.conf.settings import PROJECT, Config, ConfigError
from sentinel.observability import metrics, tracing
from sentinel.server import health

if TYPE_CHECKING:
    from proxy.gateway import Gateway

log = logging.getLogger(__name__)

#: set in the environment of a worker of `serve`, whose supervisor minds everything else
WORKER = "SENTINEL_WORKER"
REPORT_EVERY = 2.0
SWEEP_EVERY = 600.0  # how often exports past their life are looked for

_lock = threading.Lock()
_ensured = False
_gateway: Gateway | None = None
_counts: metrics.Worker | None = None
_reporter: asyncio.Task[None] | None = None
_spans: tracing.Spans | None = None
_stopping: list[Callable[[], None]] = []
_leaving = False


def config() -> Config:
    found: Config = settings.SENTINEL
    return found


# Before anything is served


def claim(found: Config) -> int:
    """Take the state folder for this instance alone; the lock is held as long as the descriptor is open."""
    descriptor = os.open(found.var / "serve.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
        os.close(descriptor)
        told = f" ({holder})" if holder else ""
        raise ConfigError(
            f"another instance runs on SENTINEL_VAR {found.var}{told}; stop it, or use another folder."
        ) from None
    note_holder(descriptor, f"process {os.getpid()}")
    return descriptor


def note_holder(descriptor: int, text: str) -> None:
    """Say in the lock's file who holds it."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, (text + "\n").encode(), 0)


def refuse_unfit(found: Config) -> None:
    """Refuse what must not start: production without strong secrets, traces without packages, an unwritable journal."""
    from sentinel.backup import UNFINISHED

    problem = conf.unfit_for_production(found)
    if problem:
        raise ConfigError(problem)
    tracing.refuse_without_packages(found)
    if (found.var / UNFINISHED).exists():
        raise ConfigError(
            f"SENTINEL_VAR: a restore into {found.var} was not finished; restore again, into a new SENTINEL_VAR."
        )
    folder = found.var / "journal"
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"SENTINEL_VAR: the journal in {folder} cannot be written: {error.strerror}.") from None


def ensure_services() -> None:
    """Have what a server needs beside itself; under Daphne and `runserver` this is where it starts, once per process.

    A worker of `serve` finds everything there. Elsewhere: the same refusals as in `serve`, the state folder's lock, the
    embedded database, and a drainer that ends with this process.
    """
    global _ensured
    with _lock:
        if _ensured or WORKER in os.environ:
            return
        _ensured = True
    from django.db import connection

    from sentinel.postgres import migrating

    refuse_unfit(config())
    claim(config())
    migrating.refuse_pending()
    connection.ensure_connection()
    connection.close()
    drainer = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, str(PROJECT / "manage.py"), "drain", "--parent", str(os.getpid())],
        stdin=subprocess.DEVNULL,
        cwd=PROJECT,
    )
    atexit.register(_end, drainer)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# The gateway of this process


async def start_gateway() -> None:
    """Start the gateway of this process, and what it needs."""
    global _gateway, _counts, _reporter, _spans
    from sentinel.server import wiring

    await asyncio.to_thread(ensure_services)
    gateway = await wiring.start_gateway()
    _counts = metrics.Worker(config().var / "metrics", f"worker-{os.environ.get(WORKER, '0')}")
    gateway.observers.append(_counts.observe_call)
    gateway.observers.append(gateway.standing.observe_call)
    gateway.limiter.observers.append(_counts.observe_limit)
    _spans = tracing.start(config())
    if _spans is not None:
        gateway.observers.append(_spans.observe_call)
    on_stop(gateway.begin_stop)
    _gateway = gateway
    _reporter = asyncio.get_running_loop().create_task(_report(gateway, _counts))


async def stop_gateway() -> None:
    global _gateway
    from sentinel.server import wiring

    if _gateway is None:
        return
    await wiring.stop_gateway()
    if _reporter is not None:
        _reporter.cancel()
    if _counts is not None:
        _counts.close()
    if _spans is not None:
        await asyncio.to_thread(_spans.close)
    _gateway = None


async def _report(gateway: Gateway, counts: metrics.Worker) -> None:
    from audit.export import jobs
    from proxy.upstreams import health as standing
    from sentinel.server.http_protocol import GuardedProtocol, refused  # and uvicorn: where it serves, not in commands

    swept = float("-inf")
    while True:
        if time.monotonic() - swept > SWEEP_EVERY:
            swept = time.monotonic()
            await asyncio.to_thread(jobs.sweep, config().var)
        counts.report({**metrics.states_of(gateway), ("connections",): GuardedProtocol.counted.total}, refused)
        if changes := gateway.standing.changes(gateway.registry.specs()):
            await asyncio.to_thread(standing.write, config().dsn, changes)
        await asyncio.sleep(REPORT_EVERY)


def state() -> health.Readiness:
    gateway = _gateway
    if gateway is None:
        return health.Readiness(started=False)
    journal: Any = gateway.logger.journal
    return health.Readiness(
        started=True,
        stopping=gateway.stopping or _leaving,
        journal_usable=journal is None or journal.usable,
        strict=config().audit_mode == "strict",
        snapshot_age=gateway.holder.confirmed_age() if gateway.snapshot is not None else None,
        snapshot_max_age=config().snapshot_max_age,
    )


def scrape() -> bytes:
    """Return the metrics of all workers."""
    from sentinel.observability import database_gauges, gauges

    var = config().var
    found = database_gauges.gather(config().dsn)
    newest = next((fact.value for fact in found if fact.name == database_gauges.NEWEST), None)
    found += [*gauges.journal_facts(var / "journal"), *gauges.drainer_facts(var / "journal", newest)]
    return metrics.scrape(var / "metrics", gauges.Facts(found))


# The end


def leaving() -> None:
    """Say to whoever asks `/readyz` that this worker is about to stop; it serves on for a while."""
    global _leaving
    _leaving = True


def on_stop(callback: Callable[[], None]) -> None:
    """Have something called when this worker is asked to stop, before it waits for what is in flight: close streams here."""
    _stopping.append(callback)


def stopping() -> None:
    """Call what was registered; one that fails does not keep the others from being called."""
    for callback in list(_stopping):
        try:
            callback()
        except Exception:  # a stop must go on
            log.exception("a call-back of the stop failed")
