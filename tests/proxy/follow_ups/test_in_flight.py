"""A cancel finds its call in whichever worker it waits, and no other call."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from proxy.follow_ups.in_flight import InFlight


class Exchange:
    def __init__(self) -> None:
        self.ended = ""

    def end(self, reason: str) -> None:
        self.ended = reason


def call(rpc_id: Any = 7, *, key: str = "k", session: bytes = b"s", kind: str = "request", params: Any = None) -> Any:
    message = SimpleNamespace(kind=kind, id=rpc_id, params=params)
    return SimpleNamespace(key_id=key, slug="fake", session=session, message=message, exchange=Exchange(), link=None)


def cancel(rpc_id: Any, **more: Any) -> Any:
    return call(None, kind="notification", params={"requestId": rpc_id}, **more)


@pytest.fixture
async def workers(tmp_path: Path):
    found = [InFlight(tmp_path / "run", str(slot)) for slot in range(3)]
    for one in found:
        one.start()
    yield found
    for one in found:
        one.stop()
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("rpc_id", [7, "7", "é\n", 2**63, "x" * 1024])
async def test_wherever_it_waits(workers: list[InFlight], rpc_id: Any) -> None:
    waiting = [call(rpc_id) for _ in workers]
    assert all(worker.add(one) for worker, one in zip(workers, waiting, strict=True))
    workers[1].take_back(cancel(rpc_id))
    await asyncio.sleep(0.1)
    assert [one.exchange.ended for one in waiting] == ["cancelled"] * 3


async def test_no_other(workers: list[InFlight]) -> None:
    others = [call(8), call("7"), call(key="other"), call(session=b"other"), call(True), call(session=b"")]
    for worker in workers:
        for one in others:
            worker.add(one)
    for odd in (7, None, [7], {"a": 1}, 7.0, True, "8", -7):
        workers[0].take_back(cancel(odd))
        workers[0].take_back(cancel(odd, session=b""))
    await asyncio.sleep(0.1)
    assert [one.exchange.ended for one in others] == [""] * 6


async def test_one_of_an_id_at_a_time_and_only_in_a_session(workers: list[InFlight]) -> None:
    first, second = call(), call()
    assert workers[0].add(first) and not workers[0].add(second)
    workers[0].discard(second)
    assert not workers[0].add(call())
    workers[0].discard(first)
    assert workers[0].add(second)
    assert all(workers[0].add(call(session=b"")) for _ in range(3))


async def test_a_worker_that_is_gone_holds_nobody_up(workers: list[InFlight], tmp_path: Path) -> None:
    (tmp_path / "run" / "calls-9.sock").touch()
    waiting = call()
    workers[2].add(waiting)
    workers[0].take_back(cancel(7))
    await asyncio.sleep(0.1)
    assert waiting.exchange.ended == "cancelled"
    (tmp_path / "run" / "calls-9.sock").unlink()


@pytest.mark.parametrize("odd", [2**64, -(2**63) - 1, 10**100, "\ud800", "a\udfff"])
async def test_what_no_request_can_have_as_its_id_ends_nothing(workers: list[InFlight], odd: Any) -> None:
    workers[0].take_back(cancel(odd))
