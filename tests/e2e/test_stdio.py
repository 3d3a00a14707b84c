"""Commands as upstreams, through `serve` with two workers: nothing crosses, a kill is told and recorded, nothing is left."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from typing import Any

import psutil
import pytest

from tests.e2e.conftest import PLAIN, Pipes

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("pipes")]

SSE = {"Accept": "text/event-stream"}


def family(pipes: Pipes) -> list[psutil.Process]:
    """The gateway's processes, all that descends from them included."""
    assert pipes.gateway.process is not None
    root = psutil.Process(pipes.gateway.process.pid)
    return [root, *root.children(recursive=True)]


def commands(pipes: Pipes) -> list[psutil.Process]:
    """The running processes of the upstreams `pipe` and `pipe-each`."""
    found = []
    for process in family(pipes):
        try:
            if str(PLAIN) in process.cmdline() and "launch.py" not in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def zombies(pipes: Pipes) -> list[psutil.Process]:
    """Processes that have ended and were not reaped."""
    return [process for process in family(pipes) if process.status() == psutil.STATUS_ZOMBIE]


def until(true: Any, seconds: float, what: str) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def together(number: int, act: Any) -> None:
    """Do something so many times at once."""
    threads = [threading.Thread(target=act, args=(n,)) for n in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_two_hundred_clients_with_the_same_ids(pipes: Pipes, era: str) -> None:
    since = pipes.gateway.now()
    crossed: list[Any] = []
    failures: list[object] = []

    def one(number: int) -> None:
        try:
            client = pipes.client("pipe", era=era)
            for turn in range(3):
                mine = {"who": number, "turn": turn}
                arguments = {"echo": mine, "sleep": 0.01 * (number % 7)}
                answer = client.call("x", arguments, rpc_id=1, timeout=120)
                if (answer.json["id"], answer.result["echo"]) != (1, mine):
                    crossed.append((mine, answer.body[:300]))
        except (AssertionError, OSError, ValueError, KeyError) as problem:
            failures.append(problem)

    together(200, one)
    assert not crossed
    assert not failures, failures[:3]
    events = pipes.gateway.events(since, 600, timeout=60, method="tools/call")
    told = Counter(
        (
            e["request_json"]["params"]["arguments"]["echo"]["who"],
            e["request_json"]["params"]["arguments"]["echo"]["turn"],
        )
        for e in events
    )
    assert len(told) == 600 and set(told.values()) == {1}
    for event in events:  # the log, too, has each answer with its own call
        asked = event["request_json"]["params"]["arguments"]["echo"]
        assert event["response_json"]["result"]["echo"] == asked


@pytest.mark.parametrize("style", ["legacy", "modern", "session"])
def test_nobody_cancels_anothers_call(pipes: Pipes, style: str) -> None:
    """Ids are the callers' own choice: the same one of another key, or of another session, is another call's."""
    era = "modern" if style == "modern" else "legacy"
    mine, others = (
        pipes.client("pipe", era=era),
        [pipes.gateway.client(pipes.gateway.create_key("other", "admin"), "pipe", era=era)],
    )
    time.sleep(1.0)
    if style == "session":
        mine.initialize()
        others[0].initialize()
        others += [
            pipes.client("pipe").initialize(),
            pipes.client("pipe"),
        ]  # the same key's other session, and without one

    def cancels() -> int:
        received = pipes.client("pipe", era=era).ask("received", {}, "r").result["received"]
        return sum("notifications/cancelled" in line for line in received)

    before = cancels()
    got: list[Any] = []
    call = threading.Thread(
        target=lambda: got.append(mine.call("x", {"echo": "mine", "sleep": 3}, rpc_id=1, timeout=60).result["echo"])
    )
    call.start()
    time.sleep(1.0)
    for other in others:
        assert other.ask("notifications/cancelled", {"requestId": 1}, None).status == 202
    call.join(60)
    assert got == ["mine"] and cancels() == before
    call = threading.Thread(target=lambda: mine.call("x", {"echo": "mine", "sleep": 3}, rpc_id=1, timeout=60))
    call.start()
    time.sleep(1.0)
    assert mine.ask("notifications/cancelled", {"requestId": 1}, None).status == 202
    call.join(60)
    assert cancels() == before + 1


def test_a_killed_command_under_load(pipes: Pipes) -> None:
    """SIGKILL: each waiting call is answered with an error and recorded, the command is back, no zombie is left."""
    client = pipes.client("pipe")
    pid = client.call("x", {}, timeout=60).result["pid"]
    since = pipes.gateway.now()
    answers: list[Any] = []

    def one(number: int) -> None:
        answers.append(
            pipes.client("pipe").call("x", {"sleep": 60, "echo": number}, rpc_id=f"call {number}", timeout=90)
        )

    waiting = threading.Thread(target=together, args=(60, one))
    waiting.start()
    process = psutil.Process(pid)
    until(lambda: process.num_threads() > 60, 60, "the calls did not reach the command")
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    waiting.join(30)
    assert len(answers) == 60
    assert time.monotonic() - killed < 30
    assert Counter(answer.status for answer in answers) == {502: 60}
    assert {answer.json["id"] for answer in answers} == {f"call {n}" for n in range(60)}
    again = client.call("x", {}, timeout=60).result["pid"]
    assert again != pid
    assert not psutil.pid_exists(pid)
    assert not zombies(pipes)
    events = pipes.gateway.events(since, 61, timeout=60, method="tools/call")
    failed = [event for event in events if event["outcome"] == "upstream_error"]
    assert len(failed) == 60 and len(events) == 61
    assert {event["status_code"] for event in failed} == {502}
    assert {event["id"] for event in failed} == {answer.error["data"]["audit_id"] for answer in answers}


def settled(pipes: Pipes) -> tuple[int, int]:
    """Open files and resident bytes of the gateway's own processes, once they are quiet."""
    time.sleep(3)
    files = memory = 0
    for process in family(pipes):
        try:
            if "manage.py" in " ".join(process.cmdline()):
                files += process.num_fds()
                memory += process.memory_info().rss
        except psutil.Error:
            continue
    return files, memory


def vanish(pipes: Pipes, upstream: str, number: int) -> list[Any]:
    """Clients that open a session and its stream, and are gone with a reset; they never say goodbye."""
    gone = []
    for _ in range(number):
        client = pipes.client(upstream).initialize()
        stream = client.ask("", verb="GET", headers=SSE, stream=True)
        assert stream.status == 200
        stream.reset()
        gone.append(client)
    return gone


@pytest.mark.slow
def test_clients_that_vanish_from_a_shared_command(pipes: Pipes) -> None:
    """CASES S3: 500 sessions with their streams, cut; twice, and the second round adds nothing."""
    vanish(pipes, "pipe", 100)
    first = settled(pipes)
    vanish(pipes, "pipe", 400)
    second = settled(pipes)
    assert second[0] <= first[0] + 20, (first, second)
    assert second[1] <= first[1] + 16 * 1024**2, (first, second)
    assert not zombies(pipes)


@pytest.mark.slow
def test_clients_that_vanish_from_commands_of_their_own(pipes: Pipes) -> None:
    """The same with a process for each session: there are never more than 64, and then none."""
    before = len(commands(pipes))
    gone = vanish(pipes, "pipe-each", 90)
    running = commands(pipes)
    assert len(running) - before <= 66  # one more may be on its way out, and one in
    assert gone[0].call("x", {}).status == 404  # the longest unused had to go
    assert gone[-1].call("x", {}).status == 200
    until(lambda: len(commands(pipes)) <= before, 90, "processes of sessions that nobody holds still run")
    assert gone[-1].call("x", {}).status == 404
    assert not zombies(pipes)
    first = settled(pipes)
    vanish(pipes, "pipe-each", 90)
    until(lambda: len(commands(pipes)) <= before, 90, "processes of sessions that nobody holds still run")
    second = settled(pipes)
    assert second[0] <= first[0] + 20, (first, second)
    assert second[1] <= first[1] + 16 * 1024**2, (first, second)
    assert not zombies(pipes)


def test_what_a_command_writes_to_its_standard_error_is_kept_without_its_secrets(pipes: Pipes) -> None:
    assert pipes.client("pipe").initialize().call("any", {"noise": True}).status == 200
    program = "from proxy.services.catalogue import stderr; print(stderr('pipe'))"
    told = pipes.gateway.manage("shell", "-c", program).stdout
    assert "complaint" in told, told
    assert "hunter2-hunter2" not in told and "[REDACTED" in told, told
