from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from audit.journal.frames import Frame, Kind
from audit.journal.reader import BootReader, Hole, live_boot, read_mark, segments_of
from audit.journal.tickets import JournalFull, JournalUnavailable, Ticket
from audit.journal.writer import Journal

Opener = Callable[..., Journal]
PAYLOAD = orjson.dumps({"id": "x", "text": "y" * 200})


def read_all(directory: Path, boot: int, live: bool = False) -> list[Frame | Hole]:
    reader = BootReader(directory, boot)
    items: list[Frame | Hole] = []
    frame = seq = 0
    for _ in range(1000):
        part = reader.read(frame, seq, read_mark(directory, boot), live, 64 * 1024)
        items += part
        if part:
            last = part[-1]
            frame, seq = (last.number, last.seq) if isinstance(last, Frame) else (last.last, last.last_seq)
        if not part or reader.at_end:
            break
    return items


def numbers(items: list[Frame | Hole]) -> list[int]:
    return [item.number for item in items if isinstance(item, Frame)]


def test_what_is_acknowledged_is_there(open_journal: Opener) -> None:
    journal = open_journal(segment_bytes=64 * 1024)

    async def many() -> None:
        async def one() -> None:
            for _ in range(25):
                await journal.append(Kind.EVENT, PAYLOAD, True)

        await asyncio.gather(*(one() for _ in range(32)))

    asyncio.run(many())
    assert journal.synced == 801 and journal.seq == 800
    assert journal.batches < 400, "whatever waits rides the next sync together"
    live = read_all(journal.directory, journal.boot, live=True)
    assert numbers(live) == list(range(1, 802))
    journal.close()
    assert numbers(read_all(journal.directory, journal.boot)) == list(range(1, 803))
    assert len(segments_of(journal.directory)[journal.boot]) > 1


def test_a_ticket_waits_in_threads_too(open_journal: Opener) -> None:
    journal = open_journal()
    seen: list[int] = []

    def work() -> None:
        for _ in range(50):
            ticket = journal.append(Kind.EVENT, PAYLOAD, True)
            ticket.wait()
            seen.append(ticket.number)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(2, 202))


def test_boots_follow_each_other(open_journal: Opener) -> None:
    first = open_journal(boot=5_000)
    for _ in range(3):
        first.append(Kind.EVENT, PAYLOAD, True).wait()
    first.close()
    second = open_journal(boot=4_000)  # the clock went back
    assert second.boot == 5_001
    boot = read_all(second.directory, second.boot, live=True)[0]
    assert isinstance(boot, Frame)
    record = orjson.loads(boot.payload)
    assert (record["prev_boot"], record["prev_frame"], record["prev_seq"]) == (5_000, 5, 3)
    assert live_boot(second.directory) == second.boot
    second.close()
    assert live_boot(second.directory) is None


def test_two_processes_cannot_share_a_journal(open_journal: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit.journal.writer.LOCK_SECONDS", 0.1)
    journal = open_journal()
    with pytest.raises(JournalUnavailable, match="another live process"):
        Journal(journal.root, journal.writer)


def test_an_unwritable_journal_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(JournalUnavailable, match="cannot be opened"):
        Journal(tmp_path / "file", "w")


class FailingDevice:
    """A device whose n-th sync fails, and all that follow until it is mended."""

    def __init__(self) -> None:
        self.broken = False
        self.once = False
        self.failures = 0

    def sync(self, fd: int) -> None:
        if self.broken or self.once:
            self.once = False
            self.failures += 1
            raise OSError(errno.EIO, "Input/output error")
        os.fdatasync(fd)


def test_after_a_failed_sync_the_frames_go_into_a_new_file(open_journal: Opener) -> None:
    device = FailingDevice()
    journal = open_journal(sync=device.sync)
    for _ in range(5):
        journal.append(Kind.EVENT, PAYLOAD, True).wait()
    device.once = True
    journal.append(Kind.EVENT, PAYLOAD, True).wait()
    assert device.failures == 1
    journal.append(Kind.EVENT, PAYLOAD, True).wait()
    files = segments_of(journal.directory)[journal.boot]
    assert len(files) == 2
    for live in (True, False):
        assert numbers(read_all(journal.directory, journal.boot, live)) == list(range(1, 9)), "each frame once"
    # What lies in the old file beyond its last good place is not read, whatever it is.
    with open(files[0].path, "r+b") as file:
        data = file.read()
        good = data.rstrip(b"\0")
        file.seek(len(good) - 40)
        file.write(b"\xff" * 40)
    items = read_all(journal.directory, journal.boot, live=False)
    assert numbers(items) == list(range(1, 9)) and not [item for item in items if isinstance(item, Hole)]


def test_a_broken_device_refuses_calls_and_comes_back_by_itself(open_journal: Opener) -> None:
    device = FailingDevice()
    journal = open_journal(sync=device.sync)
    device.broken = True

    async def scene() -> None:
        with pytest.raises(JournalUnavailable):
            await journal.append(Kind.EVENT, PAYLOAD, True)
        with pytest.raises(JournalUnavailable):
            journal.open_event(Kind.INTENT, lambda seq: PAYLOAD, 1000)
        assert not journal.usable and journal.failing
        device.broken = False
        for _ in range(100):
            if journal.usable:
                break
            await asyncio.sleep(0.05)
        await journal.append(Kind.EVENT, PAYLOAD, True)

    asyncio.run(scene())
    assert numbers(read_all(journal.directory, journal.boot, live=True)) == [1, 2, 3], (
        "what was kept in memory is written"
    )


def test_a_full_disk_refuses_calls_but_not_their_outcomes(open_journal: Opener) -> None:
    full = threading.Event()
    journal = open_journal(segment_bytes=128 * 1024)
    allocate = journal._space.allocate

    def limited(size: int) -> Any:
        if full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        return allocate(size)

    journal._space.allocate = limited  # type: ignore[method-assign]
    full.set()
    size = 10_000
    taken = 0
    with pytest.raises(JournalFull):
        for _ in range(1000):
            journal.open_event(Kind.INTENT, lambda seq: PAYLOAD, size)[1].wait()
            taken += 1
    assert taken > 5
    for _ in range(taken):
        journal.append(Kind.OUTCOME, b"z" * (size - 40), False, size).wait()
    journal.open_event(Kind.COUNTED, lambda seq: PAYLOAD, must=True)[1].wait()
    assert not journal.usable
    full.clear()
    for _ in range(100):
        if journal.usable:
            break
        time.sleep(0.05)
    assert journal.usable, "service returns by itself"
    journal.open_event(Kind.INTENT, lambda seq: PAYLOAD, size)[1].wait()
    assert not [item for item in read_all(journal.directory, journal.boot, live=True) if isinstance(item, Hole)]


def test_the_budget_bounds_all_writers_together(open_journal: Opener) -> None:
    journal = open_journal(segment_bytes=256 * 1024, budget=1024 * 1024)
    with pytest.raises(JournalFull):
        for _ in range(100_000):
            journal.open_event(Kind.EVENT, lambda seq: b"x" * 2000)[1].wait()
    used = sum(path.stat().st_blocks * 512 for path in journal.directory.iterdir())
    assert used <= 1024 * 1024 + 16_384


WRITER = textwrap.dedent(
    """
    import sys, time
    from audit.journal.writer import Journal
    from audit.journal.frames import Kind
    journal = Journal(sys.argv[1], "killed-w0", segment_bytes=131072)
    n = 0
    while True:
        n += 1
        journal.append(Kind.EVENT, b'{"n": %d}' % n + b" " * 300, True).wait()
        sys.stdout.write(f"{n}\\n")
        sys.stdout.flush()
    """
)


@pytest.mark.parametrize("delay", [0.05, 0.11, 0.17, 0.3])
def test_a_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path, delay: float) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate()
    acknowledged = [int(line) for line in output.split("\n")[:-1] if line]
    directory = tmp_path / "killed-w0"
    (boot,) = segments_of(directory)
    assert live_boot(directory) is None
    items = read_all(directory, boot)
    whole = [orjson.loads(item.payload).get("n") for item in items if isinstance(item, Frame)][1:]
    assert whole == list(range(1, len(whole) + 1))
    assert len(whole) >= (acknowledged[-1] if acknowledged else 1)
    assert not [item for item in items if isinstance(item, Hole) and not item.torn]


def test_a_limit_of_the_kernel_is_a_full_disk(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys, resource, time
        from audit.journal.writer import Journal
        from audit.journal.tickets import JournalUnavailable
        from audit.journal.frames import Kind
        journal = Journal(sys.argv[1], "limited-w0", segment_bytes=1 << 20)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        taken = refused = 0
        while not refused:
            try:
                journal.open_event(Kind.EVENT, lambda seq: b"{}" + b" " * 2000)[1].wait()
                taken += 1
            except JournalUnavailable:
                refused += 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        deadline = time.monotonic() + 5
        while not journal.usable and time.monotonic() < deadline:
            time.sleep(0.02)
        journal.open_event(Kind.EVENT, lambda seq: b"{}")[1].wait()
        journal.close()
        print(taken, journal.seq)
        """
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    taken, seq = map(int, done.stdout.split())
    directory = tmp_path / "limited-w0"
    (boot,) = segments_of(directory)
    items = read_all(directory, boot)
    assert not [item for item in items if isinstance(item, Hole)]
    assert len([item for item in items if isinstance(item, Frame) and item.opens]) == seq >= taken + 1
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 4096


def test_calls_of_a_busy_loop_share_their_syncs(open_journal: Opener) -> None:
    journal = open_journal()

    async def call(number: int) -> None:
        await asyncio.sleep(0)
        for _ in range(2):
            await journal.append(Kind.EVENT, orjson.dumps({"n": number}), True)

    async def calls() -> None:
        await asyncio.gather(*(call(number) for number in range(100)))

    before = journal.batches
    asyncio.run(calls())
    assert journal.synced_seq == 200
    assert journal.batches - before <= 20


def test_a_loop_that_ends_before_it_rings_leaves_nobody_waiting(open_journal: Opener) -> None:
    journal = open_journal()

    async def leave() -> Ticket:
        while not journal._sleeping:
            await asyncio.sleep(0.001)
        loop = asyncio.get_running_loop()
        ticket = journal.append(Kind.EVENT, b"{}", True)
        loop.stop()
        return ticket

    loop = asyncio.new_event_loop()
    task = loop.create_task(leave())
    loop.run_forever()
    ticket = task.result()
    loop.close()
    ticket.wait(5.0)
    assert ticket.done
    journal.append(Kind.EVENT, b"{}", True).wait(5.0)
