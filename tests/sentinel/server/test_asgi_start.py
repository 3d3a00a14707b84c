"""The gateway of a process is started once, also when the request that began it is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from sentinel.asgi import Application
from sentinel.server import runtime


async def test_a_client_that_leaves_does_not_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    ready = asyncio.Event()

    async def start() -> None:
        begun.append(1)
        await ready.wait()

    monkeypatch.setattr(runtime, "start_gateway", start)
    application = Application()
    first = asyncio.create_task(application._start())
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(application._start())
    await asyncio.sleep(0.01)
    assert not second.done()
    ready.set()
    await second
    assert begun == [1]


async def test_a_start_that_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []

    async def start() -> None:
        begun.append(1)
        if len(begun) == 1:
            raise RuntimeError("not yet")

    monkeypatch.setattr(runtime, "start_gateway", start)
    application = Application()
    with pytest.raises(RuntimeError):
        await application._start()
    await application._start()
    assert len(begun) == 2
