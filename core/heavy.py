"""Heavy work beside the event loop: few threads, and in them one piece of work of each caller at a time.

Threads of one interpreter take turns with the loop, so more of them would only take more turns from everybody. A caller
who sends much waits for its own work; the next in the queue is always somebody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

__all__ = ["THREADS", "Heavy"]

THREADS = 2

T = TypeVar("T")


class Heavy:
    """Runs functions in threads; what is one caller's runs one after the other."""

    def __init__(self, threads: int = THREADS) -> None:
        self._pool = ThreadPoolExecutor(threads, "heavy")
        #: the last piece of work of each caller that has any
        self._last: dict[str, asyncio.Task[Any]] = {}

    async def run(self, caller: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a function when the caller's earlier work is done, and give what it gives.

        Whoever waits for it may leave; the work keeps its turn until it has ended.
        """
        before = self._last.get(caller)
        task = asyncio.get_running_loop().create_task(self._after(before, function, args, kwargs))
        self._last[caller] = task
        task.add_done_callback(lambda ended: self._ended(caller, ended))
        return await asyncio.shield(task)

    async def _after(self, before: asyncio.Task[Any] | None, function: Callable[..., T], args: Any, kwargs: Any) -> T:
        if before is not None:
            await asyncio.wait([before])
        return await asyncio.wrap_future(self._pool.submit(function, *args, **kwargs))

    def _ended(self, caller: str, task: asyncio.Task[Any]) -> None:
        if self._last.get(caller) is task:
            del self._last[caller]
        if not task.cancelled():
            task.exception()  # nobody may be left to be told

    def close(self) -> None:
        """Take no more work; what runs, ends."""
        self._pool.shutdown(wait=False, cancel_futures=True)
