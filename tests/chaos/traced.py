"""A trace of system calls: before any byte goes to the upstream, a sync of the journal has returned."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from pathlib import Path

from tests.chaos import nemesis
from tests.chaos.scenarios import Result, scene

CALL = re.compile(r"(?P<pid>\d+) +(?P<time>[\d.]+) (?P<rest>.*)")


async def sync_before_send(calls: int = 30) -> Result:
    """Trace one worker under strace while calls are made one after another."""
    strace = shutil.which("strace")
    if strace is None:
        return Result("sync before send", True, {"skipped": "strace is not installed"}, [])
    async with scene(workers=1) as stage:
        (worker,) = nemesis.workers(stage.gateway)
        output = Path(stage.gateway.home / "trace")
        names = "trace=fdatasync,sendto,sendmsg,write,writev"
        tracer = subprocess.Popen(
            [strace, "-f", "-ttt", "-s", "256", "-e", names, "-o", str(output), "-p", str(worker)],
            stderr=subprocess.DEVNULL,
        )
        await asyncio.sleep(1.5)
        load = asyncio.create_task(stage.clients.run(1, wait=0.0))
        while len([call for call in stage.clients.calls if call.result]) < calls:
            await asyncio.sleep(0.05)
        stage.clients.stopped = True
        await load
        tracer.terminate()
        tracer.wait(10)
        synced, sent, early = order(output.read_text(errors="replace"))
        problems = [f"sent before a sync: {early[:5]}"] if early else []
        problems += [] if sent >= calls else [f"only {sent} sends seen"]
        return Result(
            "sync before send", not problems, {"syncs": synced, "sends upstream": sent, "early": len(early)}, problems
        )


def order(trace: str) -> tuple[int, int, list[str]]:
    """Count syncs and sends of calls upstream, and find sends with no sync since the send before.

    With one call at a time each call needs a sync of its own between the answer before and its own send.
    """
    synced = sent = since = 0
    early: list[str] = []
    for line in trace.splitlines():
        match = CALL.match(line)
        if match is None:
            continue
        rest = match["rest"]
        if ("fdatasync(" in rest or "fdatasync resumed" in rest) and rest.rstrip().endswith("= 0"):
            synced += 1
            since += 1
        elif ("POST /mcp" in rest) and (
            "sendto(" in rest or "sendmsg(" in rest or "write(" in rest or "writev(" in rest
        ):
            sent += 1
            if not since:
                early.append(rest[:80])
            since = 0
    return synced, sent, early
