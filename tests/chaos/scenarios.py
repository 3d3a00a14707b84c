"""The scenarios: load, something that goes wrong, and what the log says afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg

from tests.chaos import nemesis
from tests.chaos.checker import Verdict, join
from tests.chaos.histories import Call, Clients, Upstream
from tests.support.gateway import Gateway

CONCURRENCY = 64
CLOCK = Path(__file__).parent.parent / "support" / "clock"


@dataclass
class Result:
    """One line of the table."""

    name: str
    ok: bool
    figures: dict[str, Any]
    problems: list[str]


@dataclass
class Scene:
    """A gateway with its upstream and clients."""

    gateway: Gateway
    upstream: Upstream
    clients: Clients


@asynccontextmanager
async def scene(workers: int = 2, **environment: str) -> AsyncIterator[Scene]:
    """Set the scene: a fresh installation, one upstream, one key that may do everything."""
    upstream = Upstream()
    await upstream.start()
    gateway = Gateway(workers=workers, **environment)
    try:
        await asyncio.to_thread(gateway.__enter__)
        await asyncio.to_thread(gateway.add_upstream, "chaos", f"http://127.0.0.1:{upstream.port}/mcp")
        key = await asyncio.to_thread(gateway.create_key, "chaos", "admin")
        await asyncio.sleep(1.5)
        yield Scene(gateway, upstream, Clients(gateway.port, key.key))
    finally:
        await asyncio.to_thread(gateway.__exit__)
        if upstream.server is not None:
            upstream.server.close()


async def judged(stage: Scene, name: str, extra: dict[str, Any], problems: list[str]) -> Result:
    """Stop the gateway, read the log, and compare."""
    await asyncio.to_thread(stage.gateway.stop)
    events = await asyncio.to_thread(stage.gateway.export)
    verified = await asyncio.to_thread(stage.gateway.manage, "audit", "verify", "--json", check=False)
    report = json.loads(verified.stdout or '{"ok": false, "findings": []}')
    verdict = join(stage.clients.calls, stage.upstream.executed, events, report["ok"])
    problems = [*problems, *first_of(verdict)]
    if not report["ok"]:
        problems += [str(finding) for finding in report["findings"] if not finding["explained"]][:5]
    return Result(name, verdict.ok and not problems, {**verdict.row(), **extra}, problems)


def first_of(verdict: Verdict) -> list[str]:
    """Show some of what must never be."""
    names = ("answered_unaudited", "executed_unrecorded", "doubled", "other_outcome")
    return [f"{name}: {', '.join(getattr(verdict, name)[:5])}" for name in names if getattr(verdict, name)]


async def kills(count: int) -> Result:
    """SIGKILL workers, the drainer and the supervisor, alone and all at once, with calls in flight."""
    chance = random.Random(11)
    flying: list[int] = []
    ended: dict[str, int] = {"worker": 0, "drainer": 0, "supervisor": 0, "all": 0}
    async with scene() as stage:
        load = asyncio.create_task(stage.clients.run(CONCURRENCY, wait=0.6))
        done = 0
        while done < count:
            await ready(stage, 2)
            await asyncio.sleep(chance.uniform(0.2, 0.6))
            what = chance.choices(("worker", "drainer", "supervisor", "all"), (70, 15, 8, 7))[0]
            flying.append(len(stage.clients.flying))
            if what == "worker":
                nemesis.end(nemesis.workers(stage.gateway)[: chance.choice((1, 2))])
            elif what == "drainer":
                nemesis.end(nemesis.drainers(stage.gateway))
            else:
                rest = [*nemesis.workers(stage.gateway), *nemesis.drainers(stage.gateway)]
                nemesis.end([nemesis.supervisor(stage.gateway), *(rest if what == "all" else [])])
                assert stage.gateway.process is not None
                await asyncio.to_thread(stage.gateway.process.wait)
                assert await asyncio.to_thread(nemesis.gone, rest), "they outlived their supervisor"
                await asyncio.to_thread(stage.gateway.start)
            ended[what] += 1
            done += 1
        await asyncio.sleep(1.0)
        stage.clients.stopped = True
        await load
        extra = {"kills": done, "in flight at a kill": sum(flying) // max(len(flying), 1), **ended}
        return await judged(stage, f"{count} x SIGKILL", extra, [])


async def ready(stage: Scene, workers: int) -> None:
    """Wait until all workers run, and answer."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if len(nemesis.workers(stage.gateway)) >= workers:
            before = len([call for call in stage.clients.calls[-200:] if call.result])
            if before > 20:
                return
        await asyncio.sleep(0.05)


def errors(calls: list[Call]) -> list[str]:
    """Name the calls that had no result."""
    return [f"{call.marker} {call.status or 'no answer'} {call.reason}" for call in calls if not call.result]


def p99(calls: list[Call]) -> float:
    """Give the 99th percentile of the calls' times, in milliseconds."""
    times = sorted(call.seconds for call in calls if call.ended)
    return round(times[int(len(times) * 0.99)] * 1000, 1) if times else 0.0


async def postgres(how: str, seconds: float) -> Result:
    """Kill, stop, or restart the database at 200 calls a second: nobody may notice."""
    async with scene() as stage:
        load = asyncio.create_task(stage.clients.run(32, rate=200, wait=0.02))
        await asyncio.sleep(min(seconds, 10))
        normal = len(stage.clients.calls)
        if how == "stopped":
            pids = nemesis.database(stage.gateway)
            nemesis.end(pids, signal.SIGSTOP)
            await asyncio.sleep(seconds)
            nemesis.end(pids, signal.SIGCONT)
        elif how == "cut":
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                nemesis.end(nemesis.database(stage.gateway)[1:], signal.SIGTERM)
                await asyncio.sleep(0.5)
        else:
            until = time.monotonic() + seconds
            while time.monotonic() < until:  # its supervisor starts it again, and it is killed again
                nemesis.end(nemesis.database(stage.gateway))
                await asyncio.sleep(0.2)
        back = time.monotonic()
        away = len(stage.clients.calls)
        await asyncio.sleep(2.0)
        stage.clients.stopped = True
        await load
        drained = await drained_after(stage, back)
        before, during = stage.clients.calls[:normal], stage.clients.calls[normal:away]
        added = round(p99(during) - p99(before), 1)
        extra = {
            "errors": len(errors(stage.clients.calls)),
            "added p99 ms": added,
            "drained after s": round(drained, 1),
        }
        problems = [f"errors: {errors(stage.clients.calls)[:5]}"] if errors(stage.clients.calls) else []
        # A few seconds hold too few calls for a percentile to mean anything.
        problems += [f"added p99 {added} ms"] if added > 50 and seconds >= 30 else []
        problems += [f"drained only after {drained:.0f} s"] if drained > 60 else []
        return await judged(stage, f"PostgreSQL {how} for {seconds:.0f} s", extra, problems)


async def drained_after(stage: Scene, since: float) -> float:
    """Wait until the drainer has no backlog; gives how long that took."""
    place = stage.gateway.var / "journal" / "drainer.json"
    until = time.monotonic() + 90
    while time.monotonic() < until:
        try:
            status = json.loads(place.read_bytes())
        except (OSError, ValueError):
            status = {}
        if status.get("state") == "ok" and not status.get("backlog_frames") and status["ts"] / 1e6 > time.time() - 2:
            break
        await asyncio.sleep(0.1)
    return time.monotonic() - since


async def full_disk(seconds: float) -> Result:
    """No room for the journal, by a limit that the kernel enforces: only 503s, nothing executed, back by itself."""
    async with scene() as stage:
        load = asyncio.create_task(stage.clients.run(16, rate=100, wait=0.02))
        await asyncio.sleep(3)
        pids = nemesis.workers(stage.gateway)
        nemesis.starve(pids)
        await asyncio.sleep(1.0)
        begun, executed = len(stage.clients.calls), sum(stage.upstream.executed.values())
        await asyncio.sleep(seconds)
        during = stage.clients.calls[begun:]
        executed = sum(stage.upstream.executed.values()) - executed
        nemesis.feed(pids)
        await asyncio.sleep(2.0)
        begun = len(stage.clients.calls)
        await asyncio.sleep(3.0)
        after = stage.clients.calls[begun:]
        stage.clients.stopped = True
        await load
        seen = sorted({call.status for call in during if call.ended})
        extra = {
            "answers while full": seen,
            "executed while full": executed,
            "results after": sum(call.result for call in after),
        }
        problems = [] if seen == [503] else [f"answers while full: {seen}"]
        problems += [f"{executed} executed while full"] if executed else []
        problems += [] if sum(call.result for call in after) > 100 else ["service did not return"]
        problems += [] if nemesis.workers(stage.gateway) == pids else ["a worker had to be replaced"]
        return await judged(stage, f"journal full for {seconds:.0f} s", extra, problems)


async def lost_disk() -> Result:
    """The journal's disk is gone with what could not be drained: the verification names the writer and the numbers."""
    async with scene() as stage:
        load = asyncio.create_task(stage.clients.run(16, rate=100, wait=0.02))
        await asyncio.sleep(3)
        # The database takes no events for a while, but hears how far the writers are.
        with psycopg.connect(owner(stage.gateway)) as connection:
            connection.execute("LOCK TABLE audit_auditevent IN EXCLUSIVE MODE")
            await asyncio.sleep(12)
            stage.clients.stopped = True
            await load
            nemesis.end(
                [nemesis.supervisor(stage.gateway), *nemesis.workers(stage.gateway), *nemesis.drainers(stage.gateway)]
            )
        assert stage.gateway.process is not None
        await asyncio.to_thread(stage.gateway.process.wait)
        shutil.rmtree(stage.gateway.var / "journal")
        done = await asyncio.to_thread(stage.gateway.manage, "audit", "verify", "--json", check=False)
        missing = [finding for finding in json.loads(done.stdout)["findings"] if not finding["explained"]]
        numbers = sum(finding["last"] - finding["first"] + 1 for finding in missing)
        figures = {
            "exit status": done.returncode,
            "writers named": len({f["writer"] for f in missing}),
            "numbers named": numbers,
        }
        return Result("journal's disk lost", done.returncode == 1 and numbers > 100, figures, [])


async def backup(seconds: float) -> Result:
    """A backup of a busy gateway, restored into a new installation that goes on serving: nothing missing, nothing twice."""
    async with scene() as stage:
        load = asyncio.create_task(stage.clients.run(16, rate=150, wait=0.1))
        await asyncio.sleep(seconds)
        # What comes from here on stays in the journal: the backup has to bring both, and how far the one had got into the other.
        with psycopg.connect(owner(stage.gateway)) as connection:
            connection.execute("LOCK TABLE audit_auditevent IN EXCLUSIVE MODE")
            await asyncio.sleep(1.5)
            before = {call.marker for call in stage.clients.calls if call.ended}
            file = stage.gateway.home / "sentinel.backup"
            made = asyncio.to_thread(stage.gateway.manage, "backup", str(file), "--json")
            told = json.loads((await made).stdout.splitlines()[-1])
        await asyncio.sleep(1.0)
        stage.clients.stopped = True
        await load
        await asyncio.to_thread(stage.gateway.stop)
        first = await asyncio.to_thread(stage.gateway.export)

        other = Gateway(workers=2)
        try:
            await asyncio.to_thread(other.manage, "restore", str(file))
            await asyncio.to_thread(other.__enter__)
            again = await asyncio.to_thread(other.manage, "restore", str(file), check=False)
            await asyncio.sleep(1.5)
            clients = Clients(other.port, stage.clients.key)
            clients._number = 1_000_000
            load = asyncio.create_task(clients.run(16, rate=150, wait=0.1))
            await asyncio.sleep(seconds)
            clients.stopped = True
            await load
            await asyncio.to_thread(other.stop)
            events = await asyncio.to_thread(other.export)
            report = json.loads(
                (await asyncio.to_thread(other.manage, "audit", "verify", "--json", check=False)).stdout
            )
        finally:
            await asyncio.to_thread(other.__exit__)
    known = [call for call in stage.clients.calls if call.marker in before]
    executed = {call.marker: stage.upstream.executed.get(call.marker, 0) for call in [*known, *clients.calls]}
    executed = {marker: times for marker, times in executed.items() if times}
    verdict = join([*known, *clients.calls], executed, events, report["ok"])
    older = {(event["writer"], event["boot"]) for event in first if event["rpc_id"]}
    later = {f'"{call.marker}"' for call in clients.calls}
    newer = {(event["writer"], event["boot"]) for event in events if event["rpc_id"] in later}
    extra = {
        "events in its database": told["events"],
        "calls before it": len(known),
        "calls after the restore": len(clients.calls),
    }
    problems = first_of(verdict)
    problems += [str(finding) for finding in report["findings"] if not finding["explained"]][:5]
    problems += [] if told["events"] < len(known) - 100 else ["all was in the database: nothing was proved"]
    problems += [f"a boot goes on after the restore: {older & newer}"] if older & newer else []
    problems += [f"calls failed: {errors(clients.calls)[:5]}"] if errors(clients.calls) else []
    problems += [] if again.returncode == 1 and "stop it first" in again.stderr else [f"restored again: {again.stderr}"]
    return Result(
        "backup of a busy gateway, restored", verdict.ok and not problems, {**verdict.row(), **extra}, problems
    )


async def clock(seconds: float) -> Result:
    """The machine's clock set an hour ahead, an hour back and right again, under load and over a restart of a worker."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "clock"

        def put(offset: int) -> None:
            with open(place, "r+b" if place.exists() else "wb") as file:
                file.write(offset.to_bytes(8, "little", signed=True))

        put(0)
        paths = (str(CLOCK), os.environ.get("PYTHONPATH", ""))
        settings = {"SENTINEL_TEST_CLOCK": str(place), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        async with scene(**settings) as stage:
            load = asyncio.create_task(stage.clients.run(16, rate=100, wait=0.05))
            steps = (3600, -3600, 0, -3600, 3600, 0)
            for offset in steps:
                await asyncio.sleep(seconds / len(steps))
                put(offset)
                await asyncio.sleep(seconds / len(steps) / 2)
                nemesis.end(nemesis.workers(stage.gateway)[:1])  # the next boot begins at another time
            await asyncio.sleep(seconds / len(steps))
            stage.clients.stopped = True
            await load
            await drained_after(stage, time.monotonic())
            await asyncio.to_thread(stage.gateway.stop)
            events = [event for event in await asyncio.to_thread(stage.gateway.export) if event["rpc_id"]]
            hours = Counter(round((moment(event["ts"]) - time.time()) / 3600) for event in events)
            negative = [event["id"] for event in events if event["latency_ms"] < 0 or (event["upstream_ms"] or 0) < 0]
            slow = [event["id"] for event in events if event["latency_ms"] > 60_000]
            extra = {"steps": len(steps), "events by hour": dict(sorted(hours.items())), "negative": len(negative)}
            problems = [f"latencies: {(negative + slow)[:5]}"] if negative or slow else []
            problems += [] if set(hours) == {-1, 0, 1} else [f"the clock was not set: {hours}"]
            lost = [text for text in errors(stage.clients.calls) if "no answer" not in text]  # of the workers killed
            problems += [f"errors: {lost[:5]}"] if lost else []
            return await judged(stage, "clock set an hour ahead and back", extra, problems)


def moment(text: str) -> float:
    """Read an event's time."""
    return datetime.fromisoformat(text).timestamp()


def owner(gateway: Gateway) -> str:
    """Give the connection string of the embedded server's owning role."""
    script = "from django.conf import settings; print(settings.SENTINEL.owner_dsn)"
    return gateway.manage("shell", "-v", "0", "-c", script).stdout.strip().splitlines()[-1]


async def flood(seconds: float) -> Result:
    """Refused requests as fast as they come, beside 100 good calls a second."""
    async with scene() as stage:
        good = asyncio.create_task(stage.clients.run(16, rate=100, wait=0.02))
        before = journal_bytes(stage)
        counts = await asyncio.gather(*(refuse(stage, seconds) for _ in range(8)))
        stage.clients.stopped = True
        await good
        grown = journal_bytes(stage) - before
        refused = sum(counts)
        await asyncio.to_thread(stage.gateway.stop)
        events = await asyncio.to_thread(stage.gateway.export)
        counted = sum(event["count"] for event in events if event["reason"] == "invalid_credential")
        rows = sum(1 for event in events if event["reason"] == "invalid_credential")
        extra = {
            "refused": refused,
            "per second": round(refused / seconds),
            "counted": counted,
            "rows for them": rows,
            "journal MB": round(grown / 1e6, 1),
        }
        problems = [] if counted == refused else [f"{refused} refused, {counted} counted"]
        failed = errors(stage.clients.calls)
        problems += [f"good calls failed: {failed[:5]}"] if failed else []
        return await judged(stage, f"refused requests for {seconds:.0f} s", extra, problems)


def journal_bytes(stage: Scene) -> int:
    """Count what the journal takes on the disk."""
    return sum(path.stat().st_blocks * 512 for path in (stage.gateway.var / "journal").rglob("*") if path.is_file())


async def refuse(stage: Scene, seconds: float) -> int:
    """Send requests with a wrong key, fifty at a time, and count the answers."""
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"do","arguments":{}}}'
    head = (
        f"POST /mcp/chaos HTTP/1.1\r\nHost: 127.0.0.1:{stage.gateway.port}\r\nAuthorization: Bearer wrong\r\n"
        f"Accept: application/json, text/event-stream\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.port)
    until = time.monotonic() + seconds
    count = 0
    while time.monotonic() < until:
        writer.write((head + body) * 50)
        await writer.drain()
        for _ in range(50):
            status, _ = await read_one(reader)
            assert status == 401, status
            count += 1
    writer.close()
    return count


async def read_one(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read one answer."""
    from tests.chaos.histories import read_answer

    return await read_answer(reader)
