"""Heavy work: one piece of each caller at a time, and nobody waits for another's second one."""

from __future__ import annotations

import asyncio
import threading

import pytest

from core.heavy import THREADS, Heavy


async def test_one_caller_has_one_thread_and_others_have_the_next() -> None:
    heavy = Heavy()
    running, most, order = 0, 0, []
    lock, go = threading.Lock(), threading.Event()

    def work(name: str) -> str:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if name.startswith("a"):
            go.wait(5)
        with lock:
            running -= 1
            order.append(name)
        return name

    many = [asyncio.ensure_future(heavy.run("a", work, f"a{n}")) for n in range(10)]
    await asyncio.sleep(0.05)
    assert await asyncio.wait_for(heavy.run("b", work, "b"), 5) == "b", "while ten of another wait"
    assert order == ["b"] and most <= THREADS
    go.set()
    assert await asyncio.gather(*many) == [f"a{n}" for n in range(10)]
    assert order[1:] == [f"a{n}" for n in range(10)], "in the order in which they came"
    assert heavy._last == {}
    heavy.close()


async def test_who_leaves_keeps_the_turn_until_the_work_has_ended() -> None:
    heavy = Heavy()
    go, began = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        go.wait(5)

    left = asyncio.ensure_future(heavy.run("a", work))
    await asyncio.to_thread(began.wait, 5)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    second = asyncio.ensure_future(heavy.run("a", lambda: "second"))
    done, _ = await asyncio.wait([second], timeout=0.1)
    assert not done
    go.set()
    assert await second == "second"
    heavy.close()


async def test_a_failure_is_its_own_caller_s() -> None:
    heavy = Heavy()

    def work() -> None:
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        await heavy.run("a", work)
    assert await heavy.run("a", lambda: 1) == 1
    heavy.close()
