"""How long drained segments stay: a day, within the disk budget, so that a restored database can be fed again."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from audit.journal.preallocation import used_bytes
from audit.journal.reader import BootReader, SegmentFile, segments_of

__all__ = ["sweep"]


class Drained(Protocol):
    """A boot, and how far it is stored."""

    writer: str
    boot: int
    frame: int
    closed: bool
    live: bool
    reader: BootReader


def sweep(root: Path, boots: Iterable[Drained], keep_seconds: float, budget: int, now: float | None = None) -> int:
    """Delete segments that are stored and old, the oldest first also when the budget is half used; gives how many.

    The last segment of each writer's newest boot stays: it tells the next boot where this one ended.
    """
    now = time.time() if now is None else now
    spendable: list[tuple[float, SegmentFile, Drained]] = []
    newest: dict[str, int] = {}
    listed = [boot for boot in boots if boot.frame >= 0]
    for boot in listed:
        newest[boot.writer] = max(newest.get(boot.writer, 0), boot.boot)
    for boot in listed:
        files = segments_of(boot.reader.directory).get(boot.boot, [])
        for number, file in enumerate(files):
            following = files[number + 1] if number + 1 < len(files) else None
            if following is None and (boot.boot == newest[boot.writer] or not boot.closed):
                continue
            if not boot.closed and following is not None and following.first - 1 > boot.frame:
                continue
            with suppress(OSError):
                spendable.append((file.path.stat().st_mtime, file, boot))
    spendable.sort(key=lambda item: item[0])
    used = used_bytes(root) if budget else 0
    deleted = 0
    for modified, file, boot in spendable:
        if now - modified < keep_seconds and not (budget and used > budget // 2):
            continue
        with suppress(OSError):
            size = file.path.stat().st_blocks * 512
            file.path.unlink()
            used -= size
            deleted += 1
        if boot.closed and not segments_of(boot.reader.directory).get(boot.boot):
            (boot.reader.directory / f"{boot.boot:016d}.mark").unlink(missing_ok=True)
    return deleted
