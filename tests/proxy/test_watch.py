"""What minds what is open in a worker's gateway."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proxy import watch as module
from proxy.watch import Watch


async def test_one_failure_does_not_end_the_watch_over_streams(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "TICK", 0)
    watch: Any = Watch.__new__(Watch)
    looked = 0

    def look() -> None:
        nonlocal looked
        looked += 1
        if looked == 1:
            raise RuntimeError("a defect")

    watch._look_at_streams = look
    task = asyncio.create_task(watch._tick())
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    assert looked > 1 and "could not be looked at" in caplog.text
