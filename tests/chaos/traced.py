"""A trace of system calls: a sync of the journal has returned before a call goes to its upstream, and another before its answer goes out."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from pathlib import Path

from tests.chaos import nemesis
from tests.chaos.scenarios import Result, scene

SEND = re.compile(r"(?:sendto|sendmsg|write|writev)\(")
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
            [strace, "-f", "-ttt", "-s", "4096", "-e", names, "-o", str(output), "-p", str(worker)],
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
        synced, sent, answered, early = order(output.read_text(errors="replace"))
        problems = [f"sent before a sync: {early[:5]}"] if early else []
        problems += [] if min(sent, answered) >= calls else [f"only {sent} sends and {answered} answers seen"]
        figures = {"syncs": synced, "sends upstream": sent, "answers": answered, "early": len(early)}
        return Result("sync before send", not problems, figures, problems)


def order(trace: str) -> tuple[int, int, int, list[str]]:
    """Count syncs, calls sent upstream and results sent to the client, and find sends with no sync since the send before.

    With one call at a time: sync (its intent), call, sync (its outcome), result, and so on. What else a stream says passes at once.
    """
    synced = sent = answered = since = 0
    early: list[str] = []
    for line in trace.splitlines():
        match = CALL.match(line)
        if match is None:
            continue
        rest = match["rest"]
        if ("fdatasync(" in rest or "fdatasync resumed" in rest) and rest.rstrip().endswith("= 0"):
            synced += 1
            since += 1
        elif SEND.match(rest) and ("POST /mcp" in rest or '\\"result\\"' in rest):
            upstream = "POST /mcp" in rest
            sent += upstream
            answered += not upstream
            if not since:
                early.append(rest[:80])
            since = 0
    return synced, sent, answered, early
